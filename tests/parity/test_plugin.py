"""The plugin in another project: a package of three layers, installed in its own folder, and its tests."""

import json
import os
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import pytest

import k3seq.parity
from k3seq.errors import UsageError
from k3seq.parity import Case, Report, Row, Spec, plugin
from k3seq.runtime.matrix import installed

pytestmark = pytest.mark.once

LAYERS = """
import os

import keras
from keras import ops


class Scale(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return x * self.scale


class Gate(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(units, activation="tanh", name="dense")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x, keep=None):
        return self.dense(x) if keep is None else ops.where(keep[..., None], self.dense(x), 0.0)


class WrongScale(Scale):
    def call(self, x):
        return x * self.scale * (1.001 if keras.backend.backend() == "WRONG_BACKEND" else 1.0)


class Block(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = Scale(name="right"), WrongScale(name="wrong")
        self.third = keras.layers.Dense(2, name="last")

    def build(self, shape):
        for layer in (self.first, self.second, self.third):
            layer.build(shape)

    def call(self, x):
        return self.third(self.second(self.first(x)))


def process(payload):
    return os.getpid()
"""

TESTS = """
import sys

from k3seq.parity import Spec

CHECKS = ["forward", "gradients"]
PROCESSES = set()


def record_processes(parity):
    PROCESSES.add(tuple(parity.pool.request(name, "threelayers.layers:process") for name in parity.pool.names))


def test_the_plugin_has_imported_no_framework():
    assert not {"keras", "jax", "tensorflow", "torch"} & set(sys.modules)


def test_scale(parity):
    report = parity("threelayers.layers:Scale", inputs=(2, 5, 3), checks=CHECKS)
    assert report.ok and list(report.backends) == NAMES
    record_processes(parity)


def test_gate(parity):
    keep = Spec((2, 5), "bool")
    parity("threelayers.layers:Gate", {"units": 3}, (2, 5, 3), call={"keep": keep}, optional=["keep"], checks=CHECKS)


def test_block(parity):
    parity("threelayers.layers:Block", inputs=(2, 5, 3), checks=CHECKS)


def test_one_process_per_backend_served_all_tests(parity):
    record_processes(parity)
    assert len(PROCESSES) == 1 and len(set(*PROCESSES)) == len(NAMES)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory, root, matrix):
    """A project with an installed package; `project(arguments)` runs its tests."""
    present = [name for name in ("torch", "jax", "tensorflow") if installed(name, matrix)][:2]
    if len(present) < 2:
        pytest.skip("fewer than two backends are installed")
    folder = tmp_path_factory.mktemp("project")
    package = folder / "site" / "threelayers"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "layers.py").write_text(LAYERS.replace("WRONG_BACKEND", present[1]))
    # Entry points of pyproject.toml, which may be newer than the installed package.
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    for name, points in (("threelayers", {}), ("k3seq_plugin", declared)):
        info = folder / "site" / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[pytest11]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    (folder / "test_layers.py").write_text(TESTS.replace("NAMES", repr(present)))
    (folder / "backends_matrix.yml").write_text("backends:\n" + "".join(f"  {name}:\n" for name in present))

    def pytest_on(*arguments):
        path = os.pathsep.join([str(folder / "site"), str(root)])
        environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"} | {"PYTHONPATH": path}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers", "-Werror", *arguments]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)

    pytest_on.folder, pytest_on.wrong_backend = folder, present[1]
    return pytest_on


@pytest.fixture(scope="module")
def ran(project):
    """The project's tests, run once with both reports."""
    return project("--parity-report", "found.json", "--parity-report", "found.html")


def test_the_planted_difference_fails_and_the_rest_passes(ran):
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "1 failed, 4 passed" in ran.stdout, ran.stdout
    assert "FAILED test_layers.py::test_block" in ran.stdout


def test_the_failure_names_the_case_and_the_first_layer_with_a_mismatch(ran, project):
    line = next(line for line in ran.stdout.splitlines() if line.startswith("test_layers.py::test_block, forward"))
    assert project.wrong_backend in line and "differs by" in line and "wrong (WrongScale)" in line
    assert "right" not in line and "last" not in line


