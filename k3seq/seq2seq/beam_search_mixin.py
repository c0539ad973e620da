"""The step and the end of TFA's beam search: `BeamSearchDecoderMixin`."""

from typing import Any, NamedTuple

import keras
from keras import ops, tree

from k3seq import arguments, backend
from k3seq.decode.tree import gather_tree
from k3seq.errors import UsageError
from k3seq.seq2seq import beams, expect
from k3seq.seq2seq.beam_search_step import (
    BeamSearchDecoderOutput,
    BeamSearchDecoderState,
    beam_search_step,
    check_vocabulary,
    get_attention_probs,
)
from k3seq.seq2seq.parts import OutputShape, build_cell
from k3seq.typing import Nested, Tensor


class FinalBeamSearchDecoderOutput(NamedTuple):
    """The result of a search.

    predicted_ids: (b, t, k) int32 (time major: (t, b, k)), the sequences, best first, filled with the end token.
    beam_search_decoder_output: `BeamSearchDecoderOutput`, what each step found, not reordered.
    """

    predicted_ids: Any
    beam_search_decoder_output: Any


class Search(NamedTuple):
    """Values that `initialize` passes to the steps.

    batch: rows. dtype: of the log-probabilities. end_token: int or int32 scalar. embed: from ids to the cell's inputs.
    """

    batch: Any
    dtype: str
    end_token: Any
    embed: Any


