"""Bad options and bad data of train, decode and evaluate: one line, before anything is trained."""

import io
import sys
from types import SimpleNamespace

import pytest

from k3seq import cli
from tiny_runs import decode

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
    "odd units": (
        ["train", "--data", "train.tsv", "--units", "7"],
        2,
        "to be even where layers are bidirectional. Received: --units 7",
    ),
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
