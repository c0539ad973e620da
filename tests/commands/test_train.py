"""train, decode and evaluate on the backend that runs, through the command line."""

import io
import json
import os
import shutil
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from k3seq import cli
from k3seq.commands import train as command
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


def test_an_interrupted_run_keeps_the_epochs_that_were_done(data, monkeypatch, capsys):
    from k3seq.models.lstm import AttentionSeq2Seq

    step, taken = AttentionSeq2Seq.train_on_batch, []

    def interrupted(self, *arguments, **options):
        taken.append(1)
        if len(taken) == 5:  # three steps make an epoch
            raise KeyboardInterrupt
        return step(self, *arguments, **options)

    monkeypatch.setattr(AttentionSeq2Seq, "train_on_batch", interrupted)
    assert train("--epochs", "9") == 130
    assert "interrupted after 1 of 9 epochs; run holds epoch 1" in capsys.readouterr().err
    assert Pipeline.load(data / "run").decode(["ab"]) is not None


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
    "foreign size": (["train", "--data", "train.tsv", "--num-heads", "2"], 2, "Received: --num-heads"),
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
