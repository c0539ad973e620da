"""What enters and leaves every layer of a model during one call, on request."""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras
from keras import tree

from k3seq.backend.keras_internals import layers_of
from k3seq.typing import Nested


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
        return f"{'  ' * self.depth}{self.path} ({self.kind}): {shapes_text(self.entered)} -> {shapes_text(self.left)}"


def shape_trace(model: keras.layers.Layer, inputs: Nested, **arguments: Any) -> list[Passage]:
    """Calls `model(inputs)` once, without training, and returns what entered and left each of its layers.

    Args:
        model: any Keras model or layer. It is left as it was, also after an error.
        inputs: inputs of the call. arguments: further arguments of the call.

    Returns:
        A list of `Passage`, in the order in which the layers were entered.
    """
    with recorded_calls(layers_of(model)) as records:
        model(tree.map_structure(keras.ops.convert_to_tensor, inputs), **arguments)
    passages, counts = [], collections.Counter()
    for record in records:
        counts[id(record.layer)] += 1
        path = record.path if counts[id(record.layer)] == 1 else f"{record.path}#{counts[id(record.layer)]}"
        passages.append(Passage(path, record.kind, record.depth, record.entered, record.left))
    return passages


@dataclasses.dataclass(eq=False)
class Record:
    """One call of a layer or operation, without its tensors.

    Attributes:
        layer: the layer or operation. parent: the `Record` of the call around it, or None.
        entered, left: lists of (shape, dtype); left is None until the call ends.
        occurrence: how many calls of the layer within `parent` were before it.
    """

    layer: Any
    parent: "Record | None"
    entered: list
    occurrence: int
    left: list | None = None

    @property
    def path(self) -> str:
        return getattr(self.layer, "path", None) or self.layer.name  # a layer that was never built has no path

    @property
    def kind(self) -> str:
        return type(self.layer).__name__

    @property
    def depth(self) -> int:
        return 0 if self.parent is None else self.parent.depth + 1


@contextlib.contextmanager
def recorded_calls(
    layers: Iterable[Any], enter: Callable[..., Any] | None = None, leave: Callable[..., Any] | None = None
) -> Any:
    """Within it, each call of one of these layers or operations is added to the list it gives, in the order of entering.

    Args:
        layers: Keras layers or operations. They are left as they were.
        enter: `enter(record, arguments)`, called before the call. leave: `leave(record, result) -> result`, after it.
    """
    records, open_calls, counts = [], [], collections.Counter()

    def wrap(layer, call):
        def recorded(*args, **kwargs):
            parent = open_calls[-1] if open_calls else None
            record = Record(layer, parent, _shapes((args, kwargs)), counts[id(parent), id(layer)])
            counts[id(parent), id(layer)] += 1
            records.append(record)
            if enter is not None:
                enter(record, (args, kwargs))
            open_calls.append(record)
            try:
                result = call(*args, **kwargs)
            finally:
                open_calls.pop()
            record.left = _shapes(result)
            return result if leave is None else leave(record, result)

        return recorded

    with wrapped_calls(layers, wrap):
        yield records


@contextlib.contextmanager
def wrapped_calls(layers: Iterable[Any], wrap: Callable[..., Any]) -> Any:
    """A context in which each layer's `call` is `wrap(layer, call)`. Afterwards the original is back.

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


def shapes_text(shapes: Sequence[tuple[Any, str]]) -> str:
    """`(2, 30) int32, (2,) int32` of a list of (shape, dtype)."""
    return ", ".join(f"{shape} {dtype}" for shape, dtype in shapes) or "nothing"
