"""The parity cases of k3seq's own layers and models: what `k3seq parity` compares by default.

A case names its factory, so that nothing but the class `Case` is imported here.
"""

from k3seq.parity.own_cases.layers import LAYERS
from k3seq.parity.own_cases.models import MODELS

__all__ = ["CASES", "LAYERS", "MODELS"]

CASES = [*LAYERS, *MODELS]
