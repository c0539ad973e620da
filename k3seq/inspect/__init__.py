"""Looking into a model: what passes through its layers, what excites a unit, and pictures of it."""

from k3seq import binding

binding.check()  # before anything imports keras


from k3seq.inspect.ascent import Ascent, gradient_ascent
from k3seq.inspect.pictures import draw_ascent, draw_images, save_figure
from k3seq.inspect.trace import Passage, shape_trace

__all__ = ["Ascent", "Passage", "draw_ascent", "draw_images", "gradient_ascent", "save_figure", "shape_trace"]
