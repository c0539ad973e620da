"""Calls of layers on PyTorch without the work that Keras does around a call, where that work would have no effect."""

import functools
import inspect
from typing import Any

import keras
import torch

from k3seq.backend import keras_internals
from k3seq.typing import Nested

_KERAS_CALL = keras.layers.Layer.__call__
# Attributes of a layer for which Keras or torch does something around its call.
_AROUND = ("_forward_hooks", "_forward_pre_hooks", "activity_regularizer", "quantization_mode")


def ready(layer: keras.layers.Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether `layer.call(*args, **kwargs)` does all that `layer(*args, **kwargs)` would do.

    It does within another layer's call, for a built layer without hooks, activity regulariser, quantisation or
    rematerialisation, and as long as `keras.layers.Layer.__call__` is Keras' own. The arguments must be tensors in the layer's
    compute dtype without masks, None or bools; `training` must be given to a layer that takes it, and to no other.
    """
    if keras_internals.running_call() is None:
        return False
    if kwargs.get("training") is None if "training" in _parameters(type(layer)) else "training" in kwargs:
        return False  # Keras takes it from the outer call, or does not pass it on
    return _is_plain(layer, (*args, *kwargs.values()))


def outermost(model: keras.Model, inputs: Nested, training: bool) -> Nested:
    """`model(inputs, training=training)` outside of any layer's call; a model that is `ready` otherwise is called directly,
    in a call context as Keras would open it."""
    taken = _parameters(type(model))
    masks = model.supports_masking or any("mask" in name for name in taken)
    known = type(model).__call__ is _KERAS_CALL and model.input_spec is None
    if keras_internals.running_call() is None and not masks and known and _is_plain(model, (inputs,)):
        with keras_internals.call_context(model, training) as opened:
            if opened:
                return model.call(inputs, training=training) if "training" in taken else model.call(inputs)
    return model(inputs, training=training)


@functools.cache
def _parameters(kind):
    return frozenset(inspect.signature(kind.call).parameters)


def _is_plain(layer, arguments):
    if keras.layers.Layer.__call__ is not _KERAS_CALL or not layer.built or any(getattr(layer, name, None) for name in _AROUND):
        return False

    def fit(dtype):
        dtype = getattr(torch, dtype)
        return all(_fits(value, dtype) for value in arguments)

    return keras_internals.calls_plainly(layer, fit)


def _fits(value, dtype):
    if isinstance(value, torch.Tensor):
        return (value.dtype is dtype or not value.is_floating_point()) and keras_internals.mask_on(value) is None
    if isinstance(value, list | tuple):
        return all(_fits(leaf, dtype) for leaf in value)
    if isinstance(value, dict):
        return all(_fits(leaf, dtype) for leaf in value.values())
    return value is None or isinstance(value, bool)
