"""What `test_reference.py` computes on two backends: forward pass and decoded tokens of every trainable model."""

import keras
import numpy as np
from keras import ops

from k3seq.decode import BeamSearch, Greedy, Sample
from k3seq.errors import UsageError
from k3seq.models import registry
from k3seq.random import initialize

VOCABULARY, STEPS = 12, 5
SMALL = {
    "lstm": {"units": 8, "embed_dim": 6, "num_layers": 2},
    "lstm-attention": {"units": 8, "embed_dim": 6},
    "transformer": {"embed_dim": 8, "dense_dim": 12, "num_heads": 2, "num_layers": 2, "max_steps": 8},
    "sliding": {"embed_dim": 8, "dense_dim": 12, "num_layers": 2, "width_source": 6, "width_target": 6},
}
INPUTS = {
    "source": np.array([[5, 6, 7, 8], [4, 9, 0, 0], [3, 11, 10, 0]], "int32"),
    "source_lengths": np.array([4, 2, 3], "int32"),
    "target": np.array([[1, 5, 6, 7], [1, 4, 9, 0], [1, 8, 0, 0]], "int32"),
}


def made(kind, seed):
    model = registry.seq2seq(kind, VOCABULARY, VOCABULARY, **SMALL[kind])
    initialize(model, seed)
    for variable in model.trainable_variables:  # larger, so that no two tokens are nearly equal
        variable.assign(2.0 * ops.convert_to_numpy(variable.value))
    return model


def measure_one(kind, seed):
    """{"logits", "greedy", "beam", "sample"} of a model whose weights depend on the seed alone."""
    model = made(kind, seed)
    return {
        "logits": ops.convert_to_numpy(model(INPUTS, training=False)),
        "greedy": Greedy(model, max_steps=STEPS)(INPUTS).tokens,
        "beam": BeamSearch(model, beam_width=3, max_steps=STEPS)(INPUTS).tokens,
        "sample": Sample(model, max_steps=STEPS)(INPUTS, seed=3).tokens,
    }


def measure(payload):
    """{"seed"} -> {kind: what `measure_one` gives}."""
    return {kind: measure_one(kind, payload["seed"]) for kind in registry.TRAINABLE}


def train(payload):
    """-> {name of a way to train: what it raises}."""
    model, raised = made("lstm", 0), {}
    model.compile(keras.optimizers.SGD(0.1))
    batch = INPUTS, INPUTS["target"]
    evaluated = model.evaluate(*batch, verbose=0, return_dict=True)
    for name, call in (("fit", lambda: model.fit(*batch)), ("train_on_batch", lambda: model.train_on_batch(*batch))):
        try:
            call()
        except UsageError as error:
            raised[name] = str(error)
    return {"raised": raised, "evaluated": evaluated}
