"""Decoders: a loop that is compiled once per shape of the inputs and ends when every row has ended."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops, tree

from k3seq import arguments, backend
from k3seq.decode.processors import LOWEST, Context, log_probabilities
from k3seq.decode.ranking import first_largest
from k3seq.decode.requests import as_inputs, as_prefix, check_prefix_ids
from k3seq.errors import UsageError
from k3seq.typing import NDArray, Nested, Tensor


class Decoded(NamedTuple):
    """The result of decoding, as NumPy arrays. Beam search and sampling have an axis of hypotheses, `k`; greedy has none.

    tokens: (b, [k,] max_steps) int32, the end token included and repeated to fill the row.
    lengths: (b, [k]) int32, tokens before the end token.
    scores: (b, [k]) float32, the sum of the log-probabilities of the tokens up to and with the end token, after the penalties.
        -inf where the processors left no token to choose, and for hypotheses beyond those that exist.
    alignments: (b, [k,] max_steps, s) float, the attention of each step, that of the end token included and 0 after it; None
        where the state of the model carries none.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    scores: np.ndarray
    alignments: np.ndarray | None = None


def check_model(name: str, model: Any) -> None:
    """Raises UsageError unless `model` has what decoding needs: `start`, `step` and `variables`."""
    missing = [part for part in ("start", "step", "variables") if not hasattr(model, part)]
    if missing:
        raise UsageError(f"Expected {name} with {', '.join(missing)}. Received: {type(model).__name__}")


class Decoder:
    """The base of all strategies: checks on the host, one compiled program for each shape, and calls of the model.

    A model has `start(inputs) -> state`, `step(tokens (n,), state) -> (logits (n, v), state)` and `variables`. Optional are:
    an argument `steps` of `start`, which receives max_steps; `check(inputs)`, which is called first; `target_limit`, the upper
    bound of max_steps. A state that is a dict may hold "alignments" `(n, s)`, the attention behind the logits, which `step`
    sets. A tensor that `step` returns as the same object does not change, and is not copied from beam to beam.
    """

    hypotheses = 1  # for each row of the batch

    def __init__(
        self,
        model: Any,
        max_steps: int,
        start: int = 1,
        end: int = 2,
        jit: bool | None = None,
        *,
        processors: Sequence[Any] = (),
    ):
        check_model("model", model)
        arguments.positive(max_steps=max_steps)
        arguments.integer(0, start=start, end=end)
        limit = getattr(model, "target_limit", None)
        if limit is not None and max_steps > limit:
            raise UsageError(f"Expected max_steps of at most {limit}, the limit of the model. Received: max_steps={max_steps}")
        for processor in processors:
            if not callable(processor):
                raise UsageError(f"Expected processors that are called with (logits, context). Received: {processor!r}")
        self.model, self.max_steps, self.start, self.end = model, int(max_steps), int(start), int(end)
        self.processors, self.vocabulary, self._seen = tuple(processors), 0, set()  # 0: not known yet
        self._start_arguments = {"steps": self.max_steps} if "steps" in inspect.signature(model.start).parameters else {}
        self._compile(jit)

    def _compile(self, jit):
        self._run = backend.compiled(self._search, self.model.variables, jit)

    def compilations(self) -> int:
        """How often the loop was compiled: once per shape of the inputs, 0 on a backend that runs eagerly."""
        return self._run.compilations()

    def _decode(self, source, prefix, **extras):
        inputs, extras = self._request(source, prefix, extras)
        found = self._run(inputs, extras)
        check_prefix_ids(extras.get("prefix"), self.vocabulary)
        tokens, lengths, scores, alignments = found
        tokens, lengths, scores = (ops.convert_to_numpy(value) for value in (tokens, lengths, scores))
        return Decoded(tokens, lengths, scores, None if alignments is None else ops.convert_to_numpy(alignments))

    def _request(self, source, prefix, extras):
        inputs = as_inputs(source)
        if hasattr(self.model, "check"):
            self.model.check(inputs)
        if prefix is not None:
            extras = {**extras, "prefix": as_prefix(prefix, inputs["source"].shape[0], self.max_steps, self.end)}
        return inputs, extras

    def _search(self, inputs, extras):
        """The whole search, compiled: -> (tokens, lengths, scores, alignments or None) as in `Decoded`."""
        raise NotImplementedError

    def _begin_state(self, inputs, hypotheses):
        """The model's state with every row repeated once for each of its hypotheses."""
        rows = inputs["source"].shape[0]
        state = tree.map_structure(ops.convert_to_tensor, self.model.start(inputs, **self._start_arguments))
        for leaf in tree.flatten(state):
            if not len(leaf.shape) or leaf.shape[0] != rows:
                raise UsageError(
                    f"Expected a state of tensors whose first axis is the batch of {rows}. Received: {_spec(leaf)}"
                )
        if hypotheses == 1:
            return state
        return tree.map_structure(lambda leaf: ops.repeat(leaf, hypotheses, axis=0), state)

    def _model_step(self, tokens, state):
        """The model's step, its result checked the first time it has that shape."""
        logits, after = self.model.step(tokens, state)
        shape = tuple(logits.shape)
        if shape not in self._seen:
            self._check_step(tokens, shape, state, after)
            self._seen.add(shape)
        return logits, after

    def _check_step(self, tokens, shape, state, after):
        if len(shape) != 2 or shape[0] != tokens.shape[0]:
            raise UsageError(f"Expected logits of shape ({tokens.shape[0]}, vocabulary). Received: shape {shape}")
        try:
            tree.assert_same_structure(state, after)
            before, later = ([_spec(leaf) for leaf in tree.flatten(value)] for value in (state, after))
        except (ValueError, TypeError, AttributeError):
            raise UsageError(
                "Expected step to return a state of the structure that it was given. Received: another one"
            ) from None
        for old, new in zip(before, later, strict=True):
            if old != new:
                raise UsageError(f"Expected step to keep the shapes and dtypes of the state, here {old}. Received: {new}")
        self._check_vocabulary(shape[1])
        self.vocabulary = shape[1]

    def _check_vocabulary(self, vocabulary):
        """Refuses what does not fit a vocabulary of that size, which the first step shows."""
        if not max(self.start, self.end) < vocabulary:
            raise UsageError(
                f"Expected start and end tokens in a vocabulary of {vocabulary}. Received: start={self.start}, end={self.end}"
            )
        for processor in self.processors:
            if hasattr(processor, "check"):
                processor.check(vocabulary)

    def _forced(self, extras, step, hypotheses):
        """The token of the prefix at a step, (rows * hypotheses,), -1 where it is free. None without a prefix."""
        if "prefix" not in extras:
            return None
        return ops.repeat(ops.take(extras["prefix"], step, axis=1), hypotheses, axis=0)


