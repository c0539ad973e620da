"""Outputs and gradients of a `Subject` in one function, compiled once per mode, and the training of a bare layer on it."""

import keras
import numpy as np
from keras import tree

from k3seq import backend
from k3seq.parity.subject import array, arrays, is_array, precision, squared


class Gradients:
    """A subject's call in one mode as a pure function of weights, inputs and state.

    With gradients it is compiled as the backend does by default: XLA on JAX, a graph on TensorFlow, nothing on torch. Without,
    it runs once, and is eager where XLA is not the default. `jit` True or False compiles with XLA or without.

    Args:
        subject: a `Subject`. training: as the layer takes it; None: not given. without: names of call arguments to leave out.
        gradients: False: outputs and state alone.
    """

    def __init__(self, subject, training=None, without=(), gradients=True):
        self.subject, self.training = subject, training
        self.data = self._parts({**subject.data, "call": {k: v for k, v in subject.data["call"].items() if k not in without}})
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

    def _parts(self, data):
        return {"inputs": data["inputs"], "call": data["call"]}

    def _forward(self, point, state, others):
        flat = tree.flatten(self.data)
        for i, leaf in (*zip(self.floating, point["inputs"], strict=True), *zip(self.rest, others, strict=True)):
            flat[i] = leaf
        subject = self.subject
        mapping = [*zip(self.trainable, point["weights"], strict=True), *zip(subject.state, state, strict=True)]
        with keras.StatelessScope(state_mapping=mapping) as scope, precision(subject.dtype):
            outputs = subject.call(tree.pack_sequence_as(self.data, flat), self.training)
            state = [scope.get_current_value(variable) for variable in subject.state]
        loss = squared(outputs, self.targets) if self.targets else keras.ops.zeros(())
        return loss, (tree.flatten(outputs), state)

    def __call__(self, data=None, state=None):
        """(loss, outputs, state afterwards, gradients or None) from the weights as they stand.

        Args:
            data: {"inputs", "call"} of another batch. state: of an earlier call; None: as it stands.
        """
        flat = tree.flatten(self.data if data is None else self._parts(data))
        tensors = {i: keras.ops.convert_to_tensor(flat[i]) for i in (*self.floating, *self.rest)}
        point = {"weights": [v.value for v in self.trainable], "inputs": [tensors[i] for i in self.floating]}
        state = [v.value for v in self.subject.state] if state is None else state
        found = self.run(point, state, [tensors[i] for i in self.rest])
        (loss, (outputs, state)), gradients = found if self.gradients else (found, None)
        return loss, outputs, state, gradients

    def input_names(self):
        """The places of the floating inputs, such as `inputs` or `call/initial_state/0`."""
        places = ["/".join(str(key) for key in place) for place, _ in tree.flatten_with_path(self.data)]
        return [places[i] for i in self.floating]


def slopes_of(subject, training=None, without=(), gradients=True):
    """The `Gradients` of a subject's mode, made at the first call."""
    key = (training, tuple(without), gradients)
    if key not in subject.compiled:
        subject.compiled[key] = Gradients(subject, training, without, gradients)
    return subject.compiled[key]


def measure(subject, training=None, without=(), gradients=True):
    """Outputs, gradients of the loss, and the state afterwards.

    Where the state is the layer's own (a context, a moving mean) it is called twice, the second time from the new state.

    Returns:
        {"outputs": {place: array}, "again": {place: array}, "state": {path: array}, "weights": {path: gradient},
        "inputs": {place: gradient}}, the last two where there are gradients.
    """
    run, calls, state, gradients = slopes_of(subject, training, without, gradients), [], None, None
    for _ in range(2 if subject.own_state else 1):
        _, outputs, state, gradients = run(state=state)
        calls.append(arrays(tree.pack_sequence_as(subject.spec, outputs)))
    own = {id(variable) for variable in subject.own_state}
    kept = {v.path: array(x) for v, x in zip(subject.state, state, strict=True) if id(v) in own}
    measured = {"outputs": calls[0], "again": calls[1] if len(calls) > 1 else {}, "state": kept}
    if gradients is not None:
        measured["weights"] = {v.path: array(g) for v, g in zip(run.trainable, gradients["weights"], strict=True)}
        measured["inputs"] = dict(zip(run.input_names(), map(array, gradients["inputs"]), strict=True))
    return measured


def descend(subject, optimizer, rate, batches, training, steps):
    """Trains a bare layer on the squared distance of its outputs to random targets.

    It has no train step of its own, so what is compared is its gradient on the way: the update is NumPy's, on every backend.

    Args:
        subject: a `Subject`. optimizer: a name of `UPDATES`. rate: of learning. batches: [{"inputs", "call"}], gone round.
        training: mode. steps: how many.

    Returns:
        The losses, a list.
    """
    run, losses, moments = slopes_of(subject, training), [], {}
    values = [array(v.value) for v in run.trainable]
    for step in range(steps):
        loss, _, state, gradients = run(batches[step % len(batches)])
        losses.append(float(loss))
        for index, slope in enumerate(gradients["weights"]):
            change, moments[index] = UPDATES[optimizer](array(slope), moments.get(index), step + 1)
            values[index] = values[index] - np.asarray(rate, values[index].dtype) * change
        for variable, value in zip([*run.trainable, *subject.state], [*values, *state], strict=True):
            variable.assign(value)
    return losses


def _sgd(slope, moments, step):
    return slope, None


def _adam(slope, moments, step):
    """Kingma and Ba 2015 (https://arxiv.org/abs/1412.6980), algorithm 1, with Keras' defaults."""
    m, v = (np.zeros_like(slope), np.zeros_like(slope)) if moments is None else moments
    m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope * slope
    return (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-7), (m, v)


UPDATES = {"sgd": _sgd, "adam": _adam}
