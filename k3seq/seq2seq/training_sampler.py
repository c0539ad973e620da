"""The sampler for training by teacher forcing."""

from typing import Any

import keras
from keras import ops, tree

from k3seq import backend
from k3seq.decode.ranking import first_largest
from k3seq.errors import UsageError
from k3seq.layers.masks import length_mask
from k3seq.seq2seq import expect
from k3seq.seq2seq.sampler_base import (
    SizedByCall,
)
from k3seq.typing import Nested, Tensor


@keras.saving.register_keras_serializable(package="k3seq")
class TrainingSampler(SizedByCall):
    """Reads the inputs of each step; sample ids are the argmax of the outputs.

    Args:
        time_major: inputs and mask are (t, b, ...) in place of (b, t, ...).
    """

    _held = ("_batch_size", "_inputs", "_now", "sequence_length", "zero_inputs")
    _now = None

    def __init__(self, time_major: bool = False):
        self.time_major = time_major

    def initialize(self, inputs: Nested, sequence_length: Tensor | None = None, mask: Tensor | None = None) -> tuple[Any, ...]:
        """Begins to read.

        Args:
            inputs: structure of tensors (b, t, ...). sequence_length: (b,) int, steps of each row; `mask` is then not used.
            mask: (b, t) bool, True on the steps of a row, which come first. Neither: all steps of all rows.

        Returns:
            (finished, first inputs): bool (b,), True for a row of no steps; (b, ...).

        Raises:
            UsageError: `sequence_length` is not a vector of 0 to t for b rows, or `mask` not a right-padded bool matrix.
        """
        inputs = tree.map_structure(ops.convert_to_tensor, inputs)
        for leaf in tree.flatten(inputs):
            if len(leaf.shape) < 2:
                raise UsageError(f"Expected inputs with a batch and a time axis. Received: shape {tuple(leaf.shape)}")
        if not self.time_major:
            inputs = tree.map_structure(lambda leaf: ops.swapaxes(leaf, 0, 1), inputs)
        steps, batch = ops.shape(tree.flatten(inputs)[0])[:2]
        if sequence_length is not None:
            lengths = ops.convert_to_tensor(sequence_length)
            expect.rank("sequence_length", lengths, 1, "a vector (b,)")
        elif mask is not None:
            lengths = self._lengths_of(ops.convert_to_tensor(mask))
        else:
            lengths = ops.full((batch,), steps, dtype="int32")
        rows = ops.shape(lengths)[0]
        if isinstance(rows, int) and isinstance(batch, int) and rows != batch:
            raise UsageError(f"Expected sequence_length (or mask) for {batch} rows. Received: {rows}")
        expect.lengths("sequence_length", lengths, steps)
        if isinstance(steps, int) and steps == 0:
            raise UsageError("Expected inputs of at least one step. Received: 0 steps")
        self.sequence_length = ops.cast(lengths, "int32")
        self._inputs, self._batch_size, self._now = inputs, rows, None
        self.zero_inputs = tree.map_structure(lambda leaf: ops.zeros_like(leaf[0]), inputs)
        finished = ops.equal(self.sequence_length, 0)
        return finished, self._unless_all(finished, tree.map_structure(lambda leaf: leaf[0], inputs))

    def _lengths_of(self, mask):
        expect.rank("mask", mask, 2, "a matrix")
        if keras.backend.standardize_dtype(mask.dtype) != "bool":
            raise UsageError(f"Expected mask to be bool. Received: {keras.backend.standardize_dtype(mask.dtype)}")
        mask = ops.transpose(mask) if self.time_major else mask
        lengths = ops.sum(ops.cast(mask, "int32"), axis=1)
        known = backend.known(ops.all(ops.equal(mask, length_mask(lengths, ops.shape(mask)[1]))))
        if known is not None and not known:
            raise UsageError("Expected mask to be right-padded: True before False in each row. Received: another order")
        return lengths

    def _unless_all(self, finished, inputs):
        """Zeros once no row goes on, as TFA gives."""
        over = ops.all(finished)
        return tree.map_structure(lambda leaf, zero: ops.where(over, zero, leaf), inputs, self.zero_inputs)

    def sample(self, time: Tensor, outputs: Nested, state: Nested) -> Tensor:
        return first_largest(outputs)

    def next_inputs(self, time: Tensor, outputs: Nested, state: Nested, sample_ids: Tensor) -> tuple[Any, ...]:
        finished = time + 1 >= self.sequence_length
        inputs = self._now
        if inputs is None:
            last = ops.shape(tree.flatten(self._inputs)[0])[0] - 1
            inputs = tree.map_structure(lambda leaf: ops.take(leaf, ops.minimum(time + 1, last), axis=0), self._inputs)
        return finished, self._unless_all(finished, inputs), state

    @property
    def longest(self) -> Any:
        return ops.shape(tree.flatten(self._inputs)[0])[0]

    @property
    def reads(self) -> Nested:
        return tree.map_structure(lambda leaf: ops.concatenate([leaf[1:], ops.zeros_like(leaf[:1])]), self._inputs)

    def read(self, now: Nested) -> None:
        self._now = now

    @property
    def reads_only(self) -> bool:
        return type(self) is TrainingSampler

    def steps(self, inputs_shape: Any) -> int | None:
        return inputs_shape[0 if self.time_major else 1]

    def get_config(self) -> dict[str, Any]:
        return {"time_major": self.time_major}