def test_both_reports_contain_every_case(ran, project):
    found = json.loads((project.folder / "found.json").read_text())
    differ = {(row["case"], row["check"]) for row in found["rows"] if row["verdict"] == "differs"}
    assert differ == {("test_layers.py::test_block", check) for check in ("forward", "gradients")} and found["ok"] is False
    cases = {row["case"] for row in found["rows"]}
    assert cases == {f"test_layers.py::test_{name}" for name in ("scale", "gate", "block")}
    page = (project.folder / "found.html").read_text()
    assert all(case in page for case in cases) and "WrongScale" in page
    assert "parity: 3 cases on" in ran.stdout and "see found.json; see found.html" in ran.stdout


def test_the_marker_selects_the_tests_with_the_fixture(project):
    chosen = project("--collect-only", "-q", "-m", "not parity").stdout
    assert "test_the_plugin_has_imported_no_framework" in chosen and "test_scale" not in chosen and "1/5 tests" in chosen


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--parity-report", "found.txt"), "Expected --parity-report FILE.json or FILE.html in a folder. Received: found.txt"),
        (("--parity-report", "nowhere/found.json"), "Received: nowhere/found.json"),
        (("--parity-backends", "torch,caffe"), "--parity-backends: Expected a backend out of "),
        (("--parity-backends", "torch"), "--parity-backends: Expected at least two backends to compare. Received: torch"),
    ],
)
def test_a_wrong_option_is_refused(project, arguments, message):
    done = project(*arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR and message in done.stderr


def modules_after(tmp_path, test):
    """The modules of a pytest process that ran one test with this plugin only."""
    (tmp_path / "test_it.py").write_text(test)
    code = "import sys, pytest; pytest.main(['-q', '-p', 'k3seq.parity.plugin']); print(*sys.modules)"
    options = {"capture_output": True, "text": True, "check": True, "timeout": 60}
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, **options)
    assert "1 passed" in done.stdout
    return set(done.stdout.splitlines()[-1].split())


def test_a_run_that_does_not_ask_for_the_fixture_imports_neither_numpy_nor_keras(tmp_path):
    loaded = modules_after(tmp_path, "def test_it(): pass")
    assert "k3seq.parity.plugin" in loaded and not loaded & {
        "numpy",
        "keras",
        "k3seq.parity.case",
        "k3seq.runtime.matrix",
        "yaml",
    }


def test_names_of_parity_load_on_first_use(tmp_path):
    loaded = modules_after(tmp_path, "from k3seq.parity import Spec\n\ndef test_it(): assert Spec((2,)).shape == (2,)")
    assert {"numpy", "k3seq.parity.case"} <= loaded and not loaded & {"keras", "k3seq.parity.suite"}
    with pytest.raises(AttributeError, match="Expected one of CHECKS, .* in k3seq.parity. Received: Cases"):
        _ = k3seq.parity.Cases


ROW = Row("a.py::test_x", "forward", ("jax", "torch"), "differs", 0.25, 0.5, 2e-6, "dense, step 3", "m", "torch differs")


def test_a_failure_is_explained_in_lines():
    crash = Row("c", "gradients", ("torch",), "failed", message="crash: killed", stderr="one\ntwo\nthree", dtype="bfloat16")
    missing = Row("", "backend", ("tensorflow",), "missing", message="not installed")
    report = Report([ROW, Row("c", "forward", ("jax", "torch"), "equal"), crash, missing])
    lines = plugin.explain(report, stderr_lines=2).splitlines()
    assert lines == [
        "a.py::test_x, forward, jax and torch: differs by 2.5e-01 (tolerance 2.0e-06) at dense, step 3",
        "    m",
        "    torch differs",
        "c (bfloat16), gradients, torch: failed",
        "    crash: killed",
        "    | two",
        "    | three",
    ]
    report.required = True  # tensorflow was asked for by name
    assert plugin.explain(report).splitlines()[-2:] == ["backend, tensorflow: missing", "    not installed"]
    skipped = Report([Row("c", "backend", (), "skipped", message="jax: there is nothing to compare")])
    assert plugin.explain(skipped) == "nothing was compared\n    c: jax: there is nothing to compare"


