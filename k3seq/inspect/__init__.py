"""Inspect a model: shapes that pass through its layers, provenance of its outputs, gradient ascent, and pictures."""

from k3seq.runtime import backend_check

backend_check.check()  # before anything imports keras

import importlib

from k3seq.inspect.ascent import Ascent, gradient_ascent
from k3seq.inspect.provenance import Provenance, provenance_of
from k3seq.inspect.trace import Passage, shape_trace

__all__ = [
    "Ascent",
    "Passage",
    "Provenance",
    "draw_ascent",
    "draw_images",
    "draw_provenance",
    "gradient_ascent",
    "provenance_of",
    "save_figure",
    "shape_trace",
]

# These need matplotlib, which is imported when the first of them is used.
_PICTURES = {"draw_ascent": "pictures", "draw_images": "pictures", "save_figure": "pictures"} | {
    "draw_provenance": "provenance_picture"
}


def __getattr__(name: str):
    if name in _PICTURES:
        return getattr(importlib.import_module(f"k3seq.inspect.{_PICTURES[name]}"), name)
    raise AttributeError(f"Expected one of {', '.join(__all__)} in k3seq.inspect. Received: {name}")
