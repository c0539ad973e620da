"""What LSTM and GRU share: the recurrence over padded rows, the layer around a cell, and its bidirectional form."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import keras
from keras import ops, tree

from k3seq import arguments, backend
from k3seq.errors import UsageError
from k3seq.layers.masks import length_mask
from k3seq.layers.nested import Nested
from k3seq.typing import Nested as NestedTensors
from k3seq.typing import Shape, Tensor


def recurrence(
    step: Callable[..., tuple[Tensor, ...]], projected: Tensor, lengths: Tensor, states: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Steps a cell over rows. At a padded step the states are kept and the output is 0.

    Args:
        step: (projected (b, p), *states) -> new states, of which the first is the output.
        projected: (b, s, p), the input projections of all steps.
        lengths: (b,) int, or None when no row is padded.
        states: initial states, tuple of (b, d).

    Returns:
        (outputs (b, s, d), *states), the states after each row's last real step (an empty row: the initial ones).
    """
    columns = ops.transpose(projected, (1, 0, 2))
    if lengths is None:

        def advance(states, now):
            states = tuple(step(now, *states))
            return states, states

        # Each step returns all states, though only the first is used: `ops.scan` on TensorFlow needs outputs like the carry.
        states, (outputs, *_) = ops.scan(advance, tuple(states), columns)
        return ops.transpose(outputs, (1, 0, 2)), *states

    mask = ops.transpose(length_mask(lengths, ops.shape(projected)[1]))[:, :, None]

    def advance_real(states, now):
        projected_now, real = now
        new = step(projected_now, *states)
        states = tuple(ops.where(real, after, before) for after, before in zip(new, states, strict=True))
        return states, states

    states, (outputs, *_) = ops.scan(advance_real, tuple(states), (columns, mask))
    return ops.transpose(ops.where(mask, outputs, ops.zeros_like(outputs)), (1, 0, 2)), *states


def reverse_rows(x: Tensor, lengths: Tensor = None) -> Tensor:
    """Reverses the real steps of each row; padding keeps its position.

    Args:
        x: (b, s, ...). lengths: (b,) int of right-padded rows, or None: the whole row.
    """
    if lengths is None:
        return ops.flip(x, axis=1)
    steps, ends = _steps_and_lengths(x, lengths)
    return _take(x, ops.where(steps < ends, ends - 1 - steps, steps))


def to_left(x: Tensor, lengths: Tensor) -> Tensor:
    """Left-padded rows as right-padded ones: each row rolled until its real steps come first. x (b, s, ...), lengths (b,)."""
    steps, ends = _steps_and_lengths(x, lengths)
    return _take(x, (steps - ends) % ops.shape(x)[1])


def to_right(x: Tensor, lengths: Tensor) -> Tensor:
    """Right-padded rows as left-padded ones, the inverse of `to_left`. x (b, s, ...), lengths (b,)."""
    steps, ends = _steps_and_lengths(x, lengths)
    return _take(x, (steps + ends) % ops.shape(x)[1])


