"""The train step: what it adds to Keras' own, on the backend that runs."""

import keras
import numpy as np
import pytest
from keras import ops

from k3seq.backend import StepMixin
from k3seq.errors import UsageError
from k3seq.train.losses import TokenCrossentropy
from tagger import LABELS, TOKENS, WEIGHTS, Tagger, largest_difference, values, weights


class TokenWeighted(Tagger):
    def batch_weight(self, x, y, sample_weight):
        return ops.sum(sample_weight)


def compiled(model, optimizer=None, **options):
    model.compile(optimizer or keras.optimizers.SGD(0.5), loss=TokenCrossentropy(), jit_compile=False)
    model.step_options(**options)
    return model


def expected_gradients(model):
    """Gradients of the mean token loss by hand, float64: embedding (3, 2), kernel (2, 3), bias (3,)."""
    table, kernel, bias = (value.astype("float64") for value in weights(model))
    hidden = table[TOKENS]
    logits = hidden @ kernel + bias
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    delta = (probabilities - np.eye(3)[LABELS]) * WEIGHTS[..., None] / WEIGHTS.sum()
    embedding = np.zeros_like(table)
    np.add.at(embedding, TOKENS, delta @ kernel.T)
    return embedding, np.einsum("btd,btv->dv", hidden, delta), delta.sum((0, 1))


def adam_first_step(value, gradient, rate, epsilon=1e-7):
    """Adam's first step (Kingma & Ba 2015, algorithm 1, with the bias corrections folded into the rate as Keras has it)."""
    return value - rate * np.sqrt(1 - 0.999) / (1 - 0.9) * (0.1 * gradient) / (np.sqrt(0.001 * gradient**2) + epsilon)


def six_token_error(model):
    """One Adam step on six tokens, four of them repeats: distance of the embedding from the float64 result."""
    model.compile(keras.optimizers.Adam(0.1), loss=TokenCrossentropy(), jit_compile=False)
    expected = adam_first_step(weights(model)[0], expected_gradients(model)[0], 0.1)
    model.train_on_batch(TOKENS, LABELS, WEIGHTS)
    return np.max(np.abs(weights(model)[0] - expected))


def test_six_tokens_one_adam_step_sums_repeated_ids():
    assert six_token_error(Tagger()) < 2e-6


def test_six_tokens_go_wrong_with_the_step_of_keras_on_tensorflow():
    class Stock(Tagger):
        train_step = keras.Model.train_step
        test_step = keras.Model.test_step

    error = six_token_error(Stock())
    # The negative control of the test above, and the day on which Keras mends it.
    assert (error > 1e-3) == (keras.backend.backend() == "tensorflow")


@pytest.mark.parametrize("clip", [None, 0.1])
def test_sgd_step_and_gradient_norm_equal_the_calculation_by_hand(clip):
    model = compiled(Tagger(), keras.optimizers.SGD(0.5, global_clipnorm=clip))
    before, gradients = weights(model), expected_gradients(model)
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    assert norm > 0.1
    logs = model.train_on_batch(TOKENS, LABELS, WEIGHTS, return_dict=True)
    np.testing.assert_allclose(logs["gradient_norm"], norm, rtol=1e-5)
    scale = 1.0 if clip is None else clip / norm
    after = [value - 0.5 * scale * gradient for value, gradient in zip(before, gradients, strict=True)]
    assert largest_difference(weights(model), after) < 1e-6
    assert largest_difference(weights(model), before) > 1e-3


def test_micro_batches_weighted_by_tokens_equal_the_whole_batch():
    whole, parts, rows = (
        compiled(TokenWeighted()),
        compiled(TokenWeighted(), gradient_accumulation_steps=2),
        compiled(Tagger(), gradient_accumulation_steps=2),
    )
    losses = [model.train_on_batch(TOKENS, LABELS, WEIGHTS, return_dict=True)["loss"] for model in (whole, parts, rows)]
    assert largest_difference(weights(parts), weights(whole)) < 1e-6
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
    # Control: rows hold 1 and 3 tokens, so weighing micro-batches by rows is another update.
    assert largest_difference(weights(rows), weights(whole)) > 1e-3


def test_accumulate_of_more_rows_than_the_batch_has_is_refused():
    with pytest.raises(UsageError, match="at least gradient_accumulation_steps=3 rows"):
        compiled(Tagger(), gradient_accumulation_steps=3).train_on_batch(TOKENS, LABELS, WEIGHTS)
    with pytest.raises(UsageError, match="gradient_accumulation_steps=0"):
        Tagger().step_options(gradient_accumulation_steps=0)


