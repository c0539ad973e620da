"""Tiny training runs through the command line, for the tests of the commands."""

import io
import sys
from types import SimpleNamespace

from k3seq import cli

WORDS = ["ab", "ba", "abc", "cab", "bca", "c", "aab", "bbc", "cc", "acb", "bac", "cba"]
# one shape and one layer: each shape is a compilation
SMALL = ["--num-layers", "1", "--buckets", "1", "--batch-size", "4", "--epochs", "2", "--samples", "3"]


def train(*arguments, out="run", json="out.json"):
    common = ["train", "--data", "train.tsv", "--tokens", "char/space", "--out", out, "--json", json]
    return cli.main([*common, *SMALL, *arguments])


def decode(monkeypatch, capsys, text, *arguments):
    raw = text if isinstance(text, bytes) else text.encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw)))
    capsys.readouterr()
    code = cli.main(["decode", "run", *arguments])
    return code, capsys.readouterr()
