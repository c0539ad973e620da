"""The pytest plugin (entry point `k3seq`): a `parity` fixture for the layers and models of any project.

    def test_my_layer_is_equal_everywhere(parity):
        parity("my_package.layers:MyLayer", arguments={"units": 4}, inputs=(2, 5, 3))

No keras and no framework is imported here: one process per backend starts when the first test asks for the fixture, and stays
for the whole run. Backends and tolerances are those of `backends_matrix.yml` in pytest's root folder, or k3seq's defaults.
"""

import pathlib

import pytest

REPORT, ROWS = pytest.StashKey(), "k3seq_parity_rows"
SUFFIXES = (".json", ".html")


def pytest_addoption(parser):
    group = parser.getgroup("parity", "k3seq: layers and models compared across backends")
    group.addoption("--parity-backends", metavar="A,B", help="compare these backends; one that is missing fails the tests")
    group.addoption(
        "--parity-report", metavar="FILE", action="append", default=[], help="write what was found to FILE, .json or .html"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "parity: compares backends; every test with the fixture `parity` bears it")
    config.addinivalue_line("markers", "once: does not depend on the backend; `k3seq matrix` runs it on one backend only")
    for name in config.getoption("--parity-report"):
        path = pathlib.Path(name)
        if path.suffix not in SUFFIXES or not path.absolute().parent.is_dir():
            raise pytest.UsageError(f"Expected --parity-report FILE{' or FILE'.join(SUFFIXES)} in a folder. Received: {name}")
    names = _named(config)
    if names:
        from k3seq.errors import K3SeqError

        try:
            known = _matrix(config)
            for name in names:
                known.backend(name)
        except K3SeqError as error:
            raise pytest.UsageError(f"--parity-backends: {error}") from error


def pytest_collection_modifyitems(items):
    for item in items:
        if "parity" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.parity)


class Parity:
    """What the fixture gives: call it with what is to be equal. It fails the test where something differs.

    Attributes:
        pool: the live workers (`k3seq.parity.Pool`). backends: what was asked for by name, or None.
    """

    def __init__(self, node, pool, backends, total):
        self.pool, self.backends = pool, backends
        self._node, self._total, self._calls = node, total, 0

    def __call__(
        self,
        target,
        arguments=None,
        inputs=None,
        *,
        call=None,
        optional=(),
        checks=None,
        dtypes=("float32",),
        tolerances=None,
        name=None,
    ):
        """Compares on every pair of backends; a test may call it more than once.

        Args:
            target: a `k3seq.parity.Case`; or `package.module:name` of a factory of a layer or model; or, where no inputs are
                given, of anything that `k3seq parity` takes: a case, a list of them, a model that knows its inputs.
            arguments: of the factory, JSON values.
            inputs: the first argument of the layer's call: a shape such as (2, 5, 3), a `k3seq.parity.Spec`, an array, or a
                nested dict or list of them. Integers need a Spec: `Spec((2, 5), "int32", high=20)`.
            call: its other arguments by name, likewise; JSON values stay as they are.
            optional: names of `call` that are masks or lengths: it is compared without them too.
            checks: names out of `k3seq.parity.CHECKS`; None: all but `jit`.
            dtypes: out of `k3seq.parity.DTYPES`.
            tolerances: check -> largest relative error, in the place of the matrix file's.
            name: of the case in tables and in the matrix file's `wider`; None: `test_file.py::test_name`.

        Returns:
            The `k3seq.parity.Report`.

        Raises:
            UsageError: a target, check or dtype that is not there.
        """
        from k3seq.parity import Case, resolve, run_parity

        self._calls += 1
        if isinstance(target, Case):
            cases = [target]
        elif inputs is None and call is None and arguments is None:
            cases = resolve([target], self.pool)
        else:
            own = self._node.nodeid.rpartition("/")[2] + (f" {self._calls}" if self._calls > 1 else "")
            given = {"arguments": arguments or {}, "inputs": _specs(inputs), "call": _specs(call or {}), "optional": optional}
            cases = [Case(name or own, target, tolerances=tolerances or {}, **given)]
        report = run_parity(cases, self.backends, checks, pool=self.pool, dtypes=dtypes)
        _add(self._total, report.rows, report.seconds, report.backends)
        if not report.ok:
            pytest.fail(explain(report), pytrace=False)
        return report


