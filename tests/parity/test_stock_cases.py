"""The cases of stock Keras layers, the page about them, and a few of them on live workers."""

import json
import re

import keras
import numpy as np
import pytest

from k3seq.parity import divergences, resolve, run_parity, stock_cases
from k3seq.parity.case import from_payload
from k3seq.parity.stock_cases import page as stock_page

pytestmark = pytest.mark.once

BACKENDS = ("tensorflow", "torch")
BY_NAME = {case.name: case for case in stock_cases.CASES}
EQUAL = ("LSTM-right-padded", "Conv1D-strided-same-even", "LayerNormalization", "Embedding", "MultiHeadAttention")
DIFFERENT = "AveragePooling2D-same"


def classes(case):
    """The names of the stock layers that a case is made of."""
    if case.factory == "k3seq.parity.stock_cases:nested":
        return set(re.findall(r'"layer": "(\w+)"', json.dumps(case.arguments)))
    return {case.factory.partition(":")[2]} if case.factory.startswith("keras.layers:") else set()


def test_there_are_cases_of_every_kind_of_layer():
    held = set().union(*map(classes, stock_cases.CASES))
    assert {"LSTM", "GRU", "SimpleRNN", "Bidirectional", "StackedRNNCells", "TimeDistributed", "MultiHeadAttention"} <= held
    assert {"Attention", "AdditiveAttention", "BatchNormalization", "LayerNormalization", "Conv1D", "Embedding"} <= held
    assert len(held) >= 60 and all(issubclass(getattr(keras.layers, name), keras.layers.Layer) for name in held)


def test_case_names_are_unique():
    assert len(BY_NAME) == len(stock_cases.CASES) >= 100


@pytest.mark.parametrize("case", stock_cases.CASES, ids=lambda case: case.name)
def test_a_case_is_the_same_after_sending(case):
    again = from_payload(case.to_payload())
    ours, theirs = case.batch(), again.batch()
    assert again.name == case.name and again.checks == case.checks
    assert [np.shape(leaf) for leaf in keras.tree.flatten(ours)] == [np.shape(leaf) for leaf in keras.tree.flatten(theirs)]
    for one, other in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        np.testing.assert_array_equal(one, other)


def test_nested_makes_layers_within_layers():
    rnn = stock_cases.nested(**BY_NAME["RNN-stacked-cells"].arguments)
    assert [type(cell).__name__ for cell in rnn.cell.cells] == ["LSTMCell", "GRUCell"] and rnn.return_state
    both = stock_cases.nested(**BY_NAME["Bidirectional-last-output-sum"].arguments)
    assert isinstance(both.forward_layer, keras.layers.LSTM) and both.merge_mode == "sum"


def test_every_cause_is_a_known_divergence_of_existing_cases():
    known = {entry.id for entry in divergences.load()}
    assert set(stock_page.CAUSES) <= known and "no-such-cause" not in known
    assert {name for cases in stock_page.CAUSES.values() for name in cases} <= set(BY_NAME)


def test_the_page_has_a_line_for_every_case_and_a_cause_for_every_difference(root):
    page = (root / "docs" / "stock-layers.md").read_text(encoding="utf-8")
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in page.splitlines() if line.startswith("| ")}
    assert set(BY_NAME) <= set(lines)
    different = {name for name in BY_NAME if "**differs**" in lines[name]}
    causes = {name: cause for cause, cases in stock_page.CAUSES.items() for name in cases}
    assert different == {*causes, *stock_page.ROUNDING} and len(different) < len(BY_NAME) / 3
    assert all(f"(divergences.md#{cause})" in lines[name] for name, cause in causes.items())
    assert all(page.count(f"`{name}`") == 1 for name in stock_page.ROUNDING)  # each has its paragraph


@pytest.fixture(scope="module")
def found(workers_of):
    pool = workers_of(*BACKENDS)
    cases = {case.name: case for case in resolve(["k3seq.parity.stock_cases:CASES"], pool)}
    assert list(cases) == list(BY_NAME)
    return run_parity([cases[name] for name in (*EQUAL, DIFFERENT)], BACKENDS, ["forward", "gradients"], pool=pool)


def test_stock_layers_are_equal(found):
    rows = {(row.case, row.check): row for row in found.rows}
    for name in EQUAL:
        for check in ("forward", "gradients"):
            assert rows[name, check].verdict == "equal" and rows[name, check].relative <= rows[name, check].tolerance


def test_average_pooling_at_the_border_differs_and_torch_is_named(found):
    row, gradients = (
        next(r for r in found.rows if r.case == DIFFERENT and r.check == check) for check in ("forward", "gradients")
    )
    assert (row.verdict, gradients.verdict) == ("differs", "differs")
    assert row.relative > 0.1 and "AveragePooling2D" in row.where
    assert "torch differs by" in row.judge and "tensorflow (" in row.judge
