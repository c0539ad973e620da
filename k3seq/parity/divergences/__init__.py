"""Known divergences of Keras between its backends, each with a reproducer that says whether the installed Keras still has it.

    from k3seq.parity import divergences

    entries = divergences.choose(["top-k-ties"])
    answers = divergences.observe(entries, ["jax", "torch"])
    told = divergences.judge(entries[0], answers["top-k-ties"])
    told["torch"]["status"]  # "present"; on jax "absent"

Importing this imports no keras: the reproducers (`training`, `numbers`, `recurrent`, `shapes`, `layers`) run in processes of
their own.
"""

from k3seq.parity.divergences.known import Divergence, choose, load
from k3seq.parity.divergences.verdicts import STATUSES, judge, observe
from k3seq.parity.divergences.page import markdown

__all__ = ["STATUSES", "Divergence", "choose", "judge", "load", "markdown", "observe"]
