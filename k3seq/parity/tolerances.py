"""How far apart two backends may be, by check and dtype, where neither the case nor the matrix file says so."""

# What the suite calls a check -> what `backends_matrix.yml` calls its tolerance.
NAMES = {"training": "forward", "files": "forward", "jit": "forward", "sgd": "sgd_weights", "adam": "adam_losses"}
DEFAULTS = {
    # Adam's second moment is a square: twice the relative error of a gradient. Scores add up log-probabilities.
    "float32": {"slots": 2e-5, "decode": 1e-5},
    # A few units in the last place, of 2**-8 and 2**-11, carried through some layers; gradients through as many again.
    "bfloat16": {"forward": 4e-2, "gradients": 8e-2},
    "float16": {"forward": 5e-3, "gradients": 1e-2},
    # Masks, positions and losses that a layer computes in float32 whatever its dtype bound it from below.
    "float64": {"forward": 2e-7, "gradients": 1e-6},
}


def tolerance(case, check, dtype, matrix):
    """The largest relative error of a check: the case's, else the matrix file's, else that of `DEFAULTS`; 0.0: all is exact."""
    name = NAMES.get(check, check)
    for key in (f"{dtype}.{check}", check) if dtype == "float32" else (f"{dtype}.{check}",):
        if key in case.tolerances:
            return float(case.tolerances[key])
    if name in matrix.tolerances.get(dtype, {}):
        return matrix.tolerance(name, dtype, case.name)
    return DEFAULTS[dtype].get(name, 0.0)
