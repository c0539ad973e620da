"""Saved on one backend, loaded on another: every layer and model, every direction."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from cross.catalogue import ENTRIES
from golden import relative_error
from k3seq import matrix

pytestmark = pytest.mark.once

NAMES = list(matrix.load(Path(__file__).resolve().parents[2] / matrix.FILE).backends)
directions = pytest.mark.parametrize("writer, reader", list(permutations(NAMES, 2)))
entries = pytest.mark.parametrize("entry", ENTRIES)


@pytest.fixture(scope="module")
def saved(backends, tmp_path_factory):
    """({writer: {entry: facts}}, the folder of the files)."""
    folder = str(tmp_path_factory.mktemp("cross"))
    payloads = {name: {"folder": folder, "backend": name} for name in backends.workers}
    return backends.ask("cross.catalogue:save", payloads), folder


@pytest.fixture(scope="module")
def loaded(backends, saved):
    """{reader: {writer: {entry: facts}}}."""
    names = list(backends.workers)
    payloads = {name: {"folder": saved[1], "writers": [other for other in names if other != name]} for name in names}
    return backends.ask("cross.catalogue:load", payloads)


@pytest.fixture(scope="module")
def moved(backends, saved):
    """{entry: outputs} of the first writer's files on the last backend, each with one weight moved."""
    writer, *_, reader = backends.workers
    return backends.ask("cross.catalogue:moved", {reader: {"folder": saved[1], "writer": writer}})[reader]


@pytest.fixture
def both(saved, loaded, entry, writer, reader):
    """(the writer's facts, the reader's facts) of one entry."""
    for name in (writer, reader):
        if name not in loaded:
            pytest.skip(f"backend {name} is not installed")
    return saved[0][writer][entry], loaded[reader][writer][entry]


def largest_error(found, expected):
    return max(relative_error(a, b) for a, b in zip(found, expected, strict=True))


@directions
@entries
def test_a_file_gives_the_same_outputs_on_another_backend(both, entry, tolerance):
    written, read = both
    assert largest_error(read["outputs"], written["outputs"]) <= tolerance("forward", case=entry)


@entries
def test_the_outputs_after_one_weight_has_moved_are_not_the_same(saved, moved, entry, tolerance):
    writer = next(iter(saved[0]))
    assert largest_error(moved[entry], saved[0][writer][entry]["outputs"]) > 10 * tolerance("forward", case=entry)


@directions
@entries
def test_a_file_gives_the_same_weights_in_the_same_order_and_the_same_state(both):
    written, read = both
    assert read["weights"] == written["weights"]
    assert len(read["state"]) == sum(not trainable for *_, trainable in written["weights"])
    for found, expected in zip(read["state"], written["state"], strict=True):
        np.testing.assert_array_equal(found, expected)


@entries
def test_every_backend_writes_weights_of_the_same_paths_and_shapes(saved, entry):
    first, *others = (facts[entry]["weights"] for facts in saved[0].values())
    assert all(other == first for other in others)


def test_files_of_two_writers_hold_unlike_weights(saved):
    """The control of all tests here: a reader with any other weights than its file's gives other outputs."""
    first, second, *_ = saved[0].values()
    trainable = [name for name in ENTRIES if any(weight[3] for weight in first[name]["weights"])]
    assert len(trainable) >= len(ENTRIES) - 4  # Frames, ToDense, SinusoidalPositions and MaskedMean have none
    assert all(largest_error(first[name]["outputs"], second[name]["outputs"]) > 1e-3 for name in trainable)


def test_the_context_of_the_sliding_model_that_was_saved_is_not_empty(saved):
    for facts in saved[0].values():
        assert all(np.any(facts[entry]["state"][0]) for entry in ("Frames", "SlidingArithmetic"))
