"""Decoding: from a model's `start` and `step` to token ids.

The functions `beam_search`, `greedy`, `sample` and `stream` decode in one call. The objects `BeamSearch`, `Greedy` and `Sample`
are compiled once and kept. All take a list of the processors and penalties below. `Ensemble` decodes with several models.
"""

from k3seq.runtime import backend_check

backend_check.check()  # before anything imports keras


from k3seq.decode.beam import BeamSearch, DiverseGroups
from k3seq.decode.calls import beam_search, compilations, greedy, sample, stream
from k3seq.decode.ensemble import Ensemble
from k3seq.decode.decoder import Decoded, Greedy
from k3seq.decode.penalties import CoveragePenalty, LengthPenalty, Penalty
from k3seq.decode.processors import Constraint, Context, Forbid, MaxLength, MinLength, NoRepeat, RepetitionPenalty
from k3seq.decode.sampling import MinP, Sample, Temperature, TopK, TopP

__all__ = [
    "BeamSearch",
    "Constraint",
    "Context",
    "CoveragePenalty",
    "Decoded",
    "DiverseGroups",
    "Ensemble",
    "Forbid",
    "Greedy",
    "LengthPenalty",
    "MaxLength",
    "MinLength",
    "MinP",
    "NoRepeat",
    "Penalty",
    "RepetitionPenalty",
    "Sample",
    "Temperature",
    "TopK",
    "TopP",
    "beam_search",
    "compilations",
    "greedy",
    "sample",
    "stream",
]
