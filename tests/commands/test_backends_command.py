"""`k3seq backends` shows which backends are there and which kernels recurrent layers use."""

import pytest

from k3seq.commands import backends
from k3seq.runtime import workers

pytestmark = pytest.mark.once

ABOUT = {"version": "1", "keras": "3", "devices": ["cpu"], "jit": False}


def test_the_kernels_of_every_backend_are_shown(monkeypatch, capsys):
    answers = {
        "jax": {**ABOUT, "kernels": {"lstm_sequence": "none: a scan", "gru_sequence": "a gru kernel"}},
        "torch": workers.Failure("missing", "not installed"),
    }
    monkeypatch.setattr(workers, "launch_all", lambda *_, **__: answers)
    result = backends.backends(["jax", "torch"])
    shown = capsys.readouterr().out
    lines = [line.split("│")[1:-1] for line in shown.splitlines() if "LSTM" in line or "GRU" in line]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["jax", "LSTM", "none: a scan"],
        ["jax", "GRU", "a gru kernel"],
    ]
    assert result["backends"]["jax"]["kernels"] == answers["jax"]["kernels"]
    assert "kernels" not in result["backends"]["torch"] and result["exit_code"] == 0


def test_a_backend_that_does_not_train_is_shown_as_such(monkeypatch, capsys):
    monkeypatch.setattr(workers, "launch_all", lambda names, *_, **__: dict.fromkeys(names, ABOUT))
    result = backends.backends()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines() if "cpu" in line]
    assert [(row[0], row[5]) for row in rows] == [("jax", "yes"), ("tensorflow", "yes"), ("torch", "yes"), ("numpy", "no")]
    assert [row["trains"] for row in result["backends"].values()] == [True, True, True, False]


def test_without_a_backend_there_is_no_table_of_kernels(monkeypatch, capsys):
    monkeypatch.setattr(workers, "launch_all", lambda *_, **__: {"torch": workers.Failure("missing", "not installed")})
    backends.backends(["torch"])
    assert "kernel" not in capsys.readouterr().out
