"""Adam's update on PyTorch, without the operations of every weight that Keras' own takes one after another."""

import torch
from keras.src.backend.torch.optimizers.torch_adam import Adam

# What Keras may be asked to do around an update of Adam, by the optimizer's attributes.
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


def apply(optimizer, gradients, variables, values):
    """`optimizer.apply`; an Adam that is nothing but Adam updates all weights on a CPU in one pass over their values."""
    if not _is_plain_adam(optimizer, variables, values):
        optimizer.apply(gradients, variables)
        return
    # In float32 as on every backend: 1 - beta_2 is then off by 1e-5, and a rate that were not would leave the others behind.
    powers = torch.tensor([optimizer.beta_1, optimizer.beta_2]) ** (optimizer.iterations.value + 1).float()
    corrections = (1.0 - powers).tolist()
    # Keras adds epsilon before the second correction, torch after it: Keras' rate holds both, and torch's last step needs none.
    last = torch.tensor(float("inf"))
    torch._fused_adam_(
        values,
        [gradient.contiguous() for gradient in gradients],
        [momentum.value for momentum in optimizer._momentums],
        [velocity.value for velocity in optimizer._velocities],
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


def _is_plain_adam(optimizer, variables, values):
    """Whether an update is Adam's alone, of all weights that it was built for, each laid out as the kernel reads it."""
    if type(optimizer) is not Adam or not optimizer.built or any(getattr(optimizer, name) for name in _AROUND):
        return False
    known = optimizer._trainable_variables
    if len(known) != len(variables) or any(a is not b for a, b in zip(known, variables, strict=True)):
        return False
    if any(v.constraint is not None or getattr(v, "overwrite_with_gradient", False) for v in variables):
        return False
    return all(v.device.type == "cpu" and v.dtype == torch.float32 and v.is_contiguous() for v in values)
