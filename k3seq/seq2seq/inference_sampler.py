"""Samplers for inference: the best id, a drawn id, or the user's own function of the outputs."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import keras
from keras import ops

from k3seq import backend
from k3seq.decode.ranking import first_largest
from k3seq.decode.sampling import check_temperature
from k3seq.errors import UsageError
from k3seq.random import categorical, fold
from k3seq.seq2seq import expect
from k3seq.seq2seq.parts import as_table, depth_of, loaded_parts
from k3seq.seq2seq.sampler_base import (
    SizedByCall,
    as_config,
    callable_or_none,
    counter,
    draw_key,
    embedder,
    frozen,
    number_config,
    seeded,
    with_number,
)
from k3seq.typing import Nested, Shape, Tensor


@keras.saving.register_keras_serializable(package="k3seq")
class GreedyEmbeddingSampler(SizedByCall):
    """Takes the most probable id and embeds it as the next input; of equals the lowest id.

    Args:
        embedding_fn: ids (b,) -> inputs (b, e); None: a look-up in the `embedding` that the call is given.

    Raises:
        UsageError: `embedding_fn` cannot be called.
    """

    _held = (*SizedByCall._held, "_embed", "start_tokens", "start_inputs", "end_token")

    def __init__(self, embedding_fn: Any = None):
        callable_or_none("embedding_fn", embedding_fn)
        self.embedding_fn = embedding_fn

    def initialize(self, embedding: Any, start_tokens: Any = None, end_token: Any = None) -> tuple[Any, ...]:
        """Begins with the start tokens.

        Args:
            embedding: (v, e), not used where there is an embedding_fn. start_tokens: (b,) int. end_token: int.

        Returns:
            (finished, first inputs): bool (b,), all False; (b, e).

        Raises:
            UsageError: a token is missing, of another shape or outside the vocabulary, or there is no row.
        """
        for name, value in (("start_tokens", start_tokens), ("end_token", end_token)):
            if value is None:
                raise UsageError(f"Expected {name}. Received: {name}=None")
        self._embed = embedder(self.embedding_fn, embedding, type(self).__name__)
        self.start_tokens = ops.cast(ops.convert_to_tensor(start_tokens), "int32")
        self.end_token = ops.cast(ops.convert_to_tensor(end_token), "int32")
        expect.rank("start_tokens", self.start_tokens, 1, "a vector (b,)")
        expect.rank("end_token", self.end_token, 0, "a scalar")
        if self.start_tokens.shape[0] == 0:
            raise UsageError("Expected start_tokens for at least one row. Received: 0 rows")
        size = getattr(self.embedding_fn, "input_dim", None) if self.embedding_fn is not None else as_table(embedding).shape[0]
        expect.ids("start_tokens", self.start_tokens, size)
        expect.ids("end_token", self.end_token, size)
        self._batch_size = ops.shape(self.start_tokens)[0]
        self.start_inputs = self._embed(self.start_tokens)
        return ops.zeros((self._batch_size,), "bool"), self.start_inputs

    def _logits(self, outputs):
        if not keras.ops.is_tensor(outputs):
            raise expect.WrongType(f"Expected outputs to be one tensor. Received: {type(outputs).__name__}")
        expect.ids("end_token", self.end_token, outputs.shape[-1])
        return outputs

    def sample(self, time: Tensor, outputs: Nested, state: Nested) -> Tensor:
        return first_largest(self._logits(outputs))

    def next_inputs(self, time: Tensor, outputs: Nested, state: Nested, sample_ids: Tensor) -> tuple[Any, ...]:
        return ops.equal(sample_ids, self.end_token), self._embed(sample_ids), state

    def depth(self, inputs_shape: Any, auxiliary_inputs_shape: Shape | None = None) -> int | None:
        if self.embedding_fn is None:
            return super().depth(inputs_shape)
        return depth_of(self.embedding_fn)

    @property
    def layers(self) -> list[Any]:
        return [self.embedding_fn] if isinstance(self.embedding_fn, keras.layers.Layer) else []

    def get_config(self) -> dict[str, Any]:
        return {"embedding_fn": as_config("embedding_fn", self.embedding_fn)}


@keras.saving.register_keras_serializable(package="k3seq")
class SampleEmbeddingSampler(GreedyEmbeddingSampler):
    """Draws an id from softmax(outputs / temperature) and embeds it as the next input; the same ids on every backend.

    Args:
        embedding_fn: as in `GreedyEmbeddingSampler`. softmax_temperature: float of at least 1e-6, or a `keras.Variable` of
            one (it becomes non-trainable); None: 1.
        seed: int; each call then draws the same numbers, unless it is given another `step`. None: a seed drawn on the host,
            and `step` (a variable, int32) counts the calls, so that each draws anew.

    Raises:
        UsageError: the temperature is not above 0, or `embedding_fn` cannot be called.
    """

    _held = (*GreedyEmbeddingSampler._held, "_key")

    def __init__(self, embedding_fn: Any = None, softmax_temperature: Any = None, seed: int | None = None):
        super().__init__(embedding_fn)
        if softmax_temperature is not None:
            expect.numbers("softmax_temperature", softmax_temperature)
            temperature = ops.convert_to_tensor(softmax_temperature)
            expect.rank("softmax_temperature", temperature, 0, "a scalar")
            known = backend.known(temperature)
            if known is not None:
                check_temperature("softmax_temperature", float(known))
        self.softmax_temperature, self.seed = frozen(softmax_temperature), seed
        self.step = counter() if seed is None else None
        self._seed = seeded(seed)

    def initialize(self, embedding: Any, start_tokens: Any = None, end_token: Any = None, step: Any = None) -> tuple[Any, ...]:
        """As `GreedyEmbeddingSampler.initialize`; another `step` (int) draws other numbers."""
        counted = 0 if self.step is None else self.step.value
        self._key = draw_key(self._seed, "sample", counted if step is None else step)
        return super().initialize(embedding, start_tokens, end_token)

    def sample(self, time: Tensor, outputs: Nested, state: Nested) -> Tensor:
        logits = self._logits(outputs)
        if self.softmax_temperature is not None:
            logits = logits / ops.cast(ops.convert_to_tensor(self.softmax_temperature), logits.dtype)
        return categorical(fold(self._key, time), logits)

    def advance(self, training: bool | None) -> None:
        if self.step is not None:
            self.step.assign_add(1)

    @property
    def variables(self) -> list[Any]:
        given = self.softmax_temperature
        return [*super().variables, *([given] if isinstance(given, keras.Variable) else [])]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "softmax_temperature": number_config(self.softmax_temperature), "seed": self.seed}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        return cls(**with_number(loaded_parts(config, config, custom_objects), "softmax_temperature"))


@keras.saving.register_keras_serializable(package="k3seq")
class InferenceSampler(SizedByCall):
    """Inference with the user's own way to sample.

    Args:
        sample_fn: outputs -> samples (b, *sample_shape). sample_shape, sample_dtype: of the samples of a row.
        end_fn: samples -> bool (b,), the rows that end. next_inputs_fn: samples -> next inputs; None: samples are inputs.
    """

    _held = (*SizedByCall._held, "start_inputs")

    def __init__(
        self,
        sample_fn: Callable[..., Any],
        sample_shape: Any,
        sample_dtype: Any,
        end_fn: Callable[..., Any],
        next_inputs_fn: Callable[..., Any] | None = None,
    ):
        self.sample_fn, self.end_fn, self.next_inputs_fn = sample_fn, end_fn, next_inputs_fn
        self.sample_shape = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
        self.sample_dtype = keras.backend.standardize_dtype(sample_dtype)

    @property
    def sample_ids_shape(self) -> Shape:
        return self.sample_shape

    @property
    def sample_ids_dtype(self) -> str:
        return self.sample_dtype

    def initialize(self, start_inputs: Tensor) -> tuple[Any, ...]:
        """Begins with `start_inputs` (b, ...). Returns (finished, start_inputs), finished all False."""
        self.start_inputs = ops.convert_to_tensor(start_inputs)
        self._batch_size = ops.shape(self.start_inputs)[0]
        return ops.zeros((self._batch_size,), "bool"), self.start_inputs

    def sample(self, time: Tensor, outputs: Nested, state: Nested) -> Tensor:
        return self.sample_fn(outputs)

    def next_inputs(self, time: Tensor, outputs: Nested, state: Nested, sample_ids: Tensor) -> tuple[Any, ...]:
        inputs = sample_ids if self.next_inputs_fn is None else self.next_inputs_fn(sample_ids)
        return self.end_fn(sample_ids), inputs, state

    @property
    def layers(self) -> list[Any]:
        functions = (self.sample_fn, self.end_fn, self.next_inputs_fn)
        return [function for function in functions if isinstance(function, keras.layers.Layer)]

    def get_config(self) -> dict[str, Any]:
        functions = {name: as_config(name, getattr(self, name)) for name in ("sample_fn", "end_fn", "next_inputs_fn")}
        return {**functions, "sample_shape": list(self.sample_shape), "sample_dtype": self.sample_dtype}
