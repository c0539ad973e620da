"""A cell's state in a beam search: rows and beams, (b * k, ...) and (b, k, ...), and what of it does not belong to a beam."""

from collections.abc import Callable
from typing import Any

from keras import ops, tree

from k3seq.decode.ranking import pick
from k3seq.decode.tree import gather_tree_from_array
from k3seq.errors import UsageError
from k3seq.seq2seq.attention_state import AlignmentHistory, AttentionWrapperState
from k3seq.seq2seq.memory import AttentionMemory
from k3seq.typing import Nested, Tensor


def of_beams(function: Callable[[Any], Any], structure: Nested) -> Nested:
    """`function` of every tensor in the structure that belongs to a beam; what does not is left as it is.

    That is an attention memory, which is the same for all beams of a row and so need not move with them; a history of
    alignments, which is ordered along the beams at the end; and a scalar.
    """

    def applied(node):
        if isinstance(node, AttentionMemory | AlignmentHistory):
            return node
        if node is None or isinstance(node, tuple | list | dict):
            return None
        return function(node) if len(node.shape) else node

    return tree.traverse(applied, structure)


def split(structure: Nested, width: int) -> Nested:
    """(b * k, ...) -> (b, k, ...)."""
    return of_beams(lambda leaf: ops.reshape(leaf, (-1, width, *ops.shape(leaf)[1:])), structure)


def merge(structure: Nested) -> Nested:
    """(b, k, ...) -> (b * k, ...)."""
    return of_beams(lambda leaf: ops.reshape(leaf, (-1, *ops.shape(leaf)[2:])), structure)


def along_beams(structure: Nested, parents: Tensor) -> Nested:
    """Every tensor (b, k, ...) with its beams taken from `parents` (b, k) int."""
    return of_beams(lambda leaf: pick(leaf, parents), structure)


def histories_along_beams(structure: Nested, parents: Tensor, lengths: Tensor) -> Nested:
    """The structure with every history of alignments (t, b * k, s) reordered: an entry stands at the beam whose path it is on.

    As in TFA the path is one choice ahead of the alignments: those of a step belong to the beams that the step began with, and
    are ordered by the beams that it ended with.

    Args:
        parents: (t, b, k) int. lengths: (b, k) int, from which on a beam keeps its own entries.
    """

    def reordered(node):
        if not isinstance(node, AlignmentHistory):
            return None
        return AlignmentHistory(gather_tree_from_array(node.alignments, parents, lengths))

    return tree.traverse(reordered, structure)


def check_state(state: Nested, state_size: Nested, batch: Any, width: int) -> None:
    """Checks the state that a search begins with, as far as shapes are known.

    Raises:
        UsageError: it has not as many tensors, and attention states at the same places, as the cell's `state_size`; a tensor
            has not `batch * width` rows, as `tile_batch` makes them.
    """
    check_parts(state, state_size)

    def check(node):
        if isinstance(node, AlignmentHistory):
            return node
        if isinstance(node, tuple | list | dict):
            return None
        if len(node.shape) and None not in (batch, node.shape[0]) and node.shape[0] != batch * width:
            raise UsageError(
                f"Expected initial_state of {batch * width} rows, {batch} times {width} beams: tile_batch(..., {width}). "
                f"Received: shape {tuple(node.shape)}"
            )
        return node

    tree.traverse(check, state)


def check_parts(state: Nested, state_size: Nested) -> None:
    """Raises UsageError unless a state has the tensors and attention states of the cell's `state_size`, in its order."""
    expected, found = _parts(state_size), _parts(state)
    if expected != found:
        raise UsageError(f"Expected initial_state of {_described(expected)}, as the cell's. Received: {_described(found)}")


def _parts(structure):
    """The leaves of a state, or of a `state_size`, as words."""

    def word(node):
        if isinstance(node, AttentionWrapperState):
            return "attention state"
        if type(node) is tuple and node and all(isinstance(size, int | None) for size in node):
            return "tensor"  # the shape of one, where a size is not an int
        return None if isinstance(node, tuple | list | dict) else "tensor"

    listed = isinstance(structure, list | tuple) and not isinstance(structure, AttentionWrapperState)
    return tree.flatten([tree.traverse(word, part) for part in (structure if listed else [structure])])


def _described(parts):
    counts = [f"{parts.count(part)} {part}{'s' * (parts.count(part) > 1)}" for part in sorted(set(parts))]
    return " and ".join(counts) or "nothing"
