"""The loop of `dynamic_decode` as a pure recurrence, for `backend.unroll`."""

from typing import Any

import keras
from keras import ops, tree

from k3seq import backend
from k3seq.errors import UsageError
from k3seq.seq2seq.attention_state import AlignmentHistory, collecting_history
from k3seq.seq2seq.memory import AttentionMemory
from k3seq.typing import Nested, Tensor


class Recurrence:
    """The recurrence over (state, inputs, finished, lengths) of one call of `dynamic_decode`.

    The loop carries only the parts of the state that change. An `AttentionMemory` stays outside: a carried one would be copied
    for the gradient of every step. An `AlignmentHistory` grows, which a compiled loop does not allow: every step gets an empty
    one, and the row that it appends is an output of the loop.
    """

    def __init__(
        self, decoder: Any, impute_finished: bool, training: bool | None, finished: Tensor, inputs: Nested, state: Nested
    ):
        self.decoder, self.impute_finished, self.training = decoder, impute_finished, training
        self.state, self.kinds = state, tree.flatten(kinds_of(state))
        self.carry = (self._of("moves", state), inputs, finished, ops.zeros(ops.shape(finished), "int32"))
        dtypes, sizes, batch = decoder.output_dtype, decoder.output_size, decoder.batch_size
        blank = tree.map_structure_up_to(dtypes, lambda dtype, size: _zeros(batch, size, dtype), dtypes, sizes)
        self.blank = (blank, [ops.zeros(ops.shape(leaf)[1:], leaf.dtype) for leaf in self._of("history", state)])

    def _of(self, kind, state):
        return [leaf for leaf, its in zip(tree.flatten(state), self.kinds, strict=True) if its == kind]

    def _with(self, moving, history):
        """The state with these tensors in their places."""
        fresh = {"moves": iter(moving), "history": iter(history)}
        leaves = zip(tree.flatten(self.state), self.kinds, strict=True)
        return tree.pack_sequence_as(self.state, [leaf if kind == "stays" else next(fresh[kind]) for leaf, kind in leaves])

    def run(self, length: Any, whole: bool) -> tuple[Any, Any, Any]:
        """(outputs, state, lengths) of at most `length` steps, time-major; `whole` as in `backend.unroll`."""
        reads = self.decoder.reads
        if reads is not None and length is not None:
            reads = tree.map_structure(lambda leaf: leaf[:length], reads)
        carry, outputs = backend.unroll(self.step, _going, self.carry, self.blank, length, reads, whole)
        return outputs[0], self._with(carry[0], outputs[1]), carry[3]

    def step(self, time: Tensor, now: Nested, carry: Nested) -> tuple[Any, Any]:
        moving, inputs, finished, lengths = carry
        state = self._with(moving, [leaf[:0] for leaf in self._of("history", self.state)])
        if now is not None:
            self.decoder.read(now)
        with collecting_history():
            outputs, next_state, next_inputs, ended = self.decoder.step(time, inputs, state, self.training)
        if len(tree.flatten(next_state)) != len(self.kinds):
            found = len(tree.flatten(next_state))
            raise UsageError(f"Expected a state of {len(self.kinds)} tensors from a step, as it took. Received: {found}")
        rows = [leaf[-1] for leaf in self._of("history", next_state)]
        next_moving = _like(moving, self._of("moves", next_state), "state")
        outputs, next_inputs = _like(self.blank[0], outputs, "outputs"), _like(inputs, next_inputs, "inputs")
        lengths = ops.where(finished, lengths, ops.cast(time + 1, "int32"))
        if self.impute_finished:
            outputs = tree.map_structure(lambda new, zero: _choose(finished, zero, new), outputs, self.blank[0])
            next_moving = [_choose(finished, old, new) for old, new in zip(moving, next_moving, strict=True)]
        ended = ops.cast(ended, "bool")
        ended = ended if self.decoder.tracks_own_finished else ops.logical_or(ended, finished)
        return (next_moving, next_inputs, ended, lengths), (outputs, rows)


def kinds_of(state: Nested) -> Nested:
    """The state's structure, each tensor replaced by what a loop does with it: "moves", "stays" (memory) or "history"."""

    def kind(node):
        if isinstance(node, AttentionMemory):
            return tree.map_structure(lambda _: "stays", node)
        if isinstance(node, AlignmentHistory):
            return tree.map_structure(lambda _: "history", node)
        return None if isinstance(node, (tuple, list, dict)) else "moves"

    return tree.traverse(kind, state)


def _going(carry):
    return ops.logical_not(ops.all(carry[2]))


def _zeros(batch, size, dtype):
    return ops.zeros((batch, *((size,) if isinstance(size, int) else tuple(size))), keras.backend.standardize_dtype(dtype))


def _like(pattern, value, what):
    """`value` in the structure and the dtypes of `pattern`: a list for a tuple is the same, another number of parts is not."""
    wanted, given = tree.flatten(pattern), tree.flatten(value)
    if len(wanted) != len(given):
        raise UsageError(f"Expected {what} of {len(wanted)} tensors from a step, as it took. Received: {len(given)}")
    return tree.pack_sequence_as(pattern, [ops.cast(new, old.dtype) for old, new in zip(wanted, given, strict=True)])


def _choose(finished, old, new):
    """Row by row `old` where finished, else `new`; a tensor without a batch axis is always `new`."""
    after = len(new.shape) - len(finished.shape)
    if after < 0:
        return new
    return ops.where(ops.reshape(finished, (*ops.shape(finished), *[1] * after)), old, new)
