"""Rows of unequal length as a pair `(values, row_splits)`, and the same rows as dense tokens and lengths.

A pair is the form of `tf.RaggedTensor`: `values` (n,) holds all rows one after the other, `row_splits` (batch + 1,) where each
begins and ends, so that row i is `values[row_splits[i]:row_splits[i + 1]]`. Values after the last split belong to no row; pad
`values` to one length so that a compiled function is not compiled again for each number of tokens.
"""

import keras
import numpy as np
from keras import ops

KEEP = ("first", "last")


def _checked(width, keep):
    if width < 1:
        raise ValueError(f"Expected width of at least 1. Received: width={width}")
    if keep not in KEEP:
        raise ValueError(f"Expected keep to be one of {KEEP}. Received: keep={keep!r}")


def pack_rows(rows, dtype="int32"):
    """Packs rows on the host.

    Args:
        rows: sequence of sequences of integers; a row may be empty.
        dtype: integer dtype of the values.

    Returns:
        (values, row_splits): NumPy arrays of shapes (tokens,) and (rows + 1,), the splits int64.
    """
    rows = [np.asarray(row, dtype).reshape(-1) for row in rows]
    row_splits = np.cumsum([0, *(len(row) for row in rows)], dtype="int64")
    return np.concatenate([np.zeros(0, dtype), *rows]), row_splits


def unpack_rows(values, row_splits):
    """The inverse of `pack_rows`: a list of NumPy arrays.

    Raises:
        ValueError: when the splits do not start at 0, fall, or point behind the values.
    """
    values, row_splits = np.asarray(values), np.asarray(row_splits)
    if row_splits.ndim != 1 or len(row_splits) < 1 or row_splits[0] != 0 or np.any(np.diff(row_splits) < 0):
        raise ValueError(f"Expected row_splits that start at 0 and never fall. Received: row_splits={row_splits.tolist()}")
    if row_splits[-1] > len(values):
        raise ValueError(f"Expected at least {row_splits[-1]} values. Received: {len(values)}")
    return [values[start:stop] for start, stop in zip(row_splits[:-1], row_splits[1:], strict=True)]


def pad_rows(rows, width, name="row"):
    """Dense tokens and lengths of whole rows, on the host.

    Args:
        rows: sequence of sequences of integers.
        width: int, columns of the result.
        name: what a row is called in the error.

    Returns:
        (tokens, lengths): int32 arrays (rows, width), 0 behind each row, and (rows,).

    Raises:
        ValueError: when a row is longer than `width`.
    """
    _checked(width, "first")
    tokens, lengths = np.zeros((len(rows), width), "int32"), np.array([len(row) for row in rows], "int32")
    for i, row in enumerate(rows):
        if len(row) > width:
            raise ValueError(
                f"Expected each {name} to have at most {width} tokens. Received: {name} {i} with {len(row)} tokens"
            )
        tokens[i, : len(row)] = row
    return tokens, lengths


def to_dense(values, row_splits, width, keep="first"):
    """Dense tokens of a static width, and lengths.

    Args:
        values: (n,) integers; n may be 0.
        row_splits: (batch + 1,) integers.
        width: int, columns of the result.
        keep: which tokens of a row longer than `width` stay: its "first" or its "last" ones.

    Returns:
        (tokens, lengths): int32 (batch, width), 0 behind each row, and int32 (batch,), the whole lengths of the rows, also
        where they exceed `width`.
    """
    _checked(width, keep)
    splits = ops.cast(row_splits, "int32")
    starts, ends = splits[:-1], splits[1:]
    lengths = ends - starts
    held = ops.minimum(lengths, width)
    if keep == "last":
        starts = ends - held
    positions = ops.arange(width, dtype="int32")[None, :]
    real = positions < held[:, None]
    # One more value, so that position 0 exists even where all rows are empty.
    padded = ops.concatenate([ops.cast(values, "int32"), ops.zeros((1,), "int32")], axis=0)
    tokens = ops.take(padded, ops.where(real, starts[:, None] + positions, 0), axis=0)
    return ops.where(real, tokens, 0), lengths


@keras.saving.register_keras_serializable(package="k3seq")
class ToDense(keras.layers.Layer):
    """`to_dense` as a layer, the counterpart of `ToRagged` of the sliding-context source.

    Args:
        width: int, columns of the result.
        keep: "first" or "last", the tokens kept of a longer row.

    Call arguments:
        values: (n,) integers.
        row_splits: (batch + 1,) integers.

    Returns:
        (tokens, lengths) as of `to_dense`.
    """

    def __init__(self, width, keep="first", **kwargs):
        super().__init__(**kwargs)
        _checked(width, keep)
        self.width, self.keep = width, keep

    def call(self, values, row_splits):
        return to_dense(values, row_splits, self.width, self.keep)

    def compute_output_shape(self, values_shape, row_splits_shape):
        batch = None if row_splits_shape[0] is None else row_splits_shape[0] - 1
        return (batch, self.width), (batch,)

    def compute_output_spec(self, values, row_splits):
        tokens, lengths = self.compute_output_shape(values.shape, row_splits.shape)
        return keras.KerasTensor(tokens, "int32"), keras.KerasTensor(lengths, "int32")

    def get_config(self):
        return {**super().get_config(), "width": self.width, "keep": self.keep}
