"""Weighted cross-entropy over sequences: `tfa.seq2seq.loss` on three backends."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import keras
from keras import ops

from k3seq.errors import UsageError
from k3seq.seq2seq import expect
from k3seq.seq2seq.parts import loaded_parts
from k3seq.seq2seq.sampler_base import as_config
from k3seq.typing import Tensor

# (average_across_timesteps, average_across_batch, sum_over_timesteps, sum_over_batch) -> the axes of (b, t) that are reduced
_REDUCED = {
    (False, False, False, False): (),
    (True, True, False, False): (0, 1),
    (True, False, False, False): (1,),
    (False, True, False, False): (0,),
    (False, False, True, True): (0, 1),
    (False, False, True, False): (1,),
    (False, False, False, True): (0,),
}


def sequence_loss(
    logits: Tensor,
    targets: Tensor,
    weights: Any,
    average_across_timesteps: bool = True,
    average_across_batch: bool = True,
    sum_over_timesteps: bool = False,
    sum_over_batch: bool = False,
    softmax_loss_function: Callable[..., Any] | None = None,
    name: str | None = None,
) -> Tensor:
    """Cross-entropy of each step, weighted, and reduced over steps and rows.

    `average_*` divides the sum by the sum of the weights, `sum_*` by how many of them are not 0; 0 / 0 is 0.

    Args:
        logits: (b, t, v) float; half precision is cast to float32.
        targets: (b, t) int ids, or (b, t, v) distributions. weights: (b, t) float.
        average_across_timesteps, average_across_batch, sum_over_timesteps, sum_over_batch: 7 of 16 combinations are legal:
            none, or one kind over steps, rows or both.
        softmax_loss_function: called as f(labels=(b t,), logits=(b t, v)) -> (b t,) instead of the cross-entropy.
        name: not used; TFA has it.

    Returns:
        A tensor with the axes of (b, t) that are not reduced.

    Raises:
        UsageError: another combination, or a rank that is not as above.
    """
    axes = _axes(average_across_timesteps, average_across_batch, sum_over_timesteps, sum_over_batch)
    logits, targets, weights = (ops.convert_to_tensor(x) for x in (logits, targets, weights))
    expect.rank("logits", logits, 3, "of shape (b, t, v)")
    expect.rank("weights", weights, 2, "of shape (b, t)")
    if len(targets.shape) not in (2, 3) or (softmax_loss_function is not None and len(targets.shape) != 2):
        raise UsageError(
            "Expected targets of shape (b, t), or without softmax_loss_function also (b, t, v). "
            f"Received: shape {tuple(targets.shape)}"
        )
    if keras.backend.standardize_dtype(logits.dtype) in ("float16", "bfloat16"):
        logits = ops.cast(logits, "float32")  # a sum over vocabulary, steps and rows is more than half precision holds
    weights = ops.cast(weights, logits.dtype)
    if softmax_loss_function is not None:
        flat = ops.reshape(logits, (-1, logits.shape[-1]))
        losses = softmax_loss_function(labels=ops.reshape(targets, (-1,)), logits=flat)
        losses = ops.reshape(losses, ops.shape(weights))
    elif len(targets.shape) == 2:
        expect.ids("targets", targets, logits.shape[-1])
        index = ops.cast(targets, "int32")[..., None]
        losses = _log_sum(logits) - ops.take_along_axis(logits, index, axis=-1)[..., 0]
    else:
        targets = ops.cast(targets, logits.dtype)
        losses = ops.sum(targets * (_log_sum(logits)[..., None] - logits), axis=-1)
    losses = losses * weights
    if not axes:
        return losses
    counted = weights if average_across_timesteps or average_across_batch else ops.cast(ops.not_equal(weights, 0), losses.dtype)
    # Not `ops.divide_no_nan`, which on torch makes float32 of a float64 scalar.
    total, count = ops.sum(losses, axis=axes), ops.sum(counted, axis=axes)
    return ops.where(count == 0, ops.zeros_like(total), total / ops.where(count == 0, ops.ones_like(count), count))


def _axes(*flags: bool) -> tuple[int, ...]:
    axes = next((axes for reduced, axes in _REDUCED.items() if reduced == tuple(map(bool, flags))), None)
    if axes is None:
        names = ("average_across_timesteps", "average_across_batch", "sum_over_timesteps", "sum_over_batch")
        given = ", ".join(name for name, flag in zip(names, flags, strict=True) if flag)
        raise UsageError(f"Expected only average_* or only sum_* reductions, because of ambiguous order. Received: {given}")
    return axes


def _log_sum(logits):
    return ops.logsumexp(logits, axis=-1)


@keras.saving.register_keras_serializable(package="k3seq")
class SequenceLoss(keras.losses.Loss):
    """`sequence_loss` as a Keras loss: called as (y_true, y_pred, sample_weight).

    Args:
        average_across_timesteps, average_across_batch, sum_over_timesteps, sum_over_batch, softmax_loss_function: as in
            `sequence_loss`, though sums are the default. name: of the loss.

    Called with y_true (b, t) ids or (b, t, v), y_pred (b, t, v) logits, sample_weight (b, t); None weighs all steps 1.

    Raises:
        UsageError: at the call, as in `sequence_loss`.
    """

    def __init__(
        self,
        average_across_timesteps: bool = False,
        average_across_batch: bool = False,
        sum_over_timesteps: bool = True,
        sum_over_batch: bool = True,
        softmax_loss_function: Callable[..., Any] | None = None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.average_across_timesteps = average_across_timesteps
        self.average_across_batch = average_across_batch
        self.sum_over_timesteps = sum_over_timesteps
        self.sum_over_batch = sum_over_batch
        self.softmax_loss_function = softmax_loss_function

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Any:
        if sample_weight is None:
            sample_weight = ops.ones(ops.shape(y_pred)[:2])
        return sequence_loss(
            y_pred,
            y_true,
            sample_weight,
            average_across_timesteps=self.average_across_timesteps,
            average_across_batch=self.average_across_batch,
            sum_over_timesteps=self.sum_over_timesteps,
            sum_over_batch=self.sum_over_batch,
            softmax_loss_function=self.softmax_loss_function,
            name=self.name,
        )

    def call(self, y_true: Tensor, y_pred: Tensor) -> Any:
        return self(y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        names = ("average_across_timesteps", "average_across_batch", "sum_over_timesteps", "sum_over_batch")
        function = as_config("softmax_loss_function", self.softmax_loss_function)
        return {"name": self.name, **{n: getattr(self, n) for n in names}, "softmax_loss_function": function}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        return cls(**loaded_parts(config, ("softmax_loss_function",), custom_objects))
