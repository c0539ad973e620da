"""The private names of Keras that k3seq uses. No other file uses any (`tests/test_architecture.py` refuses them).

Each function has a fallback on public names, for a Keras that no longer has the private one: slower, or less exact where its
docstring says so. `tests/backend/test_keras_internals.py` hides each private name and shows that the fallback works.
To use another private name, add a function here, its fallback, and its line in that test.
"""

import contextlib
import functools
import importlib
import threading
import types
from collections.abc import Iterator
from typing import Any

import keras
from keras import tree

from k3seq.errors import UsageError
from k3seq.typing import Nested, Tensor

BesideModel: Any = object  # the base of classes that are put before `keras.Model` and use its attributes


def _imported(*places: str) -> Any:
    """The first of several `module:attribute` that this version of Keras has, or None."""
    for place in places:
        module, _, name = place.partition(":")
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(module), name)
    return None


_get_global = _imported("keras.src.backend.common.global_state:get_global_attribute")
_set_global = _imported("keras.src.backend.common.global_state:set_global_attribute")
_autocast_scope = _imported("keras.src.backend.common.variables:get_autocast_scope")
_get_mask = _imported("keras.src.backend.common.masking:get_keras_mask")
_in_symbolic_scope = _imported("keras.src.backend.common.symbolic_scope:in_symbolic_scope")

# Keras wraps an error from a layer in a description of the layer's arguments, on each backend another one, unless the error has
# this mark. Without it the message is longer.
setattr(UsageError, "_keras_call_info_injected", True)  # noqa: B010 - pyright knows no such attribute


# Calls of layers


class _Call:
    entry_layer: Any = None


_watched = threading.local()


def _watching(call):
    """`keras.layers.Layer.__call__` that remembers the outermost layer whose call runs."""

    @functools.wraps(call)
    def __call__(self, *args, **kwargs):
        if getattr(_watched, "call", None) is not None:
            return call(self, *args, **kwargs)
        _watched.call = _Call()
        _watched.call.entry_layer = self
        try:
            return call(self, *args, **kwargs)
        finally:
            _watched.call = None

    return __call__


if _get_global is None:
    keras.layers.Layer.__call__ = _watching(keras.layers.Layer.__call__)


def running_call() -> Any:
    """The running call of an outermost layer or model, or None; its `entry_layer` is that layer. It lives as long as the call.

    For: what a layer may leave out within another layer's call, and what may live only as long as the outermost call.
    Fallback: k3seq puts a function of its own in the place of `keras.layers.Layer.__call__`.
    """
    return getattr(_watched, "call", None) if _get_global is None else _get_global("current_call_ctx")


def stateless_scope() -> Any:
    """The open `keras.StatelessScope`, or None.

    For: attention memories that a trace must not leave behind.
    Fallback: None; a memory of traced values is then kept for one use.
    """
    return None if _get_global is None else _get_global("stateless_scope")


@contextlib.contextmanager
def call_context(model: keras.Model, training: bool | None) -> Iterator[bool]:
    """Within the block, layers find what Keras would pass to the layers inside an outermost call of `model`.

    For: the train step on PyTorch calls `model.call` itself; see `torch_call.outermost`.
    Fallback: gives False where Keras must do the call, as it must for a model with call arguments that it passes on.
    """
    if (
        getattr(model, "_call_context_args", None) != {"training"}
        or _set_global is None
        or not hasattr(model, "_get_call_context")
    ):
        yield False
        return
    model._get_call_context().set_value("training", training)
    try:
        yield True
    finally:
        _set_global("current_call_ctx", None)


def calls_plainly(layer: keras.layers.Layer, has_dtype: Any) -> bool:
    """Whether Keras neither rematerialises the layer nor casts its variables or arguments.

    Args:
        layer: whose call is considered.
        has_dtype: from a dtype's name to whether the arguments of the call have it and no masks (see `mask_on`).

    For: `Nested` on PyTorch. Fallback: False, so that Keras does every call.
    """
    if _autocast_scope is None or getattr(layer, "_remat_mode", None):
        return False
    policy, scope = layer.dtype_policy, _autocast_scope()
    kept = policy.variable_dtype if scope is None else scope.dtype
    return policy.compute_dtype == kept and has_dtype(policy.compute_dtype)


def mask_on(tensor: Tensor) -> Any:
    """The mask that Keras attached to a tensor, or None.

    For: `Nested` leaves a call to Keras where a mask must be passed. Fallback: the tensor itself, as if it had a mask.
    """
    return tensor if _get_mask is None else _get_mask(tensor)


def stored_value(variable: Any) -> Any:
    """The array of a variable, or None where Keras on JAX has taken it out during `fit`.

    For: a model keeps its weights after an error in the middle of `fit`. Fallback: None, so that nothing is kept.
    """
    return getattr(variable, "_value", None)


def store_value(variable: Any, value: Any) -> None:
    """Puts an array from `stored_value` back. It is not called where there is none."""
    variable._value = value


def has_placeholders() -> bool:
    """Whether Keras is computing shapes and dtypes, with made-up values where the backend has no symbolic tensors.

    For: `known` on PyTorch and in the reference. Fallback: Keras then has a stateless scope open, in which no
    variable can be made; the answer is True in a user's stateless scope, too.
    """
    if _in_symbolic_scope is not None:
        return _in_symbolic_scope()
    try:
        keras.Variable(0.0, trainable=False)
    except ValueError:
        return True
    return False


# Optimizers and metrics


