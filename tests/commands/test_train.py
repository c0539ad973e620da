"""train, decode and evaluate on the backend that runs, through the command line."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from k3seq import cli
from k3seq.commands import train as command
from k3seq.inspect.pictures import draw_training
from k3seq.models.lstm import AttentionSeq2Seq
from k3seq.pipeline import Pipeline

WORDS = ["ab", "ba", "abc", "cab", "bca", "c", "aab", "bbc", "cc", "acb", "bac", "cba"]
# one shape and one layer: each shape is a compilation
SMALL = ["--num-layers", "1", "--buckets", "1", "--batch-size", "4", "--epochs", "2", "--samples", "3"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with pairs of words and their letters in reverse."""
    monkeypatch.chdir(tmp_path)
    lines = "".join(f"{word}\t{' '.join(reversed(word.upper()))}\n" for word in WORDS)
    (tmp_path / "train.tsv").write_text(lines, encoding="utf-8")
    (tmp_path / "dev.tsv").write_text(lines, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory, trained once."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "train.tsv").write_text("".join(f"{word}\t{word}\n" for word in WORDS), encoding="utf-8")
    assert cli.main(["train", "--data", str(folder / "train.tsv"), "--out", str(folder / "run"), *SMALL]) == 0
    return folder / "run"


@pytest.fixture
def run(trained, data):
    """A copy of it, as `run` in the working folder."""
    return shutil.copytree(trained, data / "run")


def train(*arguments, out="run", json="out.json"):
    common = ["train", "--data", "train.tsv", "--tokens", "char/space", "--out", out, "--json", json]
    return cli.main([*common, *SMALL, *arguments])


def decode(monkeypatch, capsys, text, *arguments):
    raw = text if isinstance(text, bytes) else text.encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw)))
    capsys.readouterr()
    code = cli.main(["decode", "run", *arguments])
    return code, capsys.readouterr()


@pytest.mark.parametrize("kind", ["lstm", "lstm-attention", "transformer", "sliding"])
def test_each_model_trains_decodes_and_evaluates(kind, data, monkeypatch, capsys):
    windows = ["--embed-dim", "16", "--dense-dim", "16"]
    extra = {"transformer": [*windows, "--num-heads", "2"], "sliding": windows}.get(kind, ["--embed-dim", "8", "--units", "16"])
    assert train("--model", kind, "--dev", "dev.tsv", "--log-steps", "4", *extra) == 0
    shown = capsys.readouterr()
    result = json.loads((data / "out.json").read_text())["result"]
    assert [row["number"] for row in result["epochs"]] == [1, 2] and len(result["first_steps"]) == 4
    assert f"step 1 loss {result['first_steps'][0]:.4f}" in shown.out and "right" in shown.out + shown.err
    assert {path.name for path in (data / "run").iterdir()} == {
        "model.keras",
        "source.json",
        "target.json",
        "run.json",
        "losses.png",
    }
    assert (data / "run" / "losses.png").read_bytes().startswith(b"\x89PNG")

    code, shown = decode(monkeypatch, capsys, "ab\n\ncab\nz\n", "--json", "decoded.json")
    lines = shown.out.split("\n")
    assert code == 0 and len(lines) == 5 and lines[1] == "" and lines[-1] == ""
    decoded = json.loads((data / "decoded.json").read_text())["result"]
    assert [source for source, _ in decoded["results"]] == ["ab", "", "cab", "z"]
    assert decoded["unknown"] == 1 and "1 tokens are not in the vocabulary" in shown.err

    assert cli.main(["evaluate", "run", "--data", "dev.tsv", "--json", "scores.json"]) == 0
    scores = json.loads((data / "scores.json").read_text())["result"]
    assert scores["sources"] == len(WORDS) and scores["tokens"] == sum(map(len, WORDS))
    best = result["epochs"][result["saved_epoch"] - 1]
    assert best["error_rate"] == min(row["error_rate"] for row in result["epochs"])
    np.testing.assert_allclose(scores["error_rate"], best["error_rate"], rtol=1e-6)


