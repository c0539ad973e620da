"""The state of an `AttentionWrapper` in the form in which `keras.layers.RNN` can carry it under a mask.

It is a list: the output of the step before, then the fields of the state, with the memory's keys and values as (b, s * d).
"""

import math
from typing import Any

from keras import ops

from k3seq.seq2seq.attention_state import AttentionWrapperState
from k3seq.seq2seq.memory import AttentionMemory
from k3seq.typing import Nested


def is_rnn_state(state: Nested) -> bool:
    """Whether it has that form: one entry more than a state has fields."""
    return isinstance(state, list | tuple) and len(state) == len(AttentionWrapperState._fields) + 1


def flattened(memory: AttentionMemory) -> AttentionMemory:
    """Keys and values (b, s, d) as (b, s * d)."""
    rows = ops.shape(memory.mask)[0]
    keys, values = (ops.reshape(t, (rows, product_or_none(*t.shape[1:]) or -1)) for t in (memory.keys, memory.values))
    return AttentionMemory(keys, values, memory.mask)


def unflattened(memory: Nested, key_depth: int | None, memory_depth: int | None) -> AttentionMemory:
    """The inverse of `flattened`. Of the memory, too, a loop may have made a plain tuple."""
    keys, values, mask = memory
    rows = ops.shape(mask)
    return AttentionMemory(ops.reshape(keys, (*rows, key_depth)), ops.reshape(values, (*rows, memory_depth)), mask)


def product_or_none(*sizes: Any) -> Any:
    """The product of sizes, None where one is not known."""
    return None if None in sizes else math.prod(sizes)
