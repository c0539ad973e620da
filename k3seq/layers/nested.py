"""Layers within layers, called without what Keras does around each call where it would find nothing to do."""

from k3seq import backend


class Nested:
    """Put before a Keras layer in its bases: within another layer's call, on tensors that are what it takes, it is only called.

    Keras converts and flattens the arguments of every call, binds them to a signature, looks for masks that ride on them and
    opens scopes: on torch, where nothing is traced, as often as the model runs, and longer than a small layer computes. What
    that would find to do (`backend.ready`) is done by Keras still. The layer hands `training` on to its own layers itself.
    """

    def __call__(self, *args, **kwargs):
        if backend.ready(self, args, kwargs):
            return self.call(*args, **kwargs)
        return super().__call__(*args, **kwargs)
