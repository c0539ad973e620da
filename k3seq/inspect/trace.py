"""What enters and leaves every layer of a model during one call, on request."""

import contextlib
from typing import NamedTuple

import keras
from keras import tree


class Passage(NamedTuple):
    """One call of one layer; as a line: `encoder/embedding (Embedding): (2, 30) int32 -> (2, 30, 50) float32`.

    Attributes:
        path: the layer's path; `#2` and so on is added where a layer is called again.
        kind: its class.
        depth: how many calls it lies within: 0 for the model.
        entered, left: lists of (shape, dtype), one for each tensor, in the order of arguments and results.
    """

    path: str
    kind: str
    depth: int
    entered: list
    left: list

    def __str__(self):
        return f"{'  ' * self.depth}{self.path} ({self.kind}): {_text(self.entered)} -> {_text(self.left)}"


def shape_trace(model, inputs, **arguments):
    """Calls `model(inputs)` once, without training, and tells what passed through each of its layers.

    Args:
        model: any Keras model or layer. It is left as it was, also after an error.
        inputs: what it is called with; further arguments go to the call.

    Returns:
        A list of `Passage`, in the order in which the layers were entered.
    """
    entered, depth, calls = [], [0], {}

    def wrap(layer, call):
        def traced(*args, **kwargs):
            calls[id(layer)] = count = calls.get(id(layer), 0) + 1
            place = len(entered)
            entered.append(None)
            depth[0] += 1
            try:
                result = call(*args, **kwargs)
            finally:
                depth[0] -= 1
            # A layer that nothing built explicitly has no path.
            path = layer.path or layer.name
            path = path if count == 1 else f"{path}#{count}"
            entered[place] = Passage(path, type(layer).__name__, depth[0], _shapes((args, kwargs)), _shapes(result))
            return result

        return traced

    with wrapped_calls(model._flatten_layers(), wrap):
        model(tree.map_structure(keras.ops.convert_to_tensor, inputs), **arguments)
    return entered


@contextlib.contextmanager
def wrapped_calls(layers, wrap):
    """Within it, each layer's `call` is `wrap(layer, call)`; afterwards it is the layer's own again.

    `call` is set past Keras' attribute tracking, so that the layer's saved form and its weights do not notice.
    """
    before = [(layer, layer.__dict__.get("call")) for layer in layers]
    try:
        for layer, _ in before:
            object.__setattr__(layer, "call", wrap(layer, layer.call))
        yield
    finally:
        for layer, own in before:
            layer.__dict__.pop("call", None)
            if own is not None:
                object.__setattr__(layer, "call", own)


def _shapes(structure):
    leaves = (leaf for leaf in tree.flatten(structure) if hasattr(leaf, "shape") and hasattr(leaf, "dtype"))
    return [(tuple(leaf.shape), keras.backend.standardize_dtype(leaf.dtype)) for leaf in leaves]


def _text(shapes):
    return ", ".join(f"{shape} {dtype}" for shape, dtype in shapes) or "nothing"
