"""The target of an inspection: a model, a layer or functional tensors, as one callable with its weights and inputs."""

import keras
import numpy as np
from keras import ops, tree

from k3seq.backend.keras_internals import functional_inputs, layers_of, operation_of, source_inputs
from k3seq.errors import UsageError
from k3seq.typing import Nested

BATCH, STEPS = 2, 4  # sizes that are drawn for an unknown batch, and for any other unknown size


class Subject:
    """A target that is ready to be called.

    Args:
        target: a Keras model or layer, or (nested) tensors of the functional API.
        inputs: the inputs of the call; for tensors a dict by the names of their `keras.Input`s; None draws them.

    Attributes:
        name: of the target. call: from `inputs` to its outputs. inputs: nested NumPy arrays.
        input_specs: list of (name, shape, dtype) of the inputs.
        callables: every layer and operation that a call may pass through.

    Raises:
        UsageError: a tensor that no layer made, names that are not those of the inputs, or inputs that must be given.
    """

    def __init__(self, target: Nested, inputs: Nested = None):
        if isinstance(target, keras.layers.Layer):
            self.name, self.call = target.name, target
            self.roots = [target]
            symbolic = functional_inputs(target)
        else:
            symbolic = source_inputs(target)
            self.call = keras.Function(symbolic, target)
            self.name = ", ".join(_name(tensor) for tensor in tree.flatten(target))
            self.roots = list(self.call.operations)
            inputs = inputs if inputs is None else _by_name(inputs, symbolic)
        if inputs is None and symbolic is None:
            raise UsageError(
                f"Expected inputs to call {self.name} with: only those of a functional model are known. Received: None"
            )
        self.callables = list({id(found): found for root in self.roots for found in _callables(root)}.values())
        self.inputs = _drawn(symbolic, self.callables) if inputs is None else tree.map_structure(np.asarray, inputs)
        if not all(getattr(root, "built", True) for root in self.roots):
            self.call(tree.map_structure(ops.convert_to_tensor, self.inputs))  # creates its weights
            self.callables = list({id(found): found for root in self.roots for found in _callables(root)}.values())
        names = [_name(tensor) for tensor in tree.flatten(symbolic)] if symbolic is not None else _names(self.inputs)
        leaves = tree.flatten(self.inputs)
        self.input_specs = [(name, leaf.shape, str(leaf.dtype)) for name, leaf in zip(names, leaves, strict=True)]

    @property
    def weights(self) -> list[keras.Variable]:
        """The weights of all its layers, each once."""
        held = (weight for root in self.roots for weight in getattr(root, "weights", []))
        return list({id(weight): weight for weight in held}.values())


def _name(tensor):
    return operation_of(tensor).name


def _by_name(inputs, symbolic):
    names = [_name(tensor) for tensor in symbolic]
    if not isinstance(inputs, dict) or set(inputs) != set(names):
        received = sorted(inputs) if isinstance(inputs, dict) else type(inputs).__name__
        raise UsageError(f"Expected a dict of the inputs {', '.join(names)}. Received: {received}")
    return [inputs[name] for name in names]


def _callables(root):
    yield root
    for layer in layers_of(root, include_self=False) if isinstance(root, keras.layers.Layer) else ():
        yield layer
        yield from getattr(layer, "operations", ())
    yield from getattr(root, "operations", ())


def _drawn(symbolic, callables):
    sizes = [getattr(layer, name, None) for layer in callables for name in ("input_dim", "vocabulary", "vocabulary_size")]
    vocabulary = min((size for size in sizes if isinstance(size, int) and size > 1), default=2)
    draw = np.random.default_rng(0)

    def leaf(tensor):
        shape = (tensor.shape[0] or BATCH, *(size or STEPS for size in tensor.shape[1:]))
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if keras.backend.is_float_dtype(dtype):
            return draw.normal(size=shape).astype(dtype)
        if dtype == "bool":
            return np.ones(shape, dtype)
        ids = np.full(shape, min(STEPS, vocabulary - 1)) if len(shape) == 1 else draw.integers(1, vocabulary, shape)
        return ids.astype(dtype)

    return tree.map_structure(leaf, symbolic)


def _names(inputs):
    return [".".join(map(str, path)) or "input" for path, _ in tree.flatten_with_path(inputs)]
