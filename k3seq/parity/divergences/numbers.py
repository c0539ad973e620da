"""Reproducers: random draws, dtypes, ties and ids."""

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from k3seq import backend, random
from k3seq.data import checks
from k3seq.parity.divergences.observation import Observation, raised
from k3seq.parity.subject import array
from k3seq.typing import Initializer, NDArray, Tensor


def one_seed_other_numbers() -> Observation:
    drawn = array(keras.random.uniform((4,), seed=7)).astype("float64").round(6).tolist()
    ours = random.Stream(7).uniform((4,)).astype("float64").round(6).tolist()
    seen = ", ".join(f"{value:.4f}" for value in drawn)
    return Observation(seen, "k3seq.random.Stream is the same everywhere", value=drawn, control_value=ours)


def initializers_from_one_seed() -> Observation:
    initializer: Initializer = keras.initializers.GlorotUniform(seed=7)
    layer = keras.layers.Dense(2, kernel_initializer=initializer, name="layer")
    layer.build((None, 2))
    drawn = array(layer.kernel).astype("float64").round(6).ravel().tolist()
    random.initialize(layer, seed=7)
    ours = array(layer.kernel).astype("float64").round(6).ravel().tolist()
    return Observation(
        f"{drawn[0]:.4f} first", f"{ours[0]:.4f} first by k3seq.random.initialize", value=drawn, control_value=ours
    )


def ties_of_top_k() -> Observation:
    x = np.array([1.0, 3.0, 3.0, 0.0, 3.0], "float32")
    top: Tensor = ops.top_k(x, k=2)
    found = array(top[1]).tolist()
    sorted_first = array(ops.argsort(-x))[:2].tolist()
    right = [1, 2]  # the lowest index first
    return Observation(f"{found}", f"{sorted_first} by argsort(-x)", found != right, sorted_first == right)


def float64_product() -> Observation:
    third = np.full((1, 1), 1 / 3)  # its square has an error of 1e-8 where it is rounded to float32
    x: Tensor = ops.convert_to_tensor(third)
    product: Tensor = ops.matmul(x, x)
    if keras.backend.standardize_dtype(x.dtype) != "float64":
        return Observation("no float64 on this backend", "not needed", False, True)
    error = abs(float(array(product)[0, 0]) - 1 / 9)
    operator = abs(float(array(x @ x)[0, 0]) - 1 / 9)
    return Observation(f"error {error:.0e}", f"error {operator:.0e} with the operator @", error > 1e-12, operator < 1e-15)


def float64_is_float32() -> Observation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX warns when it makes the array
        tensor: Tensor = ops.convert_to_tensor(np.zeros(2, "float64"))
    given = keras.backend.standardize_dtype(tensor.dtype)
    host = np.zeros(2, "float64").dtype.name
    return Observation(given, f"{host} in NumPy", given != "float64", host == "float64")


def _looked_up(token: int) -> NDArray[Any]:
    """The row of a table [[0, 0], [1, 1], [2, 2]] that an Embedding gives for an id."""
    layer = keras.layers.Embedding(3, 2)
    layer.build((None,))
    layer.set_weights([np.repeat(np.arange(3, dtype="float32")[:, None], 2, axis=1)])
    return array(layer(np.array([token], "int32")))[0]


def _refused(token: int) -> tuple[bool, str]:
    """(whether the host check refuses this id and accepts a valid one, its message)."""
    message = raised(lambda: checks.check_ids([token], 3))
    return bool(message) and not raised(lambda: checks.check_ids([2], 3)), f"k3seq.data.checks: {message}"


def embedding_of_an_id_above() -> Observation:
    failed = raised(lambda: _looked_up(3))
    right, message = _refused(3)
    return Observation(failed or f"id 3 of 3: {_looked_up(3)}", message, not failed, right)


def embedding_of_a_negative_id() -> Observation:
    failed = raised(lambda: _looked_up(-1))
    right, message = _refused(-1)
    return Observation(failed or f"id -1: {_looked_up(-1)}", message, not failed, right)


def loss_of_a_label_out_of_range() -> Observation:
    logits = np.zeros((1, 4), "float32")

    def loss(label: int) -> float:
        labels = np.array([label], "int32")
        return float(array(ops.sparse_categorical_crossentropy(labels, logits, from_logits=True))[0])

    failed = raised(lambda: loss(4))
    refused = [raised(lambda label=label: checks.check_labels([label], 4)) for label in (4, 3)]
    right = bool(refused[0] and not refused[1])
    return Observation(failed or f"loss {loss(4):g}", f"k3seq.data.checks: {refused[0]}", not failed, right)


def softmax_of_one() -> Observation:
    def warned(call: Callable[[], Any]) -> bool:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        return bool(caught)

    x: Tensor = ops.convert_to_tensor(np.zeros((2, 1), "float32"))
    stock = warned(lambda: ops.softmax(x))
    own = warned(lambda: ops.divide(ops.exp(x), ops.sum(ops.exp(x), axis=-1, keepdims=True)))
    return Observation("warns" if stock else "silent", "silent when written as exp / sum", stock, not own)


def argmax_of_the_lowest() -> Observation:
    x = np.array([-np.inf, np.finfo("float32").min], "float32")
    found = int(array(ops.argmax(x)))
    ours = int(array(ops.argsort(-x))[0])
    return Observation(f"place {found} of [-inf, lowest]", f"place {ours} by argsort(-x)", found != 1, ours == 1)


def compiled_on_a_cpu() -> Observation:
    e = random.Stream(1).normal((5, 30, 60))
    truth = float(np.sum(np.matmul(e, np.ones((5, 60, 60))) * e.astype("float64")))

    def function(e: Tensor, c: Tensor) -> Tensor:
        product = ops.einsum("bnk,bkm->bnm", e, ops.broadcast_to(c, (5, 60, 60)))
        return ops.sum(ops.sum(product * e, axis=(1, 2)))

    arguments = [ops.convert_to_tensor(e), ops.convert_to_tensor(np.float32(1.0))]
    compiled, eager = (float(array(call(*arguments))) / truth for call in (backend.compiled(function), function))
    return Observation(
        f"{compiled:.3g} times the right sum",
        f"{eager:.3g} times when not compiled",
        not abs(compiled - 1) < 1e-2,
        abs(eager - 1) < 1e-3,
    )
