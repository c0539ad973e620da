"""Known divergences of Keras between its backends, each with a reproducer that tests whether the installed Keras still has it.

    from k3seq.parity import divergences

    entries = divergences.choose(["top-k-ties"])
    answers = divergences.observe(entries, ["jax", "torch"])
    found = divergences.assess(entries[0], answers["top-k-ties"])
    found["torch"]["status"]  # "present"; on jax "absent"

Importing this imports no Keras: the reproducers (`training`, `numbers`, `recurrent`, `shapes`, `layers`) run in processes of
their own.
"""

from k3seq.parity.divergences.known import Divergence, choose, load
from k3seq.parity.divergences.status import STATUSES, assess, observe
from k3seq.parity.divergences.page import markdown

__all__ = ["STATUSES", "Divergence", "assess", "choose", "load", "markdown", "observe"]
