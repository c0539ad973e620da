"""What a reproducer returns. Imports no Keras; the reproducers do."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from k3seq.parity.rows import without_escapes
from k3seq.typing import Json


@dataclass(frozen=True)
class Observation:
    """What one reproducer found on one backend.

    Where the right result is known, `present` and `cured` hold. Otherwise `value` and `control_value` hold, and the divergence
    is present where backends have different values.

    A reproducer also runs the correct form, its control, which k3seq uses or recommends. A reproducer whose control has the
    divergence too measures nothing.

    Args:
        seen: result of this backend, in a few words.
        control: result of the correct form, in a few words.
        present: whether the divergence is there; None where the values of several backends are compared.
        cured: whether the correct form is free of it; None like `present`.
        value, control_value: JSON, compared between backends where `present` is None.
    """

    seen: str
    control: str
    present: bool | None = None
    cured: bool | None = None
    value: Json = None
    control_value: Json = None


def observe(payload: Mapping[str, str]) -> dict[str, Json]:
    """Runs the reproducer `{"reproducer": "package.module:function"}` and returns its `Observation` as a dict."""
    module, _, name = payload["reproducer"].partition(":")
    return asdict(getattr(importlib.import_module(module), name)())


def raised(call: Callable[[], Any]) -> str | None:
    """`TypeName: first words of its message` of the exception that `call()` raises, or None."""
    try:
        call()
    except Exception as error:
        words = " ".join(without_escapes(str(error)).split())
        return f"{type(error).__name__}: {words[:100]}".rstrip(": ")
    return None
