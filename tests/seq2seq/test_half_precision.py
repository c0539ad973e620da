"""A decoder with attention under Keras' mixed policies, which failed in TFA; trained under jit where there is one."""

import keras
import numpy as np
import pytest
from keras import ops

from golden import relative_error
from k3seq import backend, random
from seq2seq.bahdanau_model import batch, best, built, trained


@pytest.fixture(scope="module")
def full():
    """(model, losses) in float32."""
    return trained(steps=3)


def forward(model):
    """(logits, final state) of a compiled call, and the state's dtypes before and after."""
    inputs, _ = batch()
    dtypes = []

    def run(inputs):
        start = model.start(inputs)["cell"]
        outputs, state, _ = model.decoder(model.embedding(inputs["target"]), initial_state=start)
        for part in (start, state):
            dtypes.append([keras.backend.standardize_dtype(leaf.dtype) for leaf in keras.tree.flatten(part)])
        return ops.cast(outputs.rnn_output, "float32"), ops.cast(state.alignments, "float32")

    found = backend.compiled(run, model.variables)(inputs)
    return [ops.convert_to_numpy(value) for value in found], *dtypes[-2:]


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_states_have_the_dtype_of_the_policy_and_outputs_are_near_those_in_float32(full, half):
    model = built(f"mixed_{half}")
    model.set_weights(full[0].get_weights())
    found, before, after = forward(model)
    assert before == after == [half] * (len(before) - 1) + ["bool"]
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    expected, wide, _ = forward(full[0])
    assert set(wide) == {"float32", "bool"}
    for a, b in zip(found, expected, strict=True):
        assert 1e-5 < relative_error(a, b) < 1e-2


def test_a_train_step_under_jit_gives_the_losses_of_float32(full):
    model, losses = trained(steps=3, dtype="mixed_float16", jit=keras.backend.backend() != "torch")
    np.testing.assert_allclose(losses, full[1], rtol=1e-2)
    assert losses[2] < losses[0] and all(np.isfinite(weight).all() for weight in model.get_weights())


def test_beams_in_half_precision_find_the_scores_of_float32(full):
    model = built("mixed_float16")
    model.set_weights(full[0].get_weights())
    expected, found = best(full[0]), best(model)
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=2e-2)
    random.initialize(model, 4)  # the control; the program that was compiled takes the weights as they are
    assert np.abs(best(model)["scores"] - expected["scores"]).max() > 2e-2
