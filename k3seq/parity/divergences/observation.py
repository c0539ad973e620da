"""What a reproducer hands back. Reproducers run where keras is imported; this file and what reads its dicts import none."""

import importlib
import re
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Observation:
    """One backend seen through one reproducer.

    Either `present` is said here, because right and wrong are known; or `value` is what this backend gives, and the divergence
    is present where backends give different ones. `cured` and `control` are the same for the form that k3seq uses or advises:
    a reproducer whose control is not cured measures nothing.

    Args:
        seen: what this backend gave, in a few words.
        control: what the correct form gave, in a few words.
        present: whether the divergence is there; None where only other backends' values can tell.
        cured: whether the correct form is free of it; None like `present`.
        value, control_value: JSON, compared between backends where `present` is None.
    """

    seen: str
    control: str
    present: bool | None = None
    cured: bool | None = None
    value: Any = None
    control_value: Any = None


def observe(payload):
    """Runs one reproducer, `{"reproducer": "package.module:function"}`, in a launched process; the Observation as a dict."""
    module, _, name = payload["reproducer"].partition(":")
    return asdict(getattr(importlib.import_module(module), name)())


def raised(call):
    """`TypeName: first words of its message` of the exception that `call()` raises, or None."""
    try:
        call()
    except Exception as error:
        words = " ".join(re.sub("\x1b\\[[0-9;]*m", "", str(error)).split())  # Keras prints some of its messages in bold
        return f"{type(error).__name__}: {words[:100]}".rstrip(": ")
    return None
