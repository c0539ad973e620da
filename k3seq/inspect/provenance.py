"""Provenance of a tensor: the layers that compute it in their order, their weights, and which weights get a gradient.

A Keras tensor records the call that made it and the arguments of that call, back to the inputs. A layer that is not named
when a model is made is found along this chain, and is trained. Here the calls are recorded in one run, also inside layers. What
affects the
result is computed, not derived from the graph: the gradient by differentiation, the rest with NaN. A weight or the output
of a layer is set to NaN; if the result does not change, it does not depend on it.
"""

import collections
import dataclasses
from typing import Any

import keras

from k3seq.backend.keras_internals import own_weights
from k3seq.inspect.nan_run import NaNRun
from k3seq.inspect.subject import Subject
from k3seq.inspect.trace import shapes_text
from k3seq.typing import Nested

GRADIENT, ZERO, UNREACHED, FROZEN = VERDICTS = ("gradient", "zero gradient", "not reached", "not trainable")


@dataclasses.dataclass(frozen=True)
class Weight:
    """One weight: `path`, `shape`, `dtype`, and its effect on the result.

    Attributes:
        trainable: whether an optimizer may change it.
        reached: whether the result changes with it; None for a weight of integers, which is not tried.
        gradient: Euclidean norm of the gradient of a fixed projection of the result; None for integers.
        verdict: one of `VERDICTS`: "not trainable"; "not reached": the result does not depend on it; "zero gradient": the
            result depends on it through `stop_gradient` or an argmax, or it cancels out; "gradient".
    """

    path: str
    shape: tuple
    dtype: str
    trainable: bool
    reached: bool | None
    gradient: float | None

    @property
    def verdict(self) -> str:
        if not self.trainable:
            return FROZEN
        return GRADIENT if self.gradient else ZERO if self.reached else UNREACHED


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer, or of an operation of a functional graph.

    Attributes:
        path, kind: path and class of the layer. depth: number of calls around it.
        origins: origins of its tensors: indices of calls and names of inputs. A tensor that is computed between two layers
            (`x + y` in a `call`) has no origin.
        entered, left: lists of (shape, dtype).
        used: whether the result changes with its output; None where the output holds no floats.
        weights: paths of the weights of the layer itself. Weights of its sub-layers are listed at their calls, or here if the
            layer uses them without a call.
    """

    path: str
    kind: str
    depth: int
    origins: tuple
    entered: list
    left: list
    used: bool | None
    weights: tuple


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The provenance of a result. `str` gives a table, `inspect.draw_provenance` a picture.

    Attributes:
        name: name of the model or tensor. inputs: list of (name, shape, dtype).
        calls: list of `Call`, each before the calls within it.
        weights: list of `Weight` in the order of the calls; weights of layers that were never called come last.
    """

    name: str
    inputs: list
    calls: list
    weights: list

    def __str__(self):
        inputs = ", ".join(f"{name} {shape} {dtype}" for name, shape, dtype in self.inputs)
        counts = collections.Counter(weight.verdict for weight in self.weights)
        total = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]) or "none"
        return "\n".join([f"{self.name}, computed from {inputs}", *_aligned(self._rows()), f"weights: {total}"])

    def _rows(self):
        weights, shown = {weight.path: weight for weight in self.weights}, set()
        yield ["", "layer", "class", "from", "output", "weight", "shape", "gradient"]
        for number, call in enumerate(self.calls):
            note = "NOT USED: " if call.used is False else ""
            more = f", {len(call.left) - 3} more" if len(call.left) > 3 else ""
            origins = ", ".join(map(str, call.origins))
            head = [str(number), "  " * call.depth + call.path, call.kind, origins, note + shapes_text(call.left[:3]) + more]
            if shown.issuperset(call.weights):
                yield [*head, "(shown above)" if call.weights else "", "", ""]
            for path in (path for path in call.weights if path not in shown):
                yield [*head, *_cells(weights[path])]
                head = [""] * len(head)
            shown.update(call.weights)
        for path in (path for path in weights if path not in shown):
            yield ["", "(never called)", "", "", "", *_cells(weights[path])]

    def as_json(self) -> dict[str, Any]:
        """The attributes, and each weight's verdict, as dicts, lists, text and numbers."""
        data = dataclasses.asdict(self)
        for values, weight in zip(data["weights"], self.weights, strict=True):
            values["verdict"] = weight.verdict
        return data


def provenance_of(target: Nested, inputs: Nested = None) -> Provenance:
    """Finds the layers and weights that a tensor or the outputs of a model depend on, and which weights get a gradient.

    The model is compiled once and called about once per call and weight, without training. It is not changed.

    Args:
        target: a tensor (or nested tensors) of the functional API, a model, or a layer.
        inputs: inputs of the call; for a tensor a dict by the names of its `keras.Input`s. None draws them, where the
            target is a tensor or a functional or Sequential model: a batch of 2, 4 for every other unknown size, ids below the
            smallest vocabulary of its embeddings; integers of rank 1 are taken for lengths.

    Returns:
        A `Provenance`. A gradient that is only rounding counts as zero. Calls of one layer by another with the same
        shapes are one entry, so that a loop over steps is shown as its body. In a functional graph each call is one entry.

    Raises:
        UsageError: a tensor that no layer made, a target that needs `inputs`, or a result that holds no floats.
    """
    subject = Subject(target, inputs)
    run = NaNRun(subject)
    norms, found = run.norms(), {}
    for variable in subject.weights:
        norm = norms.get(id(variable))
        reached = None if norm is None else norm > 0 or run.changes_with(variable)
        dtype = keras.backend.standardize_dtype(variable.dtype)
        found[id(variable)] = Weight(variable.path, tuple(variable.shape), dtype, variable.trainable, reached, norm)
    recorded = list(run.calls())
    owners = _owners([record.layer for record, *_ in recorded], {key for key, weight in found.items() if weight.reached})
    calls, listed = [], {}
    for record, origins, used in recorded:
        held = [key for key in owners.get(id(record.layer), ()) if key in found]
        listed |= dict.fromkeys(held)
        paths = tuple(found[key].path for key in held)
        calls.append(Call(record.path, record.kind, record.depth, origins, record.entered, record.left or [], used, paths))
    weights = [found[key] for key in [*listed, *(key for key in found if key not in listed)]]
    return Provenance(subject.name, subject.input_specs, calls, weights)


def _owners(layers, reached):
    """id of a layer -> keys of its weights: its own, and those of sub-layers that were never called. (Keras' LSTM passes the
    weights of its cell to a fused kernel.)"""
    owners = {id(layer): [id(weight) for weight in own_weights(layer)] for layer in layers}
    left = reached.difference(*owners.values())
    for layer in sorted(layers, key=lambda layer: len(getattr(layer, "weights", ()))):
        inside = [id(weight) for weight in getattr(layer, "weights", ()) if id(weight) in left]
        owners[id(layer)] = owners[id(layer)] + inside
        left.difference_update(inside)
    return owners


def _cells(weight):
    norm = f" {weight.gradient:.2e}" if weight.verdict == GRADIENT else ""
    return [weight.path, str(weight.shape), weight.verdict + norm]


def _aligned(rows):
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