def _steps_and_lengths(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    return ops.arange(ops.shape(x)[1], dtype="int32")[None, :], ops.cast(lengths, "int32")[:, None]


def _take(x: Tensor, index: Tensor) -> Tensor:
    for _ in range(len(x.shape) - 2):
        index = ops.expand_dims(index, -1)
    return ops.take_along_axis(x, index, axis=1)


PADDINGS = ("right", "left")


class Recurrent(Nested, keras.layers.Layer):
    """A recurrent layer with explicit lengths that always returns its outputs and its last state.

    Call it with x (b, s, inputs); `lengths` (b,) int32, the real steps of each row (None: all); `initial_state`, in the form
    of the returned state (None: zeros). It returns (outputs (b, s, units), state). On every backend an output at padding is 0,
    and the state is that after the row's last real step (an empty row: the initial state).

    A subclass names its kernel of the backend (`kernel_name`) and the structure of its state (`state_like`), creates `kernel`,
    `recurrent_kernel` and `bias` in `build`, and defines `definition` and `cell`.

    Args:
        units: size of outputs and states, an integer of at least 1.
        fused: use the backend's kernel, which has no forward-mode derivatives; False: the definition in `keras.ops`.
        padding: "right" or "left", the side of a row where padding stands.

    Raises:
        UsageError: `units` is not such an integer, or `padding` is unknown.
    """

    kernel_name: ClassVar[str] = ""
    state_like: ClassVar[Any] = None

    def __init__(self, units: int, *, fused: bool = True, padding: str = "right", **kwargs: Any):
        super().__init__(**kwargs)
        arguments.positive(units=units)
        arguments.one_of(PADDINGS, padding=padding)
        self.units, self.fused, self.padding = units, fused, padding

    def definition(self, x: Tensor, lengths: Tensor, *states_and_weights: Tensor) -> tuple[Tensor, ...]:
        """The layer in `keras.ops` over right-padded rows: (outputs, *states)."""
        raise NotImplementedError

    def cell(self, projected: Tensor, *states_and_weights: Tensor) -> tuple[Tensor, ...]:
        """One step: (projected (b, p), *states, *weights) -> tuple of states, the output first."""
        raise NotImplementedError

    def project(self, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        """The part of a step that depends on the input alone: x (..., inputs) -> (..., p)."""
        return ops.matmul(x, kernel) + bias

    def explain(self) -> str:
        """The implementation that a call uses, as a line of text."""
        return backend.describe()["kernels"][self.kernel_name] if self.fused else "keras.ops scan: fused=False was asked for"

    def start(self, batch_size: int | Tensor) -> NestedTensors:
        """The zero state, (batch_size, units) each."""
        return tree.map_structure(lambda _: ops.zeros((batch_size, self.units), self.compute_dtype), self.state_like)

    def call(self, x: Tensor, lengths: Tensor = None, initial_state: NestedTensors = None) -> tuple[Tensor, NestedTensors]:
        state = self.start(ops.shape(x)[0]) if initial_state is None else initial_state
        states = [ops.cast(leaf, self.compute_dtype) for leaf in self._leaves(state)]
        left = self.padding == "left" and lengths is not None
        x = to_left(x, lengths) if left else x
        sequence = getattr(backend, self.kernel_name) if self.fused else self.definition
        outputs, *states = sequence(x, lengths, *states, *self._weights())
        return (to_right(outputs, lengths) if left else outputs), self._packed(states)

    def step(self, x: Tensor, state: NestedTensors) -> tuple[Tensor, NestedTensors]:
        """One step: x (b, inputs), a state -> (output (b, units), state)."""
        kernel, recurrent_kernel, bias = self._weights()
        projected = self.project(ops.cast(x, self.compute_dtype), kernel, bias)
        states = self.cell(projected, *tree.flatten(state), recurrent_kernel, bias)
        return states[0], tree.pack_sequence_as(self.state_like, list(states))

    def _leaves(self, state: NestedTensors) -> Sequence[Tensor]:
        return state if isinstance(self.state_like, tuple) else (state,)

    def _packed(self, states: Sequence[Tensor]) -> NestedTensors:
        return tuple(states) if isinstance(self.state_like, tuple) else states[0]

    def _weights(self) -> list[Tensor]:
        return [ops.cast(weight, self.compute_dtype) for weight in (self.kernel, self.recurrent_kernel, self.bias)]

    def compute_output_spec(
        self, x: Tensor, lengths: Tensor = None, initial_state: NestedTensors = None
    ) -> tuple[Tensor, NestedTensors]:
        state = tree.map_structure(lambda _: keras.KerasTensor((x.shape[0], self.units), self.compute_dtype), self.state_like)
        return keras.KerasTensor((x.shape[0], x.shape[1], self.units), self.compute_dtype), state

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "fused": self.fused, "padding": self.padding}


class Bidirectional(Nested, keras.layers.Layer):
    """Two layers of one kind over a row, one from each end (Schuster & Paliwal 1997), with outputs and states concatenated.

    Call it with x (b, s, inputs) and `lengths` (b,) int32 or None. It returns (outputs (b, s, 2 units), state), the last
    states of both directions concatenated, (b, 2 units) each.

    Args:
        units: units of each direction, an integer of at least 1.
        fused, padding: as in `Recurrent`.

    Raises:
        UsageError: `units` is not such an integer, or `padding` is unknown.
    """

    layer: type[Recurrent]

    def __init__(self, units: int, *, fused: bool = True, padding: str = "right", **kwargs: Any):
        super().__init__(**kwargs)
        arguments.one_of(PADDINGS, padding=padding)
        self.units, self.fused, self.padding = units, fused, padding
        self.forward_layer = self.layer(units, fused=fused, name="forward", dtype=self.dtype_policy)
        self.backward_layer = self.layer(units, fused=fused, name="backward", dtype=self.dtype_policy)

    def build(self, x_shape: Shape) -> None:
        self.forward_layer.build(x_shape)
        self.backward_layer.build(x_shape)

    def explain(self) -> str:
        """The implementation that both directions use."""
        return self.forward_layer.explain()

    def call(self, x: Tensor, lengths: Tensor = None) -> tuple[Tensor, NestedTensors]:
        left = self.padding == "left" and lengths is not None
        x = to_left(x, lengths) if left else x
        forward, forward_state = self.forward_layer(x, lengths)
        backward, backward_state = self.backward_layer(reverse_rows(x, lengths), lengths)
        outputs = ops.concatenate([forward, reverse_rows(backward, lengths)], axis=-1)
        state = tree.map_structure(lambda *pair: ops.concatenate(pair, axis=-1), forward_state, backward_state)
        return (to_right(outputs, lengths) if left else outputs), state

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "fused": self.fused, "padding": self.padding}


def check_directions(units: int, bidirectional: bool) -> None:
    """Raises UsageError where bidirectional layers, each direction with half the units, have an odd number of them."""
    if bidirectional and units % 2:
        raise UsageError(f"Expected units to be even where layers are bidirectional. Received: units={units}")
