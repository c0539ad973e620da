"""What is measured and what came of it, as data: `Work` before, `Row` and `Report` after. Imports no keras."""

import statistics
from dataclasses import dataclass, field
from typing import Any

from k3seq.parity.case import Case

KINDS = ("train", "decode", "layer", "startup")
KERAS = "k3seq.bench.subjects"
# measured: in every round. interrupted: Ctrl-C came before the last one; what there is counts. failed: the process raised,
# crashed or hung. missing: the backend or a package is not installed. waiting: no round yet.
STATUSES = ("measured", "interrupted", "failed", "missing", "waiting")
OURS = ("k3seq", "own", "whole loss", "chunked loss")  # implementation: k3seq's code, or the user's; all others are competitors
OPTIONAL = ("keras_hub", "transformers", "ctranslate2")  # packages of competitors: one that is not installed is no failure


@dataclass(frozen=True)
class Work:
    """One row to be measured: it has a process of its own.

    Args:
        case: the layer or model, its inputs, labels and weights; drawn on the host, so every row of a problem gets the same.
        problem: rows of one problem do the same arithmetic: they are compared in time, and their losses must be equal.
        kind: one of `KINDS`. backend: whose process. jit: compile with XLA; None: the subject has no such switch.
        implementation: whose code: "k3seq", "keras", "plain" (by hand in the framework), a package; what is not Keras gets its
            case's arguments and batch alone.
        maker: `package.module:function` of the payload that makes a `k3seq.bench.running.Running`; None: `KERAS:kind`.
        tokens: tokens of a batch that are not padding. options: for the maker, JSON values.
        at: place on the axes of a plot, such as {"length": 40}.
    """

    case: Case
    problem: str
    kind: str
    backend: str
    jit: bool | None = None
    implementation: str = "k3seq"
    maker: str | None = None
    tokens: float | None = None
    options: dict[str, Any] = field(default_factory=dict)
    at: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What two runs know a row by."""
        return " | ".join((self.problem, self.kind, self.implementation, self.backend, mode(self.jit)))

    def payload(self) -> dict[str, Any]:
        """What the maker gets: {"case", "batch", "jit", "options"}."""
        batch = {part: value for part, value in self.case.batch(0).items()}
        return {"case": self.case.to_payload(), "batch": batch, "jit": self.jit, "options": dict(self.options)}

    @property
    def target(self) -> str:
        """The maker's full name."""
        return self.maker or f"{KERAS}:{'train' if self.kind == 'startup' else self.kind}"


@dataclass
class Row:
    """What came of a `Work`. Times are seconds, memory is bytes.

    Args:
        work: the row's work. status: one of `STATUSES`. message: one line: why there is no figure. stderr: of a failure.
        rounds: the median step of each round. cpu_rounds: the processor time of a step, all threads of the process added up;
            on a machine with other work the steadier of the two. steps: in a round.
        imported, built, first: of the process: importing the framework, making the model, the first step with its compilation.
        base, peak: memory after the import and the largest while steps ran; first_peak: the largest in the first steps.
        losses: of the first steps, from the same weights on the same batch.
        parity: "equal", "differs", or "" where nothing was compared; parity_note: what was, or what differs.
        about: of the process: backend, version, keras, devices, that of a peer's package, and whether malloc keeps memory.
    """

    work: Work
    status: str = "waiting"
    message: str = ""
    stderr: str = ""
    rounds: list[float] = field(default_factory=list)
    cpu_rounds: list[float] = field(default_factory=list)
    steps: int = 0
    imported: float | None = None
    built: float | None = None
    first: float | None = None
    base: int | None = None
    first_peak: int | None = None
    peak: int | None = None
    tokens: float | None = None
    losses: list[float] = field(default_factory=list)
    parity: str = ""
    parity_note: str = ""
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float | None:
        """Of the rounds."""
        return statistics.median(self.rounds) if self.rounds else None

    @property
    def cpu(self) -> float | None:
        """The median processor time of a step."""
        return statistics.median(self.cpu_rounds) if self.cpu_rounds else None

    def ratio(self, other: "Row") -> float | None:
        """This row's time over another's: the median of the ratios within a round, which a busy machine slows alike."""
        if not self.rounds or not other.rounds:
            return None
        if len(self.rounds) != len(other.rounds):
            return statistics.median(self.rounds) / statistics.median(other.rounds)
        return statistics.median(mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=True))

    @property
    def spread(self) -> tuple[float, float] | None:
        """The fastest and the slowest round."""
        return (min(self.rounds), max(self.rounds)) if self.rounds else None

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """Between them lies half of the rounds."""
        if len(self.rounds) < 2:
            return self.spread
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return low, high

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens that are not padding, at the median."""
        return self.tokens / self.median if self.tokens and self.median else None

    @property
    def memory(self) -> int | None:
        """What the work itself needs: the peak over what the process held before."""
        return None if self.peak is None or self.base is None else max(self.peak - self.base, 0)

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        work = self.work
        told = {name: getattr(work, name) for name in ("key", "problem", "kind", "implementation", "backend", "jit", "at")}
        told |= {"case": work.case.name, "factory": work.case.factory if work.maker is None else work.maker}
        names = (
            "status",
            "message",
            "stderr",
            "median",
            "spread",
            "quartiles",
            "rounds",
            "cpu",
            "cpu_rounds",
            "steps",
            "tokens",
        )
        names += ("tokens_per_second", "imported", "built", "first", "base", "first_peak", "peak", "memory")
        names += ("losses", "parity", "parity_note", "about")
        return told | {name: getattr(self, name) for name in names}


@dataclass
class Report:
    """A run: its rows in the order of the suite, and the machine it ran on.

    Args:
        suite: name. rows: all of them. rounds: asked for. seconds: of the whole run. interrupted: by Ctrl-C.
        machine: {"platform", "processor", "cores", "load_before", "load_after"}: load averages of a minute.
    """

    suite: str
    rows: list[Row] = field(default_factory=list)
    rounds: int = 5
    seconds: float = 0.0
    interrupted: bool = False
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether something was measured, no row failed, and none that was compared differs."""
        measured = any(row.status == "measured" for row in self.rows)
        return measured and not any(row.status == "failed" or row.parity == "differs" for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """{"suite", "rounds", "seconds", "interrupted", "machine", "rows"}."""
        told = {name: getattr(self, name) for name in ("suite", "rounds", "seconds", "interrupted", "machine")}
        return told | {"rows": [row.to_json() for row in self.rows]}


def mode(jit) -> str:
    """A jit mode as text: "jit", "no jit", or "" where there is no such switch."""
    return "" if jit is None else "jit" if jit else "no jit"
