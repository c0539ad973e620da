"""Random values for every option of every command: no traceback, no unknown exception, exit codes 0, 1 and 2 only."""

import io
import os
import shutil
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from k3seq import cli
from k3seq.commands import backends, bench, divergences, matrix, parity

pytestmark = pytest.mark.heavy

SEED = int(os.environ.get("K3SEQ_SWEEP_SEED", "20261125"))
COUNT = int(os.environ.get("K3SEQ_SWEEP_COUNT", "600"))
COMMANDS = typer.main.get_command(cli.app).commands
# These start a process per backend: their options are parsed and checked, their work is left out.
WITH_WORKERS = {"matrix": matrix, "backends": backends, "divergences": divergences, "parity": parity, "bench": bench}

INTEGERS = st.one_of(st.integers(-3, 5), st.sampled_from([-(2**63), 2**31, 2**64, 10**30])).map(str)
SMALL = st.sampled_from(["-1", "0", "1", "2", "3", "4", "7"])  # of what takes memory or time
FLOATS = st.one_of(
    st.sampled_from(["nan", "inf", "-inf", "0", "-0.0", "1", "0.5", "1e-320", "1e30", "1e400", "-1"]), st.floats().map(str)
)
TEXT = st.one_of(
    st.sampled_from(["", " ", "-", "--", "[/b]", "[red]", "é", "\udcff", "a,b", "x" * 300]),
    st.text(st.characters(exclude_characters="\0"), max_size=5),
)  # no argument of a process has a NUL
NAMES = {
    "model": ["lstm", "lstm-attention", "transformer", "sliding"],
    "tokens": ["char", "space", "word", "subword", "char/space", "/", "char/char/char"],
    "task": ["arithmetic"],
    "name": ["vae", "lstm", ":", ":x", "json:dumps", "sys:exit", "os:abort2", "a.b:c", "document-classifier", "..:x"],
    "backend": [os.environ["KERAS_BACKEND"], "jax", "tensorflow", "torch", "nonsense"],
    "backends": ["torch", "jax,torch", ",", "nonsense"],
    "directory": ["run", "run", "run", "broken run", "not an object", ".", "absent", "train.tsv"],
}
FILES = ["train.tsv", "empty.tsv", "bad.tsv", "long.tsv", "run", "absent", "/", "loop", "d[/b].tsv", "/dev/null", "x.npz"]
OUTPUTS = ["out", "link", "loop", "folder", "absent/out", "/dev/null", "-", "", "train.tsv/x", "[/b]", "é"]
LARGE = {"units", "embed_dim", "num_layers", "dense_dim", "num_heads", "epochs", "batch_size", "beam_width", "buckets"}
LARGE |= {"problems", "max_val", "log_steps", "samples", "depth", "gradient_accumulation_steps"}


def values(parameter):
    """A strategy of the values of an option or argument, good and bad."""
    if parameter.name in NAMES:
        return st.one_of(st.sampled_from(NAMES[parameter.name]), st.sampled_from(NAMES[parameter.name]), TEXT)
    if parameter.name in ("json", "html", "csv", "picture", "page", "out"):
        return st.sampled_from(OUTPUTS)
    if parameter.name in LARGE:
        return SMALL
    kind = getattr(getattr(parameter, "type", None), "name", "text")
    if kind.startswith("int"):
        return INTEGERS
    if kind.startswith("float"):
        return FLOATS
    return st.one_of(st.sampled_from(FILES), st.sampled_from(FILES), TEXT)


