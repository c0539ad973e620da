"""The sequence loss: the golden vectors, the legal flags, and what is refused."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

import golden
from k3seq.errors import UsageError
from k3seq.seq2seq.loss import SequenceLoss, sequence_loss
from seq2seq.decoder_cases import FLAGS, run_loss

LEGAL = [(0, 0, 0, 0), (1, 1, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 1), (0, 0, 1, 0), (0, 0, 0, 1)]
LOGITS = np.array([[[2.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [3.0, 0.0]]], "float32")
TARGETS = np.array([[0, 1], [1, 1]], "int32")
WEIGHTS = np.array([[1.0, 0.5], [2.0, 0.0]], "float32")


@pytest.mark.parametrize("id", golden.cases("sequence_loss"))
def test_every_reduction_equals_the_golden_one(id):
    """In float64, too: `test_basic_decoder.py` has all golden cases in one process."""
    errors = run_loss(id, "f32")
    assert max(errors.values()) <= 1e-5 and len(errors) in (7, 14, 16), errors


def test_a_loss_of_other_weights_is_not_golden():
    case = golden.case("sequence_loss__0_ids")
    found = sequence_loss(case["in.logits"], case["in.targets"], case["in.weights"] * np.float32(1.001), False, False)
    assert golden.relative_error(ops.convert_to_numpy(found), case["f32.loss_at0_ab0_st0_sb0"]) > 1e-4


def test_averages_divide_by_the_weights_and_sums_by_their_number():
    losses = np.log(1 + np.exp([[-2.0, -1.0], [0.0, 3.0]])) * WEIGHTS
    averaged, summed = (ops.convert_to_numpy(loss) for loss in (loss_of((1, 1, 0, 0)), loss_of((0, 0, 1, 1))))
    np.testing.assert_allclose(averaged, losses.sum() / 3.5, rtol=1e-6)
    np.testing.assert_allclose(summed, losses.sum() / 3, rtol=1e-6)


def loss_of(flags, **options):
    named = dict(zip(FLAGS, (bool(flag) for flag in flags), strict=True))
    return sequence_loss(LOGITS, TARGETS, WEIGHTS, **named, **options)


def test_nothing_over_nothing_is_zero():
    assert float(sequence_loss(LOGITS, TARGETS, np.zeros((2, 2), "float32"))) == 0.0


@pytest.mark.parametrize("flags", sorted(set(itertools.product((0, 1), repeat=4)) - set(LEGAL)))
def test_the_other_nine_combinations_raise(flags):
    with pytest.raises(
        UsageError, match=r"Expected only average_\* or only sum_\* reductions, because of ambiguous order. Received: \w+"
    ):
        loss_of(flags)


def test_seven_combinations_are_legal():
    assert [loss_of(flags).shape for flags in LEGAL] == [(2, 2), (), (2,), (2,), (), (2,), (2,)]


def test_a_loss_function_of_ones_own_gets_flat_labels_and_logits():
    seen = {}

    def half(labels, logits):
        seen["shapes"] = tuple(labels.shape), tuple(logits.shape)
        return ops.cast(labels, "float32") * 0 + 0.5

    found = loss_of((0, 0, 0, 0), softmax_loss_function=half)
    np.testing.assert_array_equal(ops.convert_to_numpy(found), WEIGHTS / 2)
    assert seen["shapes"] == ((4,), (4, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((LOGITS[0], TARGETS, WEIGHTS), "Expected logits to be of shape"),
        ((LOGITS, TARGETS[0], WEIGHTS), "Expected targets of shape"),
        ((LOGITS, TARGETS, WEIGHTS[0]), "Expected weights to be of shape"),
        ((LOGITS, TARGETS + 1, WEIGHTS), "Expected targets in a vocabulary of 2. Received: targets=2"),
    ],
)
def test_wrong_arguments_raise(arguments, message):
    with pytest.raises(UsageError, match=message):
        sequence_loss(*arguments)


def test_the_loss_compiles_saves_and_weighs_all_steps_by_default():
    loss = keras.losses.deserialize(keras.losses.serialize(SequenceLoss(sum_over_batch=False, sum_over_timesteps=True)))
    assert loss.sum_over_batch is False and loss.sum_over_timesteps is True
    whole = ops.convert_to_numpy(SequenceLoss()(TARGETS, LOGITS))
    np.testing.assert_allclose(whole, np.log(1 + np.exp([-2.0, -1.0, 0.0, 3.0])).sum() / 4, rtol=1e-6)


@keras.saving.register_keras_serializable(package="tests")
def registered(labels, logits):
    """A loss function that a file can name."""
    return logits[:, 0]


@pytest.mark.once
def test_a_saved_loss_keeps_its_function_or_refuses_one_that_loading_could_not_find():
    loaded = keras.losses.deserialize(keras.losses.serialize(SequenceLoss(softmax_loss_function=registered)))
    assert loaded.softmax_loss_function is registered
    with pytest.raises(UsageError, match="Expected softmax_loss_function to be a layer or registered"):
        keras.losses.serialize(SequenceLoss(softmax_loss_function=lambda labels, logits: logits))
