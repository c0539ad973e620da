"""Losses of sequence models, normalised by tokens."""

import keras
from keras import ops


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
    log_probabilities = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    if len(labels.shape) == len(logits.shape):
        chosen = ops.sum(ops.cast(labels, "float32") * log_probabilities, axis=-1)
    else:
        index = ops.expand_dims(ops.cast(labels, "int32"), -1)
        chosen = ops.squeeze(ops.take_along_axis(log_probabilities, index, axis=-1), -1)
    if not label_smoothing:
        return -chosen
    return -(1.0 - label_smoothing) * chosen - label_smoothing * ops.mean(log_probabilities, axis=-1)


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
    # A position of weight 0 may hold anything, an infinite loss too, and 0 * inf is NaN.
    losses = ops.where(weights > 0, losses, 0.0)
    return ops.divide_no_nan(ops.sum(losses * weights), ops.sum(weights))


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
