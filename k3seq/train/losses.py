"""Losses of sequence models, normalised by tokens."""

import keras
from keras import ops

from k3seq import backend
from k3seq.errors import UsageError


def token_crossentropies(labels, logits, label_smoothing=0.0):
    """Cross-entropy of every token, in float32.

    Args:
        labels: (b, t) int ids, or (b, t, v) float distributions (one-hot targets).
        logits: (b, t, v) float, unnormalised.
        label_smoothing: in [0, 1); that share of the target is spread evenly over the vocabulary (Szegedy et al. 2016,
            https://arxiv.org/abs/1512.00567, section 7).

    Returns:
        (b, t) float32.
    """
    return backend.crossentropies(ops.convert_to_tensor(labels), ops.cast(logits, "float32"), label_smoothing)


def token_crossentropy(labels, logits, weights=None, label_smoothing=0.0):
    """Mean cross-entropy of a batch over its tokens: sum of weighted losses over the sum of weights, 0 where that is 0.

    Args:
        labels: (b, t) int ids or (b, t, v) distributions.
        logits: (b, t, v) float.
        weights: (b, t) float, 0 at padding; None counts every position.
        label_smoothing: see `token_crossentropies`.

    Returns:
        A float32 scalar.
    """
    losses = token_crossentropies(labels, logits, label_smoothing)
    if weights is None:
        return ops.mean(losses)
    weights = ops.cast(weights, "float32")
    return ops.divide_no_nan(_weighted_sum(losses, weights), ops.sum(weights))


def chunked_token_crossentropy(outputs, kernel, bias, labels, weights=None, label_smoothing=0.0, chunks=8):
    """`token_crossentropy` of the logits `outputs @ kernel + bias`, which never exist as a whole.

    The tokens are gone through in parts. The backward pass computes a part's logits again instead of keeping them, so that a
    training step holds `1 / chunks` of (b, t, v), for one product more (Chen et al. 2016, https://arxiv.org/abs/1604.06174).
    Value and gradients are those of the plain loss up to the order of a sum.

    Args:
        outputs: (b, t, d) float, what the output layer would get. kernel: (d, v). bias: (v,), or None.
        labels: (b, t) int ids or (b, t, v) distributions.
        weights: (b, t) float, 0 at padding; None counts every position.
        label_smoothing: see `token_crossentropies`.
        chunks: how many parts of equal numbers of tokens.

    Returns:
        A float32 scalar.

    Raises:
        UsageError: when `chunks` is not an integer of at least 1.
    """
    if not isinstance(chunks, int) or isinstance(chunks, bool) or chunks < 1:
        raise UsageError(f"Expected chunks to be an integer of at least 1. Received: chunks={chunks!r}")
    outputs, kernel, labels = (ops.convert_to_tensor(value) for value in (outputs, kernel, labels))
    bias = ops.zeros(kernel.shape[1], kernel.dtype) if bias is None else ops.convert_to_tensor(bias)
    weights = ops.ones(ops.shape(labels)[:2]) if weights is None else weights

    @keras.remat
    def part(x, kernel, bias, labels, weights):
        logits = ops.matmul(x, kernel) + bias
        return _weighted_sum(token_crossentropies(labels[None], logits[None], label_smoothing)[0], weights)

    def advance(_, now, total):
        x, labels, weights = now
        return total + part(x, kernel, bias, labels, weights), ()

    # A loop, not parts written out one after another: of those XLA computes the logits all at once.
    tokens = [_parts(tensor, chunks) for tensor in (outputs, labels, ops.cast(weights, "float32"))]
    zero, always = ops.zeros((), "float32"), ops.convert_to_tensor(True)
    total, _ = backend.unroll(advance, lambda _: always, zero, (), chunks, tokens)
    return ops.divide_no_nan(total, ops.sum(tokens[2]))


def _parts(tensor, count):
    """(b, t, ...) as `count` equal parts of tokens, (count, n, ...), zeros after the last token."""
    flat = ops.reshape(tensor, (-1, *tensor.shape[2:]))
    size = (ops.shape(flat)[0] + count - 1) // count
    filled = ops.concatenate([flat, ops.zeros((count - 1, *flat.shape[1:]), flat.dtype)], axis=0)[: size * count]
    return ops.reshape(filled, (count, size, *flat.shape[1:]))


def _weighted_sum(losses, weights):
    # A position of weight 0 may hold anything, an infinite loss too, and 0 * inf is NaN.
    return ops.sum(ops.where(weights > 0, losses, 0.0) * weights)


@keras.saving.register_keras_serializable(package="k3seq")
class TokenCrossentropy(keras.losses.Loss):
    """`token_crossentropy` for `compile(loss=...)`: labels (b, t) or (b, t, v), logits (b, t, v), sample_weight (b, t).

    Raises:
        ValueError: when `label_smoothing` is outside [0, 1).
    """

    def __init__(self, label_smoothing=0.0, name="token_crossentropy"):
        super().__init__(name=name, reduction="mean_with_sample_weight")
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"Expected label_smoothing in [0, 1). Received: label_smoothing={label_smoothing}")
        self.label_smoothing = label_smoothing

    def __call__(self, y_true, y_pred, sample_weight=None):
        return token_crossentropy(y_true, y_pred, sample_weight, self.label_smoothing)

    def get_config(self):
        return {"label_smoothing": self.label_smoothing, "name": self.name}
