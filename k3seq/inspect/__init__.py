"""Inspect a model: shapes that pass through its layers, provenance of its outputs, gradient ascent, and pictures."""

from k3seq.runtime import backend_check

backend_check.check()  # before anything imports keras


from k3seq.inspect.ascent import Ascent, gradient_ascent
from k3seq.inspect.pictures import draw_ascent, draw_images, save_figure
from k3seq.inspect.provenance import Provenance, provenance_of
from k3seq.inspect.provenance_picture import draw_provenance
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
