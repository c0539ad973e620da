"""PyTorch: autograd, eager, with the fused LSTM of ATen where its conditions hold."""

import itertools

import keras
import numpy as np
import torch
from keras import tree
from keras.src.backend.common.symbolic_scope import in_symbolic_scope

from k3seq.backend.loop import run
from k3seq.backend.step import StepContract, unpack


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


def lstm_sequence(x, lengths, h, c, kernel, recurrent_kernel, bias):
    """All steps of an LSTM in one fused call (`torch.lstm`), gates in the order i, f, g, o.

    Args:
        x: (b, s, inputs) float. lengths: (b,) int, real steps of right-padded rows, or None when no row is padded.
        h, c: (b, d) initial states. kernel: (inputs, 4d). recurrent_kernel: (d, 4d). bias: (4d,).

    Returns:
        (outputs, h, c): (b, s, d), zero at padding; and the states after each row's last real step, (b, d).
    """
    if lengths is not None and x.device.type == "cpu":
        return _held_lstm(x, lengths, h, c, kernel, recurrent_kernel, bias)
    weights = [kernel.T, recurrent_kernel.T, bias, torch.zeros_like(bias)]
    return _fused(torch.lstm, x, lengths, (h, c), weights)


# What is added to the gates at padding: beside it every other term is small, and it fits into float16.
_HOLD = 1e4


def _held_lstm(x, lengths, h, c, kernel, recurrent_kernel, bias):
    """`lstm_sequence` over whole rows, padding included: one more input is 1 at padding, and closes i and opens f there.

    On a CPU torch runs whole rows in oneDNN's kernel, forward and backward, and packed ones in a loop of small operations.
    """
    d = h.shape[1]
    padding = (torch.arange(x.shape[1], device=x.device)[None] >= lengths[:, None])[:, :, None]
    hold = torch.cat([kernel.new_full((d,), -_HOLD), kernel.new_full((d,), _HOLD), kernel.new_zeros(2 * d)])
    x = torch.cat([x.masked_fill(padding, 0.0), padding.to(x.dtype)], -1)  # padding may hold anything, NaN too
    outputs, _, (c,) = torch.lstm(
        x,
        (h[None], c[None]),
        [torch.cat([kernel, hold[None]]).T, recurrent_kernel.T, bias, torch.zeros_like(bias)],
        *(True, 1, 0.0, torch.is_grad_enabled(), False, True),
    )
    ends = (lengths.long() - 1).clamp(min=0)[:, None, None].expand(-1, 1, d)
    h = torch.where(lengths[:, None] > 0, outputs.gather(1, ends)[:, 0], h)
    return outputs.masked_fill(padding, 0.0), h, c


def gru_sequence(x, lengths, h, kernel, recurrent_kernel, bias):
    """All steps of a GRU in one fused call (`torch.gru`), gates in the order z, r, h, the reset gate on the recurrent product.

    Args:
        x: (b, s, inputs) float. lengths: (b,) int, real steps of right-padded rows, or None when no row is padded.
        h: (b, d) initial state. kernel: (inputs, 3d). recurrent_kernel: (d, 3d). bias: (2, 3d).

    Returns:
        (outputs, h): (b, s, d), zero at padding; and the state after each row's last real step, (b, d).
    """

    def torch_order(weight):  # r, z, h
        z, r, candidate = weight.chunk(3, -1)
        return torch.cat([r, z, candidate], -1)

    weights = [torch_order(kernel).T, torch_order(recurrent_kernel).T, torch_order(bias[0]), torch_order(bias[1])]
    return _fused(torch.gru, x, lengths, (h,), weights)


def _fused(kernel, x, lengths, states, weights):
    """(outputs, *states) of a kernel of torch's: over whole rows, or packed where there are lengths."""

    def hidden(order=slice(None)):
        chosen = tuple(state[None, order] for state in states)
        return chosen if len(chosen) > 1 else chosen[0]

    options = (weights, True, 1, 0.0, torch.is_grad_enabled(), False)
    if lengths is None:
        outputs, *last = kernel(x, hidden(), *options, True)
        return outputs, *(state[0] for state in last)
    # A packed row needs at least one step: an empty row takes one, whose results its initial state and zeros then replace.
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
    data, *last = kernel(packed.data, packed.batch_sizes, hidden(packed.sorted_indices), *options)
    back = packed.unsorted_indices
    packed = torch.nn.utils.rnn.PackedSequence(data, packed.batch_sizes, packed.sorted_indices, back)
    outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
    filled = (lengths > 0)[:, None]
    ends = (torch.where(filled, state[0, back], before) for state, before in zip(last, states, strict=True))
    return torch.where(filled[:, :, None], outputs, 0.0), *ends


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
    return run(step, going, carry, blank, length, slices, whole)


class StepMixin(StepContract):
    __doc__ = StepContract.__doc__

    def train_step(self, data):
        batch = unpack(data)
        variables = [variable.value for variable in self.trainable_variables]
        before = [variable.value.clone() for variable in self.non_trainable_variables]
        metrics_before = [variable.value.clone() for variable in self.metrics_variables]
        parts, forwards = [], []
        for micro in self._micro_batches(batch):
            forward = self._losses_of(micro, training=True)
            gradients = torch.autograd.grad(self._scaled(forward[0]), variables, materialize_grads=True)
            forward = tree.map_structure(lambda leaf: None if leaf is None else leaf.detach(), forward)
            parts.append((forward[3], gradients))
            forwards.append((micro, forward))
        with torch.no_grad():
            gradients = self._mean_gradients(parts)
            norm = self._norm_of(gradients)
            finite = torch.isfinite(norm) & torch.stack([torch.isfinite(forward[0]) for _, forward in forwards]).all()
            keep = bool(finite) or not self._step_options["refuse_nonfinite"]
            if keep or not self._refuses():
                self.optimizer.apply(gradients, self.trainable_variables)
            if not keep:
                _restore(self.non_trainable_variables, before)
                _restore(self.metrics_variables, metrics_before)
            for micro, forward in forwards:
                self._record(micro, forward, torch.tensor(keep, device=norm.device))
            self._record_step(norm, finite)
            return self._logs(training=True)

    def test_step(self, data):
        batch = unpack(data)
        self._record(batch, self._losses_of(batch, training=False))
        return self._logs(training=False)


def _restore(variables, before):
    """Gives variables their earlier values."""
    # A compiled loss makes its means in the first step: they were not there before, and begin at zero.
    for variable, value in itertools.zip_longest(variables, before):
        variable.assign(torch.zeros_like(variable.value) if value is None else value)
