"""A hand-written training loop that runs on JAX, TensorFlow and PyTorch, without `fit` and `train_step`.

    KERAS_BACKEND=jax python examples/training_loop.py --steps 100

The loss is a pure function of the weights (`stateless_call` uses them for one call), so `k3seq.backend.value_and_grad`
differentiates it on every backend. Two things are easily forgotten in such loops: `training=True`, and the variables that are
not trainable (dropout's state, batch statistics).
"""

import argparse

import keras
import numpy as np

from k3seq.backend import compiled, value_and_grad
from k3seq.models import LSTMSeq2Seq
from k3seq.random import Stream, initialize
from k3seq.train import token_crossentropy

START, SYMBOLS, LENGTH = 1, 8, 4


def batch(stream, rows=64):
    """Rows of symbols 2..9 to copy: (source, target, labels), the target one step behind the labels."""
    labels = stream.integers(2, 2 + SYMBOLS, (rows, LENGTH)).astype("int32")
    return labels, np.concatenate([np.full((rows, 1), START, "int32"), labels[:, :-1]], axis=1), labels


def main(arguments=None):
    """Trains; returns {"losses": the loss of each step, "accuracy": the share of correct tokens in new rows}."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    steps = parser.parse_args(arguments).steps

    model = initialize(LSTMSeq2Seq(2 + SYMBOLS, 2 + SYMBOLS, embed_dim=16, units=32, dropout=0.1), seed=0)
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)

    def loss(weights, others, source, target, labels):
        logits, others = model.stateless_call(weights, others, [source, target], training=True)
        return token_crossentropy(labels, logits), others

    differentiate = compiled(value_and_grad(loss, aux=True))
    stream, losses = Stream(0, "training loop"), []
    for _ in range(steps):
        weights = [variable.value for variable in model.trainable_variables]
        others = [variable.value for variable in model.non_trainable_variables]
        (value, others), gradients = differentiate(weights, others, *batch(stream))
        optimizer.apply(gradients, model.trainable_variables)
        for variable, other in zip(model.non_trainable_variables, others, strict=True):
            variable.assign(other)
        losses.append(float(value))

    source, target, labels = batch(stream, rows=256)
    best = keras.ops.convert_to_numpy(model([source, target])).argmax(-1)
    accuracy = float((best == labels).mean())
    print(
        f"{keras.backend.backend()}: loss {losses[0]:.4f} -> {losses[-1]:.4f}, {accuracy:.1%} of the tokens of new rows correct"
    )
    return {"losses": losses, "accuracy": accuracy}


if __name__ == "__main__":
    main()
