"""Attention, LayerNorm and Transformer blocks in float64, from the papers.

Masks are bool, True = keep, and broadcast to (batch, query steps, key steps). **A query whose every key is masked gets
uniform weights over all keys**, as a softmax over equal scores gives; every other masked key gets exactly 0.

Weights are flat dicts. Multi-head (Keras' layout): `query.kernel`, `key.kernel`, `value.kernel` (d, h, k) with `.bias`
(h, k), `output.kernel` (h, k, d) with `output.bias` (d). A block holds them under `self.`, `cross.`, and besides
`norm1.gamma|beta`, `norm2...`, `norm3...`, `dense1.kernel|bias`, `dense2.kernel|bias`.
"""

from collections.abc import Mapping

import numpy as np

from oracles.lstm import gru_step, lstm_step

Weights = Mapping[str, np.ndarray]


def under(weights: Weights, prefix: str) -> dict[str, np.ndarray]:
    """The weights whose names start with `prefix` and a dot, named without them."""
    return {name.removeprefix(prefix + "."): w for name, w in weights.items() if name.startswith(prefix + ".")}


def softmax(scores: np.ndarray, mask=None) -> np.ndarray:
    """Softmax over the last axis; masked entries get 0, a row masked throughout gets 1 / its length everywhere."""
    scores = np.asarray(scores, np.float64)
    mask = np.broadcast_to(True if mask is None else mask, scores.shape)
    weights = np.empty(scores.shape)
    for row in np.ndindex(scores.shape[:-1]):
        keep = mask[row]
        powers = np.exp(np.where(keep, scores[row] - scores[row][keep].max(), -np.inf)) if keep.any() else np.ones(keep.shape)
        weights[row] = powers / powers.sum()
    return weights


def padding_mask(lengths, steps: int) -> np.ndarray:
    """(batch, 1, steps): every query sees the first `lengths[row]` keys."""
    return (np.arange(steps) < np.asarray(lengths)[:, None])[:, None, :]


def causal_mask(steps: int) -> np.ndarray:
    """(1, steps, steps): query i sees the keys 0..i."""
    return np.array([[[key <= query for key in range(steps)] for query in range(steps)]])


def multi_head(query: np.ndarray, value: np.ndarray, weights: Weights, mask=None) -> tuple[np.ndarray, np.ndarray]:
    """`(output (b, t, d), weights (b, h, t, s))` of scaled dot-product attention (arXiv 1706.03762, section 3.2).

    `value` is both keys and values.
    """
    heads, size = weights["query.kernel"].shape[1:]
    batch, steps = query.shape[:2]
    mask = np.broadcast_to(True if mask is None else mask, (batch, steps, value.shape[1]))
    alignments = np.zeros((batch, heads, steps, value.shape[1]))
    output = np.tile(np.asarray(weights["output.bias"], np.float64), (batch, steps, 1))
    for head in range(heads):
        q, k, v = (
            x @ weights[f"{part}.kernel"][:, head] + weights[f"{part}.bias"][head]
            for part, x in (("query", query), ("key", value), ("value", value))
        )
        for row in range(batch):
            alignments[row, head] = softmax(q[row] @ k[row].T / np.sqrt(size), mask[row])
            output[row] += alignments[row, head] @ v[row] @ weights["output.kernel"][head]
    return output, alignments


