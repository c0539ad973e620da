"""Labels and weights of token losses: which shapes are accepted, and what they mean.

Labels are ids (b, t), ids (b, t, 1), or distributions (b, t, v) such as one-hot vectors. Weights are one per token (b, t), or
one per row (b,) or (b, 1), which then holds for each token of the row.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from k3seq import arguments, backend
from k3seq.data.checks import check_labels
from k3seq.errors import UsageError
from k3seq.typing import NDArray, Shape, Tensor


def align(
    labels: Tensor, weights: Tensor, shape: Shape, classes: int | None = None, name: str = "sample_weight"
) -> tuple[Tensor, Tensor]:
    """Labels as (b, t) or (b, t, v), and weights as (b, t).

    Only shapes are looked at, so it works under jit too.

    Args:
        labels: array or tensor, see above.
        weights: array, tensor or None.
        shape: (b, t) of the outputs; None stands for a size that is not known.
        classes: v, or None where it is not known.
        name: what the weights are called in the message.

    Returns:
        (labels, weights), the weights None where they are None.

    Raises:
        UsageError: labels are None or of another shape, or weights are of another shape.
    """
    if labels is None:
        raise UsageError(f"Expected labels of shape {_shown(shape)}. Received: labels=None")
    labels = labels if hasattr(labels, "shape") else np.asarray(labels)
    found = static_shape(labels)
    if found is not None:
        rank = len(found)
        wide = rank == 3 and (found[2] == 1 or classes is None or found[2] in (None, classes))
        if not (rank == 2 or wide) or not _fits(found[:2], shape):
            expected = _shown(shape), _shown((*shape, 1)), _shown((*shape, "vocabulary_size" if classes is None else classes))
            raise UsageError(f"Expected labels of shape {', '.join(expected[:2])} or {expected[2]}. Received: shape {found}")
        if rank == 3 and found[2] == 1 and classes != 1:
            labels = labels[..., 0]
    if weights is None:
        return labels, None
    weights = weights if hasattr(weights, "shape") else np.asarray(weights)
    rows, steps = shape
    found = static_shape(weights)
    if found is None:
        return labels, weights
    if len(found) not in (1, 2) or not _fits(found, (rows, steps)[: len(found)]) and not _fits(found, (rows, 1)):
        expected = _shown((rows,)), _shown((rows, 1)), _shown(shape)
        raise UsageError(f"Expected {name} of shape {', '.join(expected[:2])} or {expected[2]}. Received: shape {found}")
    if len(found) == 1:
        weights = weights[:, None]
    if isinstance(weights, np.ndarray) and isinstance(labels, np.ndarray):
        weights = np.broadcast_to(weights, labels.shape[:2])
    elif len(found) == 1 or found[1] != steps or steps is None:
        weights = ops.broadcast_to(weights, ops.shape(labels)[:2])
    return labels, weights


def check_weights(weights: Any, name: str = "sample_weight") -> None:
    """Raises UsageError where a known weight is negative or not finite; weights inside a trace are not looked at."""
    values = None if weights is None else backend.known(weights)
    if values is None:
        return
    if values.dtype.kind not in "buif" and not np.issubdtype(values.dtype, np.number):
        raise UsageError(f"Expected {name} to be numbers. Received: {values.dtype}")
    bad = ~(np.isfinite(values) & (values >= 0)) if values.dtype.kind in "if" else np.zeros(values.shape, bool)
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise UsageError(f"Expected {name} of finite numbers of at least 0. Received: {values[place]} at index {place}")


def check_targets(labels: Any, weights: Any, shape: Shape, classes: int | None = None) -> None:
    """Checks labels and weights on the host, before the device sees them.

    The shapes of all arrays and tensors are checked, the values of NumPy arrays alone.

    Args:
        labels, weights, shape, classes: as in `align`.

    Raises:
        UsageError: as `align`; a label is not an id below `classes` or a distribution; a weight is negative or not finite.
    """
    aligned, aligned_weights = align(labels, weights, shape, classes)
    if isinstance(weights, np.ndarray):
        check_weights(weights)
    if isinstance(aligned, np.ndarray) and classes is not None:
        check_labels(aligned, classes, "labels", aligned_weights if isinstance(aligned_weights, np.ndarray) else None)


def class_weights(labels: Tensor, class_weight: Mapping[int, float], classes: int | None = None) -> NDArray[np.float32]:
    """The weight of each token by its label.

    Args:
        labels: (b, t) ids or (b, t, v) distributions, whose largest entry counts.
        class_weight: from an id to a weight of at least 0; other ids weigh 1.
        classes: number of ids, or None where it is not known.

    Returns:
        (b, t) float32.

    Raises:
        UsageError: a key is not an id, or a weight is negative or not finite.
    """
    ids = ops.convert_to_numpy(labels)
    ids = ids.argmax(axis=-1) if ids.ndim == 3 else ids
    highest = int(max([0, *ids.flat])) if classes is None else classes - 1
    for label, weight in class_weight.items():
        arguments.integer(0, None if classes is None else highest, **{"class_weight key": label})
        if not (np.isfinite(weight) and weight >= 0):
            raise UsageError(f"Expected class_weight of finite numbers of at least 0. Received: {weight!r} for label {label}")
    table = np.ones(max([highest, *class_weight]) + 1, "float32")
    table[list(class_weight)] = list(class_weight.values())
    return table[np.clip(ids.astype("int64"), 0, len(table) - 1)]


def static_shape(x: Tensor) -> Shape | None:
    """The static shape as a tuple, None where a graph of TensorFlow does not know the rank."""
    try:
        return tuple(x.shape)
    except ValueError:
        return None


def _fits(found: Shape, expected: Shape) -> bool:
    return len(found) == len(expected) and all(a is None or b is None or a == b for a, b in zip(found, expected, strict=True))


def _shown(shape: tuple[Any, ...]) -> str:
    names = ("b", "t")
    sizes = [str(names[i] if size is None and i < 2 else size) for i, size in enumerate(shape)]
    return f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"
