"""Random numbers that are the same on every backend and machine: `bits` in NumPy, `weights` for the weights of a model.

Importing this imports neither keras nor a framework.
"""

from k3seq.random.bits import Stream, threefry
from k3seq.random.weights import initialize

__all__ = ["Stream", "initialize", "threefry"]