def luong_dot(query: np.ndarray, keys: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """`scale * <query, key>` (arXiv 1508.04025): query (b, d), keys (b, s, d) to scores (b, s)."""
    return np.array([[scale * float(q @ key) for key in row] for q, row in zip(query, keys, strict=True)])


def luong_general(query: np.ndarray, memory: np.ndarray, kernel: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """`scale * query . (memory @ kernel)`: memory (b, s, m), kernel (m, d)."""
    return luong_dot(query, memory @ kernel, scale)


def bahdanau(query: np.ndarray, keys: np.ndarray, v: np.ndarray, g=None, b=None) -> np.ndarray:
    """`v . tanh(key + query)` (arXiv 1409.0473) with both projected to (.., a); normalised, `g v/|v| . tanh(key + query + b)`.

    The normalised form is weight normalisation (arXiv 1602.07868); it is used where `g` is given.
    """
    direction = v if g is None else g * v / np.sqrt(np.sum(np.square(v)))
    shift = 0.0 if b is None else b
    return np.array([[float(direction @ np.tanh(key + q + shift)) for key in row] for q, row in zip(query, keys, strict=True)])


def context(alignments: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The weighted mean of the values: (b, s) and (b, s, m) to (b, m)."""
    return np.array([weights @ row for weights, row in zip(alignments, values, strict=True)])


def attention_rnn(inputs: np.ndarray, memory: np.ndarray, mask: np.ndarray, weights: Weights, initial) -> dict[str, np.ndarray]:
    """An LSTM or GRU decoder (the width of the kernel determines which) with input feeding (arXiv 1508.04025, section 3.3).

    Each step reads `concat(input, previous attention)`; its new output queries the memory, which the mask (b, s) has
    multiplied first; the attention is `attention_layer(concat(output, context))`, or the context where there is no such
    weight. `attn.attention_v` makes the scores additive, `attn.attention_g` scales (dot) or normalises (additive) them.
    Weights under the names of the golden families. Gives `h, attention, alignments` as (batch, steps, ...).
    """
    weights = {name: np.asarray(w, np.float64) for name, w in weights.items()}
    values = np.where(mask[..., None], np.asarray(memory, np.float64), 0.0)
    keys = values @ weights["attn.memory_layer.kernel"]
    cell = under(weights, "cell")
    gates = cell["recurrent_kernel"].shape[1] // cell["recurrent_kernel"].shape[0]
    state = [np.asarray(part, np.float64) for part in initial]
    width = weights["attention_layer.kernel"].shape[1] if "attention_layer.kernel" in weights else values.shape[-1]
    attention = np.zeros((len(inputs), width))
    steps = {"h": [], "attention": [], "alignments": []}
    for t in range(inputs.shape[1]):
        x = np.concatenate([inputs[:, t], attention], axis=-1)
        state = lstm_step(x, *state, cell) if gates == 4 else [gru_step(x, *state, cell)]
        if "attn.attention_v" in weights:
            query = state[0] @ weights["attn.query_layer.kernel"]
            extra = (weights.get("attn.attention_g"), weights.get("attn.attention_b"))
            scores = bahdanau(query, keys, weights["attn.attention_v"], *extra)
        else:
            scores = luong_dot(state[0], keys, float(weights.get("attn.attention_g", 1.0)))
        alignments = softmax(scores, mask)
        attention = context(alignments, values)
        if "attention_layer.kernel" in weights:
            attention = np.concatenate([state[0], attention], axis=-1) @ weights["attention_layer.kernel"]
        for name, value in (("h", state[0]), ("attention", attention), ("alignments", alignments)):
            steps[name].append(value)
    return {name: np.stack(parts, axis=1) for name, parts in steps.items()}


def layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float) -> np.ndarray:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta over the last axis, with the population's variance."""
    mean = x.mean(-1, keepdims=True)
    variance = np.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def feed_forward(x: np.ndarray, weights: Weights) -> np.ndarray:
    """A dense layer with relu, then a dense layer."""
    inner = np.maximum(x @ weights["dense1.kernel"] + weights["dense1.bias"], 0.0)
    return inner @ weights["dense2.kernel"] + weights["dense2.bias"]


def _norm(x: np.ndarray, weights: Weights, name: str, epsilon: float) -> np.ndarray:
    return layer_norm(x, weights[f"{name}.gamma"], weights[f"{name}.beta"], epsilon)


def encoder_block(x: np.ndarray, weights: Weights, mask=None, epsilon: float = 1e-3) -> np.ndarray:
    """Post-norm: norm1(x + self(x)), then norm2(y + feed_forward(y))."""
    y = _norm(x + multi_head(x, x, under(weights, "self"), mask)[0], weights, "norm1", epsilon)
    return _norm(y + feed_forward(y, weights), weights, "norm2", epsilon)


def decoder_block(x: np.ndarray, memory: np.ndarray, weights: Weights, mask=None, memory_mask=None, epsilon: float = 1e-3):
    """Post-norm: causal self-attention, cross-attention on `memory`, feed-forward, each in its residual and its norm.

    `mask` (padding of `x`) is joined with the causal one; `memory_mask` is the padding of `memory`.
    """
    causal = causal_mask(x.shape[1]) & np.asarray(True if mask is None else mask)
    y = _norm(x + multi_head(x, x, under(weights, "self"), causal)[0], weights, "norm1", epsilon)
    y = _norm(y + multi_head(y, memory, under(weights, "cross"), memory_mask)[0], weights, "norm2", epsilon)
    return _norm(y + feed_forward(y, weights), weights, "norm3", epsilon)


def random_multi_head(rng: np.random.Generator, dim: int, heads: int, size: int) -> dict[str, np.ndarray]:
    """Weights of `multi_head`."""
    weights = {"output.kernel": rng.normal(0, dim**-0.5, (heads, size, dim)), "output.bias": rng.normal(0, 0.3, dim)}
    for part in ("query", "key", "value"):
        weights[f"{part}.kernel"] = rng.normal(0, dim**-0.5, (dim, heads, size))
        weights[f"{part}.bias"] = rng.normal(0, 0.3, (heads, size))
    return weights


def random_block(rng: np.random.Generator, dim: int, heads: int, dense: int, decoder: bool = False) -> dict[str, np.ndarray]:
    """Weights of `encoder_block`, or of `decoder_block`; heads divide `dim`."""
    weights = {}
    for part in ("self", "cross") if decoder else ("self",):
        weights |= {f"{part}.{name}": w for name, w in random_multi_head(rng, dim, heads, dim // heads).items()}
    for i in range(1, 4 if decoder else 3):
        weights |= {f"norm{i}.gamma": rng.normal(1.0, 0.2, dim), f"norm{i}.beta": rng.normal(0.0, 0.2, dim)}
    weights |= {"dense1.kernel": rng.normal(0, dim**-0.5, (dim, dense)), "dense1.bias": rng.normal(0, 0.3, dense)}
    return weights | {"dense2.kernel": rng.normal(0, dense**-0.5, (dense, dim)), "dense2.bias": rng.normal(0, 0.3, dim)}
