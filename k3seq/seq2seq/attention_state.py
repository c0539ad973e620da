"""The state of an `AttentionWrapper`."""

import contextlib
import contextvars
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
from keras import ops, tree

from k3seq.errors import UsageError
from k3seq.seq2seq.expect import WrongType
from k3seq.seq2seq.memory import AttentionMemory, fits
from k3seq.typing import Nested, Tensor


class AlignmentHistory(NamedTuple):
    """The alignments of all steps so far, (t, b, s), the first step first."""

    alignments: Any

    def stack(self) -> Tensor:
        """The alignments (t, b, s). TFA has a tensor array here and reads it by this method."""
        return self.alignments

    def append(self, alignments: Tensor) -> "AlignmentHistory":
        """The history with the alignments (b, s) of one more step."""
        return AlignmentHistory(ops.concatenate([self.alignments, ops.expand_dims(alignments, 0)], axis=0))


class AttentionWrapperState(NamedTuple):
    """State of an `AttentionWrapper`. With a list of mechanisms a field that belongs to a mechanism is a tuple.

    cell_state: state of the wrapped cell.
    attention: (b, attention size), the attention of the previous step.
    alignments: (b, s).
    alignment_history: `AlignmentHistory`, to which every step appends; () where none is kept. A compiled loop, whose shapes
        cannot change, takes `paused()`, collects the `alignments` of its steps and returns `resumed(history)`.
    attention_state: state of the mechanism; in this package the alignments of the previous step.
    memory: `AttentionMemory`, the same at every step and for every beam of a row, so that a loop does not reorder it.
    """

    cell_state: Any
    attention: Any
    alignments: Any
    alignment_history: Any
    attention_state: Any
    memory: Any = ()

    def __iter__(self) -> Iterator[Any]:
        """The fields in their order. `keras.layers.RNN`, which calls `list(state)`, gets `AttentionWrapper.rnn_state`."""
        frame = inspect.currentframe()
        caller: Any = frame.f_back.f_locals.get("self") if frame and frame.f_back else None
        cell: Any = getattr(caller, "cell", None) if isinstance(caller, keras.layers.RNN) else None
        if hasattr(cell, "rnn_state"):
            return iter(cell.rnn_state(self))
        return tuple.__iter__(self)

    def clone(self, **changes: Any) -> "AttentionWrapperState":
        """A state with other fields, in the structure and the dtypes of this one: `state.clone(cell_state=encoder_state)`.

        Raises:
            UsageError: an unknown field, or tensors of another number or other shapes.
        """
        unknown = sorted(set(changes) - set(self._fields))
        if unknown:
            raise UsageError(f"Expected fields of {', '.join(self._fields)}. Received: {', '.join(unknown)}")
        return self._replace(**{name: _like(name, getattr(self, name), value) for name, value in changes.items()})

    @property
    def records(self) -> bool:
        """Whether each step appends to the history."""
        return bool(tree.flatten(self.alignment_history))

    def paused(self) -> "AttentionWrapperState":
        """This state without a history, of constant shapes: for a loop that collects the alignments itself."""
        return self._replace(alignment_history=())

    def resumed(self, history: Nested) -> "AttentionWrapperState":
        """This state with the alignments that a loop collected: (t, b, s), for several mechanisms a tuple of them."""
        several = isinstance(self.alignments, list | tuple)
        return self._replace(
            alignment_history=tuple(AlignmentHistory(h) for h in history) if several else AlignmentHistory(history)
        )


def _like(name, old, new):
    before, after = tree.flatten(old), tree.flatten(new)
    if not before or name == "alignment_history":
        return new
    if len(before) != len(after):
        raise UsageError(f"Expected {name} of {len(before)} tensors, as the state has. Received: {len(after)}")
    after = [b if isinstance(b, keras.KerasTensor) else ops.convert_to_tensor(b) for b in after]
    after = [ops.cast(b, a.dtype) for a, b in zip(before, after, strict=True)]
    for a, b in zip(before, after, strict=True):
        if not fits(b.shape, a.shape):
            raise UsageError(f"Expected {name} of shape {tuple(a.shape)}, as the state has. Received: shape {tuple(b.shape)}")
    return tree.pack_sequence_as(old, after)