def test_training_learns_what_can_be_learned(data):
    assert train("--model", "lstm", "--epochs", "20", "--units", "32", "--learning-rate", "0.02", "--samples", "0") == 0
    rows = json.loads((data / "out.json").read_text())["result"]["epochs"]
    assert rows[-1]["loss"] < 0.5 < 1.5 < rows[0]["loss"]


def test_arithmetic_holds_out_problems_that_are_not_trained_on(data, capsys, monkeypatch):
    monkeypatch.setattr(command, "HELD_OUT", 8)
    arguments = ["train", "--task", "arithmetic", "--problems", "40", "--max-val", "10", "--json", "out.json", *SMALL]
    assert cli.main([*arguments, "--embed-dim", "8"]) == 0
    result = json.loads((data / "out.json").read_text())["result"]
    assert result["training_pairs"] == 40 and result["dev_pairs"] == 8
    assert result["directory"] == os.path.join("runs", "arithmetic-1")
    assert "of 8 held-out sources right" in capsys.readouterr().out


def interrupt(monkeypatch, owner, name, call):
    """Makes the given call of a method (counted from 1) end with Ctrl-C."""
    method, taken = getattr(owner, name), []

    def interrupted(self, *arguments, **options):
        taken.append(1)
        if len(taken) == call:
            raise KeyboardInterrupt
        return method(self, *arguments, **options)

    monkeypatch.setattr(owner, name, interrupted)


def test_an_interrupted_run_keeps_the_epochs_that_were_done(data, monkeypatch, capsys):
    interrupt(monkeypatch, AttentionSeq2Seq, "train_on_batch", 5)  # three steps make an epoch
    assert train("--epochs", "9") == 130
    assert "k3seq: interrupted after 1 of 9 epochs; run holds epoch 1" in capsys.readouterr().err
    assert Pipeline.load(data / "run").decode(["ab"]) is not None


def test_an_interrupted_first_save_leaves_nothing_and_says_so(data, monkeypatch, capsys):
    interrupt(monkeypatch, keras.Model, "save", 1)
    assert train() == 130
    assert "interrupted after 1 of 2 epochs; nothing was saved" in capsys.readouterr().err
    assert not (data / "run").exists()


def test_an_interrupted_replacement_leaves_the_earlier_run_and_says_so(run, monkeypatch, capsys):
    before = (run / "model.keras").read_bytes()
    interrupt(monkeypatch, keras.Model, "save", 1)
    assert train("--overwrite") == 130
    assert "interrupted after 1 of 2 epochs; run holds the earlier run" in capsys.readouterr().err
    assert (run / "model.keras").read_bytes() == before


def test_an_epoch_in_which_every_step_was_refused_fails(data, monkeypatch, capsys):
    step = AttentionSeq2Seq.train_on_batch

    def refused(self, *arguments, **options):
        return step(self, *arguments, **options) | {"refused": 1.0, "loss": float("nan")}

    monkeypatch.setattr(AttentionSeq2Seq, "train_on_batch", refused)
    assert train() == 1
    shown = capsys.readouterr()
    assert "Expected a finite loss and gradient in epoch 1. Received: none in 3 steps. Lower --learning-rate" in shown.err
    assert "loss 0.0000" not in shown.err and not (data / "run").exists()


