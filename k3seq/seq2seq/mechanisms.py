"""Attention mechanisms: scores of a query against a memory, and alignments made of them.

The arguments, weights and results are those of `tfa.seq2seq` (TensorFlow Addons 0.23). A memory is state: `prepare_memory` is
pure, an `AttentionWrapper` carries its result from step to step, and `setup_memory` is TFA's way to hand it over.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Self

import keras
from keras import ops

from k3seq.errors import UsageError
from k3seq.layers.alignments import mask_scores
from k3seq.seq2seq.attention_functions import without_shapes
from k3seq.seq2seq.memory import AttentionMemory, MemorySlot, check_memory, memory_mask_of
from k3seq.typing import Nested, Tensor

INNER_LAYERS = ("query_layer", "memory_layer")


@keras.saving.register_keras_serializable(package="k3seq")
class AttentionMechanism(keras.layers.Layer):
    """The base of all mechanisms. A subclass defines `calculate_attention(query, state)`.

    Call it with [query (b, units), state (b, s)] once the memory is set up: returns (alignments (b, s), next state). Call it
    with a memory and `setup_memory=True` to set that up: returns the values (b, s, m).

    Args:
        memory: (b, s, m); None: `setup_memory` follows.
        probability_fn: alignments of (masked scores (b, s), state).
        query_layer, memory_layer: Keras layers for query and memory; None: no projection.
        memory_sequence_length: (b,) int, real steps of the rows of memory; None: all.
        score_mask_value: what masked scores are set to; None: the lowest finite number.

    Raises:
        UsageError: `probability_fn` cannot be called, a layer is not a Keras layer, or as in `setup_memory`.
    """

    def __init__(
        self,
        memory: Tensor | None,
        probability_fn: Callable[..., Any],
        query_layer: Any = None,
        memory_layer: Any = None,
        memory_sequence_length: Tensor | None = None,
        score_mask_value: float | None = None,
        **kwargs: Any,
    ):
        for name, layer in (("query_layer", query_layer), ("memory_layer", memory_layer)):
            if layer is not None and not isinstance(layer, keras.layers.Layer):
                raise UsageError(f"Expected {name} to be a Keras layer. Received: {type(layer).__name__}")
        if not callable(probability_fn):
            raise UsageError(f"Expected probability_fn to be callable. Received: {type(probability_fn).__name__}")
        super().__init__(**kwargs)
        self._raw_probability_fn = probability_fn
        self.query_layer, self.memory_layer = query_layer, memory_layer
        self.score_mask_value = score_mask_value
        self.memory_depth = self.query_depth = None
        self._default_layers = ()
        self._slot = MemorySlot()
        if memory is not None:
            self.setup_memory(memory, memory_sequence_length)

    def build(self, memory_shape: Any, query_shape: Any = None) -> None:
        """Makes the weights for a memory (b, s, m), and for a query (b, d) where its shape is given.

        May be called again once the query is known, also as in TFA with `[query_shape, state_shape]`.

        Raises:
            UsageError: the query has not the depth of the keys, or comes in TFA's form before the memory.
        """
        if memory_shape is not None and not isinstance(memory_shape[-1], int | None):
            if self.memory_depth is None:
                raise UsageError(f"Expected the shape of a memory (b, s, m) first. Received: {memory_shape}")
            memory_shape, query_shape = None, memory_shape[0]
        if self.memory_depth is None and memory_shape is not None:
            self.memory_depth = memory_shape[-1]
            if self.memory_layer is not None and not self.memory_layer.built:
                self.memory_layer.build(memory_shape)
            self.build_score(self.key_depth)
        if query_shape is not None:
            self.query_depth = query_shape[-1]
            if self.query_layer is not None and not self.query_layer.built:
                self.query_layer.build(query_shape)
            elif self.query_layer is None and self.query_depth != self.key_depth:
                raise UsageError(
                    f"Expected queries of depth {self.key_depth}, that of the keys. Received: depth {self.query_depth}"
                )

    def build_score(self, depth: int | None) -> None:
        """Makes the weights of the score, for keys of this depth."""

    @property
    def key_depth(self) -> int | None:
        """d of the keys, or None where it is that of a memory which is not set up yet."""
        if self.memory_layer is None:
            return self.memory_depth
        return self.memory_layer.compute_output_shape((None, None, self.memory_depth))[-1]

    def __call__(
        self,
        inputs: Nested,
        memory_sequence_length: Tensor | None = None,
        memory_mask: Tensor | None = None,
        mask: Tensor | None = None,
        setup_memory: bool = False,
        prepare: str | None = None,
        training: bool | None = None,  # not used; a functional model passes it to every layer
    ) -> Any:
        if prepare:  # a functional model repeats `prepare_memory`
            return super().__call__(inputs, prepare=prepare)
        if setup_memory:
            memory, *lengths = inputs if isinstance(inputs, list | tuple) else [inputs]
            if lengths and memory_sequence_length is None:
                (memory_sequence_length,) = lengths
            self.setup_memory(memory, memory_sequence_length, mask if memory_mask is None else memory_mask)
            return self.values
        query, state = inputs[:2]
        memory = list(inputs[2:])
        if not memory and isinstance(self._current().values, keras.KerasTensor):
            memory = list(self._current())  # an input of a functional model, as it has another value in each call
        if self.query_depth is None:
            self.build((None, None, self.memory_depth), query.shape)
        return super().__call__([query, state, *memory])

    def call(self, inputs: Nested, prepare: str | None = None) -> Any:
        if prepare:
            memory, *rest = inputs
            mask = memory_mask_of(memory, **({prepare: rest[0]} if rest else {}))
            values = memory * ops.cast(ops.expand_dims(mask, -1), memory.dtype)
            return AttentionMemory(values if self.memory_layer is None else self.memory_layer(values), values, mask)
        query, state, *memory = inputs
        if not memory:
            return self.calculate_attention(query, state)
        with self.using_memory(AttentionMemory(*memory)):
            return self.calculate_attention(query, state)

    def prepare_memory(
        self, memory: Tensor, memory_sequence_length: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> AttentionMemory:
        """Makes a memory ready for queries. The mechanism does not keep it.

        Args:
            memory: (b, s, m). memory_sequence_length: (b,) int, each in 1..s. memory_mask: (b, s) bool, True = keep.

        Returns:
            `AttentionMemory`, with values that are zero where masked.

        Raises:
            UsageError: lengths and a mask, shapes that do not fit, a length outside 1..s where it has a value.
        """
        given = {"memory": memory, "memory_sequence_length": memory_sequence_length, "memory_mask": memory_mask}
        given = {name: _tensor(value) for name, value in given.items() if value is not None}
        check_memory(**given)
        memory = given["memory"]
        if not self.built:
            self.build(memory.shape)
        if memory.shape[-1] != self.memory_depth:
            raise UsageError(f"Expected memory of depth {self.memory_depth}. Received: depth {memory.shape[-1]}")
        # One operation that gets the name of its last argument, so that a functional model can save it.
        return super().__call__(list(given.values()), prepare=list(given)[-1])

    def setup_memory(
        self, memory: Tensor, memory_sequence_length: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> None:
        """Sets the memory that `AttentionWrapper.get_initial_state` takes next. It replaces an earlier one.

        Arguments and errors are those of `prepare_memory`. Inside the call of a model the memory lasts as long as that call.
        """
        self._slot.put(self.prepare_memory(memory, memory_sequence_length, memory_mask), self)

    def take_memory(self) -> AttentionMemory:
        """The memory that was set up, as a state takes it over.

        Raises:
            UsageError: there is none.
        """
        self._current()
        return self._slot.take(self)

    def using_memory(self, memory: AttentionMemory) -> AbstractContextManager[None]:
        """A context in which `memory`, an `AttentionMemory`, is the one that is attended to."""
        return self._slot.using(memory)

    @property
    def memory_initialized(self) -> bool:
        """Whether a memory is set up here and now."""
        return self._slot.find(self) is not None

    @property
    def keys(self) -> Tensor | None:
        """Projected memory (b, s, d), or None before its setup."""
        memory = self._slot.find(self)
        return None if memory is None else memory.keys

    @property
    def values(self) -> Tensor | None:
        """Memory, zero where masked (b, s, m), or None before its setup."""
        memory = self._slot.find(self)
        return None if memory is None else memory.values

    @property
    def batch_size(self) -> Any:
        """b of the memory."""
        return ops.shape(self._current().values)[0]

    @property
    def alignments_size(self) -> Any:
        """s of the memory, or None before its setup."""
        return ops.shape(self.keys)[1] if self.memory_initialized else None

    @property
    def state_size(self) -> Nested:
        """Size of the state: that of the alignments."""
        return self.alignments_size

    def initial_alignments(self, batch_size: Any, dtype: Any = None) -> Tensor:
        """Alignments before the first step: zeros (batch_size, s)."""
        return ops.zeros((batch_size, self.alignments_size), dtype or self.compute_dtype)

    def initial_state(self, batch_size: Any, dtype: Any = None) -> Nested:
        """State before the first step: the initial alignments."""
        return self.initial_alignments(batch_size, dtype)

    def calculate_attention(self, query: Tensor, state: Nested) -> tuple[Any, Any]:
        """Alignments of a query.

        Args:
            query: (b, d). state: (b, s), as this method or `initial_state` gave it.

        Returns:
            (alignments, next state): (b, s) each.
        """
        return self._calculate_attention(query, state)

    def _calculate_attention(self, query, state):
        """TFA's name of `calculate_attention`: a subclass may define either."""
        raise NotImplementedError(f"{type(self).__name__} does not define calculate_attention")

    def probability_fn(self, scores: Tensor, state: Nested) -> Tensor:
        """Alignments (b, s) of scores (b, s), masked first: the `probability_fn` that the constructor was given."""
        masked = mask_scores(scores, ops.cast(self._current().mask, "bool"), self.score_mask_value)
        return self._raw_probability_fn(masked, state)

    def _current(self):
        memory = self._slot.find(self)
        if memory is None:
            raise UsageError(f"Expected a memory of {self.name}, by setup_memory or in the state. Received: none")
        return memory

    def compute_mask(self, inputs: Nested, previous_mask: Any = None) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        layers = {name: getattr(self, name) for name in INNER_LAYERS if name not in self._default_layers}
        given = {name: without_shapes(layer) for name, layer in layers.items() if layer is not None}
        return {**super().get_config(), **given, "memory": None, "score_mask_value": self.score_mask_value}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        return cls(**cls.deserialize_inner_layer_from_config(config, custom_objects))

    @classmethod
    def deserialize_inner_layer_from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """A copy of a config with layers (and a `probability_fn`) instead of their configs."""
        serialised = [name for name in (*INNER_LAYERS, "probability_fn") if isinstance(config.get(name), dict)]
        loaded = {name: keras.saving.deserialize_keras_object(config[name], custom_objects) for name in serialised}
        return {**config, **loaded}

    def get_build_config(self) -> dict[str, Any]:
        return {"memory_depth": self.memory_depth, "query_depth": self.query_depth}

    def build_from_config(self, config: Mapping[str, Any]) -> None:
        if config["memory_depth"] is not None:
            query = config["query_depth"]
            self.build((None, None, config["memory_depth"]), None if query is None else (None, query))


def _tensor(value):
    return value if isinstance(value, keras.KerasTensor) else ops.convert_to_tensor(value)
