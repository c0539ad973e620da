"""PyTorch: autograd, eager, with fused kernels where their conditions hold."""

import keras
import numpy as np
import torch
from keras import tree
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.backend.torch.core import get_device

from k3seq.backend.loop import eager_loop
from k3seq.backend.step import StepContract, unpack
from k3seq.backend.torch_adam import apply
from k3seq.backend.torch_call import outermost
from k3seq.backend.torch_call import ready as ready
from k3seq.backend.torch_loss import crossentropies as crossentropies
from k3seq.backend.torch_recurrent import gru_sequence as gru_sequence
from k3seq.backend.torch_recurrent import lstm_sequence as lstm_sequence


def describe():
    """What runs here: a dict of backend, version, keras, devices, jit (what `jit_compile="auto"` means) and kernels."""
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


def synchronize(value):
    """Waits until every tensor in `value` is computed; returns `value`."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return value


def value_and_grad(function, aux=False):
    """A function of the same arguments that returns (value, gradient for the first argument).

    Args:
        function: pure; from a nested structure of float tensors, and more arguments, to a scalar.
        aux: the function returns (scalar, anything else), and that pair stands in the place of the value.
    """

    def differentiate(x, *args):
        x = tree.map_structure(lambda leaf: keras.ops.convert_to_tensor(leaf).detach().requires_grad_(), x)
        with torch.enable_grad():  # a caller that is `compiled` runs without
            value = function(x, *args)
        gradients = torch.autograd.grad(value[0] if aux else value, tree.flatten(x), materialize_grads=True)
        return tree.map_structure(torch.Tensor.detach, value), tree.pack_sequence_as(x, list(gradients))

    return differentiate


def compiled(function, variables=(), jit=None):
    """A fast form of a pure function of nested tensors.

    Args:
        function: reads `variables`, changes none of them.
        variables: the Keras variables whose present values each call shall see (an eager call always sees them).
        jit: True compiles with `torch.compile`, which needs a C++ compiler; None: the backend's default (False here: eager).

    Returns:
        A callable with `compilations()`, how often it was compiled: 0 where it runs eagerly.
    """
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

    call.compilations = lambda: counter[0]
    return call


def dense(gradient):
    """A gradient with one value per weight: as it is here."""
    return gradient


def affine(x, kernel, bias=None):
    """`x @ kernel + bias` as one product of all rows: x (..., inputs), kernel (inputs, units), bias (units,) or None."""
    return torch.nn.functional.linear(x, kernel.T, bias)


def known(value):
    """The value as a NumPy array, or None where it is not known yet: inside a trace, or symbolic."""
    # While Keras infers shapes, it computes with made-up values here.
    if isinstance(value, keras.KerasTensor) or (torch.is_tensor(value) and in_symbolic_scope()):
        return None
    return value.detach().cpu().numpy() if torch.is_tensor(value) else np.asarray(value)


def unroll(step, going, carry, blank, length=None, slices=None, whole=False):
    """Steps a recurrence while `going(carry)` holds, at most `length` times, differentiable: a
    Python loop.

    Args:
        step: (time, now, carry) -> (carry, output): time an int32 scalar, now the part of `slices` at that time; structure,
            shapes and dtypes of carry do not change, output is like `blank`.
        going: carry -> bool scalar.
        carry: nested structure of tensors.
        blank: nested structure of tensors, what stands in the place of the output of a step that does not run.
        length: int, None for no limit.
        slices: nested structure of tensors (length, ...), or None. whole: give `length` outputs also where the loop is eager.

    Returns:
        (carry, outputs): outputs (steps, ...), the steps that ran, or all `length` of them where `whole` or traced.
    """
    return eager_loop(step, going, carry, blank, length, slices, whole)


class StepMixin(StepContract):
    __doc__ = StepContract.__doc__

    def _symbolic_build(self, *args, **kwargs):
        # Keras goes through all layers before each batch of `train_on_batch`; the first one since `compile` has built them.
        if self.train_function is None or not self.built:
            super()._symbolic_build(*args, **kwargs)

    def _zero(self, variable):
        variable.value.zero_()

    def _outputs_of(self, x, training):
        return outermost(self, x, training)

    def _train_on(self, batch):
        self.reset_metrics()
        logs = self.train_function([batch])
        # As numbers at once: 0.1 of 16 ms less than Keras takes.
        return {name: value.item() if torch.is_tensor(value) and not value.shape else value for name, value in logs.items()}

    def _result_of(self, metric):
        total, count = metric.total.value, getattr(metric, "count", None)  # a sum counts nothing
        return total.clone() if count is None else torch.where(count.value == 0, 0.0, total / count.value)

    def train_step(self, data):
        batch = unpack(data, _tensor)
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
            # On a device this is where the host waits.
            finite = torch.stack([norm, *(forward[0] for _, forward in forwards)]).isfinite().all().item()
            keep = finite or not self._step_options["refuse_nonfinite"]
            if keep or not self._refuses():
                apply(self.optimizer, gradients, trainable, values)
            if not keep:
                # A compiled loss makes its means in the first step: they were not there before, and begin at zero.
                for variable in (*self.non_trainable_variables, *self.metrics_variables):
                    variable.assign(before.get(id(variable), torch.zeros_like(variable.value)))
            for micro, forward in forwards:
                self._record(micro, forward, keep)
            self._record_step(norm, finite)
            return self._logs(training=True)

    def test_step(self, data):
        batch = unpack(data, _tensor)
        self._record(batch, self._losses_of(batch, training=False))
        return self._logs(training=False)

    def _count(self, mean, value, weight, keep):
        if keep:
            mean.total.value.add_(value * weight)
            mean.count.value.add_(weight)

    def _root_of_squares(self, gradients):
        norms = torch._foreach_norm([gradient.float() for gradient in gradients])
        return torch.stack(norms).square().sum().sqrt()  # infinite where a square is, as on the other backends


def _tensor(leaf):
    """`ops.convert_to_tensor`; it asks more about an array than a small model's operation takes."""
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "bif":
        return torch.as_tensor(np.array(leaf), device=get_device())  # a copy: torch takes no negative strides
    return keras.ops.convert_to_tensor(leaf)


def _detached(leaf):
    return leaf.detach() if torch.is_tensor(leaf) else leaf
