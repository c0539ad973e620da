"""Scheduled sampling (Bengio et al. 2015, https://arxiv.org/abs/1506.03099): training on some of the model's own outputs."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from k3seq import backend
from k3seq.errors import UsageError
from k3seq.random import bernoulli, categorical, fold
from k3seq.seq2seq import expect
from k3seq.seq2seq.parts import loaded_parts
from k3seq.seq2seq.sampler_base import (
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
from k3seq.seq2seq.training_sampler import TrainingSampler
from k3seq.typing import Nested, Shape, Tensor


class _Scheduled(TrainingSampler):
    """The base of both scheduled samplers: the probability, fixed or a schedule, and the count of training calls."""

    _held = (*TrainingSampler._held, "_probability", "_keys")

    def __init__(self, sampling_probability: Any, time_major: bool, **seeds: int | None):
        super().__init__(time_major)
        if not callable(sampling_probability):
            expect.numbers("sampling_probability", sampling_probability)
            given = np.shape(sampling_probability) if np.isscalar(sampling_probability) else None
            shape = given if given is not None else ops.convert_to_tensor(sampling_probability).shape
            if len(shape) > 1:
                raise UsageError(
                    f"Expected sampling_probability to be a scalar, a vector or a schedule. Received: shape {tuple(shape)}"
                )
            known = backend.known(ops.convert_to_tensor(sampling_probability, "float32"))
            if known is not None and not ((known >= 0) & (known <= 1)).all():
                raise UsageError(f"Expected sampling_probability in 0..1. Received: {sampling_probability}")
        self.sampling_probability = frozen(sampling_probability)
        self.step = counter()
        self._seeds = {name: seeded(seed) for name, seed in seeds.items()}

    def _open(self, step):
        """Fixes what the call draws with: the probability and the keys at this step."""
        step = self.step.value if step is None else step
        probability = self.sampling_probability(step) if callable(self.sampling_probability) else self.sampling_probability
        self._probability = ops.cast(ops.convert_to_tensor(probability), "float32")
        self._keys = {name: draw_key(seed, name, step) for name, seed in self._seeds.items()}

    def _chosen(self, name, time):
        """bool (b,): the rows that take what the model gave."""
        return bernoulli(fold(self._keys[name], time), self._probability, (self.batch_size,))

    def advance(self, training: bool | None) -> None:
        if training:
            self.step.assign_add(1)

    @property
    def variables(self) -> list[Any]:
        given = self.sampling_probability
        return [*super().variables, *([given] if isinstance(given, keras.Variable) else [])]

    def get_config(self) -> dict[str, Any]:
        given = self.sampling_probability
        given = as_config("sampling_probability", given) if callable(given) else number_config(given)
        return {**super().get_config(), "sampling_probability": given}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        return cls(**with_number(loaded_parts(config, config, custom_objects), "sampling_probability"))


@keras.saving.register_keras_serializable(package="k3seq")
class ScheduledEmbeddingTrainingSampler(_Scheduled):
    """Teacher forcing that sometimes replaces the next input by an id drawn from the outputs.

    Sample ids are the drawn ids, -1 where none was drawn. Draws depend on the seeds, the step and the time alone: the same on
    every backend.

    Args:
        sampling_probability: float or vector (b,) in 0..1; a `keras.Variable` of one, which `assign` changes between calls
            (it becomes non-trainable); or a schedule: a function of the step alone (`keras.optimizers.schedules` too).
            `step` (a variable that is saved, int32) counts the calls with training=True.
        embedding_fn: ids (b,) -> inputs (b, e), or None: `embedding` is then an argument of the call.
        time_major: as in `TrainingSampler`. seed: of the ids. scheduling_seed: of the choice. None: drawn on the host.

    Raises:
        UsageError: the probability has more than one axis or is not in 0..1, or `embedding_fn` cannot be called.
    """

    _held = (*_Scheduled._held, "_embed")

    def __init__(
        self,
        sampling_probability: Any,
        embedding_fn: Any = None,
        time_major: bool = False,
        seed: int | None = None,
        scheduling_seed: int | None = None,
    ):
        callable_or_none("embedding_fn", embedding_fn)
        super().__init__(sampling_probability, time_major, ids=seed, choice=scheduling_seed)
        self.embedding_fn, self.seed, self.scheduling_seed = embedding_fn, seed, scheduling_seed

    def initialize(
        self,
        inputs: Nested,
        sequence_length: Tensor | None = None,
        mask: Tensor | None = None,
        embedding: Any = None,
        step: Any = None,
    ) -> tuple[Any, ...]:
        """As `TrainingSampler.initialize`; `embedding` (v, e) where there is no embedding_fn; `step` in the counter's place."""
        self._embed = embedder(self.embedding_fn, embedding, "ScheduledEmbeddingTrainingSampler")
        self._open(step)
        return super().initialize(inputs, sequence_length=sequence_length, mask=mask)

    def sample(self, time: Tensor, outputs: Nested, state: Nested) -> Tensor:
        ids = categorical(fold(self._keys["ids"], time), outputs)
        return ops.where(self._chosen("choice", time), ids, -1)

    def next_inputs(self, time: Tensor, outputs: Nested, state: Nested, sample_ids: Tensor) -> tuple[Any, ...]:
        finished, base, state = super().next_inputs(time, outputs, state, sample_ids)
        embedded = ops.cast(self._embed(ops.maximum(sample_ids, 0)), base.dtype)
        taken = ops.logical_and(sample_ids > -1, ops.logical_not(ops.all(finished)))
        return finished, ops.where(taken[:, None], embedded, base), state

    @property
    def layers(self) -> list[Any]:
        return [self.embedding_fn] if isinstance(self.embedding_fn, keras.layers.Layer) else []

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embedding_fn": as_config("embedding_fn", self.embedding_fn),
            "seed": self.seed,
            "scheduling_seed": self.scheduling_seed,
        }