_collecting = contextvars.ContextVar("k3seq_collecting", default=False)


@contextlib.contextmanager
def collecting_history() -> Iterator[None]:
    """Within the block a decoder collects the alignments of each step, so that a history in a list of states may grow."""
    token = _collecting.set(True)
    try:
        yield
    finally:
        _collecting.reset(token)


def history_may_grow(running: Any) -> bool:
    """Whether a state in a plain list may have a history: in a decoder, or in a loop over `StackedRNNCells`.

    Args:
        running: the outermost layer that is being called, or None.
    """
    return _collecting.get() or isinstance(running, keras.layers.StackedRNNCells)


def as_state(state: Nested, mechanisms: int | None = None) -> AttentionWrapperState:
    """An `AttentionWrapperState` from itself, or from the lists and plain tuples of `keras.layers.RNN` and `.keras` files.

    Args:
        state: a state or its parts. mechanisms: their number, or None for one that is not in a list.

    Raises:
        WrongType: `state` is neither, or has no memory.
    """
    if not isinstance(state, list | tuple) or len(state) != len(AttentionWrapperState._fields) or not state[-1]:
        found = f"{type(state).__name__} of {len(state)} parts" if isinstance(state, list | tuple) else type(state).__name__
        raise WrongType(
            f"Expected state to be an AttentionWrapperState with a memory, as get_initial_state gives. Received: {found}"
        )
    state = AttentionWrapperState(*state)
    return state._replace(
        alignment_history=_named(AlignmentHistory, state.alignment_history, mechanisms),
        memory=_named(AttentionMemory, state.memory, mechanisms),
    )


def _named(kind, part, mechanisms):
    """A part of the state, or a tuple of parts, as named tuples; () stays ()."""
    if mechanisms is not None:
        return tuple(_named(kind, each, None) for each in part)
    return kind(*part) if isinstance(part, list | tuple) and len(part) == len(kind._fields) else part


def check_state(
    state: Nested, batch_size: Any, cell_state_size: Nested, attention_size: int | None, mechanisms: int | None
) -> None:
    """Checks the structure and the shapes of a state, as far as they are known.

    Args:
        state: `AttentionWrapperState`. batch_size: int or None. cell_state_size: structure of ints. attention_size: int.
        mechanisms: their number, or None for one that is not in a list.

    Raises:
        UsageError: a part is missing, or its shape is another.
    """
    count = 1 if mechanisms is None else mechanisms
    for name in ("alignments", "attention_state", "memory"):
        part = getattr(state, name)
        found = 1 if mechanisms is None or hasattr(part, "shape") or hasattr(part, "_fields") else len(part)
        if found != count:
            raise UsageError(f"Expected {name} of {count} mechanisms in the state. Received: {found}")
    sizes, cell_states = tree.flatten(cell_state_size), tree.flatten(state.cell_state)
    if len(sizes) != len(cell_states):
        raise UsageError(f"Expected cell_state of {len(sizes)} tensors, as the cell has. Received: {len(cell_states)}")
    memories = (state.memory,) if mechanisms is None else state.memory
    steps = [m.mask.shape[1] for m in memories]
    wanted = [
        *[("cell_state", value, (batch_size, size)) for value, size in zip(cell_states, sizes, strict=True)],
        ("attention", state.attention, (batch_size, attention_size)),
        *[
            ("alignments", value, (batch_size, s))
            for value, s in zip([state.alignments] if mechanisms is None else state.alignments, steps, strict=True)
        ],
        *[("memory", m.mask, (batch_size, s)) for m, s in zip(memories, steps, strict=True)],
    ]
    for name, value, shape in wanted:
        if not fits(value.shape, shape):
            raise UsageError(f"Expected {name} of shape {shape} in the state. Received: shape {tuple(value.shape)}")
