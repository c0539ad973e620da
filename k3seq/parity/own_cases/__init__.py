"""The parity cases of k3seq's own layers and models, small: what `k3seq parity` compares where nothing else is asked for.

A case names its factory, so nothing is imported here but what a case is.
"""

from k3seq.parity.own_cases.layers import LAYERS
from k3seq.parity.own_cases.models import MODELS

__all__ = ["CASES", "LAYERS", "MODELS"]

CASES = [*LAYERS, *MODELS]
