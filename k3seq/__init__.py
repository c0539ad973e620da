"""Sequence-to-sequence on Keras 3: the same models, training and decoding on JAX, TensorFlow and PyTorch.

Subpackages are imported on first use: after `import k3seq` the backend can still be chosen, since keras is not imported yet.
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "backend",
    "bench",
    "data",
    "decode",
    "errors",
    "inspect",
    "layers",
    "metrics",
    "models",
    "parity",
    "pipeline",
    "random",
    "report",
    "runtime",
    "seq2seq",
    "train",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"k3seq.{name}")
    raise AttributeError(f"Expected one of {', '.join(__all__)} in k3seq. Received: {name}")


def __dir__() -> list[str]:
    return sorted(__all__)
