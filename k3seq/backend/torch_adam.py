"""Adam's update on PyTorch, without the operations of every weight that Keras' own takes one after another."""

from collections.abc import Sequence

import keras
import torch

from k3seq.backend import keras_internals
from k3seq.typing import Tensor

_ADAM = type(keras.optimizers.Adam())  # `keras.optimizers.Adam` makes another class on PyTorch
# Attributes of an optimizer for which Keras does something besides Adam's own update.
_AROUND = (
    "weight_decay",
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "use_ema",
    "gradient_accumulation_steps",
    "loss_scale_factor",
    "amsgrad",
)


def apply(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[Tensor],
    variables: Sequence[keras.Variable],
    values: list[Tensor],
) -> None:
    """`optimizer.apply(gradients, variables)`; a plain Adam on a CPU updates all weights in one kernel.

    Args:
        variables: the weights. values: their tensors.
    """
    state = _state_of_plain_adam(optimizer, variables, values)
    if state is None:
        optimizer.apply(gradients, variables)
        return
    momentums, velocities = state
    # In float32, as on every backend: 1 - beta_2 then has an error of 1e-5, without which the updates of backends would differ.
    powers = torch.tensor([optimizer.beta_1, optimizer.beta_2]) ** (optimizer.iterations.value + 1).float()
    corrections = (1.0 - powers).tolist()
    # Keras adds epsilon before the second correction, torch after it. Both corrections therefore go into the learning rate, and
    # an infinite step count makes torch's own corrections 1.
    last = torch.tensor(float("inf"))
    torch._fused_adam_(  # pyright: ignore[reportPrivateImportUsage] - there is no public one
        values,
        [gradient.contiguous() for gradient in gradients],
        [momentum.value for momentum in momentums],
        [velocity.value for velocity in velocities],
        [],
        [last] * len(values),
        lr=float(optimizer.learning_rate) * corrections[1] ** 0.5 / corrections[0],
        beta1=optimizer.beta_1,
        beta2=optimizer.beta_2,
        eps=optimizer.epsilon,
        weight_decay=0.0,
        amsgrad=False,
        maximize=False,
    )
    optimizer.iterations.value.add_(1)


def _state_of_plain_adam(optimizer, variables, values):
    """(first moments, second moments) of an Adam whose update is Adam's alone, of exactly the weights that it was built for,
    each laid out as the kernel reads it; None otherwise."""
    if type(optimizer) is not _ADAM or not optimizer.built or any(getattr(optimizer, name) for name in _AROUND):
        return None
    state = keras_internals.adam_state(optimizer)
    if state is None or len(state[0]) != len(variables) or any(a is not b for a, b in zip(state[0], variables, strict=True)):
        return None
    if any(v.constraint is not None or getattr(v, "overwrite_with_gradient", False) for v in variables):
        return None
    plain = all(v.device.type == "cpu" and v.dtype == torch.float32 and v.is_contiguous() for v in values)
    return state[1:] if plain else None
