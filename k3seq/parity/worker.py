"""The requests that a backend's worker process answers: build a case, measure, train, decode, save and load it.

Each function takes and returns what `k3seq.runtime.workers` can send. A payload holds the case, its batches and the weights, so
that any request can be the first one of a fresh process. Subjects that were built before are kept under the payload's key.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from k3seq import backend
from k3seq.backend.keras_internals import functional_inputs, layers_of
from k3seq.decode import Greedy
from k3seq.errors import UsageError
from k3seq.parity import gradients
from k3seq.parity.case import Case, Spec
from k3seq.parity.gradients import train_layer
from k3seq.parity.subject import Subject, array, arrays, is_array, named, precision, undrawn_weights
from k3seq.runtime import factories
from k3seq.typing import NDArray, Nested

Payload = Mapping[str, Any]
KEPT = 6  # subjects: more than the cases that run at a time
_subjects: OrderedDict[str, Subject] = OrderedDict()
OPTIMIZERS = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}


def subject(payload: Payload) -> Subject:
    """The subject of a payload {"key", "case", "batches", "dtype", "jit"} with its "weights"; built where it is not kept."""
    key = payload["key"]
    if key not in _subjects:
        _subjects[key] = Subject(payload["case"], payload["batches"][0], payload["dtype"], payload["jit"])
        while len(_subjects) > KEPT:
            _subjects.popitem(last=False)
    _subjects.move_to_end(key)
    if "weights" in payload:
        _subjects[key].assign(payload["weights"])
    return _subjects[key]


def build(payload: Payload) -> dict[str, Any]:
    """Returns {"table": of weights, "values": {path: initial value}, "takes_training"}."""
    made = subject(payload)
    return {"table": made.table(), "values": made.values(), "takes_training": made.takes_training}


def measure(payload: Payload) -> dict[str, Any]:
    """Returns `gradients.measure` for {"training", "without", "gradients"}."""
    return gradients.measure(subject(payload), payload["training"], payload["without"], payload["gradients"])


def train(payload: Payload) -> dict[str, Any]:
    """Trains for {"optimizer", "steps", "decode"}.

    A model trains by its own `train_on_batch`, because that is what its users run.

    Returns:
        {"losses": of the steps, "weights": at the end, "slots": the optimizer's variables after the first step, "decoded"}; the
        losses are None where there are no weights, the slots where it is a bare layer.
    """
    made, case, name = subject(payload), payload["case"], payload["optimizer"]
    if not made.layer.trainable_variables:
        return {"losses": None}
    rate, slots = case["rates"][name], None
    with precision(payload["dtype"]):
        if isinstance(made.layer, keras.Model):
            optimizer = OPTIMIZERS[name](rate, name=name)
            losses, slots = _train_model(made, case, optimizer, payload["batches"], payload["steps"])
        else:
            batches = [made.cast({key: batch[key] for key in ("inputs", "call")}) for batch in payload["batches"]]
            training = bool(case["training"]) if made.takes_training else None
            losses = train_layer(made, name, rate, batches, training, payload["steps"])
    found = {"losses": np.array(losses), "slots": slots, "weights": made.values()}
    return found | ({"decoded": _decoded(made, case)} if payload.get("decode") else {})


def _train_model(
    made: Subject, case: Payload, optimizer: Any, batches: Sequence[Payload], steps: int
) -> tuple[list[float], dict[str, NDArray[Any]]]:
    """(losses, slots after the first step) of `train_on_batch`."""
    model, own = made.layer, case["labels"] == "outputs"
    loss = named(case["loss"]) if ":" in (case["loss"] or "") else case["loss"]
    loss = loss() if isinstance(loss, type) else loss
    model.compile(optimizer, loss="mean_squared_error" if own and loss is None else loss)
    model.optimizer.build(model.trainable_variables)  # otherwise TensorFlow traces the step again once the slots exist
    targets = tree.pack_sequence_as(tree.map_structure(lambda spec: None, made.spec), made.targets()) if own else None
    losses, slots = [], {}
    for step in range(steps):
        batch = batches[step % len(batches)]
        labels = targets if own else batch["labels"]
        model.reset_metrics()
        logs = model.train_on_batch(made.cast(batch["inputs"]), labels, sample_weight=batch["sample_weight"], return_dict=True)
        losses.append(float(logs["loss"]))
        if step == 0:
            slots = {variable.path: array(variable.value) for variable in optimizer.variables}
    return losses, slots


def decode(payload: Payload) -> dict[str, NDArray[Any]]:
    """Returns {"tokens", "lengths", "scores"}, or what the case's own function returns."""
    return _decoded(subject(payload), payload["case"])


def _decoded(made: Subject, case: Payload) -> dict[str, NDArray[Any]]:
    inputs = made.data["inputs"]
    with precision(made.dtype):
        if isinstance(case["decode"], str):
            return arrays(named(case["decode"])(made.layer, inputs))
        if "greedy" not in made.compiled:
            made.compiled["greedy"] = Greedy(made.layer, **case["decode"])
        return {name: value for name, value in made.compiled["greedy"](inputs)._asdict().items() if value is not None}


def gaps(payload: Payload) -> NDArray[Any]:
    """For {"tokens": (b, steps)} the differences of the two best log-probabilities at each step, (b, steps)."""
    made, found = subject(payload), []
    options = {"start": 1, **payload["case"]["decode"]}
    with precision(made.dtype):
        inputs = tree.map_structure(ops.convert_to_tensor, made.data["inputs"])
        state, token = made.layer.start(inputs), np.full(len(payload["tokens"]), options["start"], "int32")
        for step in range(payload["tokens"].shape[1]):
            logits, state = made.layer.step(ops.convert_to_tensor(token), state)
            best = np.sort(array(ops.log_softmax(ops.cast(logits, "float32"), axis=-1)), axis=-1)[:, -2:]
            found.append(best[:, 1] - best[:, 0])
            token = payload["tokens"][:, step].astype("int32")
    return np.stack(found, axis=1)


def save(payload: Payload) -> dict[str, Any]:
    """Writes `folder/name.keras` for {"folder", "name"} and returns its `contents`.

    A bare layer is saved inside a functional model. If the layer has a state of its own, a call changes it first, so that the
    file does not only hold initial values.
    """
    made = subject(payload)
    if made.own_state:
        made.assign({**payload["weights"], **_outputs(made)["state"]})
    written, model = contents(made), made.layer
    if not isinstance(model, keras.Model):
        model = _functional(made)
    model.save(_file(payload))
    return written


def load(payload: Payload) -> dict[str, Any]:
    """Loads what `save` wrote for {"folder", "name"}, perhaps on another backend, and returns its `contents`."""
    made = subject(payload)
    classes = {type(layer).__name__: type(layer) for layer in layers_of(made.layer)}
    with undrawn_weights():
        model: Any = keras.saving.load_model(_file(payload), custom_objects=classes)
    whole = isinstance(made.layer, keras.Model)
    layer = model if whole else next(layer for layer in model.layers if type(layer) is type(made.layer))
    return contents(Subject(payload["case"], payload["batches"][0], jit=payload["jit"], like=made, layer=layer))


def contents(made: Subject) -> dict[str, Any]:
    """What a file must preserve: the table of weights, their values, and the outputs."""
    return {"table": made.table(), "values": made.values(), "outputs": _outputs(made)["outputs"]}


def _outputs(made: Subject) -> dict[str, Any]:
    # Under XLA with gradients, because that program is compiled already and a compilation costs more than a gradient.
    return gradients.measure(made, False if made.takes_training else None, gradients=backend.describe()["jit"])


def _file(payload: Payload) -> Path:
    return Path(payload["folder"], f"{payload['name']}.keras")


def _functional(made: Subject) -> keras.Model:
    inputs = []

    def symbol(leaf: Any) -> Any:
        if is_array(leaf):
            inputs.append(keras.Input(batch_shape=tuple(leaf.shape), dtype=keras.backend.standardize_dtype(leaf.dtype)))
            return inputs[-1]
        return leaf

    data: Any = tree.map_structure(symbol, made.data)
    return keras.Model(inputs, made.call(data, None))


def unknown_factories(payload: Payload) -> list[str]:
    """For {"factories"} the errors of those that cannot be imported."""
    errors = []
    for factory in payload["factories"]:
        try:
            named(factory)
        except UsageError as error:
            errors.append(str(error))
    return errors


def resolve(payload: Payload) -> list[dict[str, Any]]:
    """For {"target", "inputs"} the payloads of the cases that `package.module:name` stands for (see `suite.resolve`)."""
    target, found = payload["target"], named(payload["target"])
    if isinstance(found, Case):
        return [found.to_payload()]
    if isinstance(found, list | tuple):
        if not found or not all(isinstance(case, Case) for case in found):
            raise UsageError(f"Expected cases in {target}. Received: {[type(case).__name__ for case in found]}")
        return [case.to_payload() for case in found]
    if not callable(found):
        raise UsageError(f"Expected {target} to be a case, cases or a factory. Received: {type(found).__name__}")
    with undrawn_weights():
        layer = factories.call(found, target, "a Keras layer or model")
    if not isinstance(layer, keras.layers.Layer):
        raise UsageError(f"Expected {target} to return a Keras layer or model. Received: {type(layer).__name__}")
    given: Any = payload["inputs"]
    if given is None:
        given = getattr(found, "example_inputs", None)
        given = given() if callable(given) else given
    name = target.rpartition(":")[2]
    return [Case(name, target, inputs=_inputs_of(layer, name) if given is None else given).to_payload()]


def _inputs_of(layer: Any, name: str) -> Nested:
    """Specs of the inputs of a functional model; open sizes become 3 rows and 5 steps."""
    structure = functional_inputs(layer)
    if structure is None:
        raise UsageError(f"Expected the inputs of {name}: --inputs, or an attribute example_inputs of it. Received: neither")
    ids = [part.input_dim for part in layers_of(layer) if isinstance(part, keras.layers.Embedding)]

    def spec(tensor: Any) -> Spec:
        shape = tuple((3 if axis == 0 else 5) if size is None else size for axis, size in enumerate(tensor.shape))
        return Spec(shape, tensor.dtype, high=min(ids, default=2) if "int" in tensor.dtype else None)

    return tree.map_structure(spec, structure)
