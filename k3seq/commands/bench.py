"""`k3seq bench`: the speed of each backend and of its peers on the same work."""

import json as json_module
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from k3seq import bench as benchmark
from k3seq.commands.consoles import log_console, results_console
from k3seq.data.files import replacing
from k3seq.errors import DataError, UsageError
from k3seq.report.record import check_outputs
from k3seq.runtime import matrix

INTERRUPTED = 130


def bench(
    target: str | None = None,
    suite: str | None = None,
    *,
    inputs: str | None = None,
    labels: str | None = None,
    loss: str | None = None,
    batch_size: int | None = None,
    kind: str = "train",
    backends: Sequence[str] = (),
    jits: str = "matrix",
    only: Sequence[str] = (),
    rounds: int = 5,
    seconds: float = 0.5,
    steps: int | None = None,
    timeout: float = 600.0,
    parity: bool = False,
    csv: str | None = None,
    html: str | None = None,
    against: str | None = None,
) -> dict[str, Any]:
    """Measures a suite or a user's own model, prints a table, and writes the requested files.

    Args:
        target: `package.module:factory` of a layer or model, or of a parity case; None: a suite.
        suite: a key of `k3seq.bench.SUITES`; None: `quick`, where there is no target.
        inputs: JSON text of the target's inputs, arrays as {"shape": [64, 20], "dtype": "int32", "high": 500}; None: what it
            says of itself. labels: the same, of what a model is trained on; None: random targets of its outputs' shapes.
        loss: a name that Keras knows or `package.module:name`; None: the model's own, or the mean squared error where it
            trains on random targets. batch_size: the first size of every array of the target's inputs, in the place of its own.
        kind: what to do with the target: train, decode or layer.
        backends: names; none means all of the matrix. jits: of `k3seq.bench.problems.JITS`.
        only: texts of which the key of a row must contain one, such as "lstm-v500 |" or "| torch |"; none: all rows.
        rounds, seconds, steps, timeout: as `k3seq.bench.run_benchmark` takes them.
        parity: also run the parity suite on what Keras runs: outputs and every gradient. The first losses of the rows, from the
            same weights on the same batch, are compared in any case.
        csv, html: paths to write, or None. against: the JSON of an older run, or None.

    Returns:
        The report's JSON with "changes" (where `against` is given) and "exit_code": 1 where a row failed, a row of k3seq
        or of the user differs, or nothing was measured; 130 after Ctrl-C, with what was measured until then.

    Raises:
        UsageError: both a target and a suite, an unknown name, inputs that are no JSON, rounds, steps or seconds out of range.
        DataError: `against` is not the JSON of a bench.
    """
    from k3seq.bench import noise, plots, problems, row_parity, table

    if target is not None and suite is not None:
        raise UsageError(f"Expected a target or --suite. Received: {target} and {suite}")
    for name, value, least in (("rounds", rounds, 1), ("steps", steps, 1), ("batch_size", batch_size, 1)):
        if value is not None and value < least:
            raise UsageError(f"Expected --{name.replace('_', '-')} of at least {least}. Received: {value}")
    for name, value in (("seconds", seconds), ("timeout", timeout)):
        if not 0 < value < math.inf:
            raise UsageError(f"Expected --{name} above 0. Received: {value}")
    if jits not in problems.JITS:
        raise UsageError(f"Expected --jit out of {', '.join(problems.JITS)}. Received: {jits}")
    check_outputs({"--csv": csv, "--html": html})
    older = None if against is None else _older(Path(against))
    known = matrix.load()
    chosen = {name: known.backend(name) for name in (backends or known.training)}
    if target is None:
        name = suite or "quick"
        found = benchmark.groups(name, chosen, jits)
    else:
        name, found = target, [_own(target, inputs, labels, loss, batch_size, kind, chosen, jits)]
    found = [group for rows in found if (group := [row for row in rows if any(text in row.key for text in only or ("",))])]
    if not found:
        asked = " or ".join(map(repr, only or (jits,)))
        raise UsageError(f"Expected rows with {asked} on {', '.join(chosen)}. Received: none")
    with Progress(log_console()) as progress:
        report = benchmark.run_benchmark(name, found, rounds, seconds, steps, timeout, progress, backends=known)
        try:
            if not report.interrupted:
                row_parity.by_losses(report.rows, known)
                if parity:
                    progress.say("comparing the backends")
                    present = [n for n in chosen if matrix.installed(n, known)]
                    row_parity.by_parity(report.rows, present)
        except KeyboardInterrupt:
            report.interrupted = True
    result = report.to_json()
    changes, moved = [], None
    shown = results_console()
    shown.print(table.table(report))
    if older is not None:
        changes = noise.compare(older, result["rows"])
        moved = noise.shift(changes)
        shown.print(table.changes_table(changes, moved))
        result["changes"], result["shift"] = [vars(change) for change in changes], moved
    for row in report.rows:
        if row.parity == "differs":
            print(f"{row.work.key}: differs: {row.parity_note}")
    if csv is not None:
        _write(csv, table.to_csv(report))
    if html is not None:
        _write(html, plots.bench_page(report, changes, moved))
    result["exit_code"] = INTERRUPTED if report.interrupted else 0 if report.ok else 1
    return result


