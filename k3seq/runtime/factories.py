"""Calls what `package.module:factory` of a command names. Imports no keras."""

import inspect
from typing import Any

from k3seq.errors import UsageError


def call(factory: Any, name: str, result: str) -> Any:
    """Returns what a user's factory returns.

    Args:
        factory: the object that `name` stands for, called without arguments.
        name: what the user typed.
        result: what the factory should return, for the message.

    Raises:
        UsageError: the factory cannot be called, needs arguments, or ends the process.
    """
    if not callable(factory):
        raise UsageError(f"Expected {name} to be a function or class. Received: {type(factory).__name__}")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise UsageError(f"Expected {name} to need no arguments. Received: {error}") from error
    except ValueError:  # some functions written in C have no signature
        pass
    try:
        return factory()
    except SystemExit as error:
        raise UsageError(f"Expected {name} to return {result}. Received: it ended the process") from error
