"""Checks of arguments, made on the host: one error, the same on every backend.

A value that is not known while a function is traced passes; the loop then clamps the indices that it reads.
"""

from typing import Any

import numpy as np

from k3seq import arguments, backend
from k3seq.errors import UsageError
from k3seq.typing import Tensor


class WrongType(UsageError, TypeError):
    """An argument of the wrong type: a TypeError as in TFA, and a UsageError."""


def type_of(name: str, value: Any, kinds: Any, what: str) -> None:
    """Raises WrongType unless `value` is an instance of `kinds`."""
    if not isinstance(value, kinds):
        raise WrongType(f"Expected {name} to be {what}. Received: {name}={value!r}")


def rank(name: str, value: Tensor, size: int, what: str) -> None:
    """Raises UsageError unless the tensor has `size` axes."""
    if len(value.shape) != size:
        raise UsageError(f"Expected {name} to be {what}. Received: shape {tuple(value.shape)}")


def steps(name: str, value: Any) -> None:
    """Raises UsageError unless `value` is None, an integer of at least 0, or a scalar tensor."""
    if value is None:
        return
    tensor = hasattr(value, "shape") and not isinstance(value, np.generic)
    if isinstance(value, list | tuple) or tensor and len(value.shape):
        raise UsageError(f"Expected {name} to be a scalar. Received: {value}")
    if not tensor:
        arguments.integer(0, **{name: value})


def numbers(name: str, value: Any) -> None:
    """Raises UsageError unless `value` is a number, an array of numbers, or a tensor."""
    if hasattr(value, "shape"):
        return
    try:
        kind = np.asarray(value).dtype.kind
    except ValueError:  # rows of other lengths
        kind = "O"
    if kind not in "iuf":
        raise UsageError(f"Expected {name} to be a number or an array of numbers. Received: {name}={value!r}")


def ids(name: str, value: Any, vocabulary: int | None) -> None:
    """Raises UsageError where an id is known to lie outside 0..vocabulary-1; `vocabulary` None: only below 0."""
    known = backend.known(value)
    if known is None or not np.size(known):
        return
    wrong = known[(known < 0) | (known >= (vocabulary if vocabulary is not None else np.inf))]
    if wrong.size:
        size = "" if vocabulary is None else f" in a vocabulary of {vocabulary}"
        raise UsageError(f"Expected {name}{size or ' of at least 0'}. Received: {name}={wrong.flat[0]}")


def lengths(name: str, value: Any, steps: Any) -> None:
    """Raises UsageError where a length is known to lie outside 0..steps."""
    known = backend.known(value)
    if known is None or not isinstance(steps, int) or not np.size(known):
        return
    wrong = known[(known < 0) | (known > steps)]
    if wrong.size:
        raise UsageError(f"Expected {name} of 0 to {steps}, the steps of the inputs. Received: {wrong.flat[0]}")
