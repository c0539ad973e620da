"""The same initial weights on every backend.

With the same seed Keras' initialisers draw different numbers on each backend. `initialize` draws from the same distributions
with a counter-based generator in NumPy, keyed by the seed and the weight's path.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from k3seq.errors import UsageError
from k3seq.random.bits import Stream
from k3seq.typing import NDArray


def initialize(model: Any, seed: int) -> Any:
    """Gives every trainable weight of a built model a value that depends on (seed, path, shape) alone.

    The distribution is that of the weight's initialiser, the attribute `<weight name>_initializer` of its layer (Keras'
    convention); constant initialisers (zeros, ones, the LSTM's forget bias) keep their value.

    Args:
        model: a built Keras model or layer.
        seed: integer in 0..2**64-1.

    Returns:
        The model.

    Raises:
        UsageError: the model is not built, or a weight's initialiser is missing or of an unknown class.
    """
    from k3seq.backend.keras_internals import layers_of, own_weights  # imports Keras, which `k3seq.data` must not

    if not model.built:
        raise UsageError(f"Expected a built model. Received: {model.name}, which has no weights yet")
    seen = set()
    for layer in layers_of(model):
        for variable in own_weights(layer, trainable=True):
            if id(variable) in seen:
                continue
            seen.add(id(variable))
            initializer = _initializer_of(layer, variable)
            if initializer is None:
                raise UsageError(
                    f"Expected {layer.name} to keep the initialiser of {variable.path} as {variable.name}_initializer"
                )
            value = draw(
                type(initializer).__name__, initializer.get_config(), tuple(variable.shape), Stream(seed, variable.path)
            )
            if value is not None:
                variable.assign(value.astype(np.float32))
    return model


def _initializer_of(layer: Any, variable: Any) -> Any:
    name = variable.name
    for attribute in (f"{name}_initializer", f"{name.removesuffix('_kernel')}_initializer"):
        found = getattr(layer, attribute, None)
        if found is not None and hasattr(found, "get_config"):
            return found
    return None


def draw(kind: str, config: Mapping[str, Any], shape: tuple[Any, ...], stream: Stream) -> NDArray[Any] | None:
    """A value from the distribution of a Keras initialiser, or None for a constant one.

    Args:
        kind: class name, such as "GlorotUniform".
        config: its `get_config()`.
        shape: shape of the weight.
        stream: source of the random numbers.

    Raises:
        UsageError: the class is unknown.
    """
    if kind in _SCALED:
        config = {**_SCALED[kind], **{k: v for k, v in config.items() if k != "seed"}}
        kind = "VarianceScaling"
    if kind in _CONSTANT:
        return None
    if kind == "RandomUniform":
        return _uniform(stream, shape, config["minval"], config["maxval"])
    if kind == "RandomNormal":
        return config["mean"] + config["stddev"] * stream.normal(shape)
    if kind == "TruncatedNormal":
        return config["mean"] + config["stddev"] * _truncated(stream, shape)
    if kind == "Orthogonal":
        return config["gain"] * _orthogonal(stream, shape)
    if kind == "VarianceScaling":
        return _variance_scaling(stream, shape, **{k: config[k] for k in ("scale", "mode", "distribution")})
    raise UsageError(f"Expected an initialiser among {', '.join(KINDS)}. Received: {kind}")


_CONSTANT = ("Zeros", "Ones", "Constant", "Identity", "OpenForgetGate")
_SCALED = {
    "GlorotUniform": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform"},
    "GlorotNormal": {"scale": 1.0, "mode": "fan_avg", "distribution": "truncated_normal"},
    "HeUniform": {"scale": 2.0, "mode": "fan_in", "distribution": "uniform"},
    "HeNormal": {"scale": 2.0, "mode": "fan_in", "distribution": "truncated_normal"},
    "LecunUniform": {"scale": 1.0, "mode": "fan_in", "distribution": "uniform"},
    "LecunNormal": {"scale": 1.0, "mode": "fan_in", "distribution": "truncated_normal"},
}


KINDS = (*_CONSTANT, "RandomUniform", "RandomNormal", "TruncatedNormal", "Orthogonal", "VarianceScaling", *_SCALED)


def _uniform(stream: Stream, shape: tuple[int, ...], low: float, high: float) -> NDArray[Any]:
    return low + (high - low) * stream.uniform(shape).astype(np.float64)


def _truncated(stream: Stream, shape: tuple[int, ...]) -> NDArray[Any]:
    """Standard normal within two deviations; values outside are drawn again."""
    value = stream.normal(shape).astype(np.float64)
    while (outside := np.abs(value) > 2.0).any():
        value[outside] = stream.normal((int(outside.sum()),))
    return value


def _orthogonal(stream: Stream, shape: tuple[int, ...]) -> NDArray[Any]:
    """Orthonormal rows or columns (Saxe et al. 2014, https://arxiv.org/abs/1312.6120), signs fixed by the diagonal of R."""
    rows, columns = math.prod(shape[:-1]), shape[-1]
    q, r = np.linalg.qr(stream.normal((max(rows, columns), min(rows, columns))).astype(np.float64))
    q = q * np.sign(np.diag(r))
    return (q.T if rows < columns else q).reshape(shape)


def _variance_scaling(stream: Stream, shape: tuple[Any, ...], scale: float, mode: str, distribution: str) -> NDArray[Any]:
    receptive = math.prod(shape[:-2])
    fan_in, fan_out = (shape[0], shape[0]) if len(shape) == 1 else (shape[-2] * receptive, shape[-1] * receptive)
    variance = scale / max(1.0, {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode])
    if distribution == "uniform":
        limit = math.sqrt(3.0 * variance)
        return _uniform(stream, shape, -limit, limit)
    if distribution == "untruncated_normal":
        return math.sqrt(variance) * stream.normal(shape)
    # 0.8796... is the deviation of a standard normal distribution truncated at two deviations.
    return math.sqrt(variance) / 0.87962566103423978 * _truncated(stream, shape)
