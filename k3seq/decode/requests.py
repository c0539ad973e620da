"""Checks of the inputs of a decoder, on the host."""

from typing import Any

import numpy as np

from k3seq import backend
from k3seq.data.checks import check_lengths
from k3seq.errors import UsageError
from k3seq.typing import NDArray

FREE = -1


def as_inputs(source: Any) -> dict[str, Any]:
    """The inputs of a model's `start`: a dict with "source" as it is, an array or nested list as {"source": array}.

    Raises:
        UsageError: there is no "source" in it, no row or no step, or a row whose length is not in 1..steps.
    """
    inputs = dict(source) if isinstance(source, dict) else {"source": source}
    if "source" not in inputs:
        raise UsageError(f"Expected inputs with the key source. Received: {sorted(inputs)}")
    if not hasattr(inputs["source"], "shape"):
        inputs["source"] = _array(inputs["source"], "source")
    shape = tuple(inputs["source"].shape)
    if len(shape) < 2 or not shape[0] or not shape[1]:
        raise UsageError(f"Expected a source of shape (batch, steps) with at least one row and step. Received: shape {shape}")
    lengths = inputs.get("source_lengths")
    if lengths is not None:
        lengths = backend.known(lengths) if hasattr(lengths, "shape") else lengths
        check_lengths(lengths, shape[1], "source lengths")
    return inputs


def as_prefix(prefix: Any, rows: int, max_steps: int, end: int) -> NDArray[np.int32]:
    """The first tokens of each result, (rows, max_steps) int32; `FREE` where any token may follow.

    Args:
        prefix: ids for all rows, or a sequence of ids for each row, of different lengths or padded with -1.

    Raises:
        UsageError: another number of rows, a prefix longer than max_steps, or an id that is not a token before the end.
    """
    prefix = prefix.tolist() if hasattr(prefix, "tolist") else list(prefix)
    each = prefix if prefix and all(hasattr(row, "__len__") for row in prefix) else [prefix] * rows
    if len(each) != rows:
        raise UsageError(f"Expected a prefix for each of {rows} rows, or one for all. Received: {len(each)} of them")
    filled = np.full((rows, max_steps), FREE, np.int32)
    for row, ids in enumerate(each):
        ids = _array(ids, "a prefix")
        if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
            raise UsageError(f"Expected a prefix of token ids. Received: {ids.tolist()} at row {row}")
        used = int(np.max(np.flatnonzero(ids != FREE), initial=-1)) + 1
        if used > max_steps:
            raise UsageError(f"Expected a prefix of at most max_steps={max_steps} tokens. Received: {used} at row {row}")
        bad = ids[(ids < FREE) | (ids == end)]
        if bad.size:
            raise UsageError(f"Expected a prefix of tokens before the end token {end}. Received: {bad[0]} at row {row}")
        filled[row, :used] = ids[:used]
    return filled


def check_prefix_ids(prefix: NDArray[np.int32] | None, vocabulary: int) -> None:
    """Refuses a prefix (rows, max_steps) with an id outside the vocabulary.

    Raises:
        UsageError: with the row.
    """
    if prefix is not None and prefix.max() >= vocabulary:
        row = int(np.argmax((prefix >= vocabulary).any(axis=1)))
        raise UsageError(f"Expected a prefix in a vocabulary of {vocabulary}. Received: {prefix[row].max()} at row {row}")


def _array(values, name):
    try:
        return np.asarray(values)
    except ValueError:
        raise UsageError(f"Expected {name} to be a rectangular array. Received: rows of other lengths") from None
