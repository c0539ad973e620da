"""PyTorch: autograd, eager, with fused kernels where their conditions hold. See `reference` for each name."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import torch
from keras import tree

from k3seq.backend import keras_internals
from k3seq.backend.step import StepContract, unpack
from k3seq.backend.torch_adam import apply
from k3seq.backend.torch_call import outermost
from k3seq.backend.torch_call import ready as ready
from k3seq.backend.torch_loss import crossentropies as crossentropies
from k3seq.backend.torch_recurrent import gru_sequence as gru_sequence
from k3seq.backend.torch_recurrent import lstm_sequence as lstm_sequence
from k3seq.typing import NDArray, Nested, Tensor


def describe() -> dict[str, Any]:
    """Backend, version, keras, devices, jit and kernels."""
    devices = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return {
        "backend": "torch",
        "version": torch.__version__,
        "keras": keras.__version__,
        "devices": devices or [f"cpu, {torch.get_num_threads()} threads"],
        "jit": False,
        "kernels": {
            "lstm_sequence": "torch.lstm; with lengths: on a CPU over whole rows with the gates held at padding, else packed",
            "gru_sequence": "torch.gru, rows packed by length",
        },
    }


def synchronize(value: Nested) -> Nested:
    """Waits until every tensor in `value` is computed; returns `value`."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return value


def value_and_grad(function: Callable[..., Any], aux: bool = False) -> Callable[..., Any]:
    """`torch.autograd.grad` of the call; a gradient is zero where `function` does not depend on a tensor."""

    def differentiate(x, *args):
        x = tree.map_structure(lambda leaf: keras.ops.convert_to_tensor(leaf).detach().requires_grad_(), x)
        with torch.enable_grad():  # `compiled` calls without gradients
            value = function(x, *args)
        gradients = torch.autograd.grad(value[0] if aux else value, tree.flatten(x), materialize_grads=True)
        return tree.map_structure(torch.Tensor.detach, value), tree.pack_sequence_as(x, list(gradients))

    return differentiate


def compiled(function: Callable[..., Any], variables: Sequence[Any] = (), jit: bool | None = None) -> Callable[..., Any]:
    """The function without gradients, compiled with `torch.compile` where `jit` is True, which needs a C++ compiler.
    None: eager. It always sees the present values of `variables`."""
    counter = [0]
    fast = function
    if jit:

        def count(graph, inputs):
            counter[0] += 1
            return torch._inductor.compile(graph, inputs)

        fast = torch.compile(function, backend=count, dynamic=False)

    def call(*args):
        with torch.no_grad():
            return fast(*tree.map_structure(keras.ops.convert_to_tensor, args))

    call.compilations = lambda: counter[0]  # pyright: ignore[reportFunctionMemberAccess] - as in `reference`
    return call


def affine(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`."""
    return torch.nn.functional.linear(x, kernel.T, bias)


def known(value: Any) -> NDArray[Any] | None:
    """The value as a NumPy array, or None where it is not known yet: inside a trace, or symbolic."""
    if isinstance(value, keras.KerasTensor) or (torch.is_tensor(value) and keras_internals.has_placeholders()):
        return None
    return value.detach().cpu().numpy() if torch.is_tensor(value) else np.asarray(value)


class StepMixin(keras_internals.BuildsOnce, StepContract):
    __doc__ = StepContract.__doc__

    def _outputs_of(self, x, training):
        return outermost(self, x, training)

    def train_step(self, data: Any) -> dict[str, Tensor]:
        """The logs of a batch, whose update is applied."""
        batch = unpack(data, _converter())
        trainable = self.trainable_variables
        values = [variable.value for variable in trainable]
        before = {id(v): v.value.clone() for v in (*self.non_trainable_variables, *self.metrics_variables)}
        parts, forwards = [], []
        for micro in self._micro_batches(batch):
            total, losses, y_pred, weight = self._losses_of(micro, training=True)
            gradients = torch.autograd.grad(self._scaled(total), values, materialize_grads=True)
            losses = {name: _detached(loss) for name, loss in losses.items()}
            y_pred = None if y_pred is None else tree.map_structure(_detached, y_pred)
            parts.append((weight, gradients))
            forwards.append((micro, (total.detach(), losses, y_pred, weight)))
        with torch.no_grad():
            gradients = self._mean_gradients(parts)
            norm = self._norm_of(gradients)
            # On a GPU the host waits here.
            finite = torch.stack([norm, *(forward[0] for _, forward in forwards)]).isfinite().all().item()
            keep = finite or not self._step_options["refuse_nonfinite"]
            if keep or not self._refuses():
                apply(self.optimizer, gradients, trainable, values)
            if not keep:
                # A compiled loss makes its means in the first step: they have no earlier value, and start at zero.
                for variable in (*self.non_trainable_variables, *self.metrics_variables):
                    variable.assign(before.get(id(variable), torch.zeros_like(variable.value)))
            self._record(forwards, keep, norm, finite)
            return self._logs(training=True)

    def _add(self, *values):
        like = values[0]
        values = [value if torch.is_tensor(value) else like.new_tensor(value) for value in values]
        self._sums.sums.value.detach().add_(torch.stack(values).view(2, -1).detach())

    def _root_of_squares(self, gradients):
        norms = torch._foreach_norm(  # pyright: ignore[reportPrivateImportUsage] - there is no public one
            [gradient.float() for gradient in gradients]
        )
        return torch.stack(norms).square().sum().sqrt()  # infinite where a square is, as on the other backends


def _converter():
    """`ops.convert_to_tensor` for the leaves of a batch, without the questions that it asks about each array."""
    device = keras.ops.zeros(()).device

    def convert(leaf):
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "bif":
            return torch.as_tensor(np.array(leaf), device=device)  # a copy: torch takes no negative strides
        return keras.ops.convert_to_tensor(leaf)

    return convert


def _detached(leaf):
    return leaf.detach() if torch.is_tensor(leaf) else leaf
