"""Records the calls of every layer inside a case's layer, in order, inside a worker process; `bisect` compares them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
from keras import tree

from k3seq.parity.subject import arrays
from k3seq.parity.worker import subject
from k3seq.typing import NDArray, Nested


def trace(payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The calls of an eager run: [{"layer", "class", "inputs", "arguments", "outputs"}], the last three lists of arrays.

    Calls are in the order in which they end, so that a layer comes after the layers that it contains.

    Args:
        payload: of `worker.subject`, with "training" and "without".
    """
    made = subject(payload)
    data = {**made.data, "call": {k: v for k, v in made.data["call"].items() if k not in payload["without"]}}
    with recorded() as calls:
        made.outputs(data, payload["training"])
    return calls


@contextmanager
def recorded() -> Iterator[list[dict[str, Any]]]:
    """The list of the calls of any layer inside."""
    calls, original = [], keras.layers.Layer.__call__

    def call(self: keras.layers.Layer, *args: Any, **kwargs: Any) -> Nested:
        outputs = original(self, *args, **kwargs)
        if not any(isinstance(leaf, keras.KerasTensor) for leaf in tree.flatten(outputs)):
            seen = {"inputs": _concrete(args), "arguments": _concrete(kwargs), "outputs": _concrete(outputs)}
            calls.append({"layer": self.path or self.name, "class": type(self).__name__, **seen})
        return outputs

    keras.layers.Layer.__call__ = call
    try:
        yield calls
    finally:
        keras.layers.Layer.__call__ = original


def _concrete(value: Nested) -> list[NDArray[Any]]:
    """The arrays of a structure, without tensors that a loop of the backend is still tracing."""
    found = []
    for leaf in tree.flatten(value):
        if not keras.ops.is_tensor(leaf) and not hasattr(leaf, "__array__"):
            continue
        try:
            found.append(arrays(leaf)["output"])
        except (TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError):  # raised by traced tensors
            continue
    return found
