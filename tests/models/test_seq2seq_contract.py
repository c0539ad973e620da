"""What holds for every seq2seq model: batches of other sizes after it was compiled, ids out of range, mixed precision.

TensorFlow traces with unknown dimensions once it has seen two sizes; JAX compiles again.
"""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from k3seq.decode import Greedy
from k3seq.errors import UsageError
from k3seq.models import registry
from k3seq.random import initialize
from k3seq.train.losses import TokenCrossentropy


def batch(rows, source_steps, target_steps, seed):
    draw = np.random.default_rng(seed)
    x = {
        "source": draw.integers(4, 9, (rows, source_steps)).astype("int32"),
        "source_lengths": draw.integers(1, source_steps + 1, rows).astype("int32"),
        "target": draw.integers(4, 9, (rows, target_steps)).astype("int32"),
    }
    y = draw.integers(4, 9, (rows, target_steps)).astype("int32")
    return x, y, (draw.random((rows, target_steps)) < 0.8).astype("float32")


SIZES = {
    "lstm": {"embed_dim": 4, "units": 8},
    "lstm-attention": {"embed_dim": 4, "units": 8},
    "transformer": {"embed_dim": 8, "num_heads": 2, "dense_dim": 8, "max_steps": 16},
    "sliding": {"embed_dim": 8, "dense_dim": 8, "width_source": 8, "width_target": 8},
}


def model(kind):
    made = initialize(registry.seq2seq(kind, 9, 9, num_layers=1, **SIZES[kind]), 0)
    made.compile("sgd", loss=TokenCrossentropy())
    return made


@pytest.mark.parametrize("kind", registry.TRAINABLE)
def test_losses_do_not_depend_on_the_shapes_seen_before(kind):
    shapes = [(2, 3, 4), (2, 7, 5), (3, 1, 1)]  # at the third TensorFlow traces with sizes unknown
    trained, fresh = model(kind), model(kind)
    first = ops.convert_to_numpy(trained.weights[0]).copy()
    for seed, shape in enumerate(shapes):
        if seed == len(shapes) - 1:
            for variable, value in zip(fresh.variables, trained.variables, strict=True):
                variable.assign(np.array(ops.convert_to_numpy(value)))  # a copy: JAX's step deletes the arrays it was given
        x, y, weight = batch(*shape, seed)
        loss = trained.train_on_batch(x, y, weight, return_dict=True)["loss"]
        assert np.isfinite(loss)
    np.testing.assert_allclose(loss, fresh.train_on_batch(x, y, weight, return_dict=True)["loss"], rtol=1e-5)
    assert trained(batch(2, 4, 6, 9)[0]).shape == (2, 6, 9)
    assert np.abs(ops.convert_to_numpy(trained.weights[0]) - first).max() > 0


WRONG = {
    "a source id": ({"source": [[4, 9, 4]]}, r"Expected source ids in 0..8. Received: 9 at row 0, step 1"),
    "a negative target id": ({"target": [[1, -1]]}, r"Expected target ids in 0..8. Received: -1 at row 0, step 1"),
    "a length": ({"source_lengths": [4]}, r"Expected source lengths in 0..3. Received: 4 at row 0"),
    "a label": ({"labels": [[4, 9]]}, r"Expected labels in 0..8. Received: 9 at row 0, step 1"),
    "lengths of other rows": ({"source_lengths": [3, 3]}, r"Expected source lengths with as many rows as source, 1. Received"),
    "a target of other rows": ({"target": [[1, 4]] * 2}, r"Expected target with as many rows as source, 1. Received"),
    "a float id": ({"source": [[4.0, 5.0, 4.0]]}, r"Expected source ids to be integers. Received: float64"),
}


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
@pytest.mark.parametrize(("wrong", "message"), WRONG.values(), ids=WRONG)
def test_values_out_of_range_raise_the_same_error_on_every_backend(kind, wrong, message):
    x = {"source": np.array([[4, 5, 6]]), "source_lengths": np.array([3]), "target": np.array([[1, 4]])}
    y = np.array(wrong.get("labels", [[4, 2]]))
    made = model(kind)
    made.check(x, np.array([[4, 2]]))
    made.check(x, np.array([[4, 9]]), np.array([[1.0, 0.0]]))
    x |= {name: np.array(value) for name, value in wrong.items() if name in x}
    for call in (made.fit, made.evaluate, made.train_on_batch, made.test_on_batch):
        with pytest.raises(UsageError, match=message):
            call(x, y)
    if "source" in message and "target" not in wrong:
        with pytest.raises(
            UsageError, match=message.replace("lengths in 0", "lengths in 1")
        ):  # decoding needs at least one step
            Greedy(made, max_steps=3)(x)


@functools.cache
def losses_of(kind, policy):
    """(losses of five Adam steps, the model)."""
    x, y, weight = batch(4, 6, 5, 0)
    keras.config.set_dtype_policy(policy)
    try:
        made = model(kind)
    finally:
        keras.config.set_dtype_policy("float32")
    made.compile(keras.optimizers.Adam(0.01), loss=TokenCrossentropy())
    return [float(made.train_on_batch(x, y, weight, return_dict=True)["loss"]) for _ in range(5)], made


@pytest.mark.parametrize(
    "kind, policy",
    [
        ("lstm-attention", "mixed_bfloat16"),
        ("transformer", "mixed_float16"),
        pytest.param("lstm-attention", "mixed_float16", marks=pytest.mark.heavy),
        pytest.param("transformer", "mixed_bfloat16", marks=pytest.mark.heavy),
    ],
)
def test_mixed_precision_trains_as_float32_does(kind, policy):
    (expected, _), (losses, made) = losses_of(kind, "float32"), losses_of(kind, policy)
    assert made.compute_dtype == policy.removeprefix("mixed_")
    scaled = isinstance(made.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    np.testing.assert_allclose(losses, expected, rtol=5e-3)
    assert losses != expected and expected[-1] < 0.99 * expected[0]
