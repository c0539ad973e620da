"""The memory of attention: its tensors, and where they are kept between setup and the first step."""

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
from keras import ops

from k3seq import backend
from k3seq.data.checks import check_lengths
from k3seq.errors import UsageError
from k3seq.layers.masks import length_mask
from k3seq.seq2seq.enclosing import outer_call, stateless_scope
from k3seq.typing import Tensor


class AttentionMemory(NamedTuple):
    """A memory ready for queries. It is the same at every step and for every beam of a row.

    keys: (b, s, d), projected. values: (b, s, m), zero where masked. mask: (b, s) bool, True = keep.
    """

    keys: Any
    values: Any
    mask: Any


def check_memory(memory: Any, memory_sequence_length: Tensor | None = None, memory_mask: Tensor | None = None) -> None:
    """Checks a memory and its lengths or mask, on the host where they have values.

    Args:
        memory: (b, s, m). memory_sequence_length: (b,) int or None. memory_mask: (b, s) bool or None.

    Raises:
        UsageError: both are given, the memory has not three axes or no step, a shape does not fit, a length is not in 1..s.
    """
    if len(memory.shape) != 3:
        raise UsageError(f"Expected memory of shape (batch, steps, depth). Received: shape {tuple(memory.shape)}")
    steps = memory.shape[1]
    if steps == 0:
        raise UsageError("Expected memory of at least one step. Received: 0 steps")
    if memory_sequence_length is not None and memory_mask is not None:
        raise UsageError("Expected memory_sequence_length or memory_mask. Received: both")
    if memory_mask is not None:
        _expect_shape("memory_mask", memory_mask.shape, memory.shape[:2])
    if memory_sequence_length is not None:
        _expect_shape("memory_sequence_length", memory_sequence_length.shape, memory.shape[:1])
        values = backend.known(memory_sequence_length)
        if values is not None and isinstance(steps, int):
            check_lengths(values, steps, "memory_sequence_length")


def memory_mask_of(memory: Any, memory_sequence_length: Tensor | None = None, memory_mask: Tensor | None = None) -> Tensor:
    """The mask (b, s) bool, True = keep, of lengths or a mask; all True where neither is given."""
    if memory_mask is not None:
        return ops.cast(memory_mask, "bool")
    if memory_sequence_length is None:
        return ops.ones_like(memory[:, :, 0], dtype="bool")
    return length_mask(memory_sequence_length, ops.shape(memory)[1])


def fits(shape: Any, expected: Any) -> bool:
    """Whether a shape is an expected one, as far as both are known."""
    return len(shape) == len(expected) and all(None in pair or pair[0] == pair[1] for pair in zip(shape, expected, strict=True))


def _expect_shape(name, found, expected):
    if not fits(found, expected):
        raise UsageError(f"Expected {name} of shape {tuple(expected)}, as memory has. Received: shape {tuple(found)}")


class MemorySlot:
    """Keeps a mechanism's memory between its setup and the state that takes it.

    A memory set up inside the call of a Keras layer or model, or under a stateless scope, is dropped when that call ends.
    Any other is kept until the next setup; without values (in a function that is being traced) only until `take`, or until
    the trace has ended.
    """

    def __init__(self):
        self._by_scope = weakref.WeakKeyDictionary()
        self._forget()
        self._active = []

    def put(self, memory: AttentionMemory, owner: Any) -> None:
        """Stores a memory; `owner` is the layer whose own call does not count as an enclosing one."""
        for scope in _scopes(owner):
            self._by_scope[scope] = memory
            return
        # The values and not the mask: TensorFlow knows the value of a mask of ones also in a function that it traces.
        symbolic = isinstance(memory.values, keras.KerasTensor)
        self._traced = not symbolic and backend.known(memory.values[:1, :1, :1]) is None
        self._kept, self._once = memory, symbolic or self._traced

    def find(self, owner: Any) -> AttentionMemory | None:
        """The memory in use here, or None."""
        if self._active:
            return self._active[-1]
        if self._traced and backend.known(ops.zeros((1,)) + 1) is not None:
            self._forget()  # a traced function that has ended left it
        return next((self._by_scope[scope] for scope in _scopes(owner) if scope in self._by_scope), self._kept)

    def take(self, owner: Any) -> Any:
        """As `find`; a memory without values is handed over and not kept."""
        memory = self.find(owner)
        if self._once and memory is self._kept:
            self._forget()
        return memory

    def _forget(self):
        self._kept, self._once, self._traced = None, False, False

    @contextlib.contextmanager
    def using(self, memory: AttentionMemory) -> Iterator[None]:
        """Within the block, `find` gives this memory."""
        self._active.append(memory)
        try:
            yield
        finally:
            self._active.pop()


def _scopes(owner):
    """What a memory may live as long as, the innermost first: the running call of an outermost layer, a stateless scope."""
    return [scope for scope in (outer_call(owner), stateless_scope()) if scope is not None]
