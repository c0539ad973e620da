"""Reproducers: what the zoo of stock layers showed (docs/stock-layers.md)."""

import keras
import numpy as np
from keras import ops

from k3seq import backend
from k3seq.data import checks
from k3seq.layers import BidirectionalLSTM
from k3seq.layers.masks import masked_mean, masked_softmax
from k3seq.parity.divergences.observation import Observation, raised


def _array(tensor):
    return ops.convert_to_numpy(tensor)


def _slope(function, *points):
    """The gradients of the sum of `function(*points)` for each point."""
    _, gradients = backend.value_and_grad(lambda given: ops.sum(function(*given)))([np.asarray(p, "float32") for p in points])
    return [_array(slope) for slope in gradients]


def average_pooling_at_the_border():
    x = np.array([0, 0, 0, 6], "float32").reshape(1, 4, 1)
    pool = keras.layers.AveragePooling1D(3, 2, padding="same")
    last = float(_array(pool(x))[0, 1, 0])  # windows [0, 0, 0] and [0, 6]
    summed, counted = (ops.average_pool(np.pad(one, [(0, 0), (0, 1), (0, 0)]), 3, 2) for one in (x, np.ones_like(x)))
    control = float(_array(summed / counted)[0, 1, 0])
    return Observation(
        f"the mean of 0 and 6 is {last:g}",
        f"{control:g} by pooling of zeros and ones",
        abs(last - 3) > 1e-6,
        abs(control - 3) < 1e-6,
    )


def attention_without_a_key():
    x, v = np.ones((1, 1, 1, 1), "float32"), np.ones((1, 4, 1, 1), "float32")
    mask = np.zeros((1, 1, 1, 4), bool)
    forward = float(_array(ops.dot_product_attention(x, v, v, mask=mask)).item())
    slope = float(_slope(lambda value: ops.dot_product_attention(x, v, value, mask=mask), v)[0].sum())
    ours = float(_slope(lambda value: ops.sum(masked_softmax(ops.ones((4,)), mask[0, 0, 0]) * value[0, :, 0, 0]), v)[0].sum())
    return Observation(
        f"output {forward:g} of values 1, yet a slope of {slope:g}",
        f"slope {ours:g}: k3seq's attention gives 0 there",
        abs(slope - forward) > 1e-3,
        ours == 0.0,
    )


def unit_normalization_of_zeros():
    zeros = np.zeros((1, 2), "float32")
    slope = _slope(keras.layers.UnitNormalization(), zeros)[0]
    ours = _slope(lambda x: x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), axis=-1, keepdims=True), 1e-12)), zeros)[0]
    return Observation(
        f"gradient {slope[0]}",
        f"{ours[0]} where the bound stands under the root",
        not np.isfinite(slope).all(),
        bool(np.isfinite(ours).all()),
    )


def maximum_of_equals():
    zeros = np.zeros((1,), "float32")
    found, ours = (
        [float(slope[0]) for slope in _slope(function, zeros, zeros)]
        for function in (ops.maximum, lambda a, b: ops.where(a == b, (a + b) / 2, ops.maximum(a, b)))
    )
    return Observation(f"gradients {found}", f"{ours} where ties are said", found != [0.5, 0.5], ours == [0.5, 0.5])


def slope_of_abs_at_zero():
    zeros = np.zeros((1,), "float32")
    found, ours = (float(_slope(f, zeros)[0][0]) for f in (ops.abs, lambda x: x * ops.stop_gradient(ops.sign(x))))
    return Observation(f"slope {found:g}", f"{ours:g} of x * sign(x), the sign held", found != 0.0, ours == 0.0)


def _paths(layer):
    """The first weight's path of a layer as it is built, and as it is read from its own configuration."""
    layer(np.zeros((1, 2, 2), "float32"))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    if not again.built:
        again(np.zeros((1, 2, 2), "float32"))
    return layer.weights[0].path, again.weights[0].path


def path_of_a_loaded_wrapper():
    before, after = _paths(keras.layers.Bidirectional(keras.layers.LSTM(2, name="lstm"), name="both"))
    ours = _paths(BidirectionalLSTM(2, name="both"))
    return Observation(f"{before} is loaded as {after}", f"{ours[0]} as {ours[1]}", before != after, ours[0] == ours[1])


