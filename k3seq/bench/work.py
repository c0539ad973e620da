"""The data of a benchmark: `Work` says what is measured, `Row` and `Report` hold the results. Imports no keras."""

import statistics
from dataclasses import dataclass, field
from typing import Any

from k3seq.parity.case import Case

KINDS = ("train", "decode", "layer", "startup")
KERAS = "k3seq.bench.subjects"
# measured: in every round. interrupted: by Ctrl-C before the last round; the rounds before it count. failed: the process
# raised, crashed or timed out. missing: the backend or a package is not installed. waiting: no round yet.
STATUSES = ("measured", "interrupted", "failed", "missing", "waiting")
OURS = ("k3seq", "own", "whole loss", "chunked loss")  # implementations of k3seq and of the user; all others are peers
OPTIONAL = ("keras_hub", "transformers", "ctranslate2")  # packages of peers: one that is not installed is no failure


@dataclass(frozen=True)
class Work:
    """One row to measure. It runs in its own process.

    Args:
        case: the layer or model, its inputs, labels and weights. All are drawn on the host, so that every row of a problem
            gets the same values.
        problem: name of the task. Rows of one problem are compared in time, and their losses must be equal.
        kind: one of `KINDS`.
        backend: backend of the process.
        jit: whether to compile with XLA; None where there is no such switch.
        implementation: "k3seq", "keras", "plain" (written by hand in the framework), or the name of a package. An
            implementation without Keras gets only the arguments and the batch of the case.
        maker: `package.module:function` that makes a `k3seq.bench.running.Running` from the payload; None means `KERAS:kind`.
        tokens: number of tokens in a batch, without padding.
        options: JSON values for the maker.
        at: position on the axes of a plot, such as {"length": 40}.
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
        """The name of the row, by which two runs are compared."""
        return " | ".join((self.problem, self.kind, self.implementation, self.backend, mode(self.jit)))

    def payload(self) -> dict[str, Any]:
        """The argument of the maker: {"case", "batch", "jit", "options"}."""
        batch = {part: value for part, value in self.case.batch(0).items()}
        return {"case": self.case.to_payload(), "batch": batch, "jit": self.jit, "options": dict(self.options)}

    @property
    def target(self) -> str:
        """The full name of the maker."""
        return self.maker or f"{KERAS}:{'train' if self.kind == 'startup' else self.kind}"


@dataclass
class Row:
    """The results of a `Work`. Times are in seconds, memory is in bytes.

    Args:
        work: what was measured.
        status: one of `STATUSES`.
        message: one line that says why there is no figure.
        stderr: standard error of a failed process.
        rounds: the median time of a step in each round.
        cpu_rounds: the processor time of a step in each round, summed over all threads. It varies less on a busy machine.
        steps: number of steps in a round.
        imported, built, first: time to import the framework, to make the model, and for the first step with its compilation.
        base, peak: memory after the import, and the maximum while steps ran; first_peak: the maximum in the first steps.
        losses: losses of the first steps, from the same weights on the same batch.
        parity: "equal", "differs", or "" where nothing was compared; parity_note: what was compared, or what differs.
        about: backend, version, Keras, devices and the version of a peer's package in that process.
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
        """The median time of a step over the rounds."""
        return statistics.median(self.rounds) if self.rounds else None

    @property
    def cpu(self) -> float | None:
        """The median processor time of a step."""
        return statistics.median(self.cpu_rounds) if self.cpu_rounds else None

    def ratio(self, other: "Row") -> float | None:
        """This row's time divided by another's: the median of the ratios within a round, which share the load."""
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
        """The first and the third quartile of the rounds."""
        if len(self.rounds) < 2:
            return self.spread
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return low, high

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second without padding, at the median."""
        return self.tokens / self.median if self.tokens and self.median else None

    @property
    def memory(self) -> int | None:
        """Memory of the work itself: the peak minus the memory that the process held before."""
        return None if self.peak is None or self.base is None else max(self.peak - self.base, 0)

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        work = self.work
        values = {name: getattr(work, name) for name in ("key", "problem", "kind", "implementation", "backend", "jit", "at")}
        values |= {"case": work.case.name, "factory": work.case.factory if work.maker is None else work.maker}
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
        return values | {name: getattr(self, name) for name in names}


@dataclass
class Report:
    """The results of a benchmark: its rows in the order of the suite, and the machine.

    Args:
        suite: name of the suite.
        rows: all rows.
        rounds: number of rounds that were requested.
        seconds: time of the whole benchmark.
        interrupted: whether Ctrl-C ended it.
        machine: {"platform", "processor", "cores", "threads", "load_before", "load_after"}, with load averages of one minute.
    """

    suite: str
    rows: list[Row] = field(default_factory=list)
    rounds: int = 5
    seconds: float = 0.0
    interrupted: bool = False
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether something was measured, no row failed, and no row of k3seq or of the user differs.

        A peer that differs is shown in its row and does not count here: stock Keras on TensorFlow does by default.
        """
        measured = any(row.status == "measured" for row in self.rows)
        differs = any(row.parity == "differs" and row.work.implementation in OURS for row in self.rows)
        return measured and not differs and not any(row.status == "failed" for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """{"suite", "rounds", "seconds", "interrupted", "machine", "rows"}."""
        values = {name: getattr(self, name) for name in ("suite", "rounds", "seconds", "interrupted", "machine")}
        return values | {"rows": [row.to_json() for row in self.rows]}


def mode(jit: bool | None) -> str:
    """A jit mode as text: "jit", "no jit", or "" where there is no such switch."""
    return "" if jit is None else "jit" if jit else "no jit"
