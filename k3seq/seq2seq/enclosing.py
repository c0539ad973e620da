"""The Keras calls and scopes that are open. Keras has no public names for them; only this module reads them."""

from typing import Any

from keras.src.backend.common import global_state


def outer_call(owner: Any) -> Any:
    """The running call of an outermost layer or model other than `owner`, or None. It lives as long as that call."""
    call = global_state.get_global_attribute("current_call_ctx")
    return call if call is not None and call.entry_layer is not owner else None


def outer_layer() -> Any:
    """The outermost layer or model that is being called, or None."""
    call = global_state.get_global_attribute("current_call_ctx")
    return None if call is None else call.entry_layer


def stateless_scope() -> Any:
    """The `keras.StatelessScope` that is open, or None."""
    return global_state.get_global_attribute("stateless_scope")