def test_tuples_are_shapes_and_other_values_stay():
    given = {"x": (2, 5), "deep": [(3,), Spec((1,), "bool")], "flag": True, "none": None}
    assert plugin._specs(given) == {"x": Spec((2, 5)), "deep": [Spec((3,)), Spec((1,), "bool")], "flag": True, "none": None}


def test_results_of_the_processes_of_xdist_are_merged(tmp_path):
    config = SimpleNamespace(stash=pytest.Stash(), getoption={"--parity-report": [str(tmp_path / "found.json")]}.get)
    process = SimpleNamespace(stash=pytest.Stash(), workeroutput={})
    infinite, missing = (
        Row("b", "forward", ("jax", "torch"), "differs", float("inf")),
        Row("", "backend", ("torch",), "missing"),
    )
    process.stash[plugin.REPORT] = Report([ROW, infinite, missing], {"jax": "1"}, 2.0)
    plugin.pytest_sessionfinish(SimpleNamespace(config=process))
    found = process.workeroutput
    for node in (SimpleNamespace(workeroutput=found), SimpleNamespace(workeroutput=found), SimpleNamespace()):
        node.config = config
        plugin.pytest_testnodedown(node)
    total = config.stash[plugin.REPORT]
    assert total.rows[0] == ROW and total.backends == {"jax": "1"} and total.seconds == 4.0
    assert len(total.rows) == 2 * 2 + 1  # the missing backend is kept once
    plugin.pytest_sessionfinish(SimpleNamespace(config=config))
    assert json.loads((tmp_path / "found.json").read_text())["rows"][1]["relative"] == "Infinity"


def test_a_case_is_used_unchanged_and_a_second_call_gets_another_name(monkeypatch):
    seen = []

    def run_parity(cases, *arguments, **options):
        seen.extend(cases)
        return Report([Row(case.name, "forward", ("jax", "torch"), "equal") for case in cases], {"jax": "1"}, 1.0)

    monkeypatch.setattr("k3seq.parity.suite.run_parity", run_parity)
    total = Report()
    parity = plugin.Parity(SimpleNamespace(nodeid="tests/a.py::test_x"), None, None, total)
    parity("p.m:L", inputs=(2, 3))
    parity("p.m:L", {"units": 1}, {"x": (2, 3)}, tolerances={"forward": 1e-3})
    parity(Case("own", "p.m:L", inputs=Spec((2,))))
    assert [case.name for case in seen] == ["a.py::test_x", "a.py::test_x 2", "own"] == [row.case for row in total.rows]
    assert seen[1].inputs == {"x": Spec((2, 3))} and seen[1].tolerances == {"forward": 1e-3}


def test_a_report_that_is_not_ok_fails_the_test(monkeypatch):
    monkeypatch.setattr("k3seq.parity.suite.run_parity", lambda *arguments, **options: Report([ROW]))
    with pytest.raises(pytest.fail.Exception, match="a.py::test_x, forward, jax and torch: differs"):
        plugin.Parity(SimpleNamespace(nodeid="a.py::test_x"), None, None, Report())("p.m:L", inputs=(2, 3))


def test_a_misspelt_target_is_a_usage_error_without_frames_of_k3seq(workers):
    parity = plugin.Parity(SimpleNamespace(nodeid="a.py::test_x"), workers, None, Report())
    with pytest.raises(UsageError, match="Received: keras.layers:Dens .* has no attribute 'Dens'") as caught:
        parity("keras.layers:Dens", inputs=(2, 3))
    files = [str(entry.path) for entry in caught.traceback]
    assert len(files) == 2 and files[1].endswith("plugin.py") and caught.traceback[1].ishidden(caught)
