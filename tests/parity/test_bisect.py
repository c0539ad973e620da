"""The first mismatch of two runs, on calls that are written by hand."""

import numpy as np
import pytest

from k3seq.parity.bisect import Place, first_mismatch, first_wrong_step, last_wrong_gradient, step_and_row

pytestmark = pytest.mark.once

X = np.arange(24.0).reshape(2, 4, 3)


def call(layer, given, outputs):
    return {"layer": layer, "class": "Layer", "inputs": [given], "arguments": [], "outputs": [outputs]}


def chain(fault=None):
    """embed -> (block: inner -> outer) -> head; each adds one; `fault` adds two, from row 1 of step 2 on."""
    calls, x = [], X
    for name in ("embed", "block/inner", "block", "head"):
        given = calls[0]["outputs"][0] if name == "block" else x
        x = x + 1
        if name == fault:
            x = x.copy()
            x[1, 2:] += 1
        calls.append(call(name, given, x))
    return calls


@pytest.mark.parametrize("fault", ["embed", "block/inner", "block", "head"])
def test_the_layer_with_the_fault_is_named_with_step_and_row(fault):
    assert first_mismatch(chain(), chain(fault), 1e-6) == Place(fault, "Layer", 2, 1)


def test_equal_runs_have_no_mismatch():
    assert first_mismatch(chain(), chain(), 1e-6) is None
    assert first_mismatch(chain(), chain("head"), 10.0) is None  # the tolerance is larger than the difference


def test_a_layer_that_only_one_backend_calls_is_named():
    assert first_mismatch(chain(), chain()[:-1], 1e-6).layer == "head"
    assert first_mismatch(chain(), [chain()[0], *chain()[2:]], 1e-6).layer == "block/inner"


def test_a_layer_without_steps_has_only_a_row():
    x = np.ones((3, 4))
    y = x.copy()
    y[2, 0] = 0
    assert step_and_row([x], [y], 1e-6) == (None, 2)
    assert step_and_row([x], [x], 1e-6) == (None, None)
    assert step_and_row([x.astype("int32")], [y.astype("int32")], 0.0) == (0, 2)  # token ids have steps


def test_the_last_layer_with_a_wrong_gradient_is_named():
    right = {f"{name}/kernel": np.ones(2) for name in ("embed", "block/inner", "head")}
    wrong = {**right, "embed/kernel": np.full(2, 3.0), "block/inner/kernel": np.full(2, 2.0)}
    assert last_wrong_gradient(chain(), right, wrong, 1e-5).layer == "block/inner"
    assert last_wrong_gradient(chain(), right, right, 1e-5) is None


def test_the_first_step_with_another_loss_is_found():
    assert first_wrong_step([3.0, 2.0, 1.0], [3.0, 2.0, 1.5], 1e-4) == 2
    assert first_wrong_step([3.0, 2.0, 1.0], [3.0, 2.0, 1.0], 1e-4) is None
