"""Reproducers: divergences of stock layers (docs/stock-layers.md)."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from k3seq import backend
from k3seq.data import checks
from k3seq.layers import BidirectionalLSTM
from k3seq.layers.masks import masked_mean, masked_softmax
from k3seq.parity.divergences.observation import Observation, raised
from k3seq.parity.subject import array
from k3seq.typing import ArrayLike, NDArray, Tensor


def _gradient(function: Callable[..., Tensor], *points: ArrayLike) -> list[NDArray[Any]]:
    """The gradients of the sum of `function(*points)` for each point."""
    _, gradients = backend.value_and_grad(lambda given: ops.sum(function(*given)))([np.asarray(p, "float32") for p in points])
    return [array(gradient) for gradient in gradients]


def average_pooling_at_the_border() -> Observation:
    x = np.array([0, 0, 0, 6], "float32").reshape(1, 4, 1)
    pool = keras.layers.AveragePooling1D(3, 2, padding="same")
    last = float(array(pool(x))[0, 1, 0])  # windows [0, 0, 0] and [0, 6]
    padded = (np.pad(one, [(0, 0), (0, 1), (0, 0)]) for one in (x, np.ones_like(x)))
    summed, counted = (array(ops.average_pool(one, 3, 2)) for one in padded)
    control = float((summed / counted)[0, 1, 0])
    return Observation(
        f"the mean of 0 and 6 is {last:g}",
        f"{control:g} by pooling of zeros and ones",
        abs(last - 3) > 1e-6,
        abs(control - 3) < 1e-6,
    )


def attention_without_a_key() -> Observation:
    x, v = np.ones((1, 1, 1, 1), "float32"), np.ones((1, 4, 1, 1), "float32")
    mask = np.zeros((1, 1, 1, 4), bool)
    forward = float(array(ops.dot_product_attention(x, v, v, mask=mask)).item())
    stock = float(_gradient(lambda value: ops.dot_product_attention(x, v, value, mask=mask), v)[0].sum())

    def masked_sum(value: Tensor) -> Tensor:
        return ops.sum(masked_softmax(ops.ones((4,)), mask[0, 0, 0]) * value[0, :, 0, 0])

    ours = float(_gradient(masked_sum, v)[0].sum())
    return Observation(
        f"output {forward:g} of values 1, yet a gradient of {stock:g}",
        f"gradient {ours:g}: k3seq's attention gives 0 there",
        abs(stock - forward) > 1e-3,
        ours == 0.0,
    )


def unit_normalization_of_zeros() -> Observation:
    zeros = np.zeros((1, 2), "float32")

    def bounded(x: Tensor) -> Tensor:
        return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), axis=-1, keepdims=True), 1e-12))

    stock, ours = _gradient(keras.layers.UnitNormalization(), zeros)[0], _gradient(bounded, zeros)[0]
    return Observation(
        f"gradient {stock[0]}",
        f"{ours[0]} with the bound under the root",
        not np.isfinite(stock).all(),
        bool(np.isfinite(ours).all()),
    )


def maximum_of_equals() -> Observation:
    zeros = np.zeros((1,), "float32")
    found, ours = (
        [float(gradient[0]) for gradient in _gradient(function, zeros, zeros)]
        for function in (ops.maximum, lambda a, b: ops.where(a == b, (a + b) / 2, ops.maximum(a, b)))
    )
    seen = f"gradients {found}"
    return Observation(seen, f"{ours} with an explicit mean at ties", found != [0.5, 0.5], ours == [0.5, 0.5])


def gradient_of_abs_at_zero() -> Observation:
    zeros = np.zeros((1,), "float32")
    found, ours = (float(_gradient(f, zeros)[0][0]) for f in (ops.abs, lambda x: x * ops.stop_gradient(ops.sign(x))))
    return Observation(f"gradient {found:g}", f"{ours:g} of x * stop_gradient(sign(x))", found != 0.0, ours == 0.0)


def _paths(layer: keras.layers.Layer) -> tuple[str, str]:
    """The first weight's path of a layer when it is built, and when it is made from its own configuration."""
    layer(np.zeros((1, 2, 2), "float32"))
    again: Any = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    if not again.built:
        again(np.zeros((1, 2, 2), "float32"))
    return layer.weights[0].path, again.weights[0].path


def path_of_a_loaded_wrapper() -> Observation:
    before, after = _paths(keras.layers.Bidirectional(keras.layers.LSTM(2, name="lstm"), name="both"))
    ours = _paths(BidirectionalLSTM(2, name="both"))
    return Observation(f"{before} is loaded as {after}", f"{ours[0]} as {ours[1]}", before != after, ours[0] == ours[1])


