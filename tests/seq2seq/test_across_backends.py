"""A model with Bahdanau attention, trained and saved on one backend, finds the same on the others."""

import numpy as np
import pytest

from k3seq.parity.pool import QUICK
from k3seq.runtime import matrix as matrix_file
from k3seq.runtime.workers import Failure, launch

pytestmark = pytest.mark.once


def ask(backend, function, payload):
    found = launch(backend, f"seq2seq.bahdanau_model:{function}", payload, environment=QUICK)
    assert not isinstance(found, Failure), (backend, found)
    return found


@pytest.fixture(scope="module")
def results(matrix, tmp_path_factory):
    """({"writer": ...}, {reader: ...}) of the first installed backend and the others."""
    names = [name for name in matrix.training if matrix_file.installed(name, matrix)]
    if len(names) < 2:
        pytest.skip("fewer than two backends are installed")
    payload = {"file": str(tmp_path_factory.mktemp("across") / "model.keras")}
    return ask(names[0], "write", payload), {name: ask(name, "read", payload) for name in names[1:]}


def test_a_saved_model_gives_the_same_five_best_on_the_other_backends(results):
    written, read = results
    assert written["losses"][-1] < written["losses"][0]
    assert written["tokens"].shape == (8, 5, 5) and len(np.unique(written["tokens"].reshape(-1, 5), axis=0)) > 5
    for found in read.values():
        np.testing.assert_array_equal(found["tokens"], written["tokens"])
        np.testing.assert_allclose(found["scores"], written["scores"], rtol=1e-5, atol=1e-5)


def test_with_one_weight_moved_the_scores_are_others(results):
    written, read = results
    assert min(np.abs(found["moved"] - written["scores"]).max() for found in read.values()) > 1e-3