class Stepwise(Decoder):
    """Decodes each hypothesis on its own, token by token. A subclass defines `_choose`."""

    def _compile(self, jit):
        super()._compile(jit)
        self._first = backend.compiled(self._begin, self.model.variables, jit)
        self._next = backend.compiled(self._advance, self.model.variables, jit)

    def compilations(self) -> int:
        """How often something was compiled: once per shape of the inputs, twice for streams; 0 where it runs eagerly."""
        return sum(program.compilations() for program in (self._run, self._first, self._next))

    def _stream(self, source, prefix, **extras):
        inputs, extras = self._request(source, prefix, extras)
        return self._tokens(inputs, extras)

    def _tokens(self, inputs, extras):
        carry = self._first(inputs)
        for _ in range(self.max_steps):
            carry = self._next(carry, extras)
            check_prefix_ids(extras.get("prefix"), self.vocabulary)
            yield ops.convert_to_numpy(carry["token"])
            if ops.convert_to_numpy(carry["finished"]).all():
                return

    def _choose(self, scores, step, extras):
        """The next token (n,) int32 from its log-probabilities (n, v) float32."""
        raise NotImplementedError

    def _begin(self, inputs):
        rows = inputs["source"].shape[0] * self.hypotheses
        state = self._begin_state(inputs, self.hypotheses)
        carry = {
            "index": ops.zeros((), "int32"),
            "token": ops.full((rows,), self.start, dtype="int32"),
            "tokens": ops.full((rows, self.max_steps), self.end, dtype="int32"),
            "scores": ops.zeros((rows,), "float32"),
            "finished": ops.zeros((rows,), "bool"),
            "state": state,
        }
        aligned = alignments_of(state)
        if aligned is not None:
            carry["alignments"] = ops.zeros((rows, self.max_steps, aligned.shape[1]), aligned.dtype)
        return carry

    def _advance(self, carry, extras):
        index, finished = carry["index"], carry["finished"]
        logits, state = self._model_step(carry["token"], carry["state"])
        context = Context(carry["tokens"], index, self.end)
        scores = log_probabilities(logits, self.processors, context, self._forced(extras, index, self.hypotheses))
        choice = self._choose(scores, index, extras)
        gained = ops.take_along_axis(scores, choice[:, None], axis=1)[:, 0]
        token = ops.where(ops.logical_or(finished, gained == LOWEST), self.end, choice)
        here = ops.logical_and(ops.arange(self.max_steps, dtype="int32")[None, :] == index, ~finished[:, None])
        after = {
            "index": index + 1,
            "token": token,
            "tokens": ops.where(here, token[:, None], carry["tokens"]),
            "scores": ops.where(finished, carry["scores"], carry["scores"] + gained),
            "finished": ops.logical_or(finished, token == self.end),
            "state": state,
        }
        aligned = alignments_of(state)
        if aligned is not None:
            after["alignments"] = ops.where(here[..., None], aligned[:, None, :], carry["alignments"])
        return after

    def _search(self, inputs, extras):
        def unfinished(carry):
            return ops.logical_and(carry["index"] < self.max_steps, ops.logical_not(ops.all(carry["finished"])))

        (carry,) = ops.while_loop(unfinished, lambda carry: (self._advance(carry, extras),), (self._begin(inputs),))
        return self._shaped(carry["tokens"], count_before(carry["tokens"], self.end), carry["scores"], carry.get("alignments"))

    def _shaped(self, *values):
        """`(b * k, ...)` as `(b, k, ...)`."""
        return [None if value is None else ops.reshape(value, (-1, self.hypotheses, *value.shape[1:])) for value in values]


