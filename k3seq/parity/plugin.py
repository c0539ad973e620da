"""The pytest plugin (entry point `k3seq`): a `parity` fixture for the layers and models of any project.

    def test_my_layer_is_equal_everywhere(parity):
        parity("my_package.layers:MyLayer", arguments={"units": 4}, inputs=(2, 5, 3))

This process imports neither Keras nor a framework: one process per backend starts when the first test asks for the fixture, and
serves the whole run. Backends and tolerances come from `backends_matrix.yml` in pytest's root folder, or are k3seq's defaults.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from k3seq.parity import Case, Pool, Report, Row
    from k3seq.runtime.matrix import Matrix
    from k3seq.typing import Json, Nested

REPORT: pytest.StashKey[Report] = pytest.StashKey()
ROWS = "k3seq_parity_rows"
SUFFIXES = (".json", ".html")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--parity-backends` and `--parity-report`."""
    group = parser.getgroup("parity", "k3seq: layers and models compared across backends")
    group.addoption("--parity-backends", metavar="A,B", help="Compare these backends; the tests fail if one is missing.")
    group.addoption(
        "--parity-report", metavar="FILE", action="append", default=[], help="Write the results to FILE, .json or .html."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Checks the options before any test runs."""
    config.addinivalue_line("markers", "parity: compares backends; added to every test with the fixture `parity`")
    config.addinivalue_line("markers", "once: does not depend on the backend; `k3seq matrix` runs it on one backend only")
    for name in _report_files(config):
        path = pathlib.Path(name)
        if path.suffix not in SUFFIXES or not path.absolute().parent.is_dir():
            raise pytest.UsageError(f"Expected --parity-report FILE{' or FILE'.join(SUFFIXES)} in a folder. Received: {name}")
    names = _named(config)
    if names:
        from k3seq.errors import K3SeqError
        from k3seq.parity.suite import check_two

        try:
            known = _matrix(config)
            for name in names:
                known.backend(name)
            check_two(names)
        except K3SeqError as error:
            raise pytest.UsageError(f"--parity-backends: {error}") from error


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests with the fixture."""
    for item in items:
        if "parity" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.parity)


class Parity:
    """Value of the fixture `parity`: call it to compare a layer or model; it fails the test where something differs.

    Attributes:
        pool: the live workers.
        backends: names that were asked for, or None.
    """

    def __init__(self, node: Any, pool: Pool | None, backends: Sequence[str] | None, total: Report):
        self.pool, self.backends = pool, backends
        self._node, self._total, self._calls = node, total, 0

    def __call__(
        self,
        target: Case | str,
        arguments: Mapping[str, Json] | None = None,
        inputs: Nested = None,
        *,
        call: Mapping[str, Nested] | None = None,
        optional: Sequence[str] = (),
        checks: Sequence[str] | None = None,
        dtypes: Sequence[str] = ("float32",),
        tolerances: Mapping[str, float] | None = None,
        name: str | None = None,
    ) -> Report:
        """Compares on every pair of backends; a test may call it more than once.

        Args:
            target: a `k3seq.parity.Case`; or `package.module:name` of a factory of a layer or model; or, without inputs,
                anything that `k3seq parity` takes: a case, a list of them, a model that knows its inputs.
            arguments: of the factory, JSON values.
            inputs: the first argument of the layer's call: a shape such as (2, 5, 3), a `k3seq.parity.Spec`, an array, or a
                nested dict or list of them. Integers need a Spec: `Spec((2, 5), "int32", high=20)`.
            call: its other arguments by name, in the same forms; JSON values stay as they are.
            optional: names of `call` that are masks or lengths: the layer is compared without them too.
            checks: names out of `k3seq.parity.CHECKS`; None: all but `jit`.
            dtypes: out of `k3seq.parity.DTYPES`.
            tolerances: check -> largest relative error, in place of the matrix file's.
            name: of the case in tables and in the matrix file's `wider`; None: `test_file.py::test_name`.

        Returns:
            The rows of this call.

        Raises:
            UsageError: an unknown target, check or dtype.
        """
        from k3seq.errors import UsageError
        from k3seq.parity import Case, resolve, run_parity

        __tracebackhide__ = True  # pytest shows the line of the test and the message
        self._calls += 1
        try:
            if isinstance(target, Case):
                cases = [target]
            elif inputs is None and call is None and arguments is None and self.pool is not None:
                cases = resolve([target], self.pool)
            else:
                default = self._node.nodeid.rpartition("/")[2] + (f" {self._calls}" if self._calls > 1 else "")
                given = {"inputs": _specs(inputs), "call": _specs(dict(call or {})), "optional": optional}
                cases = [Case(name or default, target, dict(arguments or {}), tolerances=dict(tolerances or {}), **given)]
            report = run_parity(cases, self.backends, checks, pool=self.pool, dtypes=dtypes)
        except UsageError as error:
            raise UsageError(str(error)) from None
        _add(self._total, report.rows, report.seconds, report.backends)
        if not report.ok:
            pytest.fail(explain(report), pytrace=False)
        return report


