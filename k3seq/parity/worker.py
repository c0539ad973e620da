"""What a backend's process does for the suite: builds a case, measures, trains, decodes, saves and loads it.

Each function takes and returns what `k3seq.runtime.workers` carries. A payload holds the case, its batches and the
weights, so that any
request can be the first of a fresh process; subjects built before are kept under the payload's key.
"""

from collections import OrderedDict
from pathlib import Path

import keras
import numpy as np
from keras import ops, tree

from k3seq import backend
from k3seq.backend.keras_internals import functional_inputs, layers_of
from k3seq.decode import Greedy
from k3seq.errors import UsageError
from k3seq.parity import gradients
from k3seq.parity.case import Case, Spec
from k3seq.parity.gradients import descend
from k3seq.parity.subject import Subject, array, arrays, is_array, named, precision, undrawn_weights

KEPT = 6  # subjects: as many as cases under way, and more
_subjects: OrderedDict = OrderedDict()
OPTIMIZERS = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}


def subject(payload):
    """The subject of a payload {"key", "case", "batches", "dtype", "jit"}, built where it is not kept, with its weights."""
    key = payload["key"]
    if key not in _subjects:
        _subjects[key] = Subject(payload["case"], payload["batches"][0], payload["dtype"], payload["jit"])
        while len(_subjects) > KEPT:
            _subjects.popitem(last=False)
    _subjects.move_to_end(key)
    if "weights" in payload:
        _subjects[key].assign(payload["weights"])
    return _subjects[key]


def build(payload):
    """-> {"table": of weights, "values": {path: first value}, "model", "takes_training", "decodes"}."""
    made = subject(payload)
    return {
        "table": made.table(),
        "values": made.values(),
        "takes_training": made.takes_training,
        "decodes": all(hasattr(made.layer, name) for name in ("start", "step")),
    }


def measure(payload):
    """{"training", "without", "gradients"} -> `gradients.measure`."""
    return gradients.measure(subject(payload), payload["training"], payload["without"], payload["gradients"])


def train(payload):
    """{"optimizer", "steps", "decode"} -> losses of the steps, weights at the end, the optimizer's slots, and decoded tokens.

    A model trains by its own `train_on_batch`, so that what its users run is what is compared.
    """
    made, case, name = subject(payload), payload["case"], payload["optimizer"]
    if not made.layer.trainable_variables:
        return {"losses": None}
    rate, slots = case["rates"][name], None
    with precision(payload["dtype"]):
        if isinstance(made.layer, keras.Model):
            optimizer = OPTIMIZERS[name](rate, name=name)
            losses, slots = _fitted(made, case, optimizer, payload["batches"], payload["steps"])
        else:
            batches = [made.cast({key: batch[key] for key in ("inputs", "call")}) for batch in payload["batches"]]
            training = bool(case["training"]) if made.takes_training else None
            losses = descend(made, name, rate, batches, training, payload["steps"])
    found = {"losses": np.array(losses), "slots": slots, "weights": made.values()}
    return found | ({"decoded": _decoded(made, case)} if payload.get("decode") else {})


def _fitted(made, case, optimizer, batches, steps):
    """(losses, slots after the first step) of `train_on_batch`."""
    model, own = made.layer, case["labels"] == "outputs"
    loss = named(case["loss"]) if ":" in (case["loss"] or "") else case["loss"]
    loss = loss() if isinstance(loss, type) else loss
    model.compile(optimizer, loss="mean_squared_error" if own and loss is None else loss)
    model.optimizer.build(model.trainable_variables)  # or TensorFlow traces the step a second time, with the slots there
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


def decode(payload):
    """-> what decoding gives: {"tokens", "lengths", "scores"}, or what the case's own function returns."""
    return _decoded(subject(payload), payload["case"])


