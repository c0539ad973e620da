"""`k3seq matrix` in a project that is not k3seq."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from k3seq.commands import matrix as matrix_command

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]


def environment(**more):
    return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | more


@pytest.fixture
def project(tmp_path):
    """A project other than k3seq: a test for every backend, one that runs once, one skipped, one expected to fail."""
    (tmp_path / "backends_matrix.yml").write_text(
        "backends: {first: {module: json}, second: {module: json}, gone: {install: pip install gone, optional: true}}"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = once: not for every backend\n")
    (tmp_path / "test_it.py").write_text(
        "import os, pytest\n"
        "def test_each(): assert os.environ['KERAS_BACKEND'] in ('first', 'second')\n"
        "@pytest.mark.once\ndef test_once(): assert os.environ['KERAS_BACKEND'] == 'second'\n"
        "def test_skipped(): pytest.skip('why')\n"
        "@pytest.mark.xfail(reason='known', strict=True)\ndef test_known(): assert False\n"
        "@pytest.mark.slow\ndef test_second_fails(): assert os.environ['KERAS_BACKEND'] != os.environ.get('FAIL_ON')\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    once: not for every backend\n    slow: slow\n")
    return tmp_path


def matrix_rows(project, *arguments, **more):
    command = [sys.executable, "-m", "k3seq", "matrix", "--json", "out.json", *arguments]
    done = subprocess.run(command, cwd=project, env=environment(**more), capture_output=True, text=True)
    rows = json.loads((project / "out.json").read_text())["result"]["backends"]
    return done, [(r["backend"], *(r.get(c) for c in matrix_command.COUNTS), r.get("exit"), r["ok"]) for r in rows]


def test_matrix_runs_every_backend_and_what_is_marked_once_apart_on_the_last(project):
    done, rows = matrix_rows(project)
    each = (2, 0, 1, 1, 0, True)
    assert rows == [("first", *each), ("second", *each), ("gone", *[None] * 5, True), ("once", 1, 0, 0, 0, 0, True)]
    assert done.returncode == 0 and "missing: pip install gone" in done.stdout


def test_side_by_side_the_rows_are_the_same_and_lines_bear_the_backend(project):
    alone, one = matrix_rows(project, "--workers", "1")
    beside, two = matrix_rows(project, "--workers", "2")
    assert one == two and alone.returncode == beside.returncode == 0
    lines = [line for line in beside.stdout.splitlines() if " passed" in line and "|" in line]
    assert sorted(line.split("|")[0].strip() for line in lines) == ["first", "once", "second"]
    assert "first | " not in alone.stdout
    assert "at least 1. Received: 0" in matrix_rows(project, "--workers", "0")[0].stderr


@pytest.mark.parametrize("given, threads", [({}, str(max(1, os.cpu_count() // 2))), ({"OMP_NUM_THREADS": "3"}, "3")])
def test_side_by_side_backends_share_the_cores_unless_told_otherwise(project, monkeypatch, given, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (project / "test_it.py").write_text(
        "import os, pathlib\n"
        "def test_it(): pathlib.Path(os.environ['KERAS_BACKEND']).write_text(os.environ['OMP_NUM_THREADS'])\n"
    )
    assert matrix_rows(project, "--workers", "2", **given)[0].returncode == 0
    assert [(project / name).read_text() for name in ("first", "second")] == [threads, threads]


def test_a_backend_that_does_not_train_runs_the_tests_marked_inference(project):
    file = project / "backends_matrix.yml"
    gone, infers = "gone: {install: pip install gone, optional: true}", "infers: {module: json, trains: false}"
    file.write_text(file.read_text().replace(gone, infers))
    (project / "test_it.py").write_text(
        "import os, pytest\n"
        "def test_trains(): assert os.environ['KERAS_BACKEND'] != 'infers'\n"
        "@pytest.mark.inference\ndef test_infers(): pass\n"
        "@pytest.mark.once\ndef test_once(): assert os.environ['KERAS_BACKEND'] == 'second'\n"
    )
    with open(project / "pytest.ini", "a") as ini:
        ini.write("    inference: needs no gradients\n")
    done, rows = matrix_rows(project)
    assert done.returncode == 0
    assert [row[:2] for row in rows] == [("first", 2), ("second", 2), ("infers", 1), ("once", 1)]


def test_matrix_fails_when_one_backend_fails_and_still_runs_the_rest(project):
    done, rows = matrix_rows(project, FAIL_ON="first")
    assert done.returncode == 1
    assert [(r[0], r[2], r[-1]) for r in rows] == [
        ("first", 1, False),
        ("second", 0, True),
        ("gone", None, True),
        ("once", 0, True),
    ]


def test_matrix_passes_arguments_on_and_keeps_their_marker(project):
    done, rows = matrix_rows(project, "--backends", "second,first", "-m", "slow or once", "-v")
    assert done.returncode == 1 and "test_it.py::test_second_fails" in done.stdout
    # `test_once` runs on `first` now, where it fails
    assert [r[:3] for r in rows] == [("second", 1, 0), ("first", 1, 0), ("once", 0, 1)]


def test_matrix_fails_when_a_backend_is_missing_that_is_not_optional(project):
    file = project / "backends_matrix.yml"
    file.write_text(file.read_text().replace("optional: true", "optional: false"))
    assert matrix_rows(project)[0].returncode == 1


def test_matrix_fails_when_no_test_ran_at_all_but_not_when_only_one_run_had_any(project):
    assert matrix_rows(project, "-k", "nothing_of_that_name")[0].returncode == 1
    done, rows = matrix_rows(project, "-k", "test_once")
    assert done.returncode == 0 and [r[-2] for r in rows] == [5, 5, None, 0]


def test_matrix_reports_a_crash_as_a_row(project):
    (project / "test_it.py").write_text(
        "import os\ndef test_crash():\n    if os.environ['KERAS_BACKEND'] == 'first': os._exit(9)\n"
    )
    done, rows = matrix_rows(project)
    assert done.returncode == 1
    assert [(r[0], r[-2], r[-1]) for r in rows] == [("first", 9, False), ("second", 0, True), ("gone", None, True)]


@pytest.mark.parametrize(
    "arguments, expression",
    [([], "once"), (["-m", "a or b"], "(a or b) and once"), (["-ma", "-k", "x"], "(a) and once")],
)
def test_the_marker_of_the_caller_is_kept(arguments, expression):
    assert matrix_command.and_marked(arguments, "once")[-2:] == ["-m", expression]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_in_a_running_command_is_one_line(tmp_path, workers):
    (tmp_path / "test_slow.py").write_text("import time\ndef test_slow():\n    print('up', flush=True)\n    time.sleep(60)\n")
    (tmp_path / "backends_matrix.yml").write_text("backends: {first: {module: json}, second: {module: json}}")
    command = [sys.executable, "-m", "k3seq", "matrix", "--workers", workers, "-s"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A suite that was started in the background of a script ignores Ctrl-C, and what it starts with it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in process.stdout:
        if "up" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "k3seq: interrupted" and "Traceback" not in err
