"""The step's own means and sums on PyTorch, without the operations of Keras for each of their numbers."""

import torch


def add(mean, value, weight):
    """`mean.update_state` with a scalar and its weight."""
    mean.total.value.add_(value * weight)
    mean.count.value.add_(weight)


def result(metric):
    """`metric.result` of a sum or mean, a tensor of its own: 0 where nothing was added."""
    total, count = metric.total.value, getattr(metric, "count", None)
    if count is None:
        return total.clone()
    return torch.where(count.value == 0, 0.0, total / count.value)