class Greedy(Stepwise):
    """Takes the most probable token at each step; of equals, the one with the lowest id.

    Args:
        model: has `start(inputs) -> state`, `step(tokens, state) -> (logits, state)` and `variables`; see `Decoder`.
        max_steps: longest result, in tokens.
        start, end: ids of the start and the end token.
        jit: compile with XLA; None: the backend's default.
        processors: functions that change the logits before the choice, in order; see `k3seq.decode.processors`.

    Raises:
        UsageError: max_steps is not positive, a processor is for beam search only, or (at the call) a token is outside the
            vocabulary or the model's state is not as `Decoder` says.

    Example:
        decode = Greedy(model, max_steps=20)
        decoded = decode({"source": source, "source_lengths": lengths})
    """

    def __call__(self, source: Any, prefix: Any = None) -> Any:
        """Decodes a batch. Returns `Decoded` without the axis of hypotheses.

        Args:
            source: {"source": (b, s), "source_lengths": (b,)}, or (b, s) alone where nothing is padded.
            prefix: first tokens of the results: ids for all rows, or a list of ids for each row; -1 leaves a place free.

        Raises:
            UsageError: the batch is empty, the prefix is not of tokens before the end or longer than max_steps, or what the
                model's `check(inputs)` refuses.
        """
        return self._decode(source, prefix)

    def stream(self, source: Any, prefix: Any = None) -> Iterator[NDArray[Any]]:
        """A generator of the tokens (b,) int32 of each step, as soon as they are chosen. Rows that ended give the end token.

        It stops when all rows have ended. Arguments and errors as in a call; max_steps tokens at most.
        """
        return self._stream(source, prefix)

    def _choose(self, scores, step, extras):
        return first_largest(scores)

    def _shaped(self, *values):
        return values


def alignments_of(state: Nested) -> Tensor | None:
    """The (n, s) alignments that a state carries, or None."""
    return state.get("alignments") if isinstance(state, dict) else None


def count_before(tokens: Tensor, end: int) -> Tensor:
    """Tokens before the first end token: (..., t) int32 -> (...) int32."""
    return ops.sum(ops.cast(ops.cumsum(ops.cast(tokens == end, "int32"), axis=-1) == 0, "int32"), axis=-1)


def _spec(leaf):
    return f"{tuple(leaf.shape)} {keras.backend.standardize_dtype(leaf.dtype)}"
