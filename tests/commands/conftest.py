"""Data and a trained run for the tests of the commands."""

import shutil

import pytest

from k3seq import cli
from tiny_runs import SMALL, WORDS


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with pairs of words and their letters in reverse."""
    monkeypatch.chdir(tmp_path)
    lines = "".join(f"{word}\t{' '.join(reversed(word.upper()))}\n" for word in WORDS)
    (tmp_path / "train.tsv").write_text(lines, encoding="utf-8")
    (tmp_path / "dev.tsv").write_text(lines, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="session")
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
