"""The models of the golden beam-search cases, one hypothesis at a time in float64: LSTM, and LSTM with attention."""

import numpy as np

from oracles import attention
from oracles.lstm import length_mask, lstm_step, sigmoid


def _alignments(query, keys, weights, mask, previous):
    """The alignments of one query: Luong, additive, or additive and monotonic in its closed form (arXiv 1704.00784, eq. 11)."""
    if "attn.attention_v" in weights:
        projected = query @ weights["attn.query_layer.kernel"]
        extra = weights.get("attn.attention_g"), weights.get("attn.attention_b")
        scores = attention.bahdanau(projected[None], keys[None], weights["attn.attention_v"], *extra)[0]
    else:
        scores = attention.luong_dot(query[None], keys[None], float(weights.get("attn.attention_g", 1.0)))[0]
    if "attn.attention_score_bias" not in weights:
        return attention.softmax(scores, mask)
    p = np.where(mask, sigmoid(scores + weights["attn.attention_score_bias"]), 0.0)
    passing = np.concatenate([[1.0], np.cumprod(1.0 - p)[:-1]])
    return p * passing * np.cumsum(previous / np.clip(passing, 1e-10, 1.0))


def model(stored):
    """`(advance, states, coverage)` of a golden case, as `oracles.beam.beam_search` takes them."""
    weights = {name: np.asarray(w, np.float64) for name, w in stored.group("w").items()}
    cell, embedding = attention.under(weights, "cell"), weights["embedding"]
    initial = [(h, c) for h, c in zip(stored["in.init_h"].astype("f8"), stored["in.init_c"].astype("f8"), strict=True)]

    def logits(output):
        return output @ weights["output_layer.kernel"] + weights["output_layer.bias"]

    def plain(token, state):
        h, c = lstm_step(embedding[token], *state, cell)
        return logits(h), (h, c), None

    if "in.memory" not in stored:
        return plain, initial, None
    memory = stored["in.memory"].astype("f8")
    steps = memory.shape[1]
    masks = length_mask(stored["in.memory_sequence_length"], steps)
    values = memory * masks[..., None]
    keys = values @ weights["attn.memory_layer.kernel"]
    width = weights["attention_layer.kernel"].shape[1] if "attention_layer.kernel" in weights else values.shape[-1]
    first = np.eye(steps)[0] if "attn.attention_score_bias" in weights else np.zeros(steps)

    def attending(token, state):
        row, h, c, attended, previous = state
        h, c = lstm_step(np.concatenate([embedding[token], attended]), h, c, cell)
        alignments = _alignments(h, keys[row], weights, masks[row], previous)
        attended = alignments @ values[row]
        if "attention_layer.kernel" in weights:
            attended = np.concatenate([h, attended]) @ weights["attention_layer.kernel"]
        return logits(attended), (row, h, c, attended, alignments), alignments

    states = [(row, h, c, np.zeros(width), first) for row, (h, c) in enumerate(initial)]
    return attending, states, np.tile(first, (len(memory), 1))
