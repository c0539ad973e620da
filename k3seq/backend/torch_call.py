"""What Keras would find to do around a layer's call on PyTorch."""

import keras
import torch
from keras.src.backend.common import get_autocast_scope, global_state

_KERAS_CALL = keras.layers.Layer.__call__
# What a layer may have that Keras, or torch, minds around its call.
_AROUND = ("_forward_hooks", "_forward_pre_hooks", "activity_regularizer", "quantization_mode", "_remat_mode")


def ready(layer, args, kwargs):
    """Whether `layer.call(*args, **kwargs)` is all that `layer(*args, **kwargs)` would do.

    It is so within another layer's call, for a built layer without hooks, activity regulariser, quantisation or
    rematerialisation, whose arguments are tensors in its compute dtype without masks, None and bools, `training` among them
    where it takes it and only there; while nobody has put a call of their own in the place of Keras'.
    """
    if global_state.get_global_attribute("current_call_ctx") is None:
        return False
    if kwargs.get("training") is None if layer._call_has_training_arg else "training" in kwargs:
        return False  # Keras finds it in the outer call, or leaves out what the layer does not take
    return _is_plain(layer, (*args, *kwargs.values()))


def outermost(model, inputs, training):
    """`model(inputs, training=training)`, no layer's call around it: of a model that is ready as above, within a context for
    the layers in it, which is what Keras would open."""
    free = global_state.get_global_attribute("current_call_ctx") is None
    masks = model.supports_masking or any("mask" in name for name in model._call_signature.parameters)
    known = type(model).__call__ is _KERAS_CALL and model._call_context_args == {"training"} and model.input_spec is None
    if not free or masks or not known or not _is_plain(model, (inputs,)):
        return model(inputs, training=training)
    model._get_call_context().set_value("training", training)
    try:
        return model.call(inputs, training=training) if model._call_has_training_arg else model.call(inputs)
    finally:
        model._maybe_reset_call_context()


def _is_plain(layer, arguments):
    if keras.layers.Layer.__call__ is not _KERAS_CALL or not layer.built or any(getattr(layer, name, None) for name in _AROUND):
        return False
    policy, scope = layer.dtype_policy, get_autocast_scope()
    if policy.compute_dtype != (policy.variable_dtype if scope is None else scope.dtype):
        return False
    dtype = getattr(torch, policy.compute_dtype)
    return all(_fits(value, dtype) for value in arguments)


def _fits(value, dtype):
    if isinstance(value, torch.Tensor):
        return (value.dtype is dtype or not value.is_floating_point()) and getattr(value, "_keras_mask", None) is None
    if isinstance(value, list | tuple):
        return all(_fits(leaf, dtype) for leaf in value)
    if isinstance(value, dict):
        return all(_fits(leaf, dtype) for leaf in value.values())
    return value is None or isinstance(value, bool)
