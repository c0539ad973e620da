"""The base of all samplers, and `CustomSampler`, made of the user's functions."""

import abc
import random
from collections.abc import Callable, Mapping
from typing import Any, Self

import keras
from keras import ops

from k3seq import arguments
from k3seq.errors import UsageError
from k3seq.random import fold, key
from k3seq.seq2seq import expect
from k3seq.seq2seq.parts import as_table, loaded_parts, table_shape
from k3seq.typing import Nested, Shape, Tensor


class Sampler(abc.ABC):
    """Chooses the next inputs of a `BasicDecoder`.

    A hand-written loop is:

        finished, inputs = sampler.initialize(...)
        for time in range(steps):
            outputs, state = cell(inputs, state)
            ids = sampler.sample(time, outputs, state)
            finished, inputs, state = sampler.next_inputs(time, outputs, state, ids)

    `initialize` takes the tensors of one decoding; `dynamic_decode` drops them at its end. A subclass defines the six abstract
    names; the others have defaults.
    """

    step = None
    _batch_size = None
    _held = ()

    @abc.abstractmethod
    def initialize(self, inputs: Nested, **kwargs: Any) -> tuple[Any, ...]:
        """Returns (finished, first inputs): bool (b,), and a structure of tensors with the batch first."""

    @abc.abstractmethod
    def sample(self, time: Tensor, outputs: Nested, state: Nested) -> Tensor:
        """Returns sample ids, (b, *sample_ids_shape)."""

    @abc.abstractmethod
    def next_inputs(self, time: Tensor, outputs: Nested, state: Nested, sample_ids: Tensor) -> tuple[Any, ...]:
        """Returns (finished, next inputs, next state)."""

    @property
    @abc.abstractmethod
    def batch_size(self) -> Any:
        """Rows of the batch, known after `initialize`."""

    @property
    @abc.abstractmethod
    def sample_ids_shape(self) -> Shape:
        """Shape of the sample ids of a row, a tuple."""

    @property
    @abc.abstractmethod
    def sample_ids_dtype(self) -> str:
        """Dtype of the sample ids."""

    @property
    def longest(self) -> Any:
        """The most steps that the inputs allow: an int, a scalar tensor, or None for no limit."""
        return None

    @property
    def reads(self) -> Nested:
        """Time-major tensors of which `next_inputs` needs row `time` at that time, or None; see `BaseDecoder.reads`."""
        return None

    def read(self, now: Nested) -> None:
        """Receives the row of `reads` for the next step."""
        return None

    @property
    def reads_only(self) -> bool:
        """Whether the next inputs do not depend on the outputs, so that the output layer can run once for all steps."""
        return False

    @property
    def layers(self) -> list[Any]:
        """Layers that the sampler calls; a `BasicDecoder` tracks their weights."""
        return []

    @property
    def variables(self) -> list[Any]:
        """Variables that the sampler reads; a `BasicDecoder` tracks them, so that compiled code reads their current values."""
        return [] if self.step is None else [self.step]

    def depth(self, inputs_shape: Any, auxiliary_inputs_shape: Shape | None = None) -> int | None:
        """Size of the first inputs' last axis as far as the shapes of the call show it, or None."""
        return table_shape(inputs_shape)[-1] if inputs_shape else None

    def steps(self, inputs_shape: Any) -> int | None:
        """Steps of the inputs as far as their shape shows it, or None."""
        return None

    def advance(self, training: bool | None) -> None:
        """Counts a decoding in `step`, if this sampler has one."""
        return None

    def release(self) -> None:
        """Drops the tensors of the call."""
        for name in self._held:
            vars(self).pop(name, None)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, for `.keras` files."""
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        return cls(**loaded_parts(config, config, custom_objects))


class SizedByCall(Sampler):
    """A sampler that learns the batch size in `initialize` and samples one int32 id for each row."""

    _held = ("_batch_size",)

    @property
    def batch_size(self) -> Any:
        if self._batch_size is None:
            raise UsageError("Expected initialize before batch_size. Received: no call yet")
        return self._batch_size

    @property
    def sample_ids_shape(self) -> Shape:
        return ()

    @property
    def sample_ids_dtype(self) -> str:
        return "int32"


def as_config(name: str, function: Any) -> Any:
    """The serialised form of a function, layer or schedule.

    Raises:
        UsageError: for a function that loading could not find again.
    """
    if function is None or hasattr(function, "get_config"):
        return keras.saving.serialize_keras_object(function)
    if keras.saving.get_registered_object(keras.saving.get_registered_name(function)) is not function:
        raise UsageError(
            f"Expected {name} to be a layer or registered with keras.saving.register_keras_serializable, to be saved. "
            f"Received: {function!r}"
        )
    return keras.saving.serialize_keras_object(function)


def counter() -> keras.Variable:
    """A variable that counts decodings: int32, not trainable, 0 at first."""
    return keras.Variable(0, dtype="int32", trainable=False, name="sampling_step")


def frozen(value: Any) -> Any:
    """A number, array or schedule as it is; a `keras.Variable` after making it one that is not trained."""
    if isinstance(value, keras.Variable):
        value.trainable = False
    return value


def number_config(value: Any) -> Any:
    """A number, array or variable in a form that a `.keras` file can hold; `with_number` makes it again."""
    if isinstance(value, keras.Variable):
        return {"variable": ops.convert_to_numpy(value.value).tolist(), "dtype": value.dtype}
    return value if value is None or isinstance(value, int | float) else ops.convert_to_numpy(value).tolist()


def with_number(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A config whose entry `name`, where it came from a variable, is a variable again."""
    value = config[name]
    if isinstance(value, dict) and "variable" in value:
        value = keras.Variable(value["variable"], dtype=value["dtype"], trainable=False)
    return {**config, name: value}


