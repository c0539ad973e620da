"""The seam to the framework that `KERAS_BACKEND` chose: the only room that imports jax, tensorflow or torch.

Each of `jax.py`, `tensorflow.py` and `torch.py` has the same names with the same signatures:

- `describe()`: backend, versions, devices, jit default.
- `synchronize(value)`: wait until `value` is computed.
- `value_and_grad(function)`: value and gradient for the first argument (any nested structure of tensors).
- `compiled(function, variables=(), jit=None)`: the fastest way to call a pure function of tensors many times.
- `lstm_sequence(...)`: the backend's own LSTM kernel, or None where `layers.lstm`'s `keras.ops` form is as fast.
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
describe = _module.describe
lstm_sequence = _module.lstm_sequence
synchronize = _module.synchronize
value_and_grad = _module.value_and_grad

__all__ = ["NAMES", "StepMixin", "compiled", "describe", "lstm_sequence", "synchronize", "value_and_grad"]
