"""Reproducers: draws, dtypes, ties and ids."""

import warnings

import keras
import numpy as np
from keras import ops

from k3seq import random
from k3seq.data import checks
from k3seq.parity.divergences.observation import Observation, raised


def one_seed_other_numbers():
    drawn = ops.convert_to_numpy(keras.random.uniform((4,), seed=7)).astype("float64").round(6).tolist()
    ours = random.Stream(7).uniform((4,)).astype("float64").round(6).tolist()
    told = ", ".join(f"{value:.4f}" for value in drawn)
    return Observation(told, "k3seq.random.Stream is the same everywhere", value=drawn, control_value=ours)


def initializers_from_one_seed():
    layer = keras.layers.Dense(2, kernel_initializer=keras.initializers.GlorotUniform(seed=7), name="layer")
    layer.build((None, 2))
    drawn = ops.convert_to_numpy(layer.kernel).astype("float64").round(6).ravel().tolist()
    random.initialize(layer, seed=7)
    ours = ops.convert_to_numpy(layer.kernel).astype("float64").round(6).ravel().tolist()
    return Observation(
        f"{drawn[0]:.4f} first", f"{ours[0]:.4f} first by k3seq.random.initialize", value=drawn, control_value=ours
    )


def ties_of_top_k():
    x = np.array([1.0, 3.0, 3.0, 0.0, 3.0], "float32")
    found = ops.convert_to_numpy(ops.top_k(x, k=2)[1]).tolist()
    sorted_first = ops.convert_to_numpy(ops.argsort(-x))[:2].tolist()
    right = [1, 2]  # the lowest index first
    return Observation(f"{found}", f"{sorted_first} by argsort(-x)", found != right, sorted_first == right)


def float64_product():
    third = np.full((1, 1), 1 / 3)  # its square is off by 1e-8 where it is rounded to float32
    x = ops.convert_to_tensor(third)
    product = ops.matmul(x, x)
    if keras.backend.standardize_dtype(x.dtype) != "float64":
        return Observation("there is no float64 here", "none needed", False, True)
    error = abs(float(ops.convert_to_numpy(product)[0, 0]) - 1 / 9)
    operator = abs(float(ops.convert_to_numpy(x @ x)[0, 0]) - 1 / 9)
    return Observation(f"off by {error:.0e}", f"off by {operator:.0e} with the operator @", error > 1e-12, operator < 1e-15)


def float64_is_float32():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX warns of it where the array is made, unless the caller has filtered it
        given = keras.backend.standardize_dtype(ops.convert_to_tensor(np.zeros(2, "float64")).dtype)
    host = np.zeros(2, "float64").dtype.name
    return Observation(given, f"{host} in NumPy", given != "float64", host == "float64")


def _looked_up(token):
    """The row of a table [[0, 0], [1, 1], [2, 2]] that an Embedding gives for an id."""
    layer = keras.layers.Embedding(3, 2)
    layer.build((None,))
    layer.set_weights([np.repeat(np.arange(3, dtype="float32")[:, None], 2, axis=1)])
    return ops.convert_to_numpy(layer(np.array([token], "int32")))[0]


def _refused(token):
    """(whether the host check tells this id from a good one, its words)."""
    words = raised(lambda: checks.check_ids([token], 3))
    return bool(words) and not raised(lambda: checks.check_ids([2], 3)), f"k3seq.data.checks: {words}"


def embedding_of_an_id_above():
    failed = raised(lambda: _looked_up(3))
    right, words = _refused(3)
    return Observation(failed or f"id 3 of 3: {_looked_up(3)}", words, not failed, right)


def embedding_of_a_negative_id():
    failed = raised(lambda: _looked_up(-1))
    right, words = _refused(-1)
    return Observation(failed or f"id -1: {_looked_up(-1)}", words, not failed, right)


def loss_of_a_label_out_of_range():
    logits = np.zeros((1, 4), "float32")

    def loss(label):
        labels = np.array([label], "int32")
        return float(ops.convert_to_numpy(ops.sparse_categorical_crossentropy(labels, logits, from_logits=True))[0])

    failed = raised(lambda: loss(4))
    refused = [raised(lambda label=label: checks.check_labels([label], 4)) for label in (4, 3)]
    right = bool(refused[0] and not refused[1])
    return Observation(failed or f"loss {loss(4):g}", f"k3seq.data.checks: {refused[0]}", not failed, right)


def softmax_of_one():
    def warned(call):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        return bool(caught)

    x = ops.convert_to_tensor(np.zeros((2, 1), "float32"))
    one = warned(lambda: ops.softmax(x))
    own = warned(lambda: ops.exp(x) / ops.sum(ops.exp(x), axis=-1, keepdims=True))
    return Observation("warns" if one else "silent", "silent when written as exp / sum", one, not own)
