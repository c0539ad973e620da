"""A model whose every answer stands in a table that comes with the source, so that one compiled program decodes many models."""

import numpy as np
from keras import ops

from oracles import sequences

STATES, SOURCE = 61, 3
START, END = 0, 2


class TableModel:
    """Reads logits and attention from the row's tables, at a place that all tokens so far decide."""

    variables = ()

    def start(self, inputs):
        return {
            "place": ops.zeros_like(inputs["source"][:, 0]),
            "table": inputs["table"],
            "attention": inputs["attention"],
            "alignments": ops.zeros_like(inputs["attention"][:, 0]),
        }

    def step(self, tokens, state):
        place = (state["place"] * 7 + tokens + 1) % STATES
        rows = ops.arange(state["table"].shape[0], dtype="int32") * STATES + place

        def looked_up(table):
            return ops.take(ops.reshape(table, (-1, table.shape[-1])), rows, axis=0)

        return looked_up(state["table"]), {**state, "place": place, "alignments": looked_up(state["attention"])}


def tables(rng, rows, vocabulary):
    """The inputs of `rows` random models; their sources have 1 to 3 positions."""
    lengths = rng.integers(1, SOURCE + 1, rows).astype("int32")
    lengths[0] = SOURCE
    attention = rng.random((rows, STATES, SOURCE)) * (np.arange(SOURCE) < lengths[:, None])[:, None] + 1e-9
    liking = rng.normal(0, 1, (rows, 1, vocabulary))  # for some tokens at all times, so that they come again
    return {
        "source": np.zeros((rows, SOURCE), "int32"),
        "source_lengths": lengths,
        "table": (liking + rng.normal(0, 2, (rows, STATES, vocabulary))).astype("float32"),
        "attention": (attention / attention.sum(axis=-1, keepdims=True)).astype("float32"),
    }


def oracle_model(inputs, row):
    """The oracle's form of one row's model."""

    def place(tokens):
        found = 0
        for token in (START, *tokens):
            found = (found * 7 + token + 1) % STATES
        return found

    table, attention = inputs["table"][row].astype("float64"), inputs["attention"][row].astype("float64")
    return sequences.Model(
        lambda tokens: table[place(tokens)],
        lambda tokens: attention[place(tokens)],
        table.shape[-1],
        END,
        int(inputs["source_lengths"][row]),
    )


def padded(tokens, steps):
    """A hypothesis as a decoder returns it: filled up with the end token."""
    return list(tokens) + [END] * (steps - len(tokens))
