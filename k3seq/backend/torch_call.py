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
    if global_state.get_global_attribute("current_call_ctx") is None or keras.layers.Layer.__call__ is not _KERAS_CALL:
        return False
    if not layer.built or any(getattr(layer, name, None) for name in _AROUND):
        return False
    if kwargs.get("training") is None if layer._call_has_training_arg else "training" in kwargs:
        return False  # Keras finds it in the outer call, or leaves out what the layer does not take
    policy, scope = layer.dtype_policy, get_autocast_scope()
    if policy.compute_dtype != (policy.variable_dtype if scope is None else scope.dtype):
        return False
    dtype = getattr(torch, policy.compute_dtype)
    return all(_fits(value, dtype) for value in args) and all(_fits(value, dtype) for value in kwargs.values())


def _fits(value, dtype):
    if isinstance(value, torch.Tensor):
        return (value.dtype is dtype or not value.is_floating_point()) and getattr(value, "_keras_mask", None) is None
    if isinstance(value, list | tuple):
        return all(_fits(leaf, dtype) for leaf in value)
    return value is None or isinstance(value, bool)