@st.composite
def command_lines(draw):
    """The arguments of one command: some of its options, each with a value that may be bad."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    words, parameters = [name], COMMANDS[name].params
    if name == "train" and draw(st.integers(0, 3)):  # else it is mostly refused for want of data
        words += draw(st.sampled_from([["--data", "train.tsv"], ["--task", "arithmetic", "--problems", "8"]]))
        words += ["--epochs", "1", "--samples", "1", "--no-jit"]
    options = [p for p in parameters if p.param_type_name == "option" and p.name != "help"]
    for parameter in draw(st.lists(st.sampled_from(options), max_size=4, unique_by=lambda p: p.name)):
        words.append(draw(st.sampled_from([*parameter.opts, *parameter.secondary_opts])))
        if not parameter.is_flag:
            words.append(draw(values(parameter)))
    for parameter in parameters:
        if parameter.param_type_name == "argument" and (parameter.required or draw(st.booleans())):
            words.append(draw(values(parameter)))
        if parameter.param_type_name == "option" and parameter.required and not set(parameter.opts) & set(words):
            words += [parameter.opts[0], draw(values(parameter))]
    return words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Good and broken files, and a trained run."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "train.tsv").write_text("ab\tba\nabc\tcba\nb\tb\na\ta\n", encoding="utf-8")
    small = ["--epochs", "1", "--samples", "0", "--units", "2", "--embed-dim", "2", "--no-jit"]
    assert cli.main(["train", "--data", str(folder / "train.tsv"), "--out", str(folder / "run"), *small]) == 0
    return folder


def fill(folder, trained):
    """The files of one example, in an empty folder."""
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    (folder / "empty.tsv").write_text("")
    (folder / "bad.tsv").write_bytes(b"a\tb\nno tab\n\xff\tb\n")
    (folder / "long.tsv").write_text(f"{'ab' * 100}\t{'b' * 200}\n")
    (folder / "d[").mkdir()
    shutil.copy(folder / "train.tsv", folder / "d[/b].tsv")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("absent target")
    (folder / "loop").symlink_to("loop")
    (folder / "x.npz").write_bytes(b"PK no archive")
    shutil.copytree(folder / "run", folder / "broken run")
    (folder / "broken run" / "model.keras").write_bytes(b"PK")
    shutil.copytree(folder / "run", folder / "not an object")
    (folder / "not an object" / "run.json").write_text("[]")


def test_no_command_line_ends_in_a_traceback(folder, tmp_path, monkeypatch, capsys):
    for name, module in WITH_WORKERS.items():
        monkeypatch.setattr(module, name, lambda *arguments, **options: {})
    sys.stdout.reconfigure(errors="backslashreplace")  # what captures output decodes it strictly
    codes, examples = {}, iter(range(10**9))
    monkeypatch.setenv("KERAS_BACKEND", os.environ["KERAS_BACKEND"])
    bound = os.environ["KERAS_BACKEND"]

    @seed(SEED)
    @settings(max_examples=COUNT, database=None, suppress_health_check=list(HealthCheck))
    @given(command_lines(), st.sampled_from([b"", b"ab\n", b"\xff\n", b"a" * 300, b"\xef\xbb\xbfab\r\n\n", None]))
    def sweep(words, standard_input):
        work = tmp_path / str(next(examples))
        fill(work, folder)
        monkeypatch.chdir(work)
        os.environ["KERAS_BACKEND"] = bound
        stream = None if standard_input is None else SimpleNamespace(buffer=io.BytesIO(standard_input))
        monkeypatch.setattr(sys, "stdin", stream)
        code = cli.main(words)
        shown = capsys.readouterr()
        assert code in (0, 1, 2), (words, code)
        assert "Traceback" not in shown.err + shown.out and "K3SEQ_DEBUG" not in shown.err, (words, shown.err)
        assert code == 0 or shown.err.splitlines()[-1].startswith("k3seq: "), (words, shown.err)
        assert not [path for path in work.rglob("*") if "partial" in path.name], words
        assert (work / "link").is_symlink() and stat.S_ISCHR(os.stat("/dev/null").st_mode), words
        codes[words[0], code] = codes.get((words[0], code), 0) + 1
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(work)

    sweep()
    total = sum(codes.values())
    with capsys.disabled():
        print(f"\nK3SEQ_SWEEP_SEED={SEED}: {total} command lines, {dict(sorted(codes.items()))}")
    assert total >= COUNT and Path("/dev/null").exists()
