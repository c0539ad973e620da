"""Random numbers that are the same on every backend and machine.

- `keyed`: pure functions of a key, on tensors and on NumPy: `key, fold, split, uniform, normal, gumbel, bernoulli, categorical,
  permutation`, which stand here too, and `keyed.bits`, which does not (`k3seq.random.bits` is a module);
- `bits`: a `Stream` for the host, and Threefry itself; `weights`: the weights of a model;
- `initializers`: the same weights from Keras' initialisers, layer by layer. It imports keras, and so is no name of `__all__`:
  `k3seq.random.initializers` loads on first use.

Importing this imports neither keras nor a framework.
"""

import importlib

from k3seq.random.bits import Stream, threefry
from k3seq.random.keyed import bernoulli, categorical, fold, gumbel, key, normal, permutation, split, uniform
from k3seq.random.weights import initialize

__all__ = [
    "Stream",
    "bernoulli",
    "categorical",
    "fold",
    "gumbel",
    "initialize",
    "key",
    "normal",
    "permutation",
    "split",
    "threefry",
    "uniform",
]


def __getattr__(name):
    if name == "initializers":
        return importlib.import_module("k3seq.random.initializers")
    raise AttributeError(f"Expected one of {', '.join(__dir__())} in k3seq.random. Received: {name}")


def __dir__():
    return sorted([*__all__, "initializers"])
