"""Samplers for training: teacher forcing, and scheduled sampling (Bengio et al. 2015, https://arxiv.org/abs/1506.03099)."""

import keras
import numpy as np
from keras import ops, tree

from k3seq import backend
from k3seq.decode.ranking import first_largest
from k3seq.errors import UsageError
from k3seq.layers.masks import length_mask
from k3seq.random import bernoulli, categorical, fold
from k3seq.seq2seq import expect
from k3seq.seq2seq.parts import loaded_parts
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


@keras.saving.register_keras_serializable(package="k3seq")
class TrainingSampler(SizedByCall):
    """Reads the inputs of each step; sample ids are the argmax of the outputs.

    Args:
        time_major: inputs and mask are (t, b, ...) in place of (b, t, ...).
    """

    _held = ("_batch_size", "_inputs", "_now", "sequence_length", "zero_inputs")
    _now = None

    def __init__(self, time_major=False):
        self.time_major = time_major

    def initialize(self, inputs, sequence_length=None, mask=None):
        """Begins to read.

        Args:
            inputs: structure of tensors (b, t, ...). sequence_length: (b,) int, steps of each row; goes before `mask`.
            mask: (b, t) bool, True on the steps of a row, which come first. Neither: all steps of all rows.

        Returns:
            (finished, first inputs): bool (b,), True for a row of no steps; (b, ...).

        Raises:
            UsageError: `sequence_length` is not a vector of 0 to t for b rows, or `mask` not a right-padded bool matrix.
        """
        inputs = tree.map_structure(ops.convert_to_tensor, inputs)
        for leaf in tree.flatten(inputs):
            if len(leaf.shape) < 2:
                raise UsageError(f"Expected inputs with a batch and a time axis. Received: shape {tuple(leaf.shape)}")
        if not self.time_major:
            inputs = tree.map_structure(lambda leaf: ops.swapaxes(leaf, 0, 1), inputs)
        steps, batch = ops.shape(tree.flatten(inputs)[0])[:2]
        if sequence_length is not None:
            lengths = ops.convert_to_tensor(sequence_length)
            expect.rank("sequence_length", lengths, 1, "a vector (b,)")
        elif mask is not None:
            lengths = self._lengths_of(ops.convert_to_tensor(mask))
        else:
            lengths = ops.full((batch,), steps, dtype="int32")
        rows = ops.shape(lengths)[0]
        if isinstance(rows, int) and isinstance(batch, int) and rows != batch:
            raise UsageError(f"Expected sequence_length (or mask) for {batch} rows. Received: {rows}")
        expect.lengths("sequence_length", lengths, steps)
        if isinstance(steps, int) and steps == 0:
            raise UsageError("Expected inputs of at least one step. Received: 0 steps")
        self.sequence_length = ops.cast(lengths, "int32")
        self._inputs, self._batch_size, self._now = inputs, rows, None
        self.zero_inputs = tree.map_structure(lambda leaf: ops.zeros_like(leaf[0]), inputs)
        finished = ops.equal(self.sequence_length, 0)
        return finished, self._unless_all(finished, tree.map_structure(lambda leaf: leaf[0], inputs))

    def _lengths_of(self, mask):
        expect.rank("mask", mask, 2, "a matrix")
        if keras.backend.standardize_dtype(mask.dtype) != "bool":
            raise UsageError(f"Expected mask to be bool. Received: {keras.backend.standardize_dtype(mask.dtype)}")
        mask = ops.transpose(mask) if self.time_major else mask
        lengths = ops.sum(ops.cast(mask, "int32"), axis=1)
        known = backend.known(ops.all(ops.equal(mask, length_mask(lengths, ops.shape(mask)[1]))))
        if known is not None and not known:
            raise UsageError("Expected mask to be right-padded: True before False in each row. Received: another order")
        return lengths

    def _unless_all(self, finished, inputs):
        """Zeros once no row goes on, as TFA gives."""
        over = ops.all(finished)
        return tree.map_structure(lambda leaf, zero: ops.where(over, zero, leaf), inputs, self.zero_inputs)

    def sample(self, time, outputs, state):
        return first_largest(outputs)

    def next_inputs(self, time, outputs, state, sample_ids):
        finished = time + 1 >= self.sequence_length
        inputs = self._now
        if inputs is None:
            last = ops.shape(tree.flatten(self._inputs)[0])[0] - 1
            inputs = tree.map_structure(lambda leaf: ops.take(leaf, ops.minimum(time + 1, last), axis=0), self._inputs)
        return finished, self._unless_all(finished, inputs), state

    @property
    def longest(self):
        return ops.shape(tree.flatten(self._inputs)[0])[0]

    @property
    def reads(self):
        return tree.map_structure(lambda leaf: ops.concatenate([leaf[1:], ops.zeros_like(leaf[:1])]), self._inputs)

    def read(self, now):
        self._now = now

    @property
    def reads_only(self):
        return type(self) is TrainingSampler

    def steps(self, inputs_shape):
        return inputs_shape[0 if self.time_major else 1]

    def get_config(self):
        return {"time_major": self.time_major}


