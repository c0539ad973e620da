"""Cross-entropies of tokens on PyTorch as one function with its own gradient."""

import torch
from torch.autograd.function import once_differentiable

from k3seq.backend import reference
from k3seq.typing import Tensor


class _Crossentropies(torch.autograd.Function):
    # Autograd would make the gradient of the log-probabilities in three passes: zeros, the chosen tokens, softmax.

    @staticmethod
    def forward(ctx, logits, index, smoothing):
        log_probabilities = torch.log_softmax(logits, -1)
        ctx.save_for_backward(log_probabilities, index)
        ctx.smoothing = smoothing
        chosen = log_probabilities.gather(-1, index)[..., 0]
        if not smoothing:
            return -chosen
        return -(1.0 - smoothing) * chosen - smoothing * log_probabilities.mean(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradients):
        log_probabilities, index = ctx.saved_tensors
        gradients = gradients[..., None]
        found = log_probabilities.exp()
        if ctx.smoothing:
            found.sub_(ctx.smoothing / found.shape[-1])
        return found.mul_(gradients).scatter_add_(-1, index, gradients * (ctx.smoothing - 1.0)), None, None


def crossentropies(labels: Tensor, logits: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of every token (see `reference`), of ids in one function with its own gradient."""
    if labels.ndim == logits.ndim:
        return reference.crossentropies(labels, logits, smoothing)
    index = labels.long()
    index = torch.where(index < 0, index + logits.shape[-1], index)[..., None]  # as `keras.ops` reads a label of weight 0
    return _Crossentropies.apply(logits, index, smoothing)
