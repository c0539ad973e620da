"""The Keras calls and scopes that are open."""

from typing import Any

from k3seq.backend.keras_internals import running_call
from k3seq.backend.keras_internals import stateless_scope as stateless_scope


def outer_call(owner: Any) -> Any:
    """The running call of an outermost layer or model other than `owner`, or None. It lives as long as that call."""
    call = running_call()
    return call if call is not None and call.entry_layer is not owner else None


def outer_layer() -> Any:
    """The outermost layer or model that is being called, or None."""
    call = running_call()
    return None if call is None else call.entry_layer
