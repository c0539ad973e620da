"""`tfa.seq2seq.beam_search_decoder` on three backends: a decoder that keeps the best `beam_width` sequences of every row."""

from collections.abc import Mapping
from typing import Any, Self

import keras
from keras import ops, tree

from k3seq.decode.tree import gather_tree, gather_tree_from_array, tile_batch
from k3seq.errors import UsageError
from k3seq.seq2seq import beams, expect
from k3seq.seq2seq.beam_search_mixin import BeamSearchDecoderMixin, FinalBeamSearchDecoderOutput, Search
from k3seq.seq2seq.beam_search_step import (
    BeamSearchDecoderOutput,
    BeamSearchDecoderState,
    attention_probs_from_attn_state,
    first_beams,
    get_attention_probs,
    wide,
)
from k3seq.seq2seq.decoder import BaseDecoder
from k3seq.seq2seq.parts import as_table, depth_of, loaded_parts, table_shape
from k3seq.typing import Nested, Shape

__all__ = [
    "BeamSearchDecoder",
    "BeamSearchDecoderMixin",
    "BeamSearchDecoderOutput",
    "BeamSearchDecoderState",
    "FinalBeamSearchDecoderOutput",
    "attention_probs_from_attn_state",
    "gather_tree",
    "gather_tree_from_array",
    "get_attention_probs",
    "tile_batch",
]


@keras.saving.register_keras_serializable(package="k3seq")
class BeamSearchDecoder(BeamSearchDecoderMixin, BaseDecoder):
    """Beam search with the results of `tfa.seq2seq.BeamSearchDecoder`.

    Call it with (embedding, start_tokens, end_token, initial_state), see `initialize`; it returns
    (FinalBeamSearchDecoderOutput, BeamSearchDecoderState, lengths (b, k) int32); of the number of steps t see `dynamic_decode`.
    Everything of the encoder that the cell needs is repeated beforehand for every beam: `tile_batch(memory, beam_width)`,
    likewise lengths and states.

    Args:
        cell, beam_width, output_layer, length_penalty_weight, coverage_penalty_weight, reorder_tensor_arrays,
            output_all_scores: as in `BeamSearchDecoderMixin`.
        embedding_fn: from ids (b, k) int32 to inputs of the cell (b, k, ...), or None: `initialize` gets an embedding.
        **kwargs: of `BaseDecoder`: output_time_major, maximum_iterations, ...

    Raises:
        UsageError: `embedding_fn` cannot be called; and as in `BeamSearchDecoderMixin`.
    """

    def __init__(
        self,
        cell: Any,
        beam_width: int,
        embedding_fn: Any = None,
        output_layer: keras.layers.Layer | None = None,
        length_penalty_weight: float = 0.0,
        coverage_penalty_weight: float = 0.0,
        reorder_tensor_arrays: bool = True,
        output_all_scores: bool = False,
        **kwargs: Any,
    ):
        super().__init__(
            cell,
            beam_width,
            output_layer=output_layer,
            length_penalty_weight=length_penalty_weight,
            coverage_penalty_weight=coverage_penalty_weight,
            reorder_tensor_arrays=reorder_tensor_arrays,
            output_all_scores=output_all_scores,
            **kwargs,
        )
        if embedding_fn is not None and not callable(embedding_fn):
            raise UsageError(f"Expected embedding_fn to be a callable. Received: {embedding_fn!r}")
        self.embedding_fn = embedding_fn

    def build(
        self,
        embedding_shape: Any = None,
        start_tokens_shape: Shape | None = None,
        end_token_shape: Any = None,
        initial_state_shape: Any = None,
    ) -> None:
        if self.embedding_fn is None:
            depth = None if embedding_shape is None else table_shape(embedding_shape)[-1]
        else:
            depth = depth_of(self.embedding_fn)
        if depth is not None:
            self._build_layers(depth, initial_state_shape)

    def initialize(self, embedding: Any, start_tokens: Any, end_token: Any, initial_state: Nested) -> tuple[Any, ...]:
        """Begins a search.

        Args:
            embedding: (v, e), or None where there is an `embedding_fn`. start_tokens: (b,) int. end_token: int.
            initial_state: the cell's, every tensor with b * k rows.

        Returns:
            (finished (b, k) bool, inputs (b, k, e), BeamSearchDecoderState).

        Raises:
            UsageError: both or none of `embedding` and `embedding_fn`, a token outside the vocabulary, tokens of another rank,
                a state of another structure than the cell has, or with other than b * k rows.
        """
        embed, vocabulary = self._embedding(embedding)
        start_tokens = ops.convert_to_tensor(start_tokens, "int32")
        expect.rank("start_tokens", start_tokens, 1, "a vector, a token per row")
        expect.ids("start_tokens", start_tokens, vocabulary)
        expect.rank("end_token", ops.convert_to_tensor(end_token, "int32"), 0, "a scalar")
        expect.ids("end_token", end_token, None)
        width = self.beam_width
        given = tree.map_structure(ops.convert_to_tensor, initial_state)
        beams.check_state(given, self.cell.state_size, start_tokens.shape[0], width)
        cell_state = beams.split(given, width)
        batch = ops.shape(start_tokens)[0]
        dtype = wide(next(leaf.dtype for leaf in tree.flatten(cell_state) if _is_float(leaf)))
        log_probs, finished, lengths = first_beams(batch, width, dtype)
        attention = get_attention_probs(cell_state, self.coverage_penalty_weight)
        accumulated = () if attention is None else ops.cast(attention, dtype)
        self._search = Search(batch, dtype, end_token, embed)
        inputs = embed(ops.tile(start_tokens[:, None], (1, width)))
        self._build_layers(inputs.shape[-1], tree.map_structure(lambda leaf: tuple(leaf.shape), given))
        return finished, inputs, BeamSearchDecoderState(cell_state, log_probs, finished, lengths, accumulated)

    def _embedding(self, embedding: Any) -> tuple[Any, int | None]:
        """(from ids to inputs, rows of the embedding or None)."""
        if (embedding is None) == (self.embedding_fn is None):
            given = "neither" if embedding is None else "both"
            raise UsageError(f"Expected either an embedding or an embedding_fn. Received: {given}")
        if embedding is None:
            return self.embedding_fn, None
        table = as_table(embedding)
        expect.rank("embedding", table, 2, "a matrix, a row per token")
        return lambda ids: ops.take(table, ids, axis=0), table.shape[0]

    def call(
        self,
        embedding: Any,
        start_tokens: Any,
        end_token: Any,
        initial_state: Nested,
        training: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        tokens = {"start_tokens": start_tokens, "end_token": end_token}
        return super().call(embedding, initial_state=initial_state, training=training, **tokens, **kwargs)

    def get_config(self) -> dict[str, Any]:
        layers = {name: getattr(self, name) for name in ("cell", "output_layer", "embedding_fn")}
        names = (
            "beam_width",
            "length_penalty_weight",
            "coverage_penalty_weight",
            "reorder_tensor_arrays",
            "output_all_scores",
        )
        return {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(layer) for name, layer in layers.items()},
            **{name: getattr(self, name) for name in names},
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        return cls(**loaded_parts(config, ("cell", "output_layer", "embedding_fn"), custom_objects))


def _is_float(leaf):
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(leaf.dtype))
