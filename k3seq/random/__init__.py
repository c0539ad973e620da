"""Random numbers that are the same on every backend and machine.

- `keyed`: pure functions of a key, on tensors and on NumPy: `key, fold, split, uniform, normal, gumbel, bernoulli, categorical,
  permutation` are exported here, `keyed.bits` is not (`k3seq.random.bits` is a module);
- `bits`: a `Stream` of random numbers in NumPy, and Threefry itself;
- `weights`: `initialize` draws the weights of a model;
- `initializers`: Keras' initialisers with the same numbers on every backend. It imports keras, and therefore loads on first use
  and is not in `__all__`.

Importing this package imports neither keras nor a framework.
"""

import importlib
from types import ModuleType

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


def __getattr__(name: str) -> ModuleType:
    if name == "initializers":
        return importlib.import_module("k3seq.random.initializers")
    raise AttributeError(f"Expected one of {', '.join(__dir__())} in k3seq.random. Received: {name}")


def __dir__() -> list[str]:
    return sorted([*__all__, "initializers"])
