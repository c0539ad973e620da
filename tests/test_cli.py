"""The command line as a user meets it: one line for every error, JSON that is whole or absent, tables, exit codes."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from k3seq import cli
from k3seq.commands import invocation
from k3seq.errors import DataError, MissingBackend, UsageError
from k3seq.report.record import plain

ROOT = Path(__file__).resolve().parents[1]
once = pytest.mark.once


def k3seq(*arguments, cwd=ROOT, **environment):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = os.environ | {"PYTHONPATH": path, "COLUMNS": "200"} | environment
    return subprocess.run(
        [sys.executable, "-m", "k3seq", *map(str, arguments)], cwd=cwd, env=env, capture_output=True, text=True
    )


def raising(monkeypatch, error):
    from k3seq.commands import backends

    def fail(names):
        raise error

    monkeypatch.setattr(backends, "backends", fail)


@once
def test_help_lists_the_commands():
    done = k3seq("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in ("summary", "matrix", "backends"))


@once
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["sumary"], "No such command 'sumary'"),
        (["backends", "--jsn", "x"], "No such option: --jsn"),
        (["summary"], "Missing argument 'name'"),
        (["summary", "vae", "--depth", "0"], "Expected --depth to be at least 1. Received: 0"),
        (["summary", "vae", "--backend", "mxnet"], "Expected a backend out of jax, tensorflow, torch. Received: mxnet"),
        (["backends", "--backend", "mxnet"], "Expected a backend out of jax, tensorflow, torch. Received: mxnet"),
        (["matrix", "--backend", "jax", "--backends", "jax,torch"], "Expected --backend or --backends. Received: both"),
        (["backends", "--json", "no/such/folder/x.json"], "Received: no/such/folder/x.json"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(here, capsys, arguments, message):
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("k3seq: ") and message in err and err.count("\n") == 1


@once
@pytest.mark.parametrize(
    "error, code, line",
    [
        (DataError("Expected a tab", "a.tsv", 3), 1, "k3seq: a.tsv:3: Expected a tab"),
        (UsageError("two\nlines"), 2, "k3seq: two lines"),
        (MissingBackend('pip install "k3seq[torch]"'), 2, 'k3seq: pip install "k3seq[torch]"'),
        (OSError(28, "No space left on device", "out"), 1, "k3seq: [Errno 28] No space left on device: 'out'"),
        (KeyboardInterrupt(), 130, "k3seq: interrupted"),
        (ZeroDivisionError("a bug"), 1, "k3seq: ZeroDivisionError: a bug (K3SEQ_DEBUG=1 shows where)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_is_one_line_with_its_exit_code(here, monkeypatch, capsys, error, code, line):
    raising(monkeypatch, error)
    monkeypatch.delenv("K3SEQ_DEBUG", raising=False)
    assert cli.main(["backends"]) == code
    assert capsys.readouterr().err == line + "\n"


@once
def test_the_traceback_is_shown_when_asked_for(here, monkeypatch, capsys):
    raising(monkeypatch, ZeroDivisionError("a bug"))
    monkeypatch.setenv("K3SEQ_DEBUG", "1")
    assert cli.main(["backends"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@once
def test_a_full_disk_is_one_line():
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m k3seq --version > /dev/full"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("k3seq: [Errno 28]") and done.stderr.count("\n") == 1


@once
def test_json_holds_command_versions_and_result(here, monkeypatch):
    import numpy as np

    from k3seq.commands import backends

    result = {
        "a": np.float32(1.5),
        "b": np.arange(2),
        "c": [float("nan"), float("inf"), -float("inf")],
        "d": Path("x"),
        "e": "ä",
    }
    monkeypatch.setattr(backends, "backends", lambda names: result)
    assert cli.main(["backends", "--json", "out.json"]) == 0
    document = json.loads((here / "out.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert document["command"] == ["k3seq", "backends", "--json", "out.json"]
    assert {"python", "k3seq", "keras", "numpy", os.environ["KERAS_BACKEND"]} <= set(document["versions"])
    assert document["result"] == {"a": 1.5, "b": [0, 1], "c": ["NaN", "Infinity", "-Infinity"], "d": "x", "e": "ä"}
    assert [p.name for p in here.iterdir()] == ["out.json"]


@once
def test_json_that_cannot_be_written_leaves_the_old_file_and_no_rest(here, monkeypatch, capsys):
    from k3seq.commands import backends

    (here / "out.json").write_text("old")
    monkeypatch.setattr(backends, "backends", lambda names: {"a": object()})
    assert cli.main(["backends", "--json", "out.json"]) == 1
    assert (here / "out.json").read_text() == "old"
    assert [p.name for p in here.iterdir()] == ["out.json"]
    assert capsys.readouterr().err.count("\n") == 1


@once
@pytest.mark.parametrize("option", ["--json", "--picture", "--page", "--html", "--csv"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(here, capsys, option):
    command = {"--json": ["train"], "--picture": ["provenance", "vae"], "--page": ["divergences"], "--html": ["parity"]}
    arguments = command.get(option, ["bench"])
    for path in ("absent/file", "folder"):
        (here / "folder").mkdir(exist_ok=True)
        assert cli.main([*arguments, *(["--data", "x"] if arguments == ["train"] else []), option, path]) == 2
        assert f"Expected a file that can be written for {option}. Received: {path}" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["folder"]


@once
def test_two_outputs_cannot_share_a_file(here, capsys):
    (here / "link").symlink_to("out")
    assert cli.main(["parity", "--html", "out", "--json", "link"]) == 2
    assert "Expected different files for --json and --html. Received: out" in capsys.readouterr().err
    assert not (here / "out").exists()


@once
def test_json_follows_a_link_and_a_minus_is_standard_output(here, monkeypatch, capsys):
    from k3seq.commands import backends

    def print_table(names):
        print("a table")
        return {"a": 1}

    monkeypatch.setattr(backends, "backends", print_table)
    (here / "link").symlink_to("out.json")
    assert cli.main(["backends", "--json", "link"]) == 0
    assert (here / "link").is_symlink() and json.loads((here / "out.json").read_text())["result"] == {"a": 1}
    capsys.readouterr()
    assert cli.main(["backends", "--json", "-"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["result"] == {"a": 1} and shown.err == "a table\n"


@once
def test_an_error_gives_standard_output_back(here, monkeypatch, capsys):
    raising(monkeypatch, DataError("bad"))
    assert cli.main(["backends", "--json", "-"]) == 1
    print("after")
    assert capsys.readouterr().out == "after\n"


@once
def test_a_result_with_an_exit_code_is_written_before_the_command_ends_with_it(here, monkeypatch):
    from k3seq.commands import backends

    monkeypatch.setattr(backends, "backends", lambda names: {"exit_code": 1})
    assert cli.main(["backends", "--json", "out.json"]) == 1
    assert json.loads((here / "out.json").read_text())["result"] == {"exit_code": 1}


@once
def test_without_a_choice_the_first_installed_backend_is_taken_and_told(tmp_path):
    text = "backends: {csv: {trains: false}, gone: {module: no_such_framework}, json: {}}"
    (tmp_path / "backends_matrix.yml").write_text(text)
    code = (
        "import os; from k3seq.commands import invocation; print(invocation.choose_backend(None), os.environ['KERAS_BACKEND'])"
    )
    env = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["json", "json"]
    assert done.stderr == "k3seq: backend json (neither --backend nor KERAS_BACKEND is given)\n"


@once
def test_the_option_counts_more_than_the_environment(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setenv("KERAS_BACKEND", "mxnet")
    (here / "backends_matrix.yml").write_text("backends: {json: {}}")
    assert invocation.choose_backend("json") == "json"
    with pytest.raises(UsageError, match="json. Received: mxnet"):
        os.environ["KERAS_BACKEND"] = "mxnet"
        invocation.choose_backend(None)


@once
def test_a_missing_backend_is_told_with_its_install_command(here, capsys):
    (here / "backends_matrix.yml").write_text("backends: {torch: {module: no_such_framework}}")
    assert cli.main(["summary", "vae", "--backend", "torch"]) == 2
    assert 'k3seq: Backend torch is not installed. Install it with: pip install "k3seq[torch]"' in capsys.readouterr().err


@once
def test_backends_shows_installed_missing_and_broken_ones(here, capsys, monkeypatch):
    name = os.environ["KERAS_BACKEND"]
    monkeypatch.setenv("COLUMNS", "200")
    Path("backends_matrix.yml").write_text(f"backends: {{{name}: {{}}, gone: {{install: pip install gone}}, json: {{}}}}")
    assert cli.main(["backends", "--json", "out.json"]) == 1  # Keras knows no backend `json`: installed, yet it does not start
    out = capsys.readouterr().out
    rows = json.loads(Path("out.json").read_text())["result"]["backends"]
    assert {n: row["status"] for n, row in rows.items()} == {name: "installed", "gone": "missing", "json": "broken"}
    assert rows[name]["backend"] == name and rows[name]["devices"]
    assert rows["json"]["stderr"] and "pip install gone" in out


@once
@pytest.mark.parametrize("command", list(typer.main.get_command(cli.app).commands))
def test_every_option_has_a_help_text_and_h_shows_it(command, capsys):
    assert cli.main([command, "-h"]) == 0
    assert "Usage: k3seq " + command in capsys.readouterr().out
    for parameter in typer.main.get_command(cli.app).commands[command].params:
        text = parameter.help
        assert text and text[0].isupper() or text.startswith("package.module"), (parameter.name, text)
        assert text.endswith((".", "-")), (parameter.name, text)


@once
def test_plain_leaves_json_values_alone():
    assert plain({"a": [1, None, True, "x", 2.5]}) == {"a": [1, None, True, "x", 2.5]}
    assert json.load(io.StringIO(json.dumps(plain({1: (2,)})))) == {"1": [2]}
