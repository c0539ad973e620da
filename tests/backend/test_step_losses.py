"""The train step with several losses, `add_loss` and regularisers."""

import keras
import numpy as np
import pytest
from keras import ops

from k3seq.backend import StepMixin
from k3seq.errors import UsageError
from k3seq.train.losses import TokenCrossentropy
from tagger import LABELS, TOKENS, Tagger, largest_difference, values


class TwoLosses(Tagger):
    loss_names = ("first", "second")

    def objective(self, x, y, sample_weight, training):
        logits = self(x)
        return {"first": ops.mean(logits**2), "second": 3.0 * ops.mean(ops.abs(logits))}, None


def test_named_losses_are_summed_and_each_reported():
    model = TwoLosses()
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    logits = ops.convert_to_numpy(model(TOKENS))
    logs = model.train_on_batch(TOKENS, LABELS, return_dict=True)
    np.testing.assert_allclose(logs["first"], (logits**2).mean(), rtol=1e-5)
    np.testing.assert_allclose(logs["second"], 3 * np.abs(logits).mean(), rtol=1e-5)
    np.testing.assert_allclose(logs["loss"], logs["first"] + logs["second"], rtol=1e-5)
    logits = ops.convert_to_numpy(model(TOKENS))
    logs = model.test_on_batch(TOKENS, LABELS, return_dict=True)
    model.reset_metrics()
    logs = model.test_on_batch(TOKENS, LABELS, return_dict=True)
    np.testing.assert_allclose(logs["first"], (logits**2).mean(), rtol=1e-5)
    assert set(logs) == {"loss", "first", "second"}


def test_an_objective_with_other_names_than_it_announced_is_refused():
    class Misnamed(TwoLosses):
        loss_names = ("first", "other")

    model = Misnamed()
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    with pytest.raises(UsageError, match=r"\['first', 'other'\].*\['first', 'second'\]"):
        model.train_on_batch(TOKENS, LABELS)


@pytest.mark.parametrize("base", [Tagger, TwoLosses])
def test_add_loss_and_regularisers_are_minimised_too(base):
    class Added(base):
        def call(self, tokens):
            self.add_loss(ops.sum(self.dense.bias**2))
            return super().call(tokens)

    model, plain = Added(), base()
    model.dense.kernel_regularizer = keras.regularizers.L2(0.5)
    model.dense.kernel.regularizer = model.dense.kernel_regularizer
    extra = (values(plain)[2] ** 2).sum() + 0.5 * (values(plain)[1] ** 2).sum()
    for _ in range(2):
        logs = []
        for each in (model, plain):
            each.compile(keras.optimizers.SGD(0.0), loss=TokenCrossentropy(), jit_compile=False)
            logs.append(each.train_on_batch(TOKENS, LABELS, return_dict=True)["loss"])
        np.testing.assert_allclose(logs[0], logs[1] + extra, rtol=1e-5)


def test_the_first_step_of_a_model_with_several_compiled_losses_may_be_refused():
    inputs = keras.Input((2,))

    class TwoOutputs(StepMixin, keras.Model):
        pass

    model = TwoOutputs(inputs, {name: keras.layers.Dense(1, name=name)(inputs) for name in ("a", "b")})
    model.compile(keras.optimizers.SGD(0.1), loss={"a": "mse", "b": "mae"}, metrics={"a": ["mae"]}, jit_compile=False)
    x, y = np.ones((2, 2), "float32"), {name: np.ones((2, 1), "float32") for name in ("a", "b")}
    before = values(model)
    logs = model.train_on_batch(np.full_like(x, np.inf), y, return_dict=True)
    assert logs["refused"] == 1.0 and largest_difference(values(model), before) == 0.0
    model.reset_metrics()
    logs = model.train_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(logs["loss"], logs["a_loss"] + logs["b_loss"], rtol=1e-5)
