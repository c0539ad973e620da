"""Rows of unequal length as a pair `(values, row_splits)`, and the same rows as dense tokens and lengths.

A pair has the form of `tf.RaggedTensor`: `values` (n,) holds all rows one after the other, and row i is
`values[row_splits[i]:row_splits[i + 1]]`, with `row_splits` (batch + 1,). Values after the last split belong to no row: pad
`values` to one length so that a compiled function is not compiled again for each number of tokens.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from k3seq import arguments
from k3seq.errors import UsageError
from k3seq.typing import ArrayLike, NDArray, Shape, Tensor

KEEP = ("first", "last")


def pack_rows(rows: Sequence[ArrayLike], dtype: str = "int32") -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Packs rows on the host.

    Args:
        rows: sequence of sequences of integers; a row may be empty.
        dtype: integer dtype of the values.

    Returns:
        (values, row_splits): NumPy arrays of shapes (tokens,) and (rows + 1,), the splits int64.
    """
    arrays = [np.asarray(row, dtype).reshape(-1) for row in rows]
    row_splits = np.cumsum([0, *(len(row) for row in arrays)], dtype="int64")
    return np.concatenate([np.zeros(0, dtype), *arrays]), row_splits


def unpack_rows(values: ArrayLike, row_splits: ArrayLike) -> list[NDArray[Any]]:
    """The inverse of `pack_rows`: a list of NumPy arrays.

    Raises:
        UsageError: the splits do not start at 0, decrease, or point past the end of the values.
    """
    values, row_splits = np.asarray(values), np.asarray(row_splits)
    if row_splits.ndim != 1 or len(row_splits) < 1 or row_splits[0] != 0 or np.any(np.diff(row_splits) < 0):
        raise UsageError(f"Expected row_splits that start at 0 and never decrease. Received: row_splits={row_splits.tolist()}")
    if row_splits[-1] > len(values):
        raise UsageError(f"Expected at least {row_splits[-1]} values. Received: {len(values)} values")
    return [values[start:stop] for start, stop in zip(row_splits[:-1], row_splits[1:], strict=True)]


def pad_rows(rows: Sequence[Any], width: int, name: str = "row") -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Dense tokens and lengths of whole rows, on the host.

    Args:
        rows: sequence of sequences of integers.
        width: columns of the result.
        name: what a row is called in the error.

    Returns:
        (tokens, lengths): int32 arrays (rows, width), padded with 0 at the right, and (rows,).

    Raises:
        UsageError: `width` is not an integer of at least 1, or a row is longer.
    """
    arguments.positive(width=width)
    tokens, lengths = np.zeros((len(rows), width), "int32"), np.array([len(row) for row in rows], "int32")
    for i, row in enumerate(rows):
        if len(row) > width:
            raise UsageError(
                f"Expected each {name} to have at most {width} tokens. Received: {name} {i} with {len(row)} tokens"
            )
        tokens[i, : len(row)] = row
    return tokens, lengths


def to_dense(values: Tensor, row_splits: Tensor, width: int, keep: str = "first") -> tuple[Tensor, Tensor]:
    """Dense tokens of a static width, and lengths.

    Args:
        values: (n,) integers; n may be 0.
        row_splits: (batch + 1,) integers.
        width: columns of the result.
        keep: which tokens of a row longer than `width` are kept: its "first" or its "last" ones.

    Returns:
        (tokens, lengths): int32 (batch, width), padded with 0 at the right, and int32 (batch,), the whole lengths of the rows,
        also where they exceed `width`.

    Raises:
        UsageError: `width` is not an integer of at least 1, or `keep` is unknown.
    """
    arguments.positive(width=width)
    arguments.one_of(KEEP, keep=keep)
    splits = ops.cast(row_splits, "int32")
    starts, ends = splits[:-1], splits[1:]
    lengths = ends - starts
    held = ops.minimum(lengths, width)
    if keep == "last":
        starts = ends - held
    positions = ops.arange(width, dtype="int32")[None, :]
    real = positions < held[:, None]
    # One more value, so that index 0 exists even where all rows are empty.
    padded = ops.concatenate([ops.cast(values, "int32"), ops.zeros((1,), "int32")], axis=0)
    tokens = ops.take(padded, ops.where(real, starts[:, None] + positions, 0), axis=0)
    return ops.where(real, tokens, 0), lengths


@keras.saving.register_keras_serializable(package="k3seq")
class ToDense(keras.layers.Layer):
    """`to_dense` as a layer, the counterpart of `ToRagged` of the sliding-context source.

    Args:
        width: columns of the result, an integer of at least 1.
        keep: "first" or "last", the tokens kept of a longer row.

    Call arguments:
        values: (n,) integers.
        row_splits: (batch + 1,) integers.

    Returns:
        (tokens, lengths) as of `to_dense`.

    Raises:
        UsageError: an argument is not as above.
    """

    def __init__(self, width: int, keep: str = "first", **kwargs: Any):
        super().__init__(**kwargs)
        arguments.positive(width=width)
        arguments.one_of(KEEP, keep=keep)
        self.width, self.keep = width, keep

    def call(self, values: Tensor, row_splits: Tensor) -> tuple[Tensor, Tensor]:
        return to_dense(values, row_splits, self.width, self.keep)

    def compute_output_shape(self, values_shape: Shape, row_splits_shape: Shape) -> tuple[Shape, Shape]:
        batch = None if row_splits_shape[0] is None else row_splits_shape[0] - 1
        return (batch, self.width), (batch,)

    def compute_output_spec(self, values: Tensor, row_splits: Tensor) -> tuple[Tensor, Tensor]:
        tokens, lengths = self.compute_output_shape(values.shape, row_splits.shape)
        return keras.KerasTensor(tokens, "int32"), keras.KerasTensor(lengths, "int32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "keep": self.keep}
