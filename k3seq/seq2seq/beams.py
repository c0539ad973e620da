"""A cell's state in a beam search: tensors (b * k, ...) and (b, k, ...), and the parts that do not belong to a beam."""

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
    """Applies `function` to every tensor of the structure that belongs to a beam, and leaves the others as they are.

    The others are attention memories, which are the same for all beams of a row; histories of alignments, which are ordered
    along the beams at the end; and scalars.
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
    """Reorders every history of alignments (t, b * k, s) along the paths of the beams.

    As in TFA, the alignments of a step, which belong to the beams at its begin, are ordered by the beams at its end.

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
