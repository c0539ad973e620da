"""`train_on_batch` of a step beside Keras' own around the same step: what is left out between batches changes nothing."""

import keras
import numpy as np
import pytest

from k3seq.train.losses import TokenCrossentropy
from tagger import LABELS, TOKENS, WEIGHTS, Tagger, largest_difference, values

OTHER = (TOKENS + 1) % 3
ACCURACY = {"weighted_metrics": ["accuracy"]}
BATCHES = [(TOKENS, LABELS, WEIGHTS), (OTHER, LABELS, 2 * WEIGHTS), (OTHER, TOKENS, WEIGHTS)]
NOT_FINITE = (TOKENS, LABELS, np.full_like(WEIGHTS, 3e38))  # their sum overflows
CASES = {
    "the loss alone": ({}, BATCHES, {}),
    "the compiled metrics begin anew": (ACCURACY, BATCHES, {}),
    "other shapes": (ACCURACY, [*BATCHES, (TOKENS[:1], LABELS[:1], WEIGHTS[:1]), *BATCHES], {}),
    "wider types": (ACCURACY, [tuple(a.astype(a.dtype.str.replace("4", "8")) for a in batch) for batch in BATCHES], {}),
    "views from the end": (ACCURACY, [tuple(a[::-1, ::-1] for a in batch) for batch in BATCHES], {}),
    "no weights": (ACCURACY, [batch[:2] for batch in BATCHES], {}),
    "tensors": (ACCURACY, [tuple(keras.ops.convert_to_tensor(a) for a in batch) for batch in BATCHES], {}),
    "weights of classes": (ACCURACY, [(x, y[:, :1]) for x, y, _ in BATCHES], {"class_weight": {0: 1.0, 1: 2.0, 2: 3.0}}),
    "a refused step between": (ACCURACY, [BATCHES[0], NOT_FINITE, BATCHES[1]], {}),
}


class FirstToken(Tagger):
    """Labels (b, 1), as weights of classes want them."""

    def call(self, tokens):
        return super().call(tokens)[:, 0]


class AsKeras:
    """Between the batches all that Keras does."""

    train_on_batch = keras.Model.train_on_batch
    reset_metrics = keras.Model.reset_metrics
    get_metrics_result = keras.Model.get_metrics_result


def trained(options, batches, more, jit, *before):
    """(logs of each batch as a dict, the same as a list, all variables at the end)."""
    first = "class_weight" in more
    kind = type("Trained", (*before, FirstToken if first else Tagger), {})
    model, dicts, lists = kind(), [], []
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if first else TokenCrossentropy()
    model.compile(keras.optimizers.Adam(0.1), loss=loss, jit_compile=jit, **options)
    for batch in batches:
        dicts.append(model.train_on_batch(*batch, **more, return_dict=True))
        lists.append(np.atleast_1d(model.train_on_batch(*batch, **more)))
    rest = [np.array(keras.ops.convert_to_numpy(v)) for v in (*model.optimizer.variables, *model.metrics_variables)]
    return dicts, lists, values(model) + rest


BACKEND = keras.backend.backend()
EAGER = CASES if BACKEND != "tensorflow" else ["a refused step between"]  # its own is how a sum becomes zero
COMPILED = ["the compiled metrics begin anew", "other shapes"] if BACKEND == "jax" else []


@pytest.mark.parametrize(("name", "jit"), [*((name, False) for name in EAGER), *((name, True) for name in COMPILED)])
def test_logs_weights_and_metrics_are_those_of_keras_around_the_same_step(name, jit):
    options, batches, more = CASES[name]
    found = trained(options, batches, more, jit)
    expected = trained(options, batches, more, jit, AsKeras)
    for logs, other in zip(found[0], expected[0], strict=True):
        assert list(logs) == list(other) and all(type(value) is float for value in logs.values())
        np.testing.assert_allclose(list(logs.values()), list(other.values()), rtol=1e-6)
    for logs, other in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(logs, other, rtol=1e-6)
    assert largest_difference(found[2], expected[2]) < 1e-6
    control = trained(options, batches[:-1], more, jit)
    assert largest_difference(found[2], control[2]) > 1e-3


def test_the_refused_steps_of_earlier_batches_are_not_counted_again():
    model = Tagger()
    model.compile(keras.optimizers.SGD(0.1), loss=TokenCrossentropy())
    counts = [model.train_on_batch(*batch, return_dict=True)["refused"] for batch in (*BATCHES, NOT_FINITE, *BATCHES)]
    assert counts == [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]


def test_a_metric_of_the_users_own_is_asked_to_begin_anew():
    class Calls(keras.metrics.Mean):
        resets = 0

        def reset_state(self):
            Calls.resets += 1
            super().reset_state()

    model = Tagger()
    model.compile(keras.optimizers.SGD(0.1), loss=TokenCrossentropy())
    model.calls = Calls(name="calls")
    model.train_on_batch(*BATCHES[0])
    before = Calls.resets
    model.train_on_batch(*BATCHES[0])
    assert Calls.resets == before + 1


def test_a_train_function_made_by_hand_finds_the_optimizer_built_and_the_model_compiled():
    model, expected = Tagger(), Tagger()
    model.make_train_function()
    with pytest.raises(ValueError, match="compile"):
        model.train_on_batch(*BATCHES[0])
    for each in (model, expected):
        each.compile(keras.optimizers.Adam(0.1), loss=TokenCrossentropy())
    model.make_train_function()
    start = values(model)
    for each in (model, expected):
        each.train_on_batch(*BATCHES[0])
    # Before its optimizer is built, the first step may take another kernel of the same mathematics: rounding may differ.
    assert largest_difference(values(model), values(expected)) < 1e-6
    assert largest_difference(values(model), start) > 1e-2


def test_the_step_is_traced_once_for_a_shape():
    if BACKEND == "torch":
        pytest.skip("torch runs the step as it is written")

    class Traced(Tagger):
        traces = 0

        def train_step(self, *args):
            Traced.traces += 1
            return super().train_step(*args)

    model = Traced()
    model.compile(keras.optimizers.Adam(0.1), loss=TokenCrossentropy(), jit_compile=True)
    for batch in BATCHES * 2:
        model.train_on_batch(*batch)
    few = Traced.traces
    assert few <= 2  # TensorFlow makes the optimizer's variables in one of their own
    model.train_on_batch(TOKENS[:1], LABELS[:1], WEIGHTS[:1])
    assert Traced.traces > few
