"""What LSTM and GRU share: the recurrence over padded rows as `keras.ops`, both ends of a row, and the layer around a cell."""

import keras
from keras import ops, tree

from k3seq import backend
from k3seq.errors import UsageError
from k3seq.layers.masks import length_mask
from k3seq.layers.nested import Nested


def recurrence(step, projected, lengths, states):
    """Steps a cell over rows. At a padded step the states are kept and the output is 0.

    Args:
        step: (projected (b, p), *states) -> new states, of which the first is the output.
        projected: (b, s, p), the input projections of all steps. lengths: (b,) int, or None when no row is padded.
        states: tuple of (b, d).

    Returns:
        (outputs (b, s, d), *states), the states after each row's last real step (an empty row: those it began with).
    """
    columns = ops.transpose(projected, (1, 0, 2))
    if lengths is None:

        def advance(states, now):
            states = tuple(step(now, *states))
            return states, states

        # Each step gives all states, though only the first is used: `ops.scan` on TensorFlow wants outputs like the carry.
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


def reverse_rows(x, lengths=None):
    """Each row's real steps in reverse order, padding left where it is.

    Args:
        x: (b, s, ...). lengths: (b,) int of right-padded rows, or None: the whole row.
    """
    if lengths is None:
        return ops.flip(x, axis=1)
    steps, ends = _steps_and_lengths(x, lengths)
    return _take(x, ops.where(steps < ends, ends - 1 - steps, steps))


def to_left(x, lengths):
    """Left-padded rows as right-padded ones: each row rolled until its real steps come first. x (b, s, ...), lengths (b,)."""
    steps, ends = _steps_and_lengths(x, lengths)
    return _take(x, (steps - ends) % ops.shape(x)[1])


def to_right(x, lengths):
    """Right-padded rows as left-padded ones: what `to_left` undoes. x (b, s, ...), lengths (b,)."""
    steps, ends = _steps_and_lengths(x, lengths)
    return _take(x, (steps + ends) % ops.shape(x)[1])


def _steps_and_lengths(x, lengths):
    return ops.arange(ops.shape(x)[1], dtype="int32")[None, :], ops.cast(lengths, "int32")[:, None]


def _take(x, index):
    for _ in range(len(x.shape) - 2):
        index = ops.expand_dims(index, -1)
    return ops.take_along_axis(x, index, axis=1)


PADDINGS = ("right", "left")


