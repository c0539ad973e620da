"""Checks of the arguments of public functions: the same mistake raises the same `UsageError` everywhere.

Each function takes arguments by their own names, so that the message names what the caller wrote:
`positive(units=units)` raises "Expected units to be an integer of at least 1. Received: units=0".
"""

import math
import numbers
from collections.abc import Collection
from typing import Any

from k3seq.errors import UsageError


def integer(minimum: int, maximum: int | None = None, /, **values: Any) -> None:
    """Raises UsageError unless each value is an integer of at least `minimum` and at most `maximum` (None: no limit)."""
    for name, value in values.items():
        if not _is(numbers.Integral, value) or value < minimum or maximum is not None and value > maximum:
            limits = f"of at least {minimum}" if maximum is None else f"in {minimum}..{_shown(maximum)}"
            raise UsageError(f"Expected {name} to be an integer {limits}. Received: {name}={value!r}")


def finite(**values: Any) -> None:
    """Raises UsageError unless each value is a finite number."""
    for name, value in values.items():
        if not _is(numbers.Real, value) or not -math.inf < value < math.inf:
            raise UsageError(f"Expected {name} to be a finite number. Received: {name}={value!r}")


def positive(**values: Any) -> None:
    """Raises UsageError unless each value is an integer of at least 1."""
    integer(1, **values)


def real(minimum: float, maximum: float, /, *, above: bool = False, below: bool = False, **values: Any) -> None:
    """Raises UsageError unless each value is a number in [minimum, maximum].

    `above` excludes the minimum and `below` the maximum.
    """
    for name, value in values.items():
        excluded = above and value == minimum or below and value == maximum
        if not _is(numbers.Real, value) or not minimum <= value <= maximum or excluded:
            interval = f"{'(' if above else '['}{minimum:g}, {maximum:g}{')' if below else ']'}"
            raise UsageError(f"Expected {name} to be a number in {interval}. Received: {name}={value!r}")


def one_of(options: Collection[Any], /, **values: Any) -> None:
    """Raises UsageError unless each value is one of `options`."""
    for name, value in values.items():
        if not any(type(value) is type(option) and value == option for option in options):
            raise UsageError(f"Expected {name} to be one of {', '.join(map(repr, options))}. Received: {name}={value!r}")


def divisible(divisor: str, /, **values: Any) -> None:
    """Raises UsageError unless the value of the other argument is a multiple of that of the argument named `divisor`.

    `divisible("num_heads", embed_dim=6, num_heads=4)` refuses, because 4 does not divide 6.
    """
    for name, value in values.items():
        if value % values[divisor]:
            raise UsageError(
                f"Expected {name} to be a multiple of {divisor}. Received: {name}={value!r}, {divisor}={values[divisor]!r}"
            )


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _shown(bound: int) -> str:
    """2**64 - 1 as a power, which is easier to read than its 20 digits."""
    bits = bound.bit_length()
    return f"2**{bits}-1" if bits > 16 and bound == 2**bits - 1 else str(bound)
