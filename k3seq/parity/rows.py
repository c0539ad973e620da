"""What a run of the suite found, as data: a `Row` for each check of a pair of backends, and the `Report` of all."""

from dataclasses import asdict, dataclass, field
from typing import Any

VERDICTS = ("equal", "tie", "differs", "failed", "missing", "skipped")
PASSING = ("equal", "tie", "skipped")


@dataclass(frozen=True)
class Row:
    """What one check found for one pair of backends.

    Args:
        case, check: names. pair: the two backends; one alone where a worker failed; in `files` (writer, reader).
        verdict: one of `VERDICTS`. `tie`: decoded tokens part where two scores are nearer than the case's margin. `failed`: a
            worker raised, crashed or hung. `missing`: the backend is not installed. `skipped`: there is nothing to compare, or
            the backend cannot take part, the cause of which has a row of its own that fails.
        relative: largest difference over largest value (infinity for NaN, infinities and unlike shapes); absolute: the
            difference. tolerance: what `relative` was held to. None where nothing was measured.
        where: the array, and of a difference the first layer, step and row that part: "decoder/lstm, step 3, row 0".
        message: one line: what went wrong, or what is worth knowing (weights without a gradient).
        judge: what a float64 run says of a difference: "float64 (jax): off tensorflow 6.8e-02; near jax 1.1e-07";
            a run that fails says so.
        stderr: of the worker that failed.
        dtype: of weights and inputs. seconds: from the case's start to this row.
    """

    case: str
    check: str
    pair: tuple[str, ...]
    verdict: str
    relative: float | None = None
    absolute: float | None = None
    tolerance: float | None = None
    where: str = ""
    message: str = ""
    judge: str = ""
    stderr: str = ""
    dtype: str = "float32"
    seconds: float | None = None


@dataclass
class Report:
    """All rows of a run.

    Args:
        rows: in the order they were found. backends: name -> installed version or None. seconds: of the whole run.
        required: whether a missing backend is a failure (it was asked for by name).
    """

    rows: list[Row] = field(default_factory=list)
    backends: dict[str, str | None] = field(default_factory=dict)
    seconds: float = 0.0
    required: bool = False

    @property
    def ok(self) -> bool:
        """Whether something was compared and nothing differs or failed."""
        passing = PASSING if self.required else (*PASSING, "missing")
        compared = any(row.verdict in ("equal", "tie") for row in self.rows)
        return compared and all(row.verdict in passing for row in self.rows)

    def failures(self) -> list[Row]:
        """The rows that differ or failed."""
        return [row for row in self.rows if row.verdict in ("differs", "failed")]

    def to_json(self) -> dict[str, Any]:
        """{"ok", "seconds", "backends", "rows"}; each row a dict of `Row`'s fields."""
        return {
            "ok": self.ok,
            "seconds": round(self.seconds, 2),
            "backends": dict(self.backends),
            "rows": [asdict(row) | {"pair": list(row.pair)} for row in self.rows],
        }
