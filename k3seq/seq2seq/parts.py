"""Helpers of the decoders for their layers and embedding tables: build, load, look up."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras import ops

from k3seq.typing import Nested, Shape, Tensor


class OutputShape(tuple):
    """The shape of an output of a step without the batch axis: a tuple that can be read as in TFA.

    `as_list()` gives a list, and a shape of one axis equals its size.
    """

    def as_list(self) -> list[int | None]:
        return list(self)

    def __eq__(self, other: object) -> bool:
        return tuple.__eq__(self, (other,) if isinstance(other, int) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__


def build_cell(cell: Any, inputs_shape: Shape, state_shape: Nested = None) -> None:
    """Builds a cell that is not built. A cell with attention gets the depth of its memory from the state's shapes."""
    if getattr(cell, "built", True):
        return
    wants_state = "state_shape" in inspect.signature(cell.build).parameters
    cell.build(inputs_shape, **({"state_shape": state_shape} if wants_state else {}))


def depth_of(embedding_fn: Any) -> int | None:
    """The depth of the embeddings that a layer makes of ids (b,), or None for a function that is not a layer."""
    return embedding_fn.compute_output_shape((None,))[-1] if isinstance(embedding_fn, keras.layers.Layer) else None


def table_shape(shape: Any) -> Shape:
    """The shape of an embedding table, which may be in a list of one."""
    return shape[0] if len(shape) == 1 and isinstance(shape[0], list | tuple) else shape


def as_table(embedding: Any) -> Tensor:
    """An embedding table (v, e) as a tensor. `layer.weights`, a list that holds nothing else, is one too."""
    alone = isinstance(embedding, list | tuple) and len(embedding) == 1 and len(getattr(embedding[0], "shape", ())) == 2
    return ops.convert_to_tensor(embedding[0] if alone else embedding)


def loaded_parts(config: Mapping[str, Any], names: Iterable[str], custom_objects: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy of a config with the objects instead of their configs."""
    return {**config, **{name: keras.saving.deserialize_keras_object(config[name], custom_objects) for name in names}}
