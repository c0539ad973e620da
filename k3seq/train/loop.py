"""The training loop over `data.Batches`."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np


class Step(NamedTuple):
    """One update: its number from 1 over the whole run, its logs, and the sum of the weights of its tokens."""

    number: int
    logs: dict[str, float]
    tokens: float


class Epoch(NamedTuple):
    """One epoch: its number from 1, mean loss over tokens, mean gradient norm, refused steps, training time in s, tokens."""

    number: int
    loss: float
    gradient_norm: float
    refused: int
    seconds: float
    tokens: int


class BatchSource(Protocol):
    """Yields the batches (x, y, weight) of each epoch, such as `k3seq.data.Batches`."""

    def epoch(self, index: int, /) -> Iterable[tuple[Any, Any, Any]]:
        """The batches of epoch `index`, from 0."""
        ...


def epochs(
    model: Any,
    batches: BatchSource,
    count: int,
    on_step: Callable[[Step], Any] | None = None,
    seconds_limit: float | None = None,
) -> Iterator[Epoch]:
    """Trains and yields an `Epoch` after each pass.

    Each batch is one `train_on_batch`, so that the logs of a step are its own and not a running mean.

    Args:
        model: compiled, with k3seq's train step.
        batches: the training data.
        count: number of passes over the data.
        on_step: called with each `Step`.
        seconds_limit: no new epoch begins after this time, in seconds.
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


def evaluate(model: Any, batches: BatchSource) -> float:
    """Mean token loss over the batches of one pass, without training."""
    total = tokens = 0.0
    for x, y, weight in batches.epoch(0):
        counted = float(np.sum(weight))
        total += float(model.test_on_batch(x, y, weight, return_dict=True)["loss"]) * counted
        tokens += counted
    return total / max(tokens, 1.0)