def _own(target, inputs, labels, loss, batch_size, kind, backends, jits):
    """The rows of a user's target."""
    from k3seq.bench import problems
    from k3seq.parity import Pool, resolve
    from k3seq.parity.case import specs

    kinds = ("train", "decode", "layer")
    if kind not in kinds:
        raise UsageError(f"Expected --kind out of {', '.join(kinds)}. Received: {kind}")
    if ":" not in target:
        raise UsageError(f"Expected package.module:factory. Received: {target}")
    inputs, labels = _json("--inputs", inputs), _json("--labels", labels)
    changed = {name: value for name, value in (("labels", specs(labels)), ("loss", loss)) if value is not None}
    with Pool(list(backends)) as pool:
        cases = [problems.resized(replace(case, **changed), batch_size) for case in resolve([target], pool, inputs)]
    return [row for case in cases for row in problems.own(case, kind, backends, jits)]


def _json(option, text):
    if text is None:
        return None
    try:
        return json_module.loads(text)
    except json_module.JSONDecodeError as error:
        raise UsageError(f"Expected JSON for {option}. Received: {text} ({error})") from None


def _older(path):
    """The rows of an older run's `--json`."""
    from k3seq.bench import noise

    try:
        rows = json_module.loads(path.read_text(encoding="utf-8"))["result"]["rows"]
        noise.compare(rows, rows)  # fails before anything is measured
        return rows
    except (json_module.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise DataError("Expected the JSON of k3seq bench for --compare. Received: something else", path) from None


def _write(path, content):
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


class Progress:
    """Progress on stderr: the live table on a terminal, else one line per finished row."""

    def __init__(self, console: Any):
        self.console, self.live = console, None

    def __enter__(self):
        if self.console.is_terminal:
            from rich.live import Live

            self.live = Live(console=self.console, transient=True, auto_refresh=False)
            self.live.__enter__()
        return self

    def __exit__(self, *error):
        if self.live is not None:
            self.live.__exit__(*error)

    def say(self, words: str) -> None:
        if self.live is None:
            print(f"k3seq bench: {words}", file=sys.stderr)
        else:
            self.live.update(words, refresh=True)

    def __call__(self, event, row, report):
        from k3seq.bench import table

        if self.live is not None:
            self.live.update(table.table(report, changed=(event, row)), refresh=True)
        elif event in ("first steps", "failed", "missing") or event == "measured" and len(row.rounds) == report.rounds:
            result = table.milliseconds(row.median) if event == "measured" else row.message
            print(f"k3seq bench: {event}: {row.work.key} {result}".rstrip(), file=sys.stderr)
