"""The process of a command: signals, closed streams, a reader that is gone, a working directory that is gone."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
# `k3seq backends` with another function in its place: nothing is imported that takes long.
COMMAND = """
import sys, time
from k3seq import cli
from k3seq.commands import backends
from k3seq.data.files import replacing

def command(names):
    {body}

backends.backends = command
sys.argv = ["k3seq", "backends", *{arguments!r}]
sys.exit(cli.main())
"""
WAIT = """
    with replacing("out.csv") as temporary:
        temporary.write_text("half")
        print("ready", flush=True)
        time.sleep(60)
    return {}
"""


def heard():
    """A suite that was started in the background of a script ignores these signals, and so does what it starts."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def start(folder, body, *arguments, before=heard, text=True):
    code = COMMAND.format(body=body.strip(), arguments=list(arguments))
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=env, stdout=pipe, stderr=pipe, text=text, preexec_fn=before
    )


def ended(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize(
    "number, code, words",
    [
        (signal.SIGINT, 130, "k3seq: interrupted"),
        (signal.SIGTERM, 143, "k3seq: ended by SIGTERM; partial files are removed"),
        (signal.SIGHUP, 129, "k3seq: ended by SIGHUP; partial files are removed"),
    ],
)
def test_a_signal_removes_partial_files_and_is_reported(tmp_path, number, code, words):
    process = start(tmp_path, WAIT)
    assert process.stdout.readline() == "ready\n"
    assert [path.suffix for path in tmp_path.iterdir()] == [".csv"]
    process.send_signal(number)
    assert ended(process) == (code, "", words + "\n")
    assert not list(tmp_path.iterdir())


def test_a_signal_that_the_parent_ignores_stays_ignored(tmp_path):
    process = start(tmp_path, WAIT.replace("60", "1"), before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert ended(process)[0] == 0 and (tmp_path / "out.csv").read_text() == "half"


@pytest.mark.parametrize(
    "body",
    ["for number in range(100_000): print(number)", "from rich import print\n    for number in range(10_000): print('x' * 70)"],
    ids=["print", "rich"],
)
def test_a_reader_that_stops_gives_141_and_no_noise(tmp_path, body):
    process = start(tmp_path, f"{body}\n    return {{}}")
    process.stdout.readline()
    process.stdout.close()
    with process:
        err = process.stderr.read()
    assert (process.returncode, err) == (141, "")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_closed_stream_is_no_error(tmp_path, number):
    """What is written to next does not take the place of the closed stream."""
    process = start(tmp_path, "print('x'); return {}", "--json", "out.json", before=lambda: os.close(number))
    code, out, err = ended(process)
    assert (code, err) == (0, "") and out == ("" if number == 1 else "x\n")
    assert (tmp_path / "out.json").read_text().startswith("{")


def test_a_deleted_working_directory_is_one_line(tmp_path):
    (tmp_path / "gone").mkdir()
    code = (
        "import os, sys\nfrom k3seq import cli\nos.rmdir(os.getcwd())\nsys.argv = ['k3seq', 'backends']\nsys.exit(cli.main())"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "gone", env=env, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "Expected a working directory that exists. Received: a deleted one" in done.stderr


def test_a_path_that_is_not_utf8_is_printed_and_written(tmp_path):
    body = "print(chr(0xdcff)); return {'path': chr(0xdcff)}"
    process = start(tmp_path, body, "--json", "out.json", text=False)
    assert ended(process) == (0, b"\xff\n", b"")
    assert json.loads((tmp_path / "out.json").read_text())["result"] == {"path": "\udcff"}


def test_results_on_standard_output_stand_alone(tmp_path):
    """The output of child processes goes to standard error too."""
    body = "import os; print('a table'); sys.stdout.flush(); os.system('echo of a child'); return {'a': 1}"
    code, out, err = ended(start(tmp_path, body, "--json", "-"))
    assert code == 0 and out.startswith("{\n") and out.endswith("}\n")
    assert err == "a table\nof a child\n"
