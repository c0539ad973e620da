"""Losses of sequence models, normalised by tokens."""

from typing import Any

import keras
from keras import ops

from k3seq import arguments, backend
from k3seq.train.targets import align, check_weights
from k3seq.typing import Tensor


def token_crossentropies(labels: Tensor, logits: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every token, in float32.

    Args:
        labels: (b, t) int ids, or (b, t, v) float distributions (one-hot targets).
        logits: (b, t, v) float, unnormalised.
        label_smoothing: in [0, 1); that share of the target is spread evenly over the vocabulary (Szegedy et al. 2016,
            https://arxiv.org/abs/1512.00567, section 7).

    Returns:
        (b, t) float32.
    """
    logits = ops.cast(logits, "float32")
    if len(labels.shape) == len(logits.shape):
        labels = ops.cast(labels, "float32")
        log_probabilities = ops.log_softmax(logits, axis=-1)
        chosen = ops.sum(labels * log_probabilities, axis=-1)
        return -(1.0 - label_smoothing) * chosen - label_smoothing * ops.mean(log_probabilities, axis=-1)
    return backend.crossentropies(ops.convert_to_tensor(labels), logits, label_smoothing)


def token_crossentropy(labels: Tensor, logits: Tensor, weights: Tensor = None, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of a batch over its tokens: sum of weighted losses over the sum of weights, 0 where that is 0.

    Args:
        labels: (b, t) int ids, (b, t, 1) int ids, or (b, t, v) distributions.
        logits: (b, t, v) float.
        weights: one per token, (b, t), 0 at padding; or one per row, (b,) or (b, 1), for each of its tokens. None counts
            every token.
        label_smoothing: see `token_crossentropies`.

    Returns:
        A float32 scalar.

    Raises:
        UsageError: labels or weights have another shape, or a weight is negative or not finite. Inside a trace the values of
            weights are not known and not checked.
    """
    check_weights(weights, "weights")
    labels, weights = align(labels, weights, tuple(logits.shape[:2]), logits.shape[2], "weights")
    return mean_crossentropy(labels, logits, weights, label_smoothing)


def mean_crossentropy(labels: Tensor, logits: Tensor, weights: Tensor = None, label_smoothing: float = 0.0) -> Tensor:
    """`token_crossentropy` of labels (b, t) or (b, t, v) and weights (b, t) that were checked before."""
    losses = token_crossentropies(labels, logits, label_smoothing)
    if weights is None:
        return ops.mean(losses)
    weights = ops.cast(weights, "float32")
    return ops.divide_no_nan(_weighted_sum(losses, weights), ops.sum(weights))


def chunked_token_crossentropy(
    outputs: Tensor,
    kernel: Tensor,
    bias: Tensor,
    labels: Tensor,
    weights: Tensor = None,
    label_smoothing: float = 0.0,
    chunks: int = 8,
) -> Tensor:
    """`token_crossentropy` of the logits `outputs @ kernel + bias`, which never exist as a whole.

    The tokens are processed in parts. The backward pass computes a part's logits again instead of keeping them, so that a
    training step holds `1 / chunks` of (b, t, v), at the cost of one more product (Chen et al. 2016,
    https://arxiv.org/abs/1604.06174). Value and gradients are those of the plain loss up to the order of a sum.

    Args:
        outputs: (b, t, d) float, the inputs of the output layer. kernel: (d, v). bias: (v,), or None.
        labels, weights: as in `token_crossentropy`.
        label_smoothing: see `token_crossentropies`.
        chunks: number of parts, with equal numbers of tokens.

    Returns:
        A float32 scalar.

    Raises:
        UsageError: `chunks` is not an integer of at least 1, or as in `token_crossentropy`.
    """
    arguments.positive(chunks=chunks)
    check_weights(weights, "weights")
    outputs, kernel, labels = (ops.convert_to_tensor(value) for value in (outputs, kernel, labels))
    labels, weights = align(labels, weights, tuple(outputs.shape[:2]), kernel.shape[1], "weights")
    bias = ops.zeros(kernel.shape[1], kernel.dtype) if bias is None else ops.convert_to_tensor(bias)
    weights = ops.ones(ops.shape(labels)[:2]) if weights is None else weights

    @keras.remat
    def part(x, kernel, bias, labels, weights):
        logits = ops.matmul(x, kernel) + bias
        return _weighted_sum(token_crossentropies(labels[None], logits[None], label_smoothing)[0], weights)

    def advance(_, now, total):
        x, labels, weights = now
        return total + part(x, kernel, bias, labels, weights), ()

    # A loop, because XLA computes the logits of unrolled parts all at once.
    tokens = [_parts(tensor, chunks) for tensor in (outputs, labels, ops.cast(weights, "float32"))]
    zero, always = ops.zeros((), "float32"), ops.convert_to_tensor(True)
    total, _ = backend.unroll(advance, lambda _: always, zero, (), chunks, tokens)
    return ops.divide_no_nan(total, ops.sum(tokens[2]))


def _parts(tensor: Tensor, count: int) -> Tensor:
    """(b, t, ...) as `count` equal parts of tokens, (count, n, ...), zeros after the last token."""
    flat = ops.reshape(tensor, (-1, *tensor.shape[2:]))
    size = (ops.shape(flat)[0] + count - 1) // count
    filled = ops.concatenate([flat, ops.zeros((count - 1, *flat.shape[1:]), flat.dtype)], axis=0)[: size * count]
    return ops.reshape(filled, (count, size, *flat.shape[1:]))


def _weighted_sum(losses: Tensor, weights: Tensor) -> Tensor:
    # A position of weight 0 may have an infinite loss, and 0 * inf is NaN.
    return ops.sum(ops.where(weights > 0, losses, 0.0) * weights)


@keras.saving.register_keras_serializable(package="k3seq")
class TokenCrossentropy(keras.losses.Loss):
    """`token_crossentropy` for `compile(loss=...)`, with labels, logits and sample weights as described there.

    Args:
        label_smoothing: number in [0, 1).
        name: name of the loss.

    Raises:
        UsageError: `label_smoothing` is not a number in [0, 1).
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "token_crossentropy"):
        super().__init__(name=name, reduction="mean_with_sample_weight")
        arguments.real(0, 1, below=True, label_smoothing=label_smoothing)
        self.label_smoothing = label_smoothing

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Tensor:
        check_weights(sample_weight)
        labels, weights = align(y_true, sample_weight, tuple(y_pred.shape[:2]), y_pred.shape[2])
        return mean_crossentropy(labels, y_pred, weights, self.label_smoothing)

    def get_config(self) -> dict[str, Any]:
        return {"label_smoothing": self.label_smoothing, "name": self.name}