def _decoded(made, case):
    inputs = made.data["inputs"]
    with precision(made.dtype):
        if isinstance(case["decode"], str):
            return arrays(named(case["decode"])(made.layer, inputs))
        if not hasattr(made, "greedy"):
            made.greedy = Greedy(made.layer, **case["decode"])
        return {name: value for name, value in made.greedy(inputs)._asdict().items() if value is not None}


def gaps(payload):
    """{"tokens": (b, steps)} -> (b, steps): how far the best log-probability is ahead of the next, these tokens being given."""
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


def save(payload):
    """{"folder", "name"} -> the weights and outputs of what is written to `folder/name.keras`.

    A bare layer is written inside a functional model. The state that a layer holds is moved by a call first, so that the file
    has something to carry.
    """
    made = subject(payload)
    if made.own_state:
        made.assign({**payload["weights"], **_outputs(made)["state"]})
    written, model = facts(made), made.layer
    if not isinstance(model, keras.Model):
        model = _functional(made)
    model.save(_file(payload["folder"], payload["name"]))
    return written


def load(payload):
    """{"folder", "name"} -> the weights and outputs of what `save` wrote there, on another backend perhaps."""
    made = subject(payload)
    classes = {type(layer).__name__: type(layer) for layer in layers_of(made.layer)}
    with undrawn_weights():
        model = keras.saving.load_model(_file(payload["folder"], payload["name"]), custom_objects=classes)
    whole = isinstance(made.layer, keras.Model)
    layer = model if whole else next(layer for layer in model.layers if type(layer) is type(made.layer))
    return facts(Subject(payload["case"], payload["batches"][0], jit=payload["jit"], like=made, layer=layer))


def facts(made):
    """What a file must carry: the table of weights, their values, and the outputs."""
    return {"table": made.table(), "values": made.values(), "outputs": _outputs(made)["outputs"]}


def _outputs(made):
    # Under XLA with gradients: that program is compiled already, and a compilation costs more than a gradient.
    return gradients.measure(made, False if made.takes_training else None, gradients=backend.describe()["jit"])


def _file(folder, name):
    return Path(folder, f"{name}.keras")


def _functional(made):
    inputs = []

    def symbol(leaf):
        if is_array(leaf):
            inputs.append(keras.Input(batch_shape=tuple(leaf.shape), dtype=keras.backend.standardize_dtype(leaf.dtype)))
            return inputs[-1]
        return leaf

    return keras.Model(inputs, made.call(tree.map_structure(symbol, made.data), None))


def resolve(payload):
    """{"target", "inputs"} -> payloads of the cases that `package.module:name` stands for (see `suite.resolve`)."""
    found = named(payload["target"])
    if isinstance(found, Case):
        return [found.to_payload()]
    if isinstance(found, list | tuple):
        if not found or not all(isinstance(case, Case) for case in found):
            raise UsageError(f"Expected cases in {payload['target']}. Received: {[type(case).__name__ for case in found]}")
        return [case.to_payload() for case in found]
    if not callable(found):
        raise UsageError(f"Expected {payload['target']} to be a case, cases or a factory. Received: {type(found).__name__}")
    given = payload["inputs"]
    if given is None:
        given = getattr(found, "example_inputs", None)
        given = given() if callable(given) else given
    name = payload["target"].rpartition(":")[2]
    return [Case(name, payload["target"], inputs=_own_inputs(found(), name) if given is None else given).to_payload()]


def _own_inputs(layer, name):
    """Specs of a functional model's inputs, 3 rows and 5 steps where it leaves them open."""
    structure = functional_inputs(layer)
    if structure is None:
        raise UsageError(f"Expected the inputs of {name}: --inputs, or an attribute example_inputs of it. Received: neither")
    ids = [part.input_dim for part in layers_of(layer) if isinstance(part, keras.layers.Embedding)]

    def spec(tensor):
        shape = [(3 if axis == 0 else 5) if size is None else size for axis, size in enumerate(tensor.shape)]
        return Spec(shape, tensor.dtype, high=min(ids, default=2) if "int" in tensor.dtype else None)

    return tree.map_structure(spec, structure)
