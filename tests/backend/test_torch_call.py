"""PyTorch calls a plain model within its train step without what Keras does around a call; every other model by Keras."""

from collections import Counter

import keras
import numpy as np
import pytest
from keras import layers, ops

from k3seq.backend import keras_internals
from k3seq.models.lstm import LSTMSeq2Seq
from k3seq.train.losses import TokenCrossentropy
from tagger import LABELS, TOKENS, WEIGHTS, Tagger, largest_difference, weights

if keras.backend.backend() != "torch":
    pytest.skip("the other backends trace a call once", allow_module_level=True)

torch_call = pytest.importorskip("k3seq.backend.torch_call")


class Told(Tagger):
    """Tells the training of each call, adds a loss, and drops out by what its inner layers know of the call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.told, self.inner = [], layers.Dropout(0.5, seed=1)
        self.inner.build((None, None, 3))

    def call(self, tokens, training=None):
        self.told.append(training)
        self.add_loss(ops.sum(ops.square(self.dense.kernel)))
        return self.inner(super().call(tokens))


class TakesMask(Tagger):
    def call(self, tokens, mask=None):
        assert mask is None
        return super().call(tokens)


class WithMasks(Tagger):
    def compute_mask(self, inputs, previous_mask):
        return previous_mask


class OwnCall(Tagger):
    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs)


def hooked(model):
    model.register_forward_hook(lambda *_: None)


def regularised(model):
    model.activity_regularizer = keras.regularizers.L2(0.1)


def specified(model):
    model.input_spec = layers.InputSpec(ndim=2)


def nothing(model):
    pass


@pytest.fixture
def by_keras(monkeypatch):
    """How often Keras' own call reached a layer, beside the one in which `compile`d models are built."""
    seen, original = Counter(), layers.Layer.forward

    def forward(self, *args, **kwargs):
        seen[self] += not keras_internals.has_placeholders()
        return original(self, *args, **kwargs)

    monkeypatch.setattr(layers.Layer, "forward", forward)
    return seen


def trained(model, batches=2):
    model.compile(keras.optimizers.SGD(0.1), loss=TokenCrossentropy(), jit_compile=False)
    logs = [model.train_on_batch(TOKENS, LABELS, WEIGHTS, return_dict=True) for _ in range(batches)]
    return logs, weights(model)


@pytest.mark.parametrize("kind", [Tagger, Told])
def test_a_plain_model_is_called_alone_with_the_results_of_keras(kind, by_keras, monkeypatch):
    model = kind()
    logs, values = trained(model)
    assert by_keras[model] == 0 and by_keras[model.dense] == 2
    monkeypatch.setattr(kind, "_outputs_of", lambda self, x, training: self(x, training=training))
    other = kind()
    expected, others = trained(other)
    assert by_keras[other] == 2
    for log, wanted in zip(logs, expected, strict=True):
        assert log == pytest.approx(wanted, rel=1e-6)
    assert largest_difference(values, others) < 1e-6
    assert getattr(model, "told", None) == getattr(other, "told", None)
    assert largest_difference(values, trained(kind(), 1)[1]) > 1e-4


def test_inner_layers_know_whether_it_is_training():
    model = Told()
    model.compile(keras.optimizers.SGD(0.0), loss=TokenCrossentropy(), jit_compile=False)
    model.train_on_batch(TOKENS, LABELS, WEIGHTS)
    found = [model.test_on_batch(TOKENS, LABELS, WEIGHTS) for _ in range(2)]
    assert found[0] == found[1] and model.told[-3:] == [True, False, False]
    assert len({model.train_on_batch(TOKENS, LABELS, WEIGHTS, return_dict=True)["loss"] for _ in range(8)}) > 1
    assert len(model.losses) == 1


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (Tagger, hooked),
        (Tagger, regularised),
        (Tagger, specified),
        (WithMasks, nothing),
        (TakesMask, nothing),
        (OwnCall, nothing),
    ],
    ids=["hook", "activity regulariser", "input spec", "masks of its own", "takes a mask", "a call of its own"],
)
def test_what_keras_has_to_do_around_a_model_is_done_by_keras(kind, change, by_keras):
    model = kind()
    change(model)
    trained(model)
    assert by_keras[model] == 2


def test_mixed_precision_and_masks_on_tensors_are_left_to_keras(by_keras):
    model = Tagger(dtype="mixed_bfloat16")
    trained(model)
    assert by_keras[model] == 2
    model = Tagger()
    tokens = ops.convert_to_tensor(TOKENS)
    torch_call.outermost(model, tokens, False)
    assert by_keras[model] == 0
    tokens._keras_mask = ops.convert_to_tensor(TOKENS > 0)
    with pytest.raises(UserWarning, match="passed an input with a mask"):
        torch_call.outermost(model, tokens, False)


def test_an_error_in_a_call_leaves_no_context_behind():
    class Fails(Tagger):
        fails = True

        def call(self, tokens):
            if self.fails:
                raise ValueError("no")
            return super().call(tokens)

    model = Fails()
    with pytest.raises(ValueError, match="no"):
        torch_call.outermost(model, ops.convert_to_tensor(TOKENS), True)
    model.fails = False
    other = Told()
    other(TOKENS)
    assert other.told == [None] and np.isfinite(trained(model)[0][0]["loss"])


def test_inputs_by_name_are_seen_through(by_keras):
    model = LSTMSeq2Seq(5, 5, 3, 4)
    model.compile("sgd")
    rows = {"source": TOKENS, "source_lengths": np.array([3, 1], "int32"), "target": TOKENS}
    model.train_on_batch(rows, LABELS, WEIGHTS)
    assert by_keras[model] == 0
    model.train_on_batch((TOKENS, TOKENS), LABELS, WEIGHTS)
    assert by_keras[model] == 0