def _add(total, rows, seconds, backends):
    """Rows into the report of the run; that a backend is missing, said by every case, is kept once."""
    for row in rows:
        if row.case or row not in total.rows:
            total.rows.append(row)
    total.seconds += seconds
    total.backends |= backends


def _specs(value):
    """Tuples of ints as the shape of a `Spec`."""
    from k3seq.parity import Spec

    if isinstance(value, tuple) and all(type(size) is int for size in value):
        return Spec(value)
    if isinstance(value, dict):
        return {key: _specs(part) for key, part in value.items()}
    return [_specs(part) for part in value] if isinstance(value, list | tuple) else value


def explain(report, stderr_lines=15):
    """What a failed report says, in lines: each row that is not equal, its judge, and the end of a worker's stderr."""
    shown = [row for row in report.rows if row.verdict in ("differs", "failed") or report.required and row.verdict == "missing"]
    lines = []
    for row in shown:
        measured = None not in (row.relative, row.tolerance)
        error = f" by {row.relative:.1e} where {row.tolerance:.1e} is allowed" if measured else ""
        where = f", at {row.where}" if row.where else ""
        place = " ".join(part for part in (row.case, row.check, row.dtype if row.dtype != "float32" else "") if part)
        lines.append(f"{place}, {' and '.join(row.pair)}: {row.verdict}{error}{where}")
        lines += [f"    {text}" for text in (row.message, row.judge) if text]
        lines += [f"    | {line}" for line in row.stderr.splitlines()[-stderr_lines:]]
    reasons = [f"    {row.case}: {row.message}" for row in report.rows if row.message]
    return "\n".join(lines or ["nothing was compared", *reasons])


@pytest.fixture(scope="session")
def parity_pool(pytestconfig):
    """The live workers of the run, one per backend; the tests of a run without two backends are skipped."""
    from k3seq.parity import Pool

    names = _named(pytestconfig)
    with Pool(names, _matrix(pytestconfig)) as pool:
        if len(pool.present()) < 2 and not names:
            pytest.skip(f"fewer than two backends are installed ({', '.join(pool.present()) or 'none'}): nothing to compare")
        yield pool


@pytest.fixture
def parity(request, parity_pool):
    """Call it with a layer or model to compare on every backend: see `k3seq.parity.plugin.Parity`."""
    from k3seq.parity import Report

    total = request.config.stash.setdefault(REPORT, Report(required=_named(request.config) is not None))
    return Parity(request.node, parity_pool, _named(request.config), total)


def _matrix(config):
    from k3seq.runtime import matrix

    file = config.rootpath / matrix.FILE
    return matrix.load(file) if file.is_file() else matrix.Matrix()


def _named(config):
    names = [name.strip() for name in (config.getoption("--parity-backends") or "").split(",")]
    return [name for name in names if name] or None


def pytest_sessionfinish(session):
    total = session.config.stash.get(REPORT, None)
    if total is None:
        return
    if hasattr(session.config, "workeroutput"):  # a process of pytest-xdist: its controller writes the report
        from k3seq.report.record import plain

        session.config.workeroutput[ROWS] = plain(total.to_json())
        return
    write(total.to_json(), session.config.getoption("--parity-report"))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """pytest-xdist: takes over what one of its processes found."""
    found = getattr(node, "workeroutput", {}).get(ROWS)
    if found:
        from k3seq.parity import Report, Row

        total = node.config.stash.setdefault(REPORT, Report(required=_named(node.config) is not None))
        rows = [Row(**(row | {"pair": tuple(row["pair"])})) for row in found["rows"]]
        _add(total, rows, found["seconds"], found["backends"])


def write(results, files):
    """Writes `Report.to_json()` to files that end in .json or .html, each complete or not at all."""
    import json

    from k3seq import report
    from k3seq.report.record import plain

    results = plain(results)
    for name in files:
        html = pathlib.Path(name).suffix == ".html"
        report.write(name, report.parity_page(results) if html else json.dumps(results, indent=2, allow_nan=False) + "\n")


def pytest_terminal_summary(terminalreporter, config):
    total = config.stash.get(REPORT, None)
    if total is None or hasattr(config, "workeroutput"):
        return
    verdicts = [row.verdict for row in total.rows]
    told = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
    cases = len({row.case for row in total.rows if row.case})
    files = "".join(f"; see {name}" for name in config.getoption("--parity-report"))
    terminalreporter.write_line(f"parity: {cases} case{'s' * (cases != 1)} on {', '.join(total.backends)}: {told}{files}")
