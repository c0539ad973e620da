"""Makers of subjects that Keras runs: train steps, decoding, a layer's call with its gradients. A row's process imports this.

The layer or model is built as parity builds it (`k3seq.parity.subject`); its weights come from `running.Weights`.
"""

from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from k3seq import backend
from k3seq.bench.running import Running, Weights
from k3seq.decode import BeamSearch, Greedy
from k3seq.errors import UsageError
from k3seq.parity.gradients import Gradients
from k3seq.parity.subject import Subject, named
from k3seq.train import losses
from k3seq.typing import Shape, Tensor


def train(payload: dict[str, Any]) -> Running:
    """A model's own `train_on_batch` under Adam, with the batch on the host, as in `k3seq train`."""
    made, case, batch = _subject(payload), payload["case"], payload["batch"]
    model = made.layer
    if not isinstance(model, keras.Model):
        raise UsageError(f"Expected {case['factory']} to return a keras.Model to train. Received: {type(model).__name__}")
    own = isinstance(case["labels"], str)  # "outputs"
    labels = tree.pack_sequence_as(made.spec, made.targets()) if own else batch["labels"]
    loss = named(case["loss"])() if ":" in (case["loss"] or "") else case["loss"]
    loss = "mean_squared_error" if own and loss is None else loss
    model.compile(keras.optimizers.Adam(case["rates"]["adam"]), loss=loss, jit_compile=bool(payload["jit"]))
    last = min(model.trainable_variables, key=lambda variable: int(np.prod(variable.shape)))  # one program makes all of them

    def step():
        return model.train_on_batch(batch["inputs"], labels, sample_weight=batch["sample_weight"], return_dict=True)["loss"]

    return Running(step, lambda _: backend.synchronize(last.value), float, _about())


def decode(payload: dict[str, Any]) -> Running:
    """A model's `start` and `step` under `k3seq.decode`: greedy, or with `options["beams"]` beam search."""
    made, options = _subject(payload), {**(payload["case"]["decode"] or {})}
    beams = payload["options"].get("beams", 1)
    make = Greedy if beams == 1 else partial(BeamSearch, beam_width=beams, n_best=1)
    search = make(made.layer, **options, jit=payload["jit"])
    inputs = {key: value for key, value in payload["batch"]["inputs"].items() if key != "target"}

    def tokens(decoded):
        """Of the best hypotheses, the end token among them."""
        lengths = decoded.lengths if beams == 1 else decoded.lengths[:, 0]
        return float(np.minimum(lengths + 1, options["max_steps"]).sum())

    def score(decoded):
        return float(np.mean(decoded.scores if beams == 1 else decoded.scores[:, 0]))

    return Running(lambda: search(inputs), lambda _: None, score, _about(), tokens)


def layer(payload: dict[str, Any]) -> Running:
    """A layer's call and the gradients of all its weights and inputs, from tensors that are on the device."""
    made = _subject(payload)
    gradients = Gradients(made, True if made.takes_training and payload["case"]["training"] else None)
    flat = [ops.convert_to_tensor(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in tree.flatten(gradients.data)]
    point = {"weights": [v.value for v in gradients.trainable], "inputs": [flat[i] for i in gradients.floating]}
    state, rest = [v.value for v in made.state], [flat[i] for i in gradients.rest]

    def step():
        (loss, _), found = gradients.run(point, state, rest)
        return loss, found

    def number(value):
        """The loss and the norm of all gradients: it shows a wrong gradient too."""
        loss, gradients = value
        norms = [np.linalg.norm(ops.convert_to_numpy(leaf)) for leaf in tree.flatten(gradients)]
        return float(ops.convert_to_numpy(loss)) + float(np.linalg.norm(norms))

    return Running(step, backend.synchronize, number, _about())


class OutputLoss(keras.layers.Layer):
    """The output layer of k3seq's models and the token loss over it: (b, t, d) and labels (b, t) -> the mean loss.

    Args:
        vocabulary: of the output layer.
        chunks: number of parts for `k3seq.train.losses.chunked_token_crossentropy`; 0 computes all logits at once.
    """

    def __init__(self, vocabulary: int, chunks: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.vocabulary, self.chunks = vocabulary, chunks

    def build(self, outputs_shape: Shape, labels_shape: Shape | None = None) -> None:
        self.kernel = self.add_weight(name="kernel", shape=(outputs_shape[-1], self.vocabulary))
        self.bias = self.add_weight(name="bias", shape=(self.vocabulary,), initializer="zeros")

    def call(self, outputs: Tensor, labels: Tensor) -> Tensor:
        kernel, bias = ops.convert_to_tensor(self.kernel), ops.convert_to_tensor(self.bias)
        if self.chunks:
            return losses.chunked_token_crossentropy(outputs, kernel, bias, labels, chunks=self.chunks)
        return losses.token_crossentropy(labels, backend.affine(outputs, kernel, bias))


def _subject(payload):
    case = payload["case"]
    made, weights = Subject(case, payload["batch"], jit=payload["jit"]), Weights(case["seed"])
    for variable in made.layer.trainable_variables:
        if len(variable.shape) > 1:
            variable.assign(weights.draw(*(int(n) for n in variable.shape)))
    return made


def _about():
    described = backend.describe()
    return {name: described[name] for name in ("backend", "version", "keras", "devices")}
