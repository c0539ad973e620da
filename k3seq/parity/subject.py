"""A case's layer in the worker's process: built, given weights, called."""

import importlib
import inspect
from contextlib import contextmanager

import keras
import numpy as np
from keras import ops, tree

from k3seq.errors import UsageError
from k3seq.parity import compare
from k3seq.random.bits import Stream


def named(name):
    """The object that `package.module:attribute` names."""
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        raise UsageError(f"Expected a module to import in {name}. Received: {error}") from error
    except AttributeError as error:
        raise UsageError(f"Expected {module} to hold {attribute!r}. Received: {error}") from error
    return found


@contextmanager
def precision(dtype):
    """Layers made and called inside compute in `dtype`."""
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy(dtype)
    keras.config.set_floatx(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])


@contextmanager
def undrawn_weights():
    """Weights of two axes and more made inside are zeros: the host draws them, and JAX would compile a draw for each shape."""
    add_weight = keras.layers.Layer.add_weight

    def add(self, *args, **kwargs):
        shape = kwargs.get("shape", args[0] if args else ())
        if isinstance(shape, list | tuple) and len(shape) > 1 and len(args) < 2 and kwargs.get("trainable", True):
            kwargs["initializer"] = _zeros
        return add_weight(self, *args, **kwargs)

    keras.layers.Layer.add_weight = add
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = add_weight


def _zeros(shape, dtype=None):
    return ops.cast(np.zeros(shape, "float32"), dtype or keras.config.floatx())


def made(case):
    """What the case's factory gives, names numbered from the beginning; UsageError where it is no Keras layer."""
    keras.utils.clear_session(free_memory=False)
    layer = named(case["factory"])(**case["arguments"])
    if not isinstance(layer, keras.layers.Layer):
        raise UsageError(f"Expected {case['factory']} to return a Keras layer or model. Received: {type(layer).__name__}")
    return layer


def is_array(leaf):
    """Whether a leaf of the inputs is an array or tensor, not a JSON value."""
    return isinstance(leaf, np.ndarray) or ops.is_tensor(leaf)


def array(tensor):
    """A tensor's values in NumPy; the 16-bit floats, which NumPy does not all know, as float32."""
    if keras.backend.standardize_dtype(tensor.dtype) in ("bfloat16", "float16"):
        tensor = ops.cast(tensor, "float32")
    return np.array(ops.convert_to_numpy(tensor))


def arrays(value):
    """A nested structure of tensors as a dict of arrays by place; `output` where there is one tensor alone."""
    found = compare.leaves(tree.map_structure(lambda leaf: None if leaf is None else array(leaf), value))
    return {f"output/{place}" if place else "output": leaf for place, leaf in found.items()}


class Subject:
    """One case on this backend.

    Args:
        case: as `Case.to_payload` gives it. batch: as `Case.batch` does. dtype: of weights and floating inputs.
        jit: as `backend.compiled` takes it.
        like: a subject whose layer was saved, and layer: what was loaded, in the place of what the factory gives.

    Attributes:
        layer: built. weights: those that parity pairs. state: the weights that training does not move, and seeds of dropout.
    """

    def __init__(self, case, batch, dtype="float32", jit=None, *, like=None, layer=None):
        self.case, self.dtype, self.jit = case, dtype, jit
        self.compiled = {}  # what `gradients` keeps
        self.data = self.cast({"inputs": batch["inputs"], "call": batch["call"]})
        with precision(dtype):
            with undrawn_weights():
                self.layer = made(case) if like is None else layer
                self.spec = self._symbolic_call() if like is None else like.spec
            layer = self.layer
        self.takes_training = "training" in inspect.signature(layer.call).parameters
        self.weights = list(layer.weights)
        held = {id(v) for v in (*layer.trainable_variables, *getattr(layer, "metrics_variables", ()))}
        self.state = [v for v in layer.variables if id(v) not in held]
        self.own_state = [v for v in self.state if any(v is w for w in self.weights)]
        self.initial = [array(v.value) for v in (*layer.trainable_variables, *self.state)]

    def cast(self, data):
        """The data with its floats in this subject's dtype."""

        def to(value):
            if isinstance(value, dict):
                return {k: to(v) for k, v in value.items()}
            if isinstance(value, list | tuple):
                return [to(v) for v in value]
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                return value.astype(np.dtype(self.dtype)) if self.dtype != "bfloat16" else ops.cast(value, "bfloat16")
            return value

        return to(data)

    def _symbolic_call(self):
        """Builds the layer and gives the specs of its outputs, if possible without computing anything."""

        def symbol(leaf):
            return keras.KerasTensor(tuple(leaf.shape), keras.backend.standardize_dtype(leaf.dtype)) if is_array(leaf) else leaf

        # Keras on torch finds the specs by running the layer on what lies in memory: ids out of range, and a state that moves.
        before = [(v, array(v.value)) for v in self.layer.variables] if self.layer.built else []
        try:
            return self.call(tree.map_structure(symbol, self.data), None)
        except Exception:  # of any kind, by backend; a call that is wrong fails once more, on the inputs themselves
            for variable, value in before:
                variable.assign(value)
            return tree.map_structure(symbol, self.outputs(self.data))
        finally:
            for variable, value in before:
                variable.assign(value)

    def call(self, data, training):
        """The layer's outputs for {"inputs", "call"}, tensors or symbols; `training` None: not given."""
        arguments = dict(data["call"])
        if training is not None:
            arguments["training"] = training
        return self.layer(data["inputs"], **arguments) if data["inputs"] is not None else self.layer(**arguments)

    def outputs(self, data, training=None):
        """A plain call, eager where the backend is: the outputs as a structure of tensors."""
        data = tree.map_structure(lambda leaf: ops.convert_to_tensor(leaf) if isinstance(leaf, np.ndarray) else leaf, data)
        with precision(self.dtype):
            return self.call(data, training)

    def table(self):
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

    def assign(self, values):
        """Gives the weights of these paths their values, and all others (seeds) their first ones."""
        for variable, value in zip((*self.layer.trainable_variables, *self.state), self.initial, strict=True):
            value = values.get(variable.path, value) if any(variable is w for w in self.weights) else value
            variable.assign(ops.cast(value, variable.dtype) if value.dtype.kind == "f" else value)

    def values(self):
        """{path: value} of every weight as it stands."""
        return {v.path: array(v.value) for v in self.weights}

    def targets(self):
        """Random arrays of the shapes of the floating outputs: what the loss draws them to."""
        found = []
        for index, spec in enumerate(tree.flatten(self.spec)):
            if spec is not None and keras.backend.is_float_dtype(spec.dtype):
                stream = Stream(self.case["seed"], f"parity {self.case['name']} target {index}")
                found.append(stream.normal(tuple(int(n) for n in spec.shape)).astype("float32"))
        return found


def squared(outputs, targets):
    """The mean squares of the floating outputs' distances to the targets, added up: a loss that every output has a part in."""
    floating = [leaf for leaf in tree.flatten(outputs) if leaf is not None and keras.backend.is_float_dtype(leaf.dtype)]
    return sum(ops.mean(ops.square(_real(x) - ops.cast(t, x.dtype))) for x, t in zip(floating, targets, strict=True))


def _real(x):
    fill = compare.FILL.get(keras.backend.standardize_dtype(x.dtype), compare.LARGEST)
    return ops.where(ops.abs(x) < ops.cast(fill, x.dtype), x, ops.zeros_like(x))
