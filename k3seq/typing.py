"""The types that public signatures share. Imports no keras, so that every package can use them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from numpy.typing import ArrayLike, NDArray

# A tensor of the backend, a `keras.KerasTensor` while a functional model is made, or what converts to a tensor.
Tensor: TypeAlias = Any
# The shape of a tensor; None stands for a size that is not known yet.
Shape: TypeAlias = tuple[int | None, ...]
# Tensors in nested dicts, lists and tuples.
Nested: TypeAlias = Any
# A name that `keras.initializers.get` knows, a config, or an initializer.
Initializer: TypeAlias = Any
# The state of decoding: a nested dict of tensors whose first axis is the batch.
State: TypeAlias = Mapping[str, Any]
# JSON values: dicts, lists, strings, numbers, booleans and None.
Json: TypeAlias = Any


@runtime_checkable
class StepModel(Protocol):
    """What decoding needs of a model."""

    variables: Sequence[Any]

    def start(self, inputs: Mapping[str, Tensor]) -> State:
        """Encodes {"source": (b, s) int32, "source_lengths": (b,) int32} into the state before the first step."""
        ...

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: tokens (b,) int32 -> (logits (b, v), state); shapes and dtypes of the state do not change."""
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back; 0 pads, 1 starts, 2 ends, 3 is unknown."""

    @property
    def vocabulary_size(self) -> int:
        """Number of ids."""
        ...

    def encode(self, text: str, start: bool = False, end: bool = False) -> list[int]:
        """The ids of a text, after START and before END where asked for."""
        ...

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        """The text of ids."""
        ...


# A processor of decoding: (logits (n, v), context) -> logits (n, v).
Processor: TypeAlias = Callable[[Tensor, Any], Tensor]

__all__ = [
    "ArrayLike",
    "Initializer",
    "Json",
    "NDArray",
    "Nested",
    "Processor",
    "Shape",
    "State",
    "StepModel",
    "Tensor",
    "Tokenizer",
]
