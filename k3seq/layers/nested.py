"""Layers within layers, called without the work that Keras does around each call, where that work would have no effect."""

from typing import Any

from k3seq import backend


class Nested:
    """Put it before a Keras layer in its bases. Within another layer's call the layer's `call` is then called directly.

    In every call Keras converts and flattens the arguments, binds them to a signature, looks for masks attached to them, and
    opens scopes. On PyTorch, where nothing is traced, that takes longer than a small layer computes. Where this work would
    have an effect (`backend.ready` is False), Keras does the call. A layer must pass `training` to its inner layers itself.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if backend.ready(self, args, kwargs):  # pyright: ignore[reportArgumentType] - a class before a keras.layers.Layer
            return self.call(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue] - as above
        return super().__call__(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue] - as above