def variance_far_from_zero():
    spread = np.linspace(-1.0, 1.0, 64)
    truth = (spread / np.sqrt(np.mean(spread**2) + 1e-6))[-1]

    def last(shift):
        layer = keras.layers.BatchNormalization(epsilon=1e-6)
        return float(_array(layer((spread + shift).astype("float32")[:, None], training=True))[-1, 0])

    far, near = last(3000.0), last(0.0)
    return Observation(
        f"{far:.3f} where {truth:.3f} is true",
        f"{near:.3f} near zero",
        bool(not abs(far - truth) < 1e-2),
        bool(abs(near - truth) < 1e-4),
    )


def add_of_a_column():
    column = np.array([[[1], [2]]], "float32")  # (1, 2, 1): the same number along the last axis
    x = ops.zeros((1, 2, 2))
    found, ours = (_array(total)[0].tolist() for total in (ops.add(x, column), x + ops.convert_to_tensor(column)))
    right = [[1.0, 1.0], [2.0, 2.0]]
    return Observation(f"{found}", f"{ours} by the operator +", found != right, ours == right)


def unrolled_zero_outputs():
    x, mask = np.ones((1, 2, 1), "float32"), np.array([[True, False]])

    def last(unroll):
        layer = keras.layers.LSTM(1, return_sequences=True, zero_output_for_mask=True, unroll=unroll)
        layer.build(x.shape)
        layer.set_weights([np.ones(w.shape, "float32") for w in layer.weights])
        return float(_array(layer(x, mask=mask))[0, 1, 0])

    unrolled, scanned = last(True), last(False)
    return Observation(f"{unrolled:.3f} at a masked step", f"{scanned:g} with unroll=False", unrolled != 0.0, scanned == 0.0)


def masked_convolutional_lstm():
    x, mask = np.ones((2, 3, 4, 1), "float32"), np.ones((2, 3), bool)
    layer = keras.layers.ConvLSTM1D(1, 3, padding="same")
    masked, plain = raised(lambda: layer(x, mask=mask)), raised(lambda: layer(x))
    return Observation(masked or "runs", plain or "runs without a mask", bool(masked), not plain)


def slopes_at_kinks():
    found, smooth = {}, {}
    for name, place in {"leaky_relu": 0.0, "selu": 0.0, "celu": 0.0, "hard_tanh": 1.0, "sparse_sigmoid": 1.0}.items():
        function = getattr(ops, name)
        found[name] = round(float(_slope(function, np.full((1,), place))[0][0]), 3)
        smooth[name] = round(float(_slope(function, np.full((1,), place + 0.25))[0][0]), 3)
    told = ", ".join(f"{name} {slope:g}" for name, slope in found.items())
    return Observation(told, "a quarter past the kink they agree", value=found, control_value=smooth)


def category_above():
    layer = keras.layers.CategoryEncoding(3, output_mode="multi_hot")

    def encoded(token):
        return _array(layer(np.array([token], "int32"))).tolist()

    failed = raised(lambda: encoded(3))
    words, fine = raised(lambda: checks.check_ids([3], 3)), not raised(lambda: checks.check_ids([2], 3))
    return Observation(failed or f"{encoded(3)}", f"k3seq.data.checks: {words}", not failed, bool(words) and fine)


def bicubic_kernel():
    impulse = np.zeros((1, 6, 1, 1), "float32")
    impulse[0, 2] = 1.0

    def centre(interpolation):
        return float(_array(ops.image.resize(impulse, (12, 1), interpolation))[0, 4, 0, 0])

    cubic, linear = centre("bicubic"), centre("bilinear")  # Keys' kernel with a = -1/2 at a quarter: 111/128
    return Observation(
        f"weight {cubic:.5f} at a quarter", f"{linear:g} bilinear", abs(cubic - 111 / 128) > 1e-4, linear == 0.75
    )


def mean_of_no_step():
    x, mask = np.ones((1, 2, 1), "float32"), np.zeros((1, 2), bool)
    stock = _array(keras.layers.GlobalAveragePooling1D()(x, mask=mask)).item()
    ours = _array(masked_mean(ops.convert_to_tensor(x), ops.convert_to_tensor(mask))).item()
    return Observation(f"{stock}", f"{ours:g} by k3seq.layers.masks.masked_mean", bool(np.isnan(stock)), ours == 0.0)
