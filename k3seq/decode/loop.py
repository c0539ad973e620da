"""The decoding loop: compiled once per shape of the inputs, ends as soon as every row has ended."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from k3seq import backend
from k3seq.errors import UsageError


class Decoded(NamedTuple):
    """What decoding gives, as NumPy arrays.

    tokens: (b, max_steps) int32, the end token included and repeated to fill the row.
    lengths: (b,) int32, tokens before the end token.
    scores: (b,) float32, sum of the log-probabilities of the tokens up to and with the end token.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    scores: np.ndarray


class Greedy:
    """Takes the most probable token at each step; of equals, the one with the lowest id.

    Args:
        model: has `start(inputs) -> state`, `step(tokens, state) -> (logits, state)` and `variables`.
        max_steps: longest result, in tokens.
        start, end: ids of the start and the end token.
        jit: compile with XLA; None: the backend's default.

    Raises:
        UsageError: when max_steps is not positive, or (at the call) a token is outside the vocabulary.

    Example:
        decode = Greedy(model, max_steps=20)
        tokens, lengths, scores = decode({"source": source, "source_lengths": lengths})
    """

    def __init__(self, model, max_steps, start=1, end=2, jit=None):
        if max_steps < 1:
            raise UsageError(f"Expected max_steps of at least 1. Received: max_steps={max_steps}")
        if start < 0 or end < 0:
            raise UsageError(f"Expected start and end tokens of at least 0. Received: start={start}, end={end}")
        self.model, self.max_steps, self.start, self.end = model, max_steps, start, end
        self._run = backend.compiled(self._loop, model.variables, jit)

    def __call__(self, inputs):
        """Decodes a batch: inputs as the model's `start` takes them. Returns `Decoded`.

        Raises:
            UsageError: from the model's `check(inputs)`, where it has one.
        """
        if hasattr(self.model, "check"):
            self.model.check(inputs)
        return Decoded(*(keras.ops.convert_to_numpy(value) for value in self._run(inputs)))

    def compilations(self):
        """How often the loop was compiled: once per shape of the inputs, 0 on a backend that runs eagerly."""
        return self._run.compilations()

    def _loop(self, inputs):
        state = self.model.start(inputs)
        source = inputs["source"] if isinstance(inputs, dict) else inputs
        batch = ops.shape(source)[0]
        positions = ops.arange(self.max_steps, dtype="int32")[None, :]
        end = ops.full((batch, self.max_steps), self.end, dtype="int32")
        token = ops.full((batch,), self.start, dtype="int32")
        scores = ops.zeros((batch,), "float32")
        finished = ops.zeros((batch,), "bool")

        def unfinished(index, tokens, token, scores, finished, state):
            return ops.logical_and(index < self.max_steps, ops.logical_not(ops.all(finished)))

        def advance(index, tokens, token, scores, finished, state):
            logits, state = self.model.step(token, state)
            if not max(self.start, self.end) < logits.shape[-1]:
                raise UsageError(
                    f"Expected start and end tokens in a vocabulary of {logits.shape[-1]}. "
                    f"Received: start={self.start}, end={self.end}"
                )
            log_probabilities = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
            best = ops.cast(ops.argmax(log_probabilities, axis=-1), "int32")
            scores = ops.where(finished, scores, scores + ops.max(log_probabilities, axis=-1))
            token = ops.where(finished, self.end, best)
            tokens = ops.where(positions == index, token[:, None], tokens)
            return index + 1, tokens, token, scores, ops.logical_or(finished, token == self.end), state

        carry = (ops.zeros((), "int32"), end, token, scores, finished, state)
        _, tokens, _, scores, _, _ = ops.while_loop(unfinished, advance, carry)
        lengths = ops.sum(ops.cast(ops.cumsum(ops.cast(tokens == self.end, "int32"), axis=1) == 0, "int32"), axis=1)
        return tokens, lengths, scores
