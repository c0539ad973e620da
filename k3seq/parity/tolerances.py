"""The largest relative error that a check allows, by check and dtype."""

from k3seq.parity.case import Case
from k3seq.runtime.matrix import Matrix

# A check -> the name of its tolerance in `backends_matrix.yml`, where that is another one.
NAMES = {"training": "forward", "files": "forward", "jit": "forward", "sgd": "sgd_weights", "adam": "adam_losses"}
# Used where neither the case nor the matrix file has a tolerance.
DEFAULTS = {
    # Adam's second moment is a square and has twice the relative error of a gradient. Scores are sums of log-probabilities.
    "float32": {"slots": 2e-5, "decode": 1e-5},
    # A few units in the last place, 2**-8 and 2**-11, through several layers; gradients pass through as many again.
    "bfloat16": {"forward": 4e-2, "gradients": 8e-2},
    "float16": {"forward": 5e-3, "gradients": 1e-2},
    # Masks, positions and losses that a layer computes in float32 whatever its dtype limit the precision.
    "float64": {"forward": 2e-7, "gradients": 1e-6},
}


def tolerance(case: Case, check: str, dtype: str, matrix: Matrix) -> float:
    """The largest relative error: the case's, else the matrix file's, else that of `DEFAULTS`, else 0.0 (exactly equal)."""
    name = NAMES.get(check, check)
    for key in (f"{dtype}.{check}", check) if dtype == "float32" else (f"{dtype}.{check}",):
        if key in case.tolerances:
            return float(case.tolerances[key])
    if name in matrix.tolerances.get(dtype, {}):
        return matrix.tolerance(name, dtype, case.name)
    return DEFAULTS[dtype].get(name, 0.0)
