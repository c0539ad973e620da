"""k3seq's `TransformerSeq2Seq` for other packages, in NumPy: its starting weights, its positions, and how hypotheses are
counted and scored. Imports no keras.

Biases start at 0 and the scales of LayerNorm at 1; its epsilon is `EPSILON`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from k3seq.bench.running import Weights
from k3seq.typing import NDArray

EPSILON = 1e-3  # of keras.layers.LayerNormalization
ATTENTION = ("query", "key", "value", "output")


def starting_weights(sizes: Mapping[str, Any], weights: Weights) -> dict[str, Any]:
    """The matrices, drawn in the order of the model's variables.

    Args:
        sizes: the arguments of `TransformerSeq2Seq`. weights: `running.Weights`.

    Returns:
        {"source", "target": (vocabulary_size, embed_dim), "encoders", "decoders": blocks, "output": (embed_dim,
        vocabulary_size)}; a block is
        {"inner", "outer": matrices, "self" (decoders: and "cross"): {"query", "key", "value", "output"}}, all of shape
        (inputs, outputs), heads side by side in the outputs of the first three.
    """
    embed_dim, dense_dim, num_layers = sizes["embed_dim"], sizes["dense_dim"], sizes["num_layers"]

    def block(*attentions):
        made = {"inner": weights.draw(embed_dim, dense_dim), "outer": weights.draw(dense_dim, embed_dim)}
        return made | {attention: {name: weights.draw(embed_dim, embed_dim) for name in ATTENTION} for attention in attentions}

    return {
        "source": weights.draw(sizes["source_vocabulary_size"], embed_dim),
        "target": weights.draw(sizes["target_vocabulary_size"], embed_dim),
        "encoders": [block("self") for _ in range(num_layers)],
        "decoders": [block("self", "cross") for _ in range(num_layers)],
        "output": weights.draw(embed_dim, sizes["target_vocabulary_size"]),
    }


def positions(steps: int, units: int) -> NDArray[Any]:
    """The sinusoids (steps, units) float32 of Vaswani et al. 2017, section 3.5, sine and cosine taking turns."""
    angles = np.arange(steps)[:, None] * 10000.0 ** (-np.arange(0, units, 2) / units)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(steps, -1)[:, :units].astype("float32")


def lengths(tokens: NDArray[Any], end: int) -> NDArray[Any]:
    """Tokens (b, t) up to and with the first `end` of each row, (b,); t where there is none."""
    ended = tokens == end
    return np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, tokens.shape[1])


def shifted(tokens: NDArray[Any], start: int) -> NDArray[Any]:
    """The decoder inputs that score tokens (b, t): the same tokens one step later, after `start`."""
    return np.concatenate([np.full_like(tokens[:, :1], start), tokens[:, :-1]], axis=1)


def score(logits: NDArray[Any], tokens: NDArray[Any], end: int) -> float:
    """The rows' mean sum of log-probabilities, the end token's among them: k3seq's score of hypotheses, without penalties.

    Args:
        logits: (b, t, v) of the model for `shifted(tokens)`. tokens: (b, t). end: tokens after it do not count.
    """
    logits = logits.astype("float64")
    top = logits.max(axis=-1)
    chosen = np.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    gained = chosen - top - np.log(np.exp(logits - top[..., None]).sum(axis=-1))
    return float(np.where(np.arange(tokens.shape[1]) < lengths(tokens, end)[:, None], gained, 0.0).sum(axis=1).mean())
