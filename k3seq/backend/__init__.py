"""The seam to the framework that `KERAS_BACKEND` chose: the only room that imports jax, tensorflow or torch.

Each of `jax.py`, `tensorflow.py` and `torch.py` has the same names with the same signatures:

- `describe()`: backend, versions, devices, jit default.
- `synchronize(value)`: wait until `value` is computed.
- `value_and_grad(function)`: value and gradient for the first argument (any nested structure of tensors).
- `compiled(function, variables=(), jit=None)`: the fastest way to call a pure function of tensors many times.
- `dense(gradient)`: a gradient with one value per weight; on TensorFlow an embedding's comes in slices.
- `affine(x, kernel, bias=None)`: a dense layer as one product over all leading axes.
- `known(value)`: a tensor as a NumPy array, None where it is traced or symbolic.
- `lstm_sequence(...)`, `gru_sequence(...)`: the backend's own kernel of the recurrent layers.
- `ready(layer, args, kwargs)`: whether a layer called within another one's call need only be called (see `layers.nested`).
- `crossentropies(...)`: of tokens, as a kernel with its own gradient, or None where the `keras.ops` form is as fast.
- `unroll(...)`: a recurrence of any step function that ends early and can be differentiated.
- `StepMixin`: `train_step` and `test_step` (see `step.py`).
"""

from k3seq.runtime import backend_check

backend_check.check()  # before anything imports keras


import importlib

import keras

from k3seq.errors import UsageError

NAMES = ("jax", "tensorflow", "torch")

if keras.backend.backend() not in NAMES:
    raise UsageError(f"Expected KERAS_BACKEND to be one of {', '.join(NAMES)}. Received: {keras.backend.backend()}")

_module = importlib.import_module(f"k3seq.backend.{keras.backend.backend()}")

StepMixin = _module.StepMixin
affine = _module.affine
compiled = _module.compiled
dense = _module.dense
describe = _module.describe
known = _module.known
crossentropies = _module.crossentropies
gru_sequence = _module.gru_sequence
lstm_sequence = _module.lstm_sequence
ready = _module.ready
synchronize = _module.synchronize
unroll = _module.unroll
value_and_grad = _module.value_and_grad

__all__ = [
    "NAMES",
    "StepMixin",
    "affine",
    "compiled",
    "crossentropies",
    "dense",
    "describe",
    "known",
    "lstm_sequence",
    "ready",
    "synchronize",
    "unroll",
    "value_and_grad",
]