class Recurrent(Nested, keras.layers.Layer):
    """A recurrent layer with explicit lengths that always gives its outputs and its last state.

    Call it with x (b, s, inputs); `lengths` (b,) int32, the real steps of each row (None: all); `initial_state`, as the cell
    has it (None: zeros). Returns (outputs (b, s, units), state); an output at padding is 0 and the state is that after the
    row's last real step (an empty row: the initial state), on every backend.

    A subclass names its kernel of the backend (`kernel_name`) and the structure of its state (`state_like`), makes `kernel`,
    `recurrent_kernel` and `bias` in `build`, and defines `definition` and `cell`.

    Args:
        units: int >= 1.
        fused: use the backend's own kernel (no forward-mode derivatives); False: the `keras.ops` definition.
        padding: "right" or "left", where the padding of a row stands.

    Raises:
        UsageError: `units` is not an integer of at least 1, or `padding` is unknown.
    """

    kernel_name = ""
    state_like: object = None

    def __init__(self, units, *, fused=True, padding="right", **kwargs):
        super().__init__(**kwargs)
        check_padding(padding)
        if not isinstance(units, int) or units < 1:
            raise UsageError(f"Expected units to be an integer of at least 1. Received: units={units!r}")
        self.units, self.fused, self.padding = units, fused, padding

    def definition(self, x, lengths, *states_and_weights):
        """The layer in `keras.ops` over right-padded rows: (outputs, *states)."""
        raise NotImplementedError

    def cell(self, projected, *states_and_weights):
        """One step: (projected (b, p), *states, *weights) -> tuple of states, the output first."""
        raise NotImplementedError

    def project(self, x, kernel, bias):
        """The part of a step that needs the input alone: x (..., inputs) -> (..., p)."""
        return ops.matmul(x, kernel) + bias

    def explain(self):
        """The path that a call takes, and why not a faster one, as a line of text."""
        return backend.describe()["kernels"][self.kernel_name] if self.fused else "keras.ops scan: fused=False was asked for"

    def start(self, batch):
        """The zero state of so many rows, (batch, units) each."""
        return tree.map_structure(lambda _: ops.zeros((batch, self.units), self.compute_dtype), self.state_like)

    def call(self, x, lengths=None, initial_state=None):
        state = self.start(ops.shape(x)[0]) if initial_state is None else initial_state
        states = [ops.cast(leaf, self.compute_dtype) for leaf in self._leaves(state)]
        left = self.padding == "left" and lengths is not None
        x = to_left(x, lengths) if left else x
        sequence = getattr(backend, self.kernel_name) if self.fused else self.definition
        outputs, *states = sequence(x, lengths, *states, *self._weights())
        return (to_right(outputs, lengths) if left else outputs), self._packed(states)

    def step(self, x, state):
        """One step: x (b, inputs), a state -> (output (b, units), state)."""
        kernel, recurrent_kernel, bias = self._weights()
        projected = self.project(ops.cast(x, self.compute_dtype), kernel, bias)
        states = self.cell(projected, *tree.flatten(state), recurrent_kernel, bias)
        return states[0], tree.pack_sequence_as(self.state_like, list(states))

    def _leaves(self, state):
        return state if isinstance(self.state_like, tuple) else (state,)

    def _packed(self, states):
        return tuple(states) if isinstance(self.state_like, tuple) else states[0]

    def _weights(self):
        return [ops.cast(weight, self.compute_dtype) for weight in (self.kernel, self.recurrent_kernel, self.bias)]

    def compute_output_spec(self, x, lengths=None, initial_state=None):
        state = tree.map_structure(lambda _: keras.KerasTensor((x.shape[0], self.units), self.compute_dtype), self.state_like)
        return keras.KerasTensor((x.shape[0], x.shape[1], self.units), self.compute_dtype), state

    def get_config(self):
        return {**super().get_config(), "units": self.units, "fused": self.fused, "padding": self.padding}


class Bidirectional(Nested, keras.layers.Layer):
    """Two layers of one kind over a row, one from each end (Schuster & Paliwal 1997), outputs and states side by side.

    Call it with x (b, s, inputs) and `lengths` (b,) int32 or None. Returns (outputs (b, s, 2 units), state), the last states of
    both directions side by side, (b, 2 units) each.

    Args:
        units: int >= 1, of each direction. fused, padding: as in `Recurrent`.
    """

    layer: type[Recurrent]

    def __init__(self, units, *, fused=True, padding="right", **kwargs):
        super().__init__(**kwargs)
        check_padding(padding)
        self.units, self.fused, self.padding = units, fused, padding
        self.ahead = self.layer(units, fused=fused, name="forward", dtype=self.dtype_policy)
        self.behind = self.layer(units, fused=fused, name="backward", dtype=self.dtype_policy)

    def build(self, x_shape):
        self.ahead.build(x_shape)
        self.behind.build(x_shape)

    def explain(self):
        """The path that both directions take."""
        return self.ahead.explain()

    def call(self, x, lengths=None):
        left = self.padding == "left" and lengths is not None
        x = to_left(x, lengths) if left else x
        ahead, state = self.ahead(x, lengths)
        behind, reverse_state = self.behind(reverse_rows(x, lengths), lengths)
        outputs = ops.concatenate([ahead, reverse_rows(behind, lengths)], axis=-1)
        state = tree.map_structure(lambda one, other: ops.concatenate([one, other], axis=-1), state, reverse_state)
        return (to_right(outputs, lengths) if left else outputs), state

    def get_config(self):
        return {**super().get_config(), "units": self.units, "fused": self.fused, "padding": self.padding}


def check_padding(padding):
    """Raises UsageError for a side that is not one of `PADDINGS`."""
    if padding not in PADDINGS:
        raise UsageError(f"Expected padding to be one of {', '.join(PADDINGS)}. Received: padding={padding!r}")
