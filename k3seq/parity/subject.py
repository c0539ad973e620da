"""The layer or model of a case inside a worker process: built, given its weights, and called."""

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from k3seq.errors import UsageError
from k3seq.parity import compare
from k3seq.random.bits import Stream
from k3seq.typing import NDArray, Nested, Tensor

# {"inputs", "call"} of a batch: arrays, tensors or symbols
Data = Mapping[str, Any]


def named(name: str) -> Any:
    """The object that `package.module:attribute` names.

    Raises:
        UsageError: the module cannot be imported, or has no such attribute.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:  # ValueError: an empty module name
        raise UsageError(
            f"Expected package.module:name of an object that can be imported. Received: {name} ({error})"
        ) from error
    return found


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Layers that are made and called inside compute in `dtype`."""
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy(dtype)
    keras.config.set_floatx(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])


@contextmanager
def undrawn_weights() -> Iterator[None]:
    """Weights of two or more axes that are made inside are zeros: their values come later, and JAX would compile each draw."""
    add_weight = keras.layers.Layer.add_weight

    def add(self: keras.layers.Layer, *args: Any, **kwargs: Any) -> keras.Variable:
        shape = kwargs.get("shape", args[0] if args else ())
        if isinstance(shape, list | tuple) and len(shape) > 1 and len(args) < 2 and kwargs.get("trainable", True):
            kwargs["initializer"] = _zeros
        return add_weight(self, *args, **kwargs)

    keras.layers.Layer.add_weight = add
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = add_weight


def _zeros(shape: Sequence[int], dtype: str | None = None) -> Tensor:
    return ops.cast(np.zeros(shape, "float32"), dtype or keras.config.floatx())


def make_layer(case: Mapping[str, Any]) -> keras.layers.Layer:
    """Calls the factory of a case (`Case.to_payload`), with automatic names numbered from 0.

    Raises:
        UsageError: the factory does not exist, or does not return a Keras layer.
    """
    keras.utils.clear_session(free_memory=False)
    layer = named(case["factory"])(**case["arguments"])
    if not isinstance(layer, keras.layers.Layer):
        raise UsageError(f"Expected {case['factory']} to return a Keras layer or model. Received: {type(layer).__name__}")
    return layer


def is_array(leaf: Any) -> bool:
    """Whether a leaf of the inputs is an array or tensor, and not a JSON value."""
    return isinstance(leaf, np.ndarray) or ops.is_tensor(leaf)


def array(tensor: Tensor) -> NDArray[Any]:
    """The values of a tensor in NumPy; 16-bit floats, which NumPy does not all have, as float32."""
    if keras.backend.standardize_dtype(tensor.dtype) in ("bfloat16", "float16"):
        tensor = ops.cast(tensor, "float32")
    return np.array(ops.convert_to_numpy(tensor))


def arrays(value: Nested) -> dict[str, NDArray[Any]]:
    """A nested structure of tensors as a dict of arrays by place; `output` where it is a single tensor."""
    found = compare.leaves(tree.map_structure(lambda leaf: None if leaf is None else array(leaf), value))
    return {f"output/{place}" if place else "output": leaf for place, leaf in found.items()}


def _map(function: Callable[[Any], Any], value: Nested) -> Nested:
    return tree.map_structure(function, value)


