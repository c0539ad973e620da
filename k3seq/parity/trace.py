"""The calls of every layer inside a case's layer, in order, as the worker's part of `bisect`."""

from contextlib import contextmanager

import keras
from keras import tree

from k3seq.parity.subject import arrays
from k3seq.parity.worker import subject


def trace(payload):
    """{"training", "without"} -> the calls of an eager run: [{"layer", "class", "inputs": {place: array}, "outputs"}].

    A call stands where it ended, so that a layer comes behind the layers that it is made of.
    """
    made = subject(payload)
    data = {**made.data, "call": {k: v for k, v in made.data["call"].items() if k not in payload["without"]}}
    with recorded() as calls:
        made.outputs(data, payload["training"])
    return calls


@contextmanager
def recorded():
    """The list of the calls that any layer gets inside."""
    calls, original = [], keras.layers.Layer.__call__

    def call(self, *args, **kwargs):
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


def _concrete(value):
    """The arrays of a structure; those that a loop of the backend is still tracing have none."""
    found = []
    for leaf in tree.flatten(value):
        if not keras.ops.is_tensor(leaf) and not hasattr(leaf, "__array__"):
            continue
        try:
            found.append(arrays(leaf)["output"])
        except (TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError):  # what tracers of the three raise
            continue
    return found
