"""The epochs of a training run over `data.Batches`."""

import time
from typing import NamedTuple

import numpy as np


class Step(NamedTuple):
    """One update: number from 1 over the whole run, its logs as floats, tokens that counted."""

    number: int
    logs: dict
    tokens: float


class Epoch(NamedTuple):
    """One epoch: number from 1, mean loss over tokens, mean gradient norm, refused steps, seconds of training, tokens."""

    number: int
    loss: float
    gradient_norm: float
    refused: int
    seconds: float
    tokens: int


def epochs(model, batches, count, on_step=None, seconds_limit=None):
    """Trains and yields an `Epoch` after each pass.

    Each batch is one `train_on_batch`, so that the logs of a step are its own and not a running mean.

    Args:
        model: compiled, with k3seq's train step.
        batches: has `epoch(i)`, an iterable of (x, y, weight), and a length.
        count: passes over the data.
        on_step: called with each `Step`.
        seconds_limit: no new epoch begins after this many seconds.
    """
    number, began = 0, time.perf_counter()
    for index in range(count):
        total, norms, tokens, refused, start = 0.0, [], 0.0, 0, time.perf_counter()
        for x, y, weight in batches.epoch(index):
            number += 1
            logs = {name: float(value) for name, value in model.train_on_batch(x, y, weight, return_dict=True).items()}
            counted = float(np.sum(weight)) * (1.0 - logs["refused"])
            total, tokens = total + logs["loss"] * counted, tokens + counted
            refused += int(logs["refused"])
            norms.append(logs["gradient_norm"])
            if on_step:
                on_step(Step(number, logs, counted))
        seconds = time.perf_counter() - start
        norm = float(np.mean(norms)) if norms else 0.0
        yield Epoch(index + 1, total / max(tokens, 1.0), norm, refused, seconds, int(tokens))
        if seconds_limit is not None and time.perf_counter() - began > seconds_limit:
            return


def evaluate(model, batches):
    """Mean token loss over the batches of one pass, without training."""
    total = tokens = 0.0
    for x, y, weight in batches.epoch(0):
        counted = float(np.sum(weight))
        total += float(model.test_on_batch(x, y, weight, return_dict=True)["loss"]) * counted
        tokens += counted
    return total / max(tokens, 1.0)