def variance_far_from_zero() -> Observation:
    spread = np.linspace(-1.0, 1.0, 64)
    truth = (spread / np.sqrt(np.mean(spread**2) + 1e-6))[-1]

    def last(shift: float) -> float:
        layer = keras.layers.BatchNormalization(epsilon=1e-6)
        return float(array(layer((spread + shift).astype("float32")[:, None], training=True))[-1, 0])

    far, near = last(3000.0), last(0.0)
    return Observation(
        f"{far:.3f} instead of {truth:.3f}",
        f"{near:.3f} near zero",
        bool(not abs(far - truth) < 1e-2),
        bool(abs(near - truth) < 1e-4),
    )


def add_of_a_column() -> Observation:
    column = np.array([[[1], [2]]], "float32")  # (1, 2, 1): the same number along the last axis
    x = ops.zeros((1, 2, 2))
    found, ours = (array(total)[0].tolist() for total in (ops.add(x, column), x + ops.convert_to_tensor(column)))
    right = [[1.0, 1.0], [2.0, 2.0]]
    return Observation(f"{found}", f"{ours} with the operator +", found != right, ours == right)


def unrolled_zero_outputs() -> Observation:
    x, mask = np.ones((1, 2, 1), "float32"), np.array([[True, False]])

    def last(unroll: bool) -> float:
        layer = keras.layers.LSTM(1, return_sequences=True, zero_output_for_mask=True, unroll=unroll)
        layer.build(x.shape)
        layer.set_weights([np.ones(w.shape, "float32") for w in layer.weights])
        return float(array(layer(x, mask=mask))[0, 1, 0])

    unrolled, scanned = last(True), last(False)
    return Observation(f"{unrolled:.3f} at a masked step", f"{scanned:g} with unroll=False", unrolled != 0.0, scanned == 0.0)


def masked_convolutional_lstm() -> Observation:
    x, mask = np.ones((2, 3, 4, 1), "float32"), np.ones((2, 3), bool)
    layer = keras.layers.ConvLSTM1D(1, 3, padding="same")
    masked, plain = raised(lambda: layer(x, mask=mask)), raised(lambda: layer(x))
    return Observation(masked or "runs", plain or "runs without a mask", bool(masked), not plain)


def gradients_at_kinks() -> Observation:
    found, smooth = {}, {}
    for name, place in {"leaky_relu": 0.0, "selu": 0.0, "celu": 0.0, "hard_tanh": 1.0, "sparse_sigmoid": 1.0}.items():
        function = getattr(ops, name)
        found[name] = round(float(_gradient(function, np.full((1,), place))[0][0]), 3)
        smooth[name] = round(float(_gradient(function, np.full((1,), place + 0.25))[0][0]), 3)
    seen = ", ".join(f"{name} {gradient:g}" for name, gradient in found.items())
    return Observation(seen, "equal at 0.25 beyond the kink", value=found, control_value=smooth)


def category_above() -> Observation:
    layer = keras.layers.CategoryEncoding(3, output_mode="multi_hot")

    def encoded(token: int) -> list[float]:
        return array(layer(np.array([token], "int32"))).tolist()

    failed = raised(lambda: encoded(3))
    refused, accepted = raised(lambda: checks.check_ids([3], 3)), not raised(lambda: checks.check_ids([2], 3))
    control = f"k3seq.data.checks: {refused}"
    return Observation(failed or f"{encoded(3)}", control, not failed, bool(refused) and accepted)


def bicubic_kernel() -> Observation:
    impulse = np.zeros((1, 6, 1, 1), "float32")
    impulse[0, 2] = 1.0

    def centre(interpolation: str) -> float:
        return float(array(ops.image.resize(impulse, (12, 1), interpolation))[0, 4, 0, 0])

    cubic, linear = centre("bicubic"), centre("bilinear")  # Keys' kernel with a = -1/2 at a quarter: 111/128
    return Observation(
        f"weight {cubic:.5f} at a quarter", f"{linear:g} bilinear", abs(cubic - 111 / 128) > 1e-4, linear == 0.75
    )


def mean_of_no_step() -> Observation:
    x, mask = np.ones((1, 2, 1), "float32"), np.zeros((1, 2), bool)
    stock = array(keras.layers.GlobalAveragePooling1D()(x, mask=mask)).item()
    ours = array(masked_mean(ops.convert_to_tensor(x), ops.convert_to_tensor(mask))).item()
    return Observation(f"{stock}", f"{ours:g} with k3seq.layers.masks.masked_mean", bool(np.isnan(stock)), ours == 0.0)
