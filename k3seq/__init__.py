"""Sequence-to-sequence on Keras 3: the same models, training and decoding on JAX, TensorFlow and PyTorch.

Sub-packages load on first use: `import k3seq` imports neither keras nor a framework, and the backend can still be chosen.
"""

import importlib

__version__ = "0.1.0"

_SUBPACKAGES = (
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
)

__all__ = ["__version__", *_SUBPACKAGES]


def __getattr__(name):
    if name in _SUBPACKAGES:
        return importlib.import_module(f"k3seq.{name}")
    raise AttributeError(f"Expected one of {', '.join(__all__)} in k3seq. Received: {name}")


def __dir__():
    return sorted(__all__)
