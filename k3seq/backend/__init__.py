"""What differs between backends. Only this package imports jax, tensorflow or torch, and only it asks which backend runs.

`reference.py` lists and documents the names, and has each of them in `keras.ops`. The module of the backend that
`KERAS_BACKEND` chose (`jax.py`, `tensorflow.py`, `torch.py`) comes first; what it does not define is taken from the reference.
Any other backend that Keras loads (NumPy, OpenVINO) runs on the reference alone: forward passes and decoding, no training.
A file `<name>.py` here makes such a backend faster, or lets it train.
"""

from k3seq.runtime import backend_check

backend_check.check()  # before anything imports keras

import importlib
import importlib.util
from typing import TYPE_CHECKING

import keras

from k3seq.backend import reference

if TYPE_CHECKING:
    from k3seq.backend.reference import *  # noqa: F403 - the names, once, with their types
else:
    _place = f"k3seq.backend.{keras.backend.backend()}"
    _module = importlib.import_module(_place) if importlib.util.find_spec(_place) else reference
    globals().update({name: getattr(_module, name, getattr(reference, name)) for name in reference.__all__})

__all__ = reference.__all__
