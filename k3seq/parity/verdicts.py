"""The names of checks and verdicts, in one place. Imports neither Keras nor NumPy."""

from collections.abc import Iterable

# In the order in which they run and are shown. `jit` runs only where it is asked for.
CHECKS = ("parameters", "forward", "training", "gradients", "sgd", "adam", "slots", "decode", "files", "jit")
DEFAULT_CHECKS = CHECKS[:-1]
# The checks that also run in dtypes other than float32.
DTYPE_CHECKS = ("parameters", "forward", "training", "gradients")
DTYPES = ("float32", "bfloat16", "float16", "float64")

# From the best to the worst:
# skipped: there was nothing to compare, or another row holds the reason why the backend could not be compared
# equal: the difference is within the tolerance
# tie: decoded tokens differ where two scores are nearer than the case's margin, so that rounding decides
# missing: the backend is not installed; an error only if it was asked for by name
# differs: the difference is beyond the tolerance
# failed: the worker process raised, crashed or timed out
VERDICTS = ("skipped", "equal", "tie", "missing", "differs", "failed")
PASSING = ("equal", "tie", "skipped")
COMPARED = ("equal", "tie", "differs")
FAILING = ("differs", "failed")


def worst(verdicts: Iterable[str]) -> str:
    """The worst of some verdicts."""
    return max(verdicts, key=VERDICTS.index)


def case_label(case: str, dtype: str) -> str:
    """How tables and messages name a case: with its dtype where that is not float32."""
    return case if dtype == "float32" else f"{case} ({dtype})"