@pytest.mark.parametrize("kind", ["transformer", "sliding"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_held_out_pair_that_is_too_long_is_reported_before_training(data, capsys, kind, side):
    long = "a" * 100
    pair = f"{long}\tA" if side == "source" else f"ab\t{' '.join(long)}"
    (data / "dev.tsv").write_text(f"ab\tB A\nno tab\n{pair}\n", encoding="utf-8")
    assert train("--dev", "dev.tsv", "--skip-bad-lines", "--model", kind) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("k3seq: dev.tsv:3: Expected at most") and f"{side} tokens. Received: 10" in error
    assert not (data / "run").exists()


def test_an_unwritable_run_directory_is_found_before_the_data_are_read(data, capsys):
    assert cli.main(["train", "--data", "nowhere.tsv", "--out", "train.tsv/run"]) == 2
    assert "Expected a run directory that can be written. Received: train.tsv/run" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_spoils_no_earlier_run(run, monkeypatch, capsys):
    before = (run / "model.keras").read_bytes()

    def full(self, path, *arguments, **options):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    assert train("--overwrite") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert (run / "model.keras").read_bytes() == before
    assert not [path for path in run.iterdir() if "partial" in path.name]


BAD = {
    "neither task nor data": (["train"], 2, "--task arithmetic or --data"),
    "both": (["train", "--task", "arithmetic", "--data", "train.tsv"], 2, "either"),
    "unknown task": (["train", "--task", "translate"], 2, "translate"),
    "unknown model": (
        ["train", "--data", "train.tsv", "--model", "rnn"],
        2,
        "sliding. Received: rnn",
    ),
    "unknown tokens": (["train", "--data", "train.tsv", "--tokens", "bytes"], 2, "char, space, word, subword"),
    "three kinds of tokens": (["train", "--data", "train.tsv", "--tokens", "char/char/char"], 2, "SOURCE/TARGET"),
    "foreign size": (
        ["train", "--data", "train.tsv", "--num-heads", "2"],
        2,
        "--units, --embed-dim, --num-layers, --dropout for --model lstm-attention. Received: --num-heads",
    ),
    "no layers": (["train", "--data", "train.tsv", "--num-layers", "0"], 2, "--num-layers to be at least 1. Received: 0"),
    "heads": (["train", "--data", "train.tsv", "--model", "transformer", "--num-heads", "7"], 2, "--num-heads 7"),
    "small vocabulary": (["train", "--data", "train.tsv", "--vocabulary-size", "2"], 2, "Received: --vocabulary-size 2"),
    "infinite rate": (["train", "--data", "train.tsv", "--learning-rate", "inf"], 2, "to be finite. Received: inf"),
    "rate not a number": (["train", "--data", "train.tsv", "--learning-rate", "nan"], 2, "to be finite. Received: nan"),
    "clip norm": (["train", "--data", "train.tsv", "--clip-norm", "nan"], 2, "--clip-norm to be finite"),
    "negative samples": (["train", "--data", "train.tsv", "--samples", "-1"], 2, "--samples to be at least 0"),
    "negative seed": (["train", "--data", "train.tsv", "--seed", "-1"], 2, "--seed to be at least 0"),
    "many problems": (
        ["train", "--task", "arithmetic", "--max-val", "2", "--problems", "1000"],
        2,
        "--max-val 2. Received: count=1500 (--problems 1000, and 500 that are held out)",
    ),
    "options of the other task": (["train", "--task", "arithmetic", "--dev", "train.tsv"], 2, "--dev"),
    "penalty without beams": (["decode", "run", "--length-penalty", "1"], 2, "--beam-width above 1"),
    "penalty not a number": (["decode", "run", "--beam-width", "2", "--length-penalty", "nan"], 2, "finite. Received: nan"),
    "evaluate with a penalty": (["evaluate", "run", "--data", "x", "--length-penalty", "1"], 2, "--beam-width above 1"),
    "no beams": (["decode", "run", "--beam-width", "0"], 2, "--beam-width to be at least 1"),
    "odd units": (["train", "--data", "train.tsv", "--units", "7"], 2, "even number"),
    "no epochs": (["train", "--data", "train.tsv", "--epochs", "0"], 2, "--epochs to be at least 1"),
    "no rate": (["train", "--data", "train.tsv", "--learning-rate", "0"], 2, "--learning-rate to be above 0"),
    "smoothing": (["train", "--data", "train.tsv", "--label-smoothing", "1"], 2, "--label-smoothing to be below 1"),
    "gradient accumulation": (
        ["train", "--data", "train.tsv", "--gradient-accumulation-steps", "0"],
        2,
        "--gradient-accumulation-steps",
    ),
    "dropout": (["train", "--data", "train.tsv", "--dropout", "2"], 2, "dropout"),
    "missing file": (["train", "--data", "nowhere.tsv"], 1, "nowhere.tsv"),
    "a line without a tab": (["train", "--data", "bad.tsv"], 1, "bad.tsv:2: Expected source, tab, target"),
    "a file as --out": (["train", "--data", "train.tsv", "--out", "train.tsv"], 2, "train.tsv: File exists"),
    "no run": (["decode", "."], 2, "without run.json"),
    "no run to evaluate": (["evaluate", ".", "--data", "train.tsv"], 2, "without run.json"),
    "batch of nothing": (["evaluate", ".", "--data", "train.tsv", "--batch-size", "0"], 2, "--batch-size"),
}


@pytest.mark.parametrize(("arguments", "code", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(arguments, code, words, data, capsys, monkeypatch):
    (data / "bad.tsv").write_bytes(b"a\tb\nno tab here\n\xff\tb\nc\td\n")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    assert cli.main(arguments) == code
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith("k3seq: ") and words in error[0], error


def test_bad_lines_are_counted_when_asked(data, capsys):
    (data / "train.tsv").write_bytes((data / "train.tsv").read_bytes() + b"no tab\n\xff\tb\nx\t\n")
    assert train("--skip-bad-lines", "--epochs", "1") == 0
    assert json.loads((data / "out.json").read_text())["result"]["skipped"] == {"no tab": 1, "bad UTF-8": 1, "empty target": 1}
    assert "skipped 3 bad lines" in capsys.readouterr().err


def test_a_run_is_not_overwritten_unasked(run, capsys):
    assert train() == 2
    assert "Expected a new run directory, or --overwrite" in capsys.readouterr().err


def test_a_broken_model_file_is_one_line(run, monkeypatch, capsys):
    model = run / "model.keras"
    model.write_bytes(model.read_bytes()[:2000])
    code, shown = decode(monkeypatch, capsys, "ab\n")
    assert code == 1 and "model.keras: Expected the file that was saved" in shown.err and shown.out == ""


def test_bytes_that_are_not_text_name_their_line(data, monkeypatch, capsys):
    code, shown = decode(monkeypatch, capsys, b"ab\n\xff\n")
    assert code == 1 and "stdin:2: Expected UTF-8" in shown.err


def test_a_closed_standard_input_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert cli.main(["decode", "run"]) == 2
    assert "Received: standard input is closed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["d[/b].tsv", "x[red].tsv"])
def test_a_path_is_no_markup(run, capsys, name):
    Path(name).parent.mkdir(exist_ok=True)  # the first name has a folder in it
    shutil.copy("train.tsv", name)
    assert cli.main(["evaluate", "run", "--data", name]) == 0
    assert f"{name}: 12 sources" in capsys.readouterr().out
    assert train("--epochs", "1", out=f"{name} run") == 0
    assert f"saved epoch 1 to {name} run" in capsys.readouterr().err


def test_lines_of_the_log_do_not_break_in_a_file(data, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    assert train("--epochs", "1", "--samples", "0") == 0
    parameters, epoch, saved = capsys.readouterr().err.splitlines()
    assert parameters.endswith(f"jit={json.loads((data / 'out.json').read_text())['result']['jit']}")
    assert epoch.startswith("epoch 1  loss ") and saved == "saved epoch 1 to run"


def test_another_backend_than_tensorflow_does_not_import_it(data):
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        pytest.skip("this is TensorFlow")
    code = "import sys; from k3seq import cli; print(cli.main(sys.argv[1:]), 'tensorflow' in sys.modules)"
    arguments = ["train", "--data", "train.tsv", "--out", "run", "--samples", "0", "--no-jit", *SMALL[:-2], "--epochs", "1"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    assert done.stdout == "0 False\n"
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["lstm-attention", "epoch", "saved"]


def test_the_picture_shows_whole_epochs(data):
    figure = draw_training([{"number": number, "loss": 1.0} for number in (1, 2)])
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1, 2]
