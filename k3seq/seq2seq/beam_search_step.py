"""One step of beam search as a pure function, with the scores of TensorFlow Addons 0.23.

Wu et al. 2016 (GNMT, https://arxiv.org/abs/1609.08144, section 7) with what TFA made of it: a candidate's length leaves out an
end token in the step that takes it, and counts it in all later ones; and coverage is taken only from beams that were finished
before the step. `k3seq.decode` has the search without these two.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from k3seq.decode.ranking import first_best, pick
from k3seq.errors import UsageError
from k3seq.seq2seq.beams import along_beams
from k3seq.typing import Nested, Tensor


class BeamSearchDecoderState(NamedTuple):
    """What a search carries from step to step.

    cell_state: the cell's state, tensors (b, k, ...).
    log_probs: (b, k) float, sum of the log-probabilities of a beam's tokens.
    finished: (b, k) bool.
    lengths: (b, k) int32, tokens of a beam with its end token.
    accumulated_attention_probs: (b, k, s), attention summed over a beam's steps; () without a coverage penalty.
    """

    cell_state: Any
    log_probs: Any
    finished: Any
    lengths: Any
    accumulated_attention_probs: Any


class BeamSearchDecoderOutput(NamedTuple):
    """What a step found, best beam first.

    scores: (b, k) float, or (b, k, v), those of all candidates, with `output_all_scores`.
    predicted_ids: (b, k) int32. parent_ids: (b, k) int32, the beam of the step before that each one continues.
    """

    scores: Any
    predicted_ids: Any
    parent_ids: Any


def wide(dtype: Any) -> str:
    """The dtype in which probabilities are summed: float32 at least, whatever the layers compute in."""
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def first_beams(batch: Any, width: int, dtype: Any) -> tuple[Any, Any, Any]:
    """`(log_probs, finished, lengths)`, (batch, width) each, before the first step: beam 0 alone is alive.

    The others would be copies of it, and are finished with a log-probability of minus infinity.
    """
    other = ops.broadcast_to(ops.arange(width, dtype="int32")[None, :] > 0, (batch, width))
    log_probs = ops.where(other, ops.cast(float("-inf"), dtype), ops.cast(0.0, dtype))
    return log_probs, other, ops.zeros((batch, width), "int32")


def length_penalty(lengths: Tensor, weight: float, dtype: Any) -> Tensor:
    """((5 + length) / 6) ** weight for int lengths of any shape."""
    return ((5.0 + ops.cast(lengths, dtype)) / 6.0) ** weight  # ops.power goes down to float32 on torch and JAX


def coverage_penalty(accumulated: Tensor, finished: Tensor, weight: float) -> Tensor:
    """weight * sum(log(min(attention, 1))) over the source, (b, k, s) -> (b, k); 0 for beams that are not finished.

    An attention of exactly 0, as padding has it, counts as 1.
    """
    partly = ops.logical_and(accumulated != 0, accumulated < 1)  # ops.minimum with a number goes down to float32
    covered = ops.where(partly, accumulated, ops.ones_like(accumulated))
    return weight * ops.sum(ops.log(covered), axis=2) * ops.cast(finished, accumulated.dtype)


def mask_finished(log_probs: Tensor, finished: Tensor, end_token: Any) -> Tensor:
    """(b, k, v) log-probabilities; of finished beams (b, k) 0 for the end token and the lowest number for the others."""
    dtype = keras.backend.standardize_dtype(log_probs.dtype)
    is_end = ops.arange(log_probs.shape[-1], dtype="int32") == end_token
    # An array, because a number goes through the default float type, which may be too small for it
    ended = ops.where(is_end, ops.cast(0.0, dtype), ops.convert_to_tensor(np.finfo(dtype).min, dtype))
    return ops.where(finished[..., None], ended, log_probs)


def beam_search_step(
    state: BeamSearchDecoderState,
    logits: Tensor,
    next_cell_state: Nested,
    attention: Tensor | None,
    end_token: Any,
    length_penalty_weight: float = 0.0,
    coverage_penalty_weight: float = 0.0,
    output_all_scores: bool = False,
) -> tuple[BeamSearchDecoderOutput, BeamSearchDecoderState]:
    """Continues the beams of every row by one token.

    Candidates are ranked by score; of equals the lowest `beam * vocabulary + token` is the better one.

    Args:
        state: BeamSearchDecoderState before the step.
        logits: (b, k, v) float.
        next_cell_state: nested structure of tensors (b, k, ...), the cell's state after the step, not yet moved along the
            beams.
        attention: (b, k, s), the alignments of this step; None without a coverage penalty.
        end_token: int, or int32 scalar.
        length_penalty_weight, coverage_penalty_weight: floats, 0: no penalty.
        output_all_scores: give the scores of all candidates in place of those of the chosen.

    Returns:
        (BeamSearchDecoderOutput, BeamSearchDecoderState).
    """
    width, vocabulary = logits.shape[1:]
    dtype = keras.backend.standardize_dtype(state.log_probs.dtype)
    total = state.log_probs[..., None] + mask_finished(
        ops.log_softmax(ops.cast(logits, dtype), axis=-1), state.finished, end_token
    )
    alive = ops.logical_not(state.finished)
    scores = total
    if length_penalty_weight:
        is_end = ops.arange(vocabulary, dtype="int32") == end_token
        grows = ops.cast(ops.logical_and(alive[..., None], ops.logical_not(is_end)), "int32")
        scores = total / length_penalty(state.lengths[..., None] + grows, length_penalty_weight, dtype)
    accumulated = state.accumulated_attention_probs
    if coverage_penalty_weight:
        accumulated = accumulated + ops.where(alive[..., None], ops.cast(attention, accumulated.dtype), 0)
        scores = scores + coverage_penalty(accumulated, state.finished, coverage_penalty_weight)[..., None]

    best, places = first_best(ops.reshape(scores, (-1, width * vocabulary)), width)
    parents, tokens = places // vocabulary, places % vocabulary
    log_probs = pick(ops.reshape(total, (-1, width * vocabulary)), places)
    was_finished = along_beams(state.finished, parents)
    next_state = BeamSearchDecoderState(
        cell_state=along_beams(next_cell_state, parents),
        log_probs=log_probs,
        finished=ops.logical_or(was_finished, tokens == end_token),
        lengths=along_beams(state.lengths, parents) + ops.cast(ops.logical_not(was_finished), "int32"),
        accumulated_attention_probs=along_beams(accumulated, parents),
    )
    return BeamSearchDecoderOutput(scores if output_all_scores else best, tokens, parents), next_state


def fillable(width: int, vocabulary: int, steps: int | None) -> bool:
    """Whether there are `width` different sequences that end within `steps` tokens or have as many (None: no limit)."""
    ended, alive = 0, 1
    for _ in range(width if steps is None else min(steps, width)):  # each step adds one at least, or nothing more will come
        if ended + alive >= width:
            break
        ended, alive = ended + alive, alive * (vocabulary - 1)
    return ended + alive >= width


def check_vocabulary(vocabulary: int, end_token: int | None, width: int, steps: int | None) -> None:
    """Raises UsageError when the end token is outside the vocabulary, or it cannot fill so many beams in so many steps.

    Args:
        vocabulary: int. end_token: int, or None where it is not known yet. width: int, beams. steps: int, or None for no limit.
    """
    if end_token is not None and not 0 <= end_token < vocabulary:
        raise UsageError(f"Expected end_token in a vocabulary of {vocabulary}. Received: end_token={end_token}")
    if not fillable(width, vocabulary, steps):
        limit = "" if steps is None else f" and {steps} steps"
        raise UsageError(
            f"Expected a beam_width that a vocabulary of {vocabulary}{limit} can fill. Received: beam_width={width}"
        )


def get_attention_probs(next_cell_state: Nested, coverage_penalty_weight: float) -> Tensor | None:
    """The alignments in a cell's state, (b, k, s): the mean of those of several mechanisms, and of several cells.

    Args:
        next_cell_state: a state that has `alignments`, or a tuple or list of states of which at least one has.
        coverage_penalty_weight: float.

    Returns:
        A tensor, or None where the weight is 0.

    Raises:
        UsageError: no state has alignments, but the weight is not 0.
    """
    if coverage_penalty_weight == 0.0:
        return None
    states = [next_cell_state]
    if isinstance(next_cell_state, tuple | list) and not hasattr(next_cell_state, "alignments"):
        states = next_cell_state
    found = [attention_probs_from_attn_state(state) for state in states if hasattr(state, "alignments")]
    if not found:
        raise UsageError(
            "Expected coverage_penalty_weight of 0 for a cell without attention. "
            f"Received: coverage_penalty_weight={coverage_penalty_weight}"
        )
    return _mean(found)


def attention_probs_from_attn_state(attention_state: Nested) -> Tensor:
    """The alignments of an `AttentionWrapperState`, (b, k, s): the mean where there are several mechanisms."""
    alignments = attention_state.alignments
    return _mean(alignments) if isinstance(alignments, tuple | list) else alignments


def _mean(tensors):
    return tensors[0] if len(tensors) == 1 else ops.mean(ops.stack(tensors, axis=-1), axis=-1)