@keras.saving.register_keras_serializable(package="k3seq")
class ScheduledOutputTrainingSampler(_Scheduled):
    """Teacher forcing that sometimes takes the outputs themselves as the next input.

    Sample ids are 1 where it did, else 0. The call may be given `auxiliary_inputs` (b, t, a), which follow every input.

    Args:
        sampling_probability, time_major: as in `ScheduledEmbeddingTrainingSampler`. seed: of the choice.
        next_inputs_fn: outputs (b, o) -> inputs (b, e); None: outputs are inputs.

    Raises:
        UsageError: as in `ScheduledEmbeddingTrainingSampler`.
    """

    _held = (*_Scheduled._held, "_auxiliary_depth")

    def __init__(
        self,
        sampling_probability: Any,
        time_major: bool = False,
        seed: int | None = None,
        next_inputs_fn: Callable[..., Any] | None = None,
    ):
        callable_or_none("next_inputs_fn", next_inputs_fn)
        super().__init__(sampling_probability, time_major, choice=seed)
        self.seed, self.next_inputs_fn = seed, next_inputs_fn

    def initialize(
        self,
        inputs: Nested,
        sequence_length: Tensor | None = None,
        mask: Tensor | None = None,
        auxiliary_inputs: Tensor | None = None,
        step: Any = None,
    ) -> tuple[Any, ...]:
        """As `TrainingSampler.initialize`; `auxiliary_inputs` shaped like inputs but for the last axis; `step` as above."""
        self._open(step)
        self._auxiliary_depth = 0
        if auxiliary_inputs is not None:
            parts = [ops.convert_to_tensor(inputs), ops.convert_to_tensor(auxiliary_inputs)]
            self._auxiliary_depth = parts[1].shape[-1]
            inputs = ops.concatenate(parts, axis=-1)
        return super().initialize(inputs, sequence_length=sequence_length, mask=mask)

    def sample(self, time: Tensor, outputs: Nested, state: Nested) -> Tensor:
        return ops.cast(self._chosen("choice", time), "int32")

    def next_inputs(self, time: Tensor, outputs: Nested, state: Nested, sample_ids: Tensor) -> tuple[Any, ...]:
        finished, base, state = super().next_inputs(time, outputs, state, sample_ids)
        given = ops.cast(outputs if self.next_inputs_fn is None else self.next_inputs_fn(outputs), base.dtype)
        if self._auxiliary_depth:
            given = ops.concatenate([given, base[:, -self._auxiliary_depth :]], axis=-1)
        if given.shape[-1] != base.shape[-1]:
            raise UsageError(
                f"Expected outputs (or next_inputs_fn) of size {base.shape[-1]}, as the inputs. Received: {given.shape[-1]}"
            )
        taken = ops.logical_and(ops.cast(sample_ids, "bool"), ops.logical_not(ops.all(finished)))
        return finished, ops.where(taken[:, None], given, base), state

    def depth(self, inputs_shape: Any, auxiliary_inputs_shape: Shape | None = None) -> int | None:
        return inputs_shape[-1] + (auxiliary_inputs_shape[-1] if auxiliary_inputs_shape else 0)

    @property
    def layers(self) -> list[Any]:
        return [self.next_inputs_fn] if isinstance(self.next_inputs_fn, keras.layers.Layer) else []

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "seed": self.seed,
            "next_inputs_fn": as_config("next_inputs_fn", self.next_inputs_fn),
        }