class Subject:
    """A case on this backend.

    Args:
        case: of `Case.to_payload`.
        batch: of `Case.batch`.
        dtype: of weights and floating inputs.
        jit: argument of `backend.compiled`.
        like, layer: a subject whose layer was saved, and the layer that was loaded, which replaces the factory's.

    Attributes:
        layer: the built layer.
        spec: specs of its outputs, nested.
        takes_training: whether its call has an argument `training`.
        weights: those that are compared.
        state: variables that training does not update by gradients, seeds of dropout included.
        own_state: the part of `state` that is among `weights`.
    """

    def __init__(
        self,
        case: Mapping[str, Any],
        batch: Mapping[str, Any],
        dtype: str = "float32",
        jit: bool | None = None,
        *,
        like: "Subject | None" = None,
        layer: keras.layers.Layer | None = None,
    ):
        self.case, self.dtype, self.jit = case, dtype, jit
        self.compiled: dict[Any, Any] = {}  # of `gradients.gradients_of`
        self.data = self.cast({"inputs": batch["inputs"], "call": batch["call"]})
        with precision(dtype):
            with undrawn_weights():
                self.layer: Any = layer if layer is not None else make_layer(case)
                self.spec = self._symbolic_call() if like is None else like.spec
        self.takes_training = "training" in inspect.signature(self.layer.call).parameters
        self.weights = list(self.layer.weights)
        others = {id(v) for v in (*self.layer.trainable_variables, *getattr(self.layer, "metrics_variables", ()))}
        self.state = [v for v in self.layer.variables if id(v) not in others]
        self.own_state = [v for v in self.state if any(v is w for w in self.weights)]
        self.initial = [array(v.value) for v in (*self.layer.trainable_variables, *self.state)]

    def cast(self, data: Nested) -> Nested:
        """The data with floats in this subject's dtype."""

        def to(value: Nested) -> Nested:
            if isinstance(value, dict):
                return {k: to(v) for k, v in value.items()}
            if isinstance(value, list | tuple):
                return [to(v) for v in value]
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                return value.astype(np.dtype(self.dtype)) if self.dtype != "bfloat16" else ops.cast(value, "bfloat16")
            return value

        return to(data)

    def _symbolic_call(self) -> Nested:
        """Builds the layer and returns the specs of its outputs, without computing anything where that is possible."""

        def symbol(leaf: Any) -> Any:
            return keras.KerasTensor(tuple(leaf.shape), keras.backend.standardize_dtype(leaf.dtype)) if is_array(leaf) else leaf

        # Keras on torch finds the specs by running the layer on uninitialized memory: ids out of range, and a changed state.
        before = [(v, array(v.value)) for v in self.layer.variables] if self.layer.built else []
        try:
            return self.call(_map(symbol, self.data), None)
        except Exception:  # which kind depends on the backend; a wrong call fails again below, on the real inputs
            for variable, value in before:
                variable.assign(value)
            return _map(symbol, self.outputs(self.data))
        finally:
            for variable, value in before:
                variable.assign(value)

    def call(self, data: Data, training: bool | None) -> Nested:
        """The outputs of the layer for {"inputs", "call"}, tensors or symbols; `training` None: not passed."""
        arguments = dict(data["call"])
        if training is not None:
            arguments["training"] = training
        return self.layer(data["inputs"], **arguments) if data["inputs"] is not None else self.layer(**arguments)

    def outputs(self, data: Data, training: bool | None = None) -> Nested:
        """The outputs of a plain call, eager where the backend is."""
        tensors = _map(lambda leaf: ops.convert_to_tensor(leaf) if isinstance(leaf, np.ndarray) else leaf, data)
        with precision(self.dtype):
            return self.call(tensors, training)

    def table(self) -> list[dict[str, Any]]:
        """Path, shape, dtype and kind of every weight, in order."""
        return [
            {
                "path": v.path,
                "shape": [int(n) for n in v.shape],
                "dtype": keras.backend.standardize_dtype(v.dtype),
                "trainable": bool(v.trainable),
            }
            for v in self.weights
        ]

    def assign(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Sets the weights of these paths; all other variables (seeds) return to their initial values."""
        for variable, value in zip((*self.layer.trainable_variables, *self.state), self.initial, strict=True):
            value = values.get(variable.path, value) if any(variable is w for w in self.weights) else value
            variable.assign(ops.cast(value, variable.dtype) if value.dtype.kind == "f" else value)

    def values(self) -> dict[str, NDArray[Any]]:
        """{path: value} of every weight."""
        return {v.path: array(v.value) for v in self.weights}

    def targets(self) -> list[NDArray[Any]]:
        """Random arrays with the shapes of the floating outputs, the targets of the loss."""
        found = []
        for index, spec in enumerate(tree.flatten(self.spec)):
            if spec is not None and keras.backend.is_float_dtype(spec.dtype):
                stream = Stream(self.case["seed"], f"parity {self.case['name']} target {index}")
                found.append(stream.normal(tuple(int(n) for n in spec.shape)).astype("float32"))
        return found


def squared_distance(outputs: Nested, targets: Iterable[Tensor]) -> Tensor:
    """The sum over the floating outputs of their mean squared distance to the targets: a loss that every output affects."""
    floating = [leaf for leaf in tree.flatten(outputs) if leaf is not None and keras.backend.is_float_dtype(leaf.dtype)]
    losses: list[Tensor] = [
        ops.mean(ops.square(_without_fill(x) - ops.cast(t, x.dtype))) for x, t in zip(floating, targets, strict=True)
    ]
    return sum(losses)


def _without_fill(x: Tensor) -> Tensor:
    fill = compare.FILL.get(keras.backend.standardize_dtype(x.dtype), compare.LARGEST)
    small: Tensor = ops.less(ops.abs(x), ops.cast(fill, x.dtype))
    return ops.where(small, x, ops.zeros_like(x))