class BeamSearchDecoderMixin:
    """The step and the end of a beam search. It comes before `BaseDecoder` in the bases of a decoder.

    Args:
        cell: a cell, that is a Keras layer called with (inputs, state) that has `state_size` and `output_size`.
        beam_width: int, at least 1.
        output_layer: a layer from the cell's output to logits, or None.
        length_penalty_weight: float, w in the penalty ((5 + length) / 6) ** w that divides the log-probabilities.
        coverage_penalty_weight: float; other than 0 it needs a cell with attention, or a tuple of cells of which one has it.
        reorder_tensor_arrays: give a history of alignments in the state reordered along the beams.
        output_all_scores: each step gives the scores of all candidates, (b, k, v), instead of the chosen ones.

    Raises:
        WrongType: (TypeError) `cell` is no cell, or `output_layer` no layer.
        UsageError: (ValueError) `beam_width` is not an int of at least 1; a penalty weight is not finite; `impute_finished`,
            which would mix up beams that have changed places, or `maximum_iterations` below 1.
    """

    impute_finished: bool
    maximum_iterations: Any

    def __init__(
        self,
        cell: Any,
        beam_width: int,
        output_layer: keras.layers.Layer | None = None,
        length_penalty_weight: float = 0.0,
        coverage_penalty_weight: float = 0.0,
        reorder_tensor_arrays: bool = True,
        output_all_scores: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        is_cell = all(hasattr(cell, name) for name in ("state_size", "output_size")) and callable(cell)
        expect.type_of("cell", cell, keras.layers.Layer if is_cell else (), "an RNN cell, with state_size and output_size")
        if output_layer is not None:
            expect.type_of("output_layer", output_layer, keras.layers.Layer, "a Keras layer")
        if isinstance(beam_width, bool) or not isinstance(beam_width, int) or beam_width < 1:
            raise UsageError(f"Expected beam_width to be an int of at least 1. Received: beam_width={beam_width!r}")
        arguments.finite(length_penalty_weight=length_penalty_weight, coverage_penalty_weight=coverage_penalty_weight)
        _refuse_imputing(self.impute_finished)
        most_steps = self._most_steps()
        if most_steps is not None and most_steps < 1:
            raise UsageError(
                f"Expected maximum_iterations of at least 1. Received: maximum_iterations={self.maximum_iterations}"
            )
        self.cell, self.output_layer = cell, output_layer
        self.beam_width = beam_width
        self.length_penalty_weight = length_penalty_weight
        self.coverage_penalty_weight = coverage_penalty_weight
        self.reorder_tensor_arrays = reorder_tensor_arrays
        self.output_all_scores = output_all_scores
        self._search = None

    def _most_steps(self):
        """`maximum_iterations` as an int, None where there is no limit or it is not known yet."""
        known = None if self.maximum_iterations is None else backend.known(self.maximum_iterations)
        return None if known is None else int(known)

    def _begun(self):
        if self._search is None:
            raise UsageError("Expected initialize before anything else of a decoder. Received: a decoder that has not begun")
        return self._search

    def _build_layers(self, depth, state_shape=None):
        """Builds what has not been built, for inputs (b, depth)."""
        build_cell(self.cell, (None, depth), state_shape)
        if self.output_layer is not None and not self.output_layer.built:
            self.output_layer.build((None, self.beam_width, *self._cell_output_shape()))

    def begin(self, inputs: Nested, state: Nested, training: bool | None, impute_finished: bool) -> None:
        """See `BaseDecoder.begin`. Raises UsageError with `impute_finished`."""
        _refuse_imputing(impute_finished)

    def close(self) -> None:
        self._search = None

    @property
    def batch_size(self) -> Any:
        """Rows of the batch, without beams."""
        return self._begun().batch

    @property
    def tracks_own_finished(self) -> bool:
        """True: beams change places, and what has ended moves with them."""
        return True

    @property
    def output_size(self) -> Any:
        """A `BeamSearchDecoderOutput` of shapes without the batch axis."""
        width = OutputShape((self.beam_width,))
        all_scores = OutputShape((self.beam_width, self._vocabulary())) if self.output_all_scores else width
        return BeamSearchDecoderOutput(all_scores, width, width)

    @property
    def output_dtype(self) -> Any:
        """A `BeamSearchDecoderOutput` of dtypes."""
        return BeamSearchDecoderOutput(self._begun().dtype, "int32", "int32")

    def _cell_output_shape(self):
        size = self.cell.output_size
        return (size,) if isinstance(size, int) else tuple(size)

    def _vocabulary(self):
        shape = (None, self.beam_width, *self._cell_output_shape())
        return (shape if self.output_layer is None else self.output_layer.compute_output_shape(shape))[-1]

    def step(
        self, time: Tensor, inputs: Nested, state: BeamSearchDecoderState, training: bool | None = None, name: str | None = None
    ) -> tuple[Any, ...]:
        """Continues every beam by one token.

        Args:
            time: int32 scalar. inputs: structure of (b, k, ...). state: BeamSearchDecoderState. training: bool or None.
            name: not used; TFA has it.

        Returns:
            (BeamSearchDecoderOutput, BeamSearchDecoderState, inputs of the next step, finished (b, k) bool).

        Raises:
            UsageError: the end token is outside the vocabulary, the vocabulary cannot fill the beams, or the cell gives a state
                of another structure than it took.
        """
        search = self._begun()
        outputs, cell_state = self.cell(beams.merge(inputs), beams.merge(state.cell_state), training=training)
        cell_state = beams.split(_packed_as(state.cell_state, cell_state), self.beam_width)
        logits = beams.split(outputs, self.beam_width)
        if self.output_layer is not None:
            logits = self.output_layer(logits)
        known_end = backend.known(search.end_token)
        check_vocabulary(logits.shape[-1], None if known_end is None else int(known_end), self.beam_width, self._most_steps())
        output, next_state = beam_search_step(
            state,
            logits,
            cell_state,
            get_attention_probs(cell_state, self.coverage_penalty_weight),
            search.end_token,
            self.length_penalty_weight,
            self.coverage_penalty_weight,
            self.output_all_scores,
        )
        return output, next_state, search.embed(output.predicted_ids), next_state.finished

    def finalize(self, outputs: Nested, final_state: BeamSearchDecoderState, sequence_lengths: Tensor) -> tuple[Any, Any]:
        """Reads the sequences back from what the steps found.

        Args:
            outputs: those of `step`, time major, (t, b, k). final_state: BeamSearchDecoderState.
            sequence_lengths: not used; `final_state.lengths` are the lengths of the beams.

        Returns:
            (FinalBeamSearchDecoderOutput, BeamSearchDecoderState).
        """
        parents, lengths = outputs.parent_ids, final_state.lengths
        predicted = gather_tree(outputs.predicted_ids, parents, ops.max(lengths, axis=1), self._begun().end_token)
        if self.reorder_tensor_arrays:
            cell_state = beams.histories_along_beams(final_state.cell_state, parents, lengths)
            final_state = final_state._replace(cell_state=cell_state)
        return FinalBeamSearchDecoderOutput(predicted, outputs), final_state


def _refuse_imputing(impute_finished):
    if impute_finished:
        raise UsageError("Expected impute_finished=False: beams change places. Received: impute_finished=True")


def _packed_as(pattern, structure):
    wanted, given = tree.flatten(pattern), tree.flatten(structure)
    if len(wanted) != len(given):
        raise UsageError(f"Expected a state of {len(wanted)} tensors from the cell, as it took. Received: {len(given)}")
    return tree.pack_sequence_as(pattern, given)
