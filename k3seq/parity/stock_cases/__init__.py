"""Stock `keras.layers` as parity cases: `k3seq parity k3seq.parity.stock_cases:CASES`. docs/stock-layers.md has the results.

A case names its factory, so that nothing but the class `Case` is imported here. Layers that draw their own random numbers in
training (`Dropout`, `GaussianNoise`) are left out because they differ by design; so are layers for files, strings and image
augmentation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from k3seq.parity.case import Case, Spec
from k3seq.typing import Json, Nested

# Few different sizes, because JAX compiles every new shape.
B, S, D, V = 3, 6, 4, 12
ZEROS, ONES = np.zeros((B, S, D), "float32"), np.ones((B, S, D), "float32")
SQUARE = Spec((B, S, S))  # as many channels as steps
X, IMAGE = Spec((B, S, D)), Spec((2, S, S, D))
IDS = np.array([[1, 5, 5, 2, 0, 0], [5, 0, 0, 0, 0, 0], [3, 3, 3, 7, 1, 9]], "int32")
STEPS = np.arange(S)[None, :]
RIGHT = np.array([[6], [3], [1]]) > STEPS  # padded on the right
EMPTY = np.array([[6], [0], [3]]) > STEPS  # a row without a step
LEADING = np.array([[0], [2], [4]]) <= STEPS  # padded on the left
FAR = Spec((B, S, D), low=30.0, high=34.0)  # far from zero compared with its spread
RECURRENT = {"units": D, "return_sequences": True, "return_state": True}


def nested(layer: str, arguments: Mapping[str, Json]) -> Any:
    """Makes `keras.layers.LAYER(**arguments)` for a layer that contains layers.

    Args:
        layer: name of a class.
        arguments: its keyword arguments. A value {"layer": name, "arguments": {...}}, also in lists, becomes a layer.
    """
    import keras

    def made(value: Nested) -> Nested:
        if isinstance(value, dict) and set(value) == {"layer", "arguments"}:
            return nested(**value)
        return [made(part) for part in value] if isinstance(value, list | tuple) else value

    return getattr(keras.layers, layer)(**{key: made(value) for key, value in arguments.items()})


def tagger(train: bool = True) -> Any:
    """A functional model with Keras' own train step: embedding, LSTM and dense layer over (3, 6) ids.

    Args:
        train: whether to train the embedding.
    """
    import keras

    ids = keras.Input(IDS.shape[1:], batch_size=B, dtype="int32", name="ids")
    x = keras.layers.Embedding(V, D, trainable=train, name="embedding")(ids)
    x = keras.layers.LSTM(D, return_sequences=True, name="lstm")(x)
    return keras.Model(ids, keras.layers.Dense(D, name="dense")(x), name="tagger")


def layer(
    kind: str,
    arguments: Mapping[str, Json] | None = None,
    inputs: Nested = X,
    call: Mapping[str, Nested] | None = None,
    optional: Sequence[str] = (),
    name: str = "",
    **options: Any,
) -> Case:
    """A case of `keras.layers.KIND`; `name` distinguishes it from others of its kind."""
    arguments = {**(arguments or {}), "name": kind.lower()}
    return Case(_title(kind, name), f"keras.layers:{kind}", arguments, inputs, dict(call or {}), optional, **options)


def wrapper(
    kind: str,
    arguments: Mapping[str, Json],
    call: Mapping[str, Nested] | None = None,
    optional: Sequence[str] = (),
    name: str = "",
) -> Case:
    """A case of a layer that contains layers, made by `nested`."""
    arguments = {"layer": kind, "arguments": {**arguments, "name": kind.lower()}}
    return Case(_title(kind, name), "k3seq.parity.stock_cases:nested", arguments, X, dict(call or {}), optional)


def _title(kind: str, name: str) -> str:
    return f"{kind}-{name}" if name else kind


def inner(kind: str, **arguments: Json) -> dict[str, Json]:
    """The description of an inner layer for `nested`."""
    return {"layer": kind, "arguments": arguments}


RECURRENTS = [
    *(
        layer(kind, {**RECURRENT, **more}, call={"mask": mask}, optional=optional, name=name)
        for kind in ("LSTM", "GRU", "SimpleRNN")
        for name, mask, more, optional in (
            ("right-padded", RIGHT, {}, ("mask",)),
            ("empty-row", EMPTY, {}, ()),
            ("left-padded", LEADING, {}, ()),
        )
    ),
    layer("LSTM", {"units": D}, call={"mask": RIGHT}, name="last-output"),
    layer("LSTM", {"units": D, "activation": "relu", "unit_forget_bias": False, "use_bias": False}, name="relu-no-bias"),
    layer("LSTM", {**RECURRENT, "go_backwards": True}, call={"mask": RIGHT}, name="backwards"),
    layer("LSTM", {**RECURRENT, "unroll": True}, call={"mask": RIGHT}, name="unrolled"),
    layer("LSTM", {**RECURRENT, "zero_output_for_mask": True}, call={"mask": LEADING}, name="zero-output"),
    layer(
        "LSTM", RECURRENT, call={"mask": LEADING, "initial_state": [Spec((B, D)), Spec((B, D))]}, name="left-padded-from-state"
    ),
    layer("LSTM", {**RECURRENT, "stateful": True}, name="stateful"),
    layer(
        "LSTM", {**RECURRENT, "zero_output_for_mask": True, "unroll": True}, call={"mask": RIGHT}, name="zero-output-unrolled"
    ),
    layer("GRU", RECURRENT, call={"mask": EMPTY, "initial_state": Spec((B, D))}, name="empty-row-from-state"),
    layer("GRU", {**RECURRENT, "reset_after": False}, call={"mask": RIGHT}, name="reset-before"),
    layer("GRU", {**RECURRENT, "go_backwards": True}, call={"initial_state": Spec((B, D))}, name="backwards-from-state"),
    *(
        wrapper("Bidirectional", {"layer": inner(kind, units=D, return_sequences=True)}, call={"mask": mask}, name=name)
        for kind, name, mask in (
            ("LSTM", "LSTM-right-padded", RIGHT),
            ("GRU", "GRU-right-padded", RIGHT),
            ("SimpleRNN", "SimpleRNN-right-padded", RIGHT),
            ("LSTM", "LSTM-empty-row", EMPTY),
        )
    ),
    wrapper(
        "Bidirectional",
        {"layer": inner("LSTM", units=D, return_state=True), "merge_mode": "sum"},
        call={"mask": RIGHT},
        name="last-output-sum",
    ),
    wrapper(
        "RNN",
        {
            "cell": inner("StackedRNNCells", cells=[inner("LSTMCell", units=D), inner("GRUCell", units=D)]),
            "return_sequences": True,
            "return_state": True,
        },
        call={"mask": RIGHT},
        optional=("mask",),
        name="stacked-cells",
    ),
    wrapper("TimeDistributed", {"layer": inner("Dense", units=D)}, call={"mask": RIGHT}),
    layer("ConvLSTM1D", {"filters": D, "kernel_size": 3, "padding": "same", "return_sequences": True}, Spec((2, 3, S, D))),
    layer("ConvLSTM2D", {"filters": 2, "kernel_size": 2, "strides": 2}, Spec((2, 2, S, S, D))),
    layer("ConvLSTM1D", {"filters": D, "kernel_size": 3, "padding": "same"}, Spec((B, S, S, D)), {"mask": RIGHT}, name="mask"),
]
ATTENTION = [
    layer("MultiHeadAttention", {"num_heads": 2, "key_dim": D}, X, {"value": X, "attention_mask": RIGHT[:, None, :]}),
    layer("MultiHeadAttention", {"num_heads": 2, "key_dim": D}, X, {"value": X, "use_causal_mask": True}, name="causal"),
    layer(
        "MultiHeadAttention",
        {"num_heads": 2, "key_dim": D},
        X,
        {"value": X, "attention_mask": EMPTY[:, None, :]},
        name="empty-row",
    ),
    layer(
        "GroupQueryAttention",
        {"head_dim": D, "num_query_heads": 4, "num_key_value_heads": 2},
        X,
        {"value": X, "attention_mask": RIGHT[:, None, :]},
    ),
    layer("Attention", {"use_scale": True}, [X, X], {"mask": [RIGHT, RIGHT], "use_causal_mask": True}),
    layer("Attention", {"score_mode": "concat"}, [X, X], {"mask": [RIGHT, EMPTY]}, name="concat-empty-row"),
    layer("AdditiveAttention", {}, [X, X], {"mask": [RIGHT, RIGHT]}),
    layer("AdditiveAttention", {}, [X, X], {"mask": [RIGHT, EMPTY]}, name="empty-row"),
    layer("Softmax", {}, X, {"mask": np.repeat(RIGHT[:, :, None], D, 2)}, name="mask"),
    layer("Softmax", {"axis": [1, 2]}, X, {"mask": np.repeat(EMPTY[:, :, None], D, 2)}, name="axes-empty-row"),
]
NORMALIZATION = [
    layer("LayerNormalization"),
    layer("LayerNormalization", {"axis": [1, 2], "epsilon": 1e-6}, name="two-axes"),
    layer("LayerNormalization", {"epsilon": 1e-7}, np.full((B, S, D), 3.0, "float32"), name="constant-rows"),
    layer("BatchNormalization"),
    layer("BatchNormalization", {"momentum": 0.5, "scale": False}, call={"mask": RIGHT}, name="mask"),
    layer("BatchNormalization", {}, FAR, name="far-from-zero"),
    layer("BatchNormalization", {"axis": 1, "center": False}, IMAGE, name="axis-1"),
    layer("GroupNormalization", {"groups": 2}),
    layer("GroupNormalization", {"groups": -1}, IMAGE, name="instance"),
    layer("GroupNormalization", {"groups": 2}, FAR, name="far-from-zero"),
    layer("RMSNormalization"),
    layer("UnitNormalization"),
    layer("UnitNormalization", {}, ZEROS, name="zero-rows"),
    wrapper("SpectralNormalization", {"layer": inner("Dense", units=D)}),
]
CONVOLUTION = [
    layer("Conv1D", {"filters": D, "kernel_size": 3, "padding": "causal"}, name="causal"),
    layer("Conv1D", {"filters": D, "kernel_size": 3, "dilation_rate": 2, "padding": "same"}, name="dilated-same"),
    layer("Conv1D", {"filters": D, "kernel_size": 4, "strides": 2, "padding": "same"}, name="strided-same-even"),
    layer("Conv1D", {"filters": D, "kernel_size": 3, "strides": 4, "padding": "same"}, name="stride-above-kernel"),
    layer(
        "Conv1D",
        {"filters": S, "kernel_size": 3, "padding": "same", "data_format": "channels_first"},
        SQUARE,
        name="channels-first",
    ),
    layer(
        "Conv2D",
        {"filters": D, "kernel_size": 3, "strides": 2, "padding": "same", "groups": 2},
        IMAGE,
        name="grouped-strided-same",
    ),
    layer("Conv2D", {"filters": D, "kernel_size": [2, 3], "data_format": "channels_last"}, IMAGE, name="valid"),
    layer("Conv3D", {"filters": 2, "kernel_size": 2, "padding": "same"}, Spec((2, 3, S, S, 2))),
    layer("Conv1DTranspose", {"filters": D, "kernel_size": 3, "strides": 2, "padding": "same"}, name="strided-same"),
    layer("Conv1DTranspose", {"filters": D, "kernel_size": 2, "strides": 3, "padding": "same"}, name="stride-above-kernel"),
    layer("Conv1DTranspose", {"filters": D, "kernel_size": 3, "dilation_rate": 2, "padding": "same"}, name="dilated-same"),
    layer("Conv2DTranspose", {"filters": D, "kernel_size": 3, "strides": 2, "padding": "same"}, IMAGE, name="strided-same"),
    layer("Conv2DTranspose", {"filters": D, "kernel_size": 4, "strides": 3, "padding": "valid"}, IMAGE, name="strided-valid"),
    layer(
        "Conv2DTranspose",
        {"filters": D, "kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 1},
        IMAGE,
        name="output-padding",
    ),
    layer("DepthwiseConv1D", {"kernel_size": 3, "depth_multiplier": 2, "padding": "same"}),
    layer("DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 2, "strides": 2, "padding": "same"}, IMAGE),
    layer("SeparableConv1D", {"filters": D, "kernel_size": 3, "padding": "same", "dilation_rate": 2}),
    layer("SeparableConv2D", {"filters": D, "kernel_size": 3, "padding": "same", "strides": 2}, IMAGE),
    layer("MaxPooling1D", {"pool_size": 3, "strides": 2, "padding": "same"}),
    layer("MaxPooling2D", {"pool_size": 2, "strides": 2}, IMAGE),
    layer("MaxPooling1D", {"pool_size": 2}, ZEROS, name="ties"),
    layer("AveragePooling1D", {"pool_size": 4, "strides": 2, "padding": "same"}, name="same-even"),
    layer("AveragePooling2D", {"pool_size": 3, "strides": 2, "padding": "same"}, IMAGE, name="same"),
    layer("GlobalAveragePooling1D", {}, call={"mask": RIGHT}, optional=("mask",)),
    layer("GlobalAveragePooling1D", {}, call={"mask": EMPTY}, name="empty-row"),
    layer("GlobalMaxPooling1D", {"keepdims": True}),
    layer("GlobalMaxPooling1D", {}, ZEROS, name="ties"),
    layer("AdaptiveAveragePooling1D", {"output_size": 4}),
    layer("AdaptiveMaxPooling1D", {"output_size": 4}),
    layer("UpSampling1D", {"size": 2}),
    layer("UpSampling2D", {"size": 2, "interpolation": "bilinear"}, IMAGE, name="bilinear"),
    layer("UpSampling2D", {"size": 2, "interpolation": "bicubic"}, IMAGE, name="bicubic"),
    layer("Resizing", {"height": 4, "width": 9, "interpolation": "bilinear"}, IMAGE, name="bilinear"),
    layer("Resizing", {"height": 4, "width": 9, "interpolation": "nearest"}, IMAGE, name="nearest"),
    layer("Resizing", {"height": 4, "width": 9, "interpolation": "bilinear", "antialias": True}, IMAGE, name="antialias"),
    layer("Cropping1D", {"cropping": [1, 2]}),
    layer("ZeroPadding1D", {"padding": [1, 2]}),
]
CORE = [
    layer("Dense", {"units": D, "activation": "gelu"}, name="gelu"),
    layer("EinsumDense", {"equation": "abc,cde->abde", "output_shape": [S, 2, D], "bias_axes": "e", "activation": "silu"}),
    layer("Embedding", {"input_dim": V, "output_dim": D, "mask_zero": True}, IDS),
    layer("ReversibleEmbedding", {"input_dim": V, "output_dim": D}, IDS),
    layer("PReLU", {"shared_axes": [1]}),
    layer("LeakyReLU", {"negative_slope": 0.1}),
    layer("ReLU", {"max_value": 1.0, "negative_slope": 0.1, "threshold": 0.5}),
    layer("ELU", {"alpha": 0.5}),
    *(
        layer("Activation", {"activation": name}, name=name)
        for name in ("silu", "softplus", "hard_sigmoid", "log_softmax", "selu", "sparsemax", "tanh_shrink", "relu6", "mish")
    ),
    layer("ReLU", {}, ZEROS, name="at-zero"),
    layer("ReLU", {"max_value": 6.0}, np.full((B, S, D), 6.0, "float32"), name="at-its-limit"),
    *(layer("Activation", {"activation": name}, ZEROS, name=f"{name}-at-its-kink") for name in ("leaky_relu", "selu", "celu")),
    *(layer("Activation", {"activation": name}, ONES, name=f"{name}-at-its-kink") for name in ("hard_tanh", "sparse_sigmoid")),
    layer("Activation", {"activation": "gelu"}, -6 * ONES, name="gelu-tail"),
    layer("Activation", {"activation": "mish"}, -90 * ONES, name="mish-denormal"),
    layer("Masking", {"mask_value": 0.0}),
    layer("Dot", {"axes": [2, 2], "normalize": True}, [X, X]),
    layer("Dot", {"axes": [2, 2], "normalize": True}, [ZEROS, X], name="zero-rows"),
    layer("Maximum", {}, [X, X], name="of-two"),
    layer("Maximum", {}, [ZEROS] * 2, name="ties"),
    layer("Multiply", {}, [X, X]),
    layer("Permute", {"dims": [2, 1]}),
    layer("RepeatVector", {"n": S}, Spec((B, D))),
    layer("Rescaling", {"scale": 0.5, "offset": 1.0}),
    layer("ActivityRegularization", {"l2": 0.1}),
    layer("Normalization", {"mean": [0.0, 1.0, 2.0, 3.0], "variance": [1.0, 2.0, 3.0, 0.0]}),
    layer("Discretization", {"bin_boundaries": [-1.0, 0.0, 1.0]}),
    layer("CategoryEncoding", {"num_tokens": V, "output_mode": "count"}, IDS),
    layer("CategoryEncoding", {"num_tokens": 9, "output_mode": "multi_hot"}, IDS, name="id-above"),
    layer("STFTSpectrogram", {"frame_length": 16, "frame_step": 8, "fft_length": 16}, Spec((B, 64, 1))),
    layer("MelSpectrogram", {"fft_length": 64, "sequence_stride": 32, "num_mel_bins": 4}, Spec((B, 128))),
    Case("tagger", "k3seq.parity.stock_cases:tagger", {}, IDS),
    Case("tagger-frozen-embedding", "k3seq.parity.stock_cases:tagger", {"train": False}, IDS),
]
CASES = [*RECURRENTS, *ATTENTION, *NORMALIZATION, *CONVOLUTION, *CORE]
