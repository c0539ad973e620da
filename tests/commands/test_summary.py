"""`k3seq summary`: layers and parameters, of k3seq's models and of a user's."""

import json
import sys
from pathlib import Path

import pytest

from k3seq import cli


def test_summary_counts_the_parameters_of_each_layer(here, capsys):
    assert cli.main(["summary", "lstm", "--json", "out.json"]) == 0
    result = json.loads(Path("out.json").read_text())["result"]
    counts = [layer["parameters"] for layer in result["layers"] if layer["parameters"]]
    assert counts == [54_440, 54_440, 32_500]
    assert (result["total"], result["trainable"], result["non_trainable"]) == (141_380, 141_380, 0)
    assert "141,380" in capsys.readouterr().out


def test_summary_takes_a_factory_of_the_working_directory(here, monkeypatch):
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    Path("my_models.py").write_text(
        "import keras\n"
        "def two():\n"
        "    inner = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)], name='inner')\n"
        "    frozen = keras.layers.Dense(4, trainable=False, name='frozen')\n"
        "    return keras.Sequential([keras.layers.Input((3,)), inner, frozen])\n"
    )
    assert cli.main(["summary", "my_models:two", "--depth", "2", "--json", "out.json"]) == 0
    result = json.loads(Path("out.json").read_text())["result"]
    rows = {row["path"].split("/")[-1]: row for row in result["layers"]}
    assert (rows["inner"]["parameters"], rows["frozen"]["parameters"], rows["frozen"]["trainable"]) == (8, 12, 0)
    assert (rows["frozen"]["output_shape"], rows["inner"]["depth"]) == ([None, 4], 1)
    assert [row["parameters"] for row in result["layers"] if row["depth"] == 2 and row["class"] == "Dense"] == [8]
    assert (result["total"], result["trainable"], result["non_trainable"]) == (20, 8, 12)


def test_an_unknown_model_names_the_choices(here, capsys):
    assert cli.main(["summary", "no-such-model"]) == 2
    assert "lstm" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, message",
    [
        (":x", "Expected package.module:factory. Received: :x"),
        ("json:", "Expected package.module:factory. Received: json:"),
        (".json:dumps", "Expected package.module:factory. Received: .json:dumps"),
        ("json:dumps", "Expected json:dumps to need no arguments. Received: missing a required argument: 'obj'"),
        ("json:nothing", "Expected json to hold 'nothing'"),
        ("json:__name__", "Expected json:__name__ to be a function or class. Received: str"),
        ("sys:exit", "Expected sys:exit to return a keras.Model. Received: it ended the process"),
        ("os:getcwd", "Expected os:getcwd to return a keras.Model. Received: str"),
    ],
)
def test_a_name_that_is_no_factory_is_one_line(here, capsys, name, message):
    assert cli.main(["summary", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"k3seq: {message}") and error.count("\n") == 1
