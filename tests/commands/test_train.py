"""train, decode and evaluate on the backend that runs, through the command line."""

import json
import os
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from k3seq import cli
from k3seq.commands import train as command
from k3seq.inspect.pictures import draw_training
from k3seq.models.lstm import AttentionSeq2Seq
from k3seq.pipeline import Pipeline
from tiny_runs import SMALL, WORDS, decode, train


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


def test_bad_lines_are_counted_when_asked(data, capsys):
    (data / "train.tsv").write_bytes((data / "train.tsv").read_bytes() + b"no tab\n\xff\tb\nx\t\n")
    assert train("--skip-bad-lines", "--epochs", "1") == 0
    assert json.loads((data / "out.json").read_text())["result"]["skipped"] == {"no tab": 1, "bad UTF-8": 1, "empty target": 1}
    assert "skipped 3 bad lines" in capsys.readouterr().err


def test_a_run_is_not_overwritten_unasked(run, capsys):
    assert train() == 2
    assert "Expected a new run directory, or --overwrite" in capsys.readouterr().err


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


def test_another_backend_than_tensorflow_does_not_import_it(data, monkeypatch, capfd):
    """Keras imports it to save a model: that takes seconds, and its start-up lines stand in the progress."""
    if "tensorflow" in sys.modules:
        pytest.skip("TensorFlow is imported")
    save, found = keras.Model.save, []

    def watched(self, *arguments, **options):
        save(self, *arguments, **options)
        found.append(sys.modules["tensorflow"])

    monkeypatch.setattr(keras.Model, "save", watched)
    assert train("--epochs", "1", "--samples", "0") == 0
    assert found == [None] and "tensorflow" not in sys.modules
    assert [line.split()[0] for line in capfd.readouterr().err.splitlines()] == ["lstm-attention", "epoch", "saved"]


def test_the_picture_shows_whole_epochs(data):
    figure = draw_training([{"number": number, "loss": 1.0} for number in (1, 2)])
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1, 2]