class Overflowing(Tagger):
    """Loss times a factor given with the tokens; and a variable that counts calls, as batch statistics would."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls = self.add_weight(name="calls", shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.calls.assign(self.calls + 1.0)
        return super().call(inputs["tokens"]) * inputs["factor"][:, :, None]


def inputs(factor):
    return {"tokens": TOKENS, "factor": np.full((2, 1), factor, "float32")}


@pytest.mark.parametrize("factor", [np.inf, np.nan, 1e25])  # of the last one the gradient is finite, its square is not
def test_a_step_that_is_not_finite_leaves_everything_as_it_was(factor):
    model = compiled(Overflowing(), keras.optimizers.Adam(0.1))
    model.train_on_batch(inputs(1.0), LABELS, WEIGHTS)
    before = values(model) + [np.array(ops.convert_to_numpy(v)) for v in model.optimizer.variables]
    model.reset_metrics()
    logs = model.train_on_batch(inputs(factor), LABELS, WEIGHTS, return_dict=True)
    assert logs["refused"] == 1.0 and logs["loss"] == 0.0
    after = values(model) + [np.array(ops.convert_to_numpy(v)) for v in model.optimizer.variables]
    assert largest_difference(after, before) == 0.0
    logs = model.train_on_batch(inputs(1.0), LABELS, WEIGHTS, return_dict=True)
    assert np.isfinite(logs["loss"]) and largest_difference(values(model), before[: len(model.variables)]) > 1e-3


def test_without_refusal_a_step_that_is_not_finite_spoils_the_weights():
    model = compiled(Overflowing(), refuse_nonfinite=False)
    model.train_on_batch(inputs(np.nan), LABELS, WEIGHTS)
    assert np.isnan(weights(model)[0]).any()


def test_loss_scaling_halves_the_scale_at_an_overflow_and_keeps_the_weights():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=1024.0)
    model, plain = compiled(Overflowing(), scaled), compiled(Overflowing())
    before = weights(model)
    model.train_on_batch(inputs(np.inf), LABELS, WEIGHTS)
    assert largest_difference(weights(model), before) == 0.0
    assert float(scaled.dynamic_scale.value) == 512.0
    model.reset_metrics()
    logs = [m.train_on_batch(inputs(1.0), LABELS, WEIGHTS, return_dict=True) for m in (model, plain)]
    assert largest_difference(weights(model), weights(plain)) < 1e-6
    np.testing.assert_allclose(logs[0]["gradient_norm"], logs[1]["gradient_norm"], rtol=1e-5)


def test_moving_averages_of_the_optimizer_equal_the_calculation_by_hand():
    model = compiled(Tagger(), keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9))
    seen = [weights(model)[0]]
    for _ in range(2):
        model.train_on_batch(TOKENS, LABELS, WEIGHTS)
        seen.append(weights(model)[0])
    model.optimizer.finalize_variable_values(model.trainable_variables)
    # Keras' average begins as the weights after the first update.
    assert np.max(np.abs(weights(model)[0] - (0.9 * seen[1] + 0.1 * seen[2]))) < 1e-6
    assert np.max(np.abs(weights(model)[0] - seen[2])) > 1e-4


def test_a_weight_that_the_loss_does_not_reach_keeps_its_value():
    class Idle(Tagger):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.idle = self.add_weight(name="idle", shape=(2,), initializer="ones")

    model = compiled(Idle(), keras.optimizers.Adam(0.1))
    model.train_on_batch(TOKENS, LABELS)
    np.testing.assert_array_equal(ops.convert_to_numpy(model.idle), [1.0, 1.0])


@pytest.mark.parametrize("jit", [False, True])
def test_fit_evaluate_predict_callbacks_and_metrics_work(jit):
    if jit and keras.backend.backend() == "torch":
        pytest.skip("torch.compile wants a C++ compiler and minutes; the eager step is what Keras runs on torch")
    model = Tagger()
    model.compile(
        keras.optimizers.SGD(0.5),
        loss=TokenCrossentropy(),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=jit,
    )
    x, y, w = (np.repeat(value, 8, axis=0) for value in (TOKENS, LABELS, WEIGHTS))
    seen = []
    history = model.fit(
        x, y, sample_weight=w, batch_size=4, epochs=3, verbose=0, validation_data=(x, y, w),
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))],
    ).history  # fmt: skip
    assert len(seen) == 12 and history["loss"][2] < history["loss"][0]
    assert set(history) >= {"accuracy", "val_accuracy", "gradient_norm", "refused", "val_loss"}
    assert "val_gradient_norm" not in history
    evaluated = model.evaluate(x, y, sample_weight=w, batch_size=4, verbose=0, return_dict=True)
    np.testing.assert_allclose(evaluated["loss"], history["val_loss"][-1], rtol=1e-5)
    logits = model.predict(x, verbose=0)
    right = (logits.argmax(-1) == y) * w
    np.testing.assert_allclose(evaluated["accuracy"], right.sum() / w.sum(), rtol=1e-6)


def test_a_saved_model_goes_on_training_as_the_one_that_was_saved(tmp_path):
    inputs = keras.Input((3,), dtype="int32")

    class Functional(StepMixin, keras.Model):
        pass

    outputs = keras.layers.Dense(3)(keras.layers.Embedding(3, 2)(inputs))
    model = compiled(Functional(inputs, outputs), keras.optimizers.Adam(0.1), gradient_accumulation_steps=2)
    model.train_on_batch(TOKENS, LABELS)
    model.save(tmp_path / "model.keras")
    custom = {"Functional": Functional}
    again = keras.saving.load_model(tmp_path / "model.keras", custom_objects=custom)
    assert again._step_options == {"gradient_accumulation_steps": 2, "refuse_nonfinite": True}
    for each in (model, again):
        each.train_on_batch(TOKENS, LABELS)
    assert largest_difference(values(model), values(again)) < 1e-6


def test_default_loss_of_an_epoch_weighs_batches_by_batch_weight():
    model = TokenWeighted()
    model.compile(keras.optimizers.SGD(0.0), loss=TokenCrossentropy(), jit_compile=False)
    whole = model.evaluate(TOKENS, LABELS, sample_weight=WEIGHTS, batch_size=2, verbose=0)
    parts = model.evaluate(TOKENS, LABELS, sample_weight=WEIGHTS, batch_size=1, verbose=0)
    np.testing.assert_allclose(parts, whole, rtol=1e-6)
