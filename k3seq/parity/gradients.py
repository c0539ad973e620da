"""Outputs and gradients of a `Subject` in one function, compiled once per mode, and the training of a bare layer with them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from k3seq import backend
from k3seq.parity.subject import Data, Subject, array, arrays, is_array, precision, squared_distance
from k3seq.typing import NDArray, Nested, Tensor


class Gradients:
    """The call of a subject in one mode, as a pure function of weights, inputs and state.

    With gradients it is compiled as the backend does by default: XLA on JAX, a graph on TensorFlow, nothing on torch. Without
    gradients it runs once, and is eager where XLA is not the default. `jit` True or False compiles with or without XLA.

    Args:
        subject: the layer and its data.
        training: argument of the call; None: not passed.
        without: names of call arguments to leave out.
        gradients: False: outputs and state only.
    """

    def __init__(self, subject: Subject, training: bool | None = None, without: Sequence[str] = (), gradients: bool = True):
        self.subject, self.training = subject, training
        self.data = self._inputs({**subject.data, "call": {k: v for k, v in subject.data["call"].items() if k not in without}})
        flat = tree.flatten(self.data)
        places = [i for i, leaf in enumerate(flat) if is_array(leaf)]
        self.targets = subject.targets()
        self.floating = [i for i in places if keras.backend.is_float_dtype(flat[i].dtype)]
        self.rest = [i for i in places if i not in self.floating]
        self.trainable = list(subject.layer.trainable_variables)
        self.gradients = bool(gradients and self.targets and (self.trainable or self.floating))
        function = backend.value_and_grad(self._forward, aux=True) if self.gradients else self._forward
        compiles = self.gradients or subject.jit is not None or backend.describe()["jit"]
        self.run = backend.compiled(function, (), subject.jit) if compiles else function

    def _inputs(self, data: Data) -> dict[str, Any]:
        return {"inputs": data["inputs"], "call": data["call"]}

    def _forward(self, point: Mapping[str, Any], state: Sequence[Tensor], others: Sequence[Tensor]) -> Any:
        flat = tree.flatten(self.data)
        for i, leaf in (*zip(self.floating, point["inputs"], strict=True), *zip(self.rest, others, strict=True)):
            flat[i] = leaf
        subject = self.subject
        mapping = [*zip(self.trainable, point["weights"], strict=True), *zip(subject.state, state, strict=True)]
        with keras.StatelessScope(state_mapping=mapping) as scope, precision(subject.dtype):
            outputs = subject.call(tree.pack_sequence_as(self.data, flat), self.training)
            state = [scope.get_current_value(variable) for variable in subject.state]
        loss = squared_distance(outputs, self.targets) if self.targets else keras.ops.zeros(())
        return loss, (tree.flatten(outputs), state)

    def __call__(
        self, data: Data | None = None, state: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor], Sequence[Tensor], dict[str, list[Tensor]] | None]:
        """(loss, outputs, state afterwards, gradients or None) from the current weights.

        Args:
            data: {"inputs", "call"} of another batch; None: the subject's own.
            state: returned by an earlier call; None: the current one.
        """
        flat = tree.flatten(self.data if data is None else self._inputs(data))
        tensors = {i: keras.ops.convert_to_tensor(flat[i]) for i in (*self.floating, *self.rest)}
        point = {"weights": [v.value for v in self.trainable], "inputs": [tensors[i] for i in self.floating]}
        before = [v.value for v in self.subject.state] if state is None else state
        found = self.run(point, before, [tensors[i] for i in self.rest])
        (loss, (outputs, after)), gradients = found if self.gradients else (found, None)
        return loss, outputs, after, gradients

    def input_names(self) -> list[str]:
        """The places of the floating inputs, such as `inputs` or `call/initial_state/0`."""
        places = ["/".join(str(key) for key in place) for place, _ in tree.flatten_with_path(self.data)]
        return [places[i] for i in self.floating]


def gradients_of(
    subject: Subject, training: bool | None = None, without: Iterable[str] = (), gradients: bool = True
) -> Gradients:
    """The `Gradients` of a subject in one mode, made at the first call and kept."""
    key = (training, tuple(without), gradients)
    if key not in subject.compiled:
        subject.compiled[key] = Gradients(subject, training, key[1], gradients)
    return subject.compiled[key]


def measure(
    subject: Subject, training: bool | None = None, without: Iterable[str] = (), gradients: bool = True
) -> dict[str, dict[str, NDArray[Any]]]:
    """Outputs, gradients of the loss, and the state afterwards.

    A layer with a state of its own (a context, a moving mean) is called twice, the second time from the new state.

    Args:
        subject, training, without, gradients: see `Gradients`.

    Returns:
        {"outputs": {place: array}, "again": outputs of the second call, "state": {path: array}} and, where there are gradients,
        "weights": {path: gradient} and "inputs": {place: gradient}.
    """
    function, calls, state, found = gradients_of(subject, training, without, gradients), [], None, None
    for _ in range(2 if subject.own_state else 1):
        _, outputs, state, found = function(state=state)
        calls.append(arrays(tree.pack_sequence_as(subject.spec, outputs)))
    own = {id(variable) for variable in subject.own_state}
    kept = {v.path: array(x) for v, x in zip(subject.state, state or (), strict=True) if id(v) in own}
    measured = {"outputs": calls[0], "again": calls[1] if len(calls) > 1 else {}, "state": kept}
    if found is not None:
        measured["weights"] = {v.path: array(g) for v, g in zip(function.trainable, found["weights"], strict=True)}
        measured["inputs"] = dict(zip(function.input_names(), map(array, found["inputs"]), strict=True))
    return measured


def train_layer(
    subject: Subject, optimizer: str, rate: float, batches: Sequence[Nested], training: bool | None, steps: int
) -> list[float]:
    """Trains a bare layer on the squared distance of its outputs to random targets.

    A bare layer has no train step, so its gradient along the way is compared: NumPy updates the weights on every backend.

    Args:
        subject: the layer.
        optimizer: a name of `UPDATES`.
        rate: learning rate.
        batches: {"inputs", "call"} of each, used in turn.
        training: mode of the call.
        steps: number of steps.

    Returns:
        The losses.
    """
    function, losses, moments = gradients_of(subject, training), [], {}
    values = [array(v.value) for v in function.trainable]
    for step in range(steps):
        loss, _, state, gradients = function(batches[step % len(batches)])
        losses.append(float(loss))
        for index, gradient in enumerate(gradients["weights"] if gradients else ()):
            change, moments[index] = UPDATES[optimizer](array(gradient), moments.get(index), step + 1)
            values[index] = values[index] - np.asarray(rate, values[index].dtype) * change
        for variable, value in zip([*function.trainable, *subject.state], [*values, *state], strict=True):
            variable.assign(value)
    return losses


Moments = tuple[NDArray[Any], NDArray[Any]] | None


def _sgd(gradient: NDArray[Any], moments: Moments, step: int) -> tuple[NDArray[Any], Moments]:
    return gradient, moments


def _adam(gradient: NDArray[Any], moments: Moments, step: int) -> tuple[NDArray[Any], Moments]:
    """Kingma and Ba 2015 (https://arxiv.org/abs/1412.6980), algorithm 1, with Keras' defaults."""
    m, v = (np.zeros_like(gradient), np.zeros_like(gradient)) if moments is None else moments
    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient * gradient
    return (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-7), (m, v)


UPDATES: dict[str, Callable[[NDArray[Any], Moments, int], tuple[NDArray[Any], Moments]]] = {"sgd": _sgd, "adam": _adam}
