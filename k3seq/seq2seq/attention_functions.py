"""The default functions of an `AttentionWrapper`, and helpers for the layers inside it."""

from typing import Any

import keras
from keras import ops, tree

from k3seq.layers import alignments
from k3seq.typing import Nested, Tensor


def attend(
    attention_mechanism: Any, cell_output: Tensor, attention_state: Nested, attention_layer: Any
) -> tuple[Any, Any, Any]:
    """The attention of a step, the default `attention_fn`.

    Args:
        attention_mechanism: an `AttentionMechanism` with its memory. cell_output: (b, d), the query.
        attention_state: state of the mechanism. attention_layer: of (b, d + m), or None: the attention is the context.

    Returns:
        (attention (b, attention size), alignments (b, s), next attention state).
    """
    alignments, next_state = attention_mechanism([cell_output, attention_state])
    context = (ops.expand_dims(alignments, 1) @ attention_mechanism.values)[:, 0]
    if attention_layer is None:
        return context, alignments, next_state
    both = ops.concatenate([ops.cast(cell_output, context.dtype), context], axis=-1)
    return attention_layer(both), alignments, next_state


def feed(inputs: Nested, attention: Tensor | None) -> Tensor:
    """The input of the cell, the default `cell_input_fn`: the inputs and the previous attention, concatenated."""
    return ops.concatenate([inputs, ops.cast(attention, inputs.dtype)], axis=-1)


def hardmax(logits: Tensor, name: str | None = None) -> Tensor:
    """One at the place of the largest logit (..., n) along the last axis, zero elsewhere; `name` is TFA's and not used."""
    return alignments.hardmax(logits)


def is_symbolic(structure: Nested) -> bool:
    """Whether any of the tensors is a `KerasTensor`."""
    return any(isinstance(leaf, keras.KerasTensor) for leaf in tree.flatten(structure))


def without_shapes(layers: Any) -> Any:
    """The serialised form of a layer, a list of layers or None, without the shapes that they were built for.

    With shapes, loading would build a layer before its parent, and its weights' paths would lack the parent's name.
    """
    if isinstance(layers, list | tuple):
        return [without_shapes(layer) for layer in layers]
    return _unbuilt(keras.saving.serialize_keras_object(layers))


def _unbuilt(config):
    if config is not None:
        config.pop("build_config", None)
        for cell in config["config"].get("cells", ()):
            _unbuilt(cell)
    return config


def track_each(owner: Any, name: str, layers: Any) -> None:
    """Makes each of a list of layers an attribute of its owner too: `tf.train.Checkpoint` does not look into lists.

    The names `<name>_<i>` come after `<name>` in the alphabet, so that Keras stores the weights under the list.
    """
    for i, layer in enumerate(layers):
        if layer is not None:
            setattr(owner, f"{name}_{i}", layer)