class _Scheduled(TrainingSampler):
    """What both scheduled samplers share: the probability, fixed or a schedule, and the count of training calls."""

    _held = (*TrainingSampler._held, "_probability", "_keys")

    def __init__(self, sampling_probability, time_major, **seeds):
        super().__init__(time_major)
        if not callable(sampling_probability):
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

    def advance(self, training):
        if training:
            self.step.assign_add(1)

    @property
    def variables(self):
        given = self.sampling_probability
        return [*super().variables, *([given] if isinstance(given, keras.Variable) else [])]

    def get_config(self):
        given = self.sampling_probability
        given = as_config("sampling_probability", given) if callable(given) else number_config(given)
        return {**super().get_config(), "sampling_probability": given}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**with_number(loaded_parts(config, config, custom_objects), "sampling_probability"))


@keras.saving.register_keras_serializable(package="k3seq")
class ScheduledEmbeddingTrainingSampler(_Scheduled):
    """Teacher forcing that now and then takes an id drawn from the outputs in the place of the next input.

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

    def __init__(self, sampling_probability, embedding_fn=None, time_major=False, seed=None, scheduling_seed=None):
        callable_or_none("embedding_fn", embedding_fn)
        super().__init__(sampling_probability, time_major, ids=seed, choice=scheduling_seed)
        self.embedding_fn, self.seed, self.scheduling_seed = embedding_fn, seed, scheduling_seed

    def initialize(self, inputs, sequence_length=None, mask=None, embedding=None, step=None):
        """As `TrainingSampler.initialize`; `embedding` (v, e) where there is no embedding_fn; `step` in the counter's place."""
        self._embed = embedder(self.embedding_fn, embedding, "ScheduledEmbeddingTrainingSampler")
        self._open(step)
        return super().initialize(inputs, sequence_length=sequence_length, mask=mask)

    def sample(self, time, outputs, state):
        ids = categorical(fold(self._keys["ids"], time), outputs)
        return ops.where(self._chosen("choice", time), ids, -1)

    def next_inputs(self, time, outputs, state, sample_ids):
        finished, base, state = super().next_inputs(time, outputs, state, sample_ids)
        embedded = ops.cast(self._embed(ops.maximum(sample_ids, 0)), base.dtype)
        taken = ops.logical_and(sample_ids > -1, ops.logical_not(ops.all(finished)))
        return finished, ops.where(taken[:, None], embedded, base), state

    @property
    def layers(self):
        return [self.embedding_fn] if isinstance(self.embedding_fn, keras.layers.Layer) else []

    def get_config(self):
        return {
            **super().get_config(),
            "embedding_fn": as_config("embedding_fn", self.embedding_fn),
            "seed": self.seed,
            "scheduling_seed": self.scheduling_seed,
        }


@keras.saving.register_keras_serializable(package="k3seq")
class ScheduledOutputTrainingSampler(_Scheduled):
    """Teacher forcing that now and then takes the outputs themselves as the next input.

    Sample ids are 1 where it did, else 0. The call may be given `auxiliary_inputs` (b, t, a), which follow every input.

    Args:
        sampling_probability, time_major: as in `ScheduledEmbeddingTrainingSampler`. seed: of the choice.
        next_inputs_fn: outputs (b, o) -> inputs (b, e); None: outputs are inputs.

    Raises:
        UsageError: as in `ScheduledEmbeddingTrainingSampler`.
    """

    _held = (*_Scheduled._held, "_auxiliary_depth")

    def __init__(self, sampling_probability, time_major=False, seed=None, next_inputs_fn=None):
        callable_or_none("next_inputs_fn", next_inputs_fn)
        super().__init__(sampling_probability, time_major, choice=seed)
        self.seed, self.next_inputs_fn = seed, next_inputs_fn

    def initialize(self, inputs, sequence_length=None, mask=None, auxiliary_inputs=None, step=None):
        """As `TrainingSampler.initialize`; `auxiliary_inputs` shaped like inputs but for the last axis; `step` as above."""
        self._open(step)
        self._auxiliary_depth = 0
        if auxiliary_inputs is not None:
            auxiliary_inputs = ops.convert_to_tensor(auxiliary_inputs)
            self._auxiliary_depth = auxiliary_inputs.shape[-1]
            inputs = ops.concatenate([ops.convert_to_tensor(inputs), auxiliary_inputs], axis=-1)
        return super().initialize(inputs, sequence_length=sequence_length, mask=mask)

    def sample(self, time, outputs, state):
        return ops.cast(self._chosen("choice", time), "int32")

    def next_inputs(self, time, outputs, state, sample_ids):
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

    def depth(self, inputs_shape, auxiliary_inputs_shape=None):
        return inputs_shape[-1] + (auxiliary_inputs_shape[-1] if auxiliary_inputs_shape else 0)

    @property
    def layers(self):
        return [self.next_inputs_fn] if isinstance(self.next_inputs_fn, keras.layers.Layer) else []

    def get_config(self):
        return {
            **super().get_config(),
            "seed": self.seed,
            "next_inputs_fn": as_config("next_inputs_fn", self.next_inputs_fn),
        }
