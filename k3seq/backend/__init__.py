"""The seam to the framework that `KERAS_BACKEND` chose: the only room that imports jax, tensorflow or torch.

Each of `jax.py`, `tensorflow.py` and `torch.py` has the same names with the same signatures:

- `describe()`: backend, versions, devices, jit default.
- `synchronize(value)`: wait until `value` is computed.
- `value_and_grad(function)`: value and gradient for the first argument (any nested structure of tensors).
- `compiled(function, variables=(), jit=None)`: the fastest way to call a pure function of tensors many times.
- `dense(gradient)`: a gradient with one value per weight; on TensorFlow an embedding's comes in slices.
- `known(value)`: a tensor as a NumPy array, None where it is traced or symbolic.
- `lstm_sequence(...)`, `gru_sequence(...)`: the backend's own kernel, or None where the layer's `keras.ops` form is as fast.
- `unroll(...)`: a recurrence of any step function that ends early and can be differentiated.
- `StepMixin`: `train_step` and `test_step` (see `step.py`).
"""

from k3seq import binding

binding.check()  # before anything imports keras


import importlib

import keras

from k3seq.errors import UsageError

NAMES = ("jax", "tensorflow", "torch")

if keras.backend.backend() not in NAMES:
    raise UsageError(f"Expected KERAS_BACKEND to be one of {', '.join(NAMES)}. Received: {keras.backend.backend()}")

_module = importlib.import_module(f"k3seq.backend.{keras.backend.backend()}")

StepMixin = _module.StepMixin
compiled = _module.compiled
dense = _module.dense
describe = _module.describe
known = _module.known
gru_sequence = _module.gru_sequence
lstm_sequence = _module.lstm_sequence
synchronize = _module.synchronize
unroll = _module.unroll
value_and_grad = _module.value_and_grad

__all__ = [
    "NAMES",
    "StepMixin",
    "compiled",
    "dense",
    "describe",
    "known",
    "lstm_sequence",
    "synchronize",
    "unroll",
    "value_and_grad",
]