def seeded(seed: int | None) -> int:
    """The seed, or for None one drawn on the host (`keras.utils.set_random_seed` makes it repeatable)."""
    if seed is None:
        return random.randrange(2**31)
    arguments.integer(0, 2**64 - 1, seed=seed)
    return seed


def draw_key(seed: int, name: str, step: Any) -> Tensor:
    """The key of one decoding, a tensor: from the seed, a name for its use, and the decoding's number."""
    return ops.convert_to_tensor(fold(key(seed, name), step))


def embedder(embedding_fn: Any, embedding: Any, sampler: Any) -> Callable[[Any], Any]:
    """The function ids -> embedded ids: `embedding_fn`, or a look-up in `embedding (v, e)`."""
    if embedding_fn is not None:
        return embedding_fn
    if embedding is None:
        raise UsageError(f"Expected embedding, since {sampler} has no embedding_fn. Received: embedding=None")
    table = as_table(embedding)
    expect.rank("embedding", table, 2, "a matrix (v, e)")
    return lambda ids: ops.take(table, ids, axis=0)


def callable_or_none(name: str, function: Any) -> None:
    """Raises UsageError unless `function` can be called or is None."""
    if function is not None and not callable(function):
        raise UsageError(f"Expected {name} to be callable. Received: {name} of type {type(function).__name__}")


@keras.saving.register_keras_serializable(package="k3seq")
class CustomSampler(SizedByCall):
    """A sampler of the user's own functions.

    Args:
        initialize_fn: (inputs, **kwargs) -> (finished, next inputs). sample_fn: (time, outputs, state) -> sample ids.
        next_inputs_fn: (time, outputs, state, sample_ids) -> (finished, next inputs, next state). All are called by name.
        sample_ids_shape: shape of the ids of a row; a scalar by default. sample_ids_dtype: int32 by default.
    """

    def __init__(
        self,
        initialize_fn: Callable[..., Any],
        sample_fn: Callable[..., Any],
        next_inputs_fn: Callable[..., Any],
        sample_ids_shape: Any = None,
        sample_ids_dtype: Any = None,
    ):
        self._initialize_fn, self._sample_fn, self._next_inputs_fn = initialize_fn, sample_fn, next_inputs_fn
        self._sample_ids_shape = tuple(sample_ids_shape or ())
        self._sample_ids_dtype = keras.backend.standardize_dtype(sample_ids_dtype or "int32")

    @property
    def sample_ids_shape(self) -> Shape:
        return self._sample_ids_shape

    @property
    def sample_ids_dtype(self) -> str:
        return self._sample_ids_dtype

    def initialize(self, inputs: Nested, **kwargs: Any) -> tuple[Any, ...]:
        finished, next_inputs = self._initialize_fn(inputs, **kwargs)
        self._batch_size = ops.shape(finished)[0]
        return finished, next_inputs

    def sample(self, time: Tensor, outputs: Nested, state: Nested) -> Tensor:
        return self._sample_fn(time=time, outputs=outputs, state=state)

    def next_inputs(self, time: Tensor, outputs: Nested, state: Nested, sample_ids: Tensor) -> tuple[Any, ...]:
        return self._next_inputs_fn(time=time, outputs=outputs, state=state, sample_ids=sample_ids)

    def get_config(self) -> dict[str, Any]:
        names = ("initialize_fn", "sample_fn", "next_inputs_fn")
        functions = {name: as_config(name, getattr(self, f"_{name}")) for name in names}
        return {**functions, "sample_ids_shape": list(self._sample_ids_shape), "sample_ids_dtype": self._sample_ids_dtype}
