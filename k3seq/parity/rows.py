"""The result of a run as data: a `Row` for each check of a pair of backends, and the `Report` of all rows."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from k3seq.parity.verdicts import COMPARED, FAILING, PASSING, VERDICTS, case_label
from k3seq.typing import Json


@dataclass(frozen=True)
class Row:
    """The result of one check for one pair of backends.

    Args:
        case: name of the case; empty in the row of a backend that is not installed.
        check: name of the check.
        pair: the two backends; one backend where a worker failed; (writer, reader) in `files`.
        verdict: one of `verdicts.VERDICTS`, which explains them.
        relative: largest difference divided by the largest value. Infinity for NaN, infinities and other shapes. None where
            nothing was measured, as in the next two.
        absolute: largest difference.
        tolerance: the largest `relative` that is allowed.
        where: the array; for a difference also the first layer, step and row with a mismatch: "decoder/lstm, step 3, row 0".
        message: one line: the error, or a note such as the weights without a gradient.
        judge: result of the float64 reference run: "float64 reference (jax): tensorflow differs by 6.8e-02; jax (1.1e-07)
            agrees", or why there is none.
        stderr: of the worker that failed.
        dtype: of weights and inputs.
        seconds: from the start of the case to this row.
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

    @property
    def label(self) -> str:
        """The name of the case, with its dtype where that is not float32."""
        return case_label(self.case, self.dtype)

    def summary(self) -> str:
        """One line: case, check, backends, verdict, error and place."""
        pair = (" to " if self.check == "files" else " and ").join(self.pair)
        error = ""
        if self.relative is not None and self.tolerance is not None:
            error = f" by {self.relative:.1e} (tolerance {self.tolerance:.1e})"
        subject = ", ".join(part for part in (self.label, self.check, pair) if part)
        return f"{subject}: {self.verdict}{error}{f' at {self.where}' if self.where else ''}"

    @classmethod
    def from_json(cls, values: Mapping[str, Json]) -> "Row":
        """The row that `Report.to_json` wrote; text such as "Infinity" becomes a number again."""
        numbers = ("relative", "absolute", "tolerance", "seconds")
        read: dict[str, Any] = {
            name: float(value) if name in numbers and value is not None else value for name, value in values.items()
        }
        read["pair"] = tuple(values["pair"])
        return cls(**read)


@dataclass
class Report:
    """All rows of a run.

    Args:
        rows: in the order of the cases.
        backends: name -> installed version or None.
        seconds: duration of the run.
        required: whether a missing backend is a failure, because it was asked for by name.
    """

    rows: list[Row] = field(default_factory=list)
    backends: dict[str, str | None] = field(default_factory=dict)
    seconds: float = 0.0
    required: bool = False

    @property
    def ok(self) -> bool:
        """Whether something was compared and no row differs or failed."""
        passing = PASSING if self.required else (*PASSING, "missing")
        compared = any(row.verdict in COMPARED for row in self.rows)
        return compared and all(row.verdict in passing for row in self.rows)

    def failures(self) -> list[Row]:
        """The rows that differ or failed."""
        return [row for row in self.rows if row.verdict in FAILING]

    def counts(self) -> str:
        """The number of rows of each verdict, the worst first, as text."""
        found = [row.verdict for row in self.rows]
        return ", ".join(f"{found.count(verdict)} {verdict}" for verdict in reversed(VERDICTS) if verdict in found)

    def to_json(self) -> dict[str, Json]:
        """{"ok", "seconds", "backends", "rows"}; each row is a dict of the fields of `Row`."""
        return {
            "ok": self.ok,
            "seconds": round(self.seconds, 2),
            "backends": dict(self.backends),
            "rows": [asdict(row) | {"pair": list(row.pair)} for row in self.rows],
        }


def without_escapes(text: str) -> str:
    """The text without terminal escapes: Keras prints parts of its messages in bold."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