def _add(total: Report, rows: Iterable[Row], seconds: float, backends: Mapping[str, str | None]) -> None:
    """Adds rows to the report of the run; that a backend is missing, which every case reports, is kept once."""
    for row in rows:
        if row.case or row not in total.rows:
            total.rows.append(row)
    total.seconds += seconds
    total.backends |= backends


def _specs(value: Nested) -> Nested:
    """Replaces tuples of ints by a `Spec` with that shape."""
    from k3seq.parity import Spec

    if isinstance(value, tuple) and all(type(size) is int for size in value):
        return Spec(value)
    if isinstance(value, dict):
        return {key: _specs(part) for key, part in value.items()}
    return [_specs(part) for part in value] if isinstance(value, list | tuple) else value


def explain(report: Report, stderr_lines: int = 15) -> str:
    """A failed report as text: each row that does not pass, its message and judge, and the end of a worker's stderr."""
    from k3seq.parity.verdicts import FAILING

    shown = [row for row in report.rows if row.verdict in FAILING or report.required and row.verdict == "missing"]
    lines = []
    for row in shown:
        lines.append(row.summary())
        lines += [f"    {text}" for text in (row.message, row.judge) if text]
        lines += [f"    | {line}" for line in row.stderr.splitlines()[-stderr_lines:]]
    reasons = [f"    {row.case}: {row.message}" for row in report.rows if row.message]
    return "\n".join(lines or ["nothing was compared", *reasons])


@pytest.fixture(scope="session")
def parity_pool(pytestconfig: pytest.Config) -> Iterator[Pool]:
    """The live workers of the run, one per backend; skips the test where fewer than two backends are installed."""
    from k3seq.parity import Pool

    names = _named(pytestconfig)
    with Pool(names, _matrix(pytestconfig)) as pool:
        if len(pool.present()) < 2 and not names:
            pytest.skip(f"fewer than two backends are installed ({', '.join(pool.present()) or 'none'}): nothing to compare")
        yield pool


@pytest.fixture
def parity(request: pytest.FixtureRequest, parity_pool: Pool) -> Parity:
    """Call it with a layer or model to compare on every backend: see `k3seq.parity.plugin.Parity`."""
    total = _total(request.config)
    return Parity(request.node, parity_pool, _named(request.config), total)


def _total(config: pytest.Config) -> Report:
    """The report of the run so far."""
    from k3seq.parity import Report

    return config.stash.setdefault(REPORT, Report(required=_named(config) is not None))


def _report_files(config: pytest.Config) -> list[str]:
    return config.getoption("--parity-report") or []


def _matrix(config: pytest.Config) -> Matrix:
    from k3seq.runtime import matrix

    file = config.rootpath / matrix.FILE
    return matrix.load(file) if file.is_file() else matrix.Matrix()


def _named(config: pytest.Config) -> list[str] | None:
    names = [name.strip() for name in (config.getoption("--parity-backends") or "").split(",")]
    return [name for name in names if name] or None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes the reports, or hands the rows to the controller of pytest-xdist, which writes them."""
    total = session.config.stash.get(REPORT, None)
    if total is None:
        return
    workeroutput = getattr(session.config, "workeroutput", None)
    if workeroutput is not None:
        from k3seq.report.record import plain

        workeroutput[ROWS] = plain(total.to_json())
        return
    write(total.to_json(), _report_files(session.config))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes over the results of a process of pytest-xdist."""
    found = getattr(node, "workeroutput", {}).get(ROWS)
    if found:
        from k3seq.parity import Row

        _add(_total(node.config), [Row.from_json(row) for row in found["rows"]], found["seconds"], found["backends"])


def write(results: Mapping[str, Json], files: Iterable[str]) -> None:
    """Writes `Report.to_json()` to files that end in .json or .html, each completely or not at all."""
    import json

    from k3seq import report
    from k3seq.parity.page import parity_page
    from k3seq.report.record import plain

    plain_results = plain(results)
    for name in files:
        html = pathlib.Path(name).suffix == ".html"
        report.write(name, parity_page(results) if html else json.dumps(plain_results, indent=2, allow_nan=False) + "\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints one line: cases, backends, and the number of rows of each verdict."""
    total = config.stash.get(REPORT, None)
    if total is None or hasattr(config, "workeroutput"):
        return
    cases = len({row.case for row in total.rows if row.case})
    files = "".join(f"; see {name}" for name in _report_files(config))
    summary = f"{cases} case{'s' * (cases != 1)} on {', '.join(total.backends)}: {total.counts()}"
    terminalreporter.write_line(f"parity: {summary}{files}")