def adam_state(optimizer: keras.optimizers.Optimizer) -> tuple[list, list, list] | None:
    """(the variables that an Adam was built for, their first moments, their second moments).

    For: Adam in one kernel on PyTorch. Fallback: None, and Keras applies the update.
    """
    found = [getattr(optimizer, name, None) for name in ("_trainable_variables", "_momentums", "_velocities")]
    return None if any(part is None for part in found) else tuple(found)  # pyright: ignore[reportReturnType] - three lists


def compiled_metrics(model: keras.Model) -> Any:
    """What updates the metrics that `compile` got, by `update_state(y, y_pred, sample_weight)`; None where there are none.

    For: a train step need not keep the predictions where no metric asks for them.
    Fallback: the model's public `compute_metrics`, which computes all results too, and for which predictions are always kept.
    """
    by_model = types.SimpleNamespace(update_state=functools.partial(model.compute_metrics, None))
    return getattr(model, "_compile_metrics", by_model)


def logs_as_list(model: keras.Model, logs: dict[str, float]) -> list[float] | float:
    """What `train_on_batch(..., return_dict=False)` returns: the logs in the order of the metrics, or the only one.

    For: `train_on_batch` on JAX. Fallback: the metrics by their names, then the other logs sorted by name.
    """
    if hasattr(model, "_flatten_metrics_in_order"):
        return model._flatten_metrics_in_order(logs)
    first = [name for name in model.metrics_names if name in logs]
    values = [logs[name] for name in (*first, *sorted(set(logs) - set(first)))]
    return values[0] if len(values) == 1 else values


class BuildsOnce(BesideModel):
    """Put before `keras.Model`: `train_on_batch` builds the model for the first batch after `compile` only.

    For: on PyTorch Keras goes through all layers and variables before every batch. Fallback: none is needed; where Keras does
    not call the private method, this class has no effect.
    """

    def _symbolic_build(self, *args, **kwargs):
        if self.train_function is None or not self.built:
            super()._symbolic_build(*args, **kwargs)


# Layers, weights and graphs


def layers_of(layer: keras.layers.Layer, include_self: bool = True, recursive: bool = True) -> list[keras.layers.Layer]:
    """The layers inside a layer or model, each once, itself first where `include_self`.

    For: all that goes through the layers of a model; Keras has public `layers` for models only.
    Fallback: the layers among the attributes, also in lists, tuples and dicts, in the order in which they were set, without the
    input layers of a `Sequential`.
    """
    if hasattr(layer, "_flatten_layers"):
        return layer._flatten_layers(include_self=include_self, recursive=recursive)
    found = {id(layer): layer}
    waiting = [layer]
    while waiting:
        held = _layers_in(waiting.pop(0))
        new = [each for each in held if id(each) not in found]
        found |= {id(each): each for each in new}
        waiting += new if recursive else []
    return list(found.values())[0 if include_self else 1 :]


def _layers_in(layer):
    if isinstance(layer, keras.Model):
        return layer.layers
    return [leaf for leaf in _leaves(list(vars(layer).values())) if isinstance(leaf, keras.layers.Layer)]


def _leaves(value):
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for part in value for leaf in _leaves(part)] if isinstance(value, list | tuple) else [value]


def own_weights(layer: Any, trainable: bool = False) -> list[keras.Variable]:
    """The weights that a layer or operation holds itself, not within a layer inside it: the trainable ones first.

    Args:
        layer: whose weights. trainable: only those that train unless their layer is frozen.

    For: which layer a weight belongs to. Fallback: its weights without those of the layers inside it; those of a frozen layer
    are then not trainable.
    """
    lists = [getattr(layer, name, None) for name in ("_trainable_variables", "_non_trainable_variables")]
    if None not in lists or not isinstance(layer, keras.layers.Layer):
        return [variable for held in lists[: 1 if trainable else 2] for variable in held or ()]
    inner = {id(weight) for each in layers_of(layer, include_self=False) for weight in each.weights}
    weights = layer.trainable_weights if trainable else layer.weights
    return [weight for weight in weights if id(weight) not in inner]


def functional_inputs(model: keras.layers.Layer) -> Nested:
    """The `keras.Input` tensors of a functional model in the structure in which it was made with them; None for others.

    For: input values drawn by shape. Fallback: the inputs as a list, or the single one.
    """
    found = getattr(model, "_inputs_struct", None)
    if found is None and not hasattr(model, "_inputs_struct"):
        found = getattr(model, "inputs", None)
        found = found[0] if found is not None and len(found) == 1 else found
    return found


def operation_of(tensor: keras.KerasTensor) -> Any:
    """The layer or operation that made a symbolic tensor. Fallback: the tensor itself, which has a `name` too."""
    history = getattr(tensor, "_keras_history", None)
    return tensor if history is None or history.operation is None else history.operation


def source_inputs(tensors: Nested) -> list[keras.KerasTensor]:
    """The `keras.Input` tensors that symbolic tensors were computed from, each once, in the order in which they are met.

    For: questions about a tensor of the functional API. Fallback: `keras.utils.get_source_inputs`, which goes through a node as
    often as there are ways to it.

    Raises:
        UsageError: a tensor that no layer made.
    """
    found, seen, waiting = [], set(), list(reversed(tree.flatten(tensors)))
    while waiting:
        tensor = waiting.pop()
        history: Any = getattr(tensor, "_keras_history", None)
        nodes = getattr(getattr(history, "operation", None), "_inbound_nodes", None)
        if nodes is None:
            sources = keras.utils.get_source_inputs(tensor)
            if not isinstance(sources, list):
                raise UsageError(
                    f"Expected a model, a layer or a tensor that layers made from keras.Input. Received: {tensor!r}"
                )
            found += [source for source in sources if all(source is not one for one in found)]
            continue
        node = nodes[history.node_index]
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.is_input:
            found.append(tensor)
        waiting += reversed(node.input_tensors)
    return found
