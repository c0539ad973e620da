"""The calls and scopes that a layer's own call runs within."""

import keras

from k3seq.backend.keras_internals import running_call
from k3seq.backend.keras_internals import stateless_scope as stateless_scope


def outer_call(owner: keras.layers.Layer):
    """The running call of an outermost layer or model other than `owner`, or None. It lives as long as that call."""
    call = running_call()
    return call if call is not None and call.entry_layer is not owner else None
