"""Reports in one line that the backend which Keras would load is missing or unknown, before Keras fails in another way."""

import importlib.util
import json
import os
import sys
from pathlib import Path

from k3seq.errors import MissingBackend, UsageError

_FRAMEWORKS = ("jax", "tensorflow", "torch")
_KERAS_BACKENDS = (*_FRAMEWORKS, "numpy", "openvino", "mlx")


def check() -> None:
    """Every package of k3seq that imports keras calls this first. It does nothing once keras is imported.

    Raises:
        UsageError: Keras has no backend of the name that `KERAS_BACKEND`, or else Keras' configuration file, holds.
        MissingBackend: the backend that `KERAS_BACKEND`, or else Keras' configuration file, names is not installed, or Keras
            cannot load it.
    """
    if "keras" in sys.modules:
        return
    name, source = chosen()
    if name not in _KERAS_BACKENDS and not (str(name).isidentifier() and importlib.util.find_spec(f"keras_{name}")):
        raise UsageError(f"Expected one of {', '.join(_FRAMEWORKS)}. Received: {name!r}, from {source}")
    if name in _FRAMEWORKS and importlib.util.find_spec(name) is None:
        others = [other for other in _FRAMEWORKS if importlib.util.find_spec(other) is not None]
        instead = f", or set KERAS_BACKEND to one that is: {', '.join(others)}" if others else ""
        raise MissingBackend(f'{source} is {name}, which is not installed: pip install "k3seq[{name}]"{instead}')
    if name not in (*_FRAMEWORKS, "numpy"):
        _load(name, source)


def _load(name, source):
    """Imports Keras on a backend that k3seq has no file for."""
    try:
        import keras  # noqa: F401
    except (ImportError, ValueError) as error:
        raise MissingBackend(
            f"Expected {source} to be {', '.join(_FRAMEWORKS)}, numpy (forward passes and decoding only), or another backend "
            f"that Keras loads, on which k3seq runs as on numpy. Received: {name}. Keras: {str(error).splitlines()[0]}"
        ) from error


def chosen() -> tuple[str, str]:
    """(backend, where it is set), as Keras will find it when it is imported."""
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"], "KERAS_BACKEND"
    path = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "keras.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["backend"], str(path)
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow", "KERAS_BACKEND is not set and Keras' default backend"
