"""A recurrent cell that attends to a memory: `tfa.seq2seq.AttentionWrapper` on three backends."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Self

import keras
from keras import ops, tree

from k3seq.errors import UsageError
from k3seq.layers.alignments import monotonic_attention, safe_cumprod
from k3seq.layers.dense import Projection
from k3seq.seq2seq.attention_functions import attend, feed, hardmax, is_symbolic, track_each, without_shapes
from k3seq.seq2seq.attention_state import AlignmentHistory, AttentionWrapperState, as_state, check_state, history_may_grow
from k3seq.seq2seq.content import BahdanauAttention, LuongAttention
from k3seq.seq2seq.enclosing import outer_layer
from k3seq.seq2seq.expect import WrongType
from k3seq.seq2seq.mechanisms import AttentionMechanism
from k3seq.seq2seq.memory import AttentionMemory
from k3seq.seq2seq.monotonic import BahdanauMonotonicAttention, LuongMonotonicAttention
from k3seq.seq2seq.rnn_state import flattened, is_rnn_state, product_or_none, unflattened
from k3seq.typing import Nested, Tensor

__all__ = [
    "AlignmentHistory",
    "AttentionMechanism",
    "AttentionMemory",
    "AttentionWrapper",
    "AttentionWrapperState",
    "BahdanauAttention",
    "BahdanauMonotonicAttention",
    "LuongAttention",
    "LuongMonotonicAttention",
    "hardmax",
    "monotonic_attention",
    "safe_cumprod",
]


@keras.saving.register_keras_serializable(package="k3seq")
class AttentionWrapper(keras.layers.Layer):
    """Wraps a cell: its input includes the previous attention, and its output is the query of the next attention.

    Call it with inputs (b, x) and an `AttentionWrapperState`; it returns (output, next state). The memory is part of the
    state. It comes from `mechanism.setup_memory(...)` before `get_initial_state`, or from `get_initial_state(memory=...)`.

    Args:
        cell: a recurrent cell: `keras.layers.LSTMCell`, `GRUCell`, `StackedRNNCells` or one like them.
        attention_mechanism: an `AttentionMechanism`, or a list of them, whose attentions are concatenated.
        attention_layer_size: size of a linear layer on (cell output, context), which makes the attention; a list of sizes for a
            list of mechanisms; None: the attention is the context.
        alignment_history: keep the alignments of all steps in the state.
        cell_input_fn: (inputs, attention) -> input of the cell; None: concatenates both.
        output_attention: the output is the attention; False: that of the cell.
        initial_cell_state: what `get_initial_state` starts the cell with; None: the cell's own.
        attention_layer: a Keras layer (a list of them) instead of `attention_layer_size`.
        attention_fn: as `attend`, which is the default.

    Raises:
        UsageError: sizes and layers together, lists of different lengths. WrongType (also a TypeError): a wrong mechanism or
            function.
    """

    def __init__(
        self,
        cell: Any,
        attention_mechanism: Any,
        attention_layer_size: Any = None,
        alignment_history: bool = False,
        cell_input_fn: Callable[..., Any] | None = None,
        output_attention: bool = True,
        initial_cell_state: Nested = None,
        name: str | None = None,
        attention_layer: Any = None,
        attention_fn: Callable[..., Any] | None = None,
        **kwargs: Any,
    ):
        # the cell and the mechanisms cast for themselves: a state keeps the dtype of what made it
        super().__init__(name=name, **{"autocast": False, **kwargs})
        self._is_multi = isinstance(attention_mechanism, list | tuple)
        mechanisms = list(attention_mechanism) if self._is_multi else [attention_mechanism]
        for mechanism in mechanisms:
            if not isinstance(mechanism, AttentionMechanism):
                raise WrongType(f"Expected attention_mechanism to be an AttentionMechanism. Received: {mechanism!r}")
        for label, function in (("cell_input_fn", cell_input_fn), ("attention_fn", attention_fn)):
            if function is not None and not callable(function):
                raise WrongType(f"Expected {label} to be callable. Received: {function!r}")
        if attention_layer_size is not None and attention_layer is not None:
            raise UsageError("Expected attention_layer_size or attention_layer. Received: both")
        self.cell, self._attention_mechanisms = cell, mechanisms
        self.attention_layer_size, self.attention_layer = attention_layer_size, attention_layer
        self._attention_layers = self._layers_of(attention_layer_size, attention_layer, len(mechanisms))
        track_each(self, "_attention_mechanisms", mechanisms)
        track_each(self, "_attention_layers", self._attention_layers)
        self._alignment_history, self._output_attention = alignment_history, output_attention
        self.cell_input_fn, self.attention_fn = cell_input_fn or feed, attention_fn or attend
        self._initial_cell_state = initial_cell_state

    def _layers_of(self, sizes, layers, count):
        given = layers if sizes is None else sizes
        if given is None:
            return [None] * count
        given = list(given) if isinstance(given, list | tuple) else [given]
        if len(given) != count:
            argument = "attention_layer" if sizes is None else "attention_layer_size"
            raise UsageError(f"Expected {argument} for each of {count} mechanisms. Received: {len(given)}")
        if sizes is None:
            return given
        names = ["attention_layer", *(f"attention_layer_{i}" for i in range(1, count))]
        return [Projection(size, name=name, dtype=self.dtype_policy) for size, name in zip(given, names, strict=True)]

    @property
    def attention_mechanism(self) -> Any:
        """The mechanism, or the list of them."""
        return self._attention_mechanisms if self._is_multi else self._attention_mechanisms[0]

    def _attention_size(self):
        """Width of the attention, or None while the depth of a memory is not known."""
        sizes = []
        for mechanism, layer in zip(self._attention_mechanisms, self._attention_layers, strict=True):
            if mechanism.memory_depth is None and not isinstance(layer, Projection):
                return None
            shape = (None, self.cell.output_size + (mechanism.memory_depth or 0))
            sizes.append(mechanism.memory_depth if layer is None else layer.compute_output_shape(shape)[-1])
        return sum(sizes)

    @property
    def output_size(self) -> Any:
        """Width of the output; None where it is that of a memory which is not set up yet."""
        return self._attention_size() if self._output_attention else self.cell.output_size

    @property
    def state_size(self) -> Nested:
        """`AttentionWrapperState` of sizes without the batch axis; None where a memory's is not known yet."""
        sizes = self._of_each(m.alignments_size for m in self._attention_mechanisms)
        histories = self._of_each(AlignmentHistory(m.alignments_size) for m in self._attention_mechanisms)
        return AttentionWrapperState(
            cell_state=self.cell.state_size,
            attention=self._attention_size(),
            alignments=sizes,
            alignment_history=histories if self._alignment_history else (),
            attention_state=self._of_each(m.state_size for m in self._attention_mechanisms),
            memory=self._of_each(
                AttentionMemory(*(product_or_none(m.alignments_size, d) for d in (m.key_depth, m.memory_depth, 1)))
                for m in self._attention_mechanisms
            ),
        )

    def as_state(self, state: Nested) -> AttentionWrapperState:
        """An `AttentionWrapperState` from the plain lists and tuples of a `.keras` file or of `keras.layers.RNN`."""
        if is_rnn_state(state):
            depths = [(mechanism.key_depth, mechanism.memory_depth) for mechanism in self._attention_mechanisms]
            memories = [unflattened(memory, *pair) for memory, pair in zip(self._each(state[-1]), depths, strict=True)]
            state = [*state[1:-1], self._of_each(memories)]
        return as_state(state, len(self._attention_mechanisms) if self._is_multi else None)

    def rnn_state(self, state: AttentionWrapperState, output: Tensor | None = None) -> list[Any]:
        """A state as `keras.layers.RNN` can carry it under a mask: [previous output, *fields], keys and values as (b, s * d).

        Keras' loop on JAX takes the first tensor of the state as the output of the step before, and combines every tensor of
        the state with a mask (b, 1).

        Args:
            state: `AttentionWrapperState`, or a `state_size`. output: (b, output size); None: zeros, as before the first step.
        """
        if not hasattr(state.attention, "shape"):
            return [self.output_size, *tuple(state)]
        rows = ops.shape(state.attention)[0]
        output = ops.zeros((rows, self.output_size), self.compute_dtype) if output is None else output
        return [output, *tuple(state)[:-1], self._of_each(flattened(memory) for memory in self._each(state.memory))]

    def _of_each(self, values):
        """A tuple for several mechanisms, the one value for one."""
        values = tuple(values)
        return values if self._is_multi else values[0]

    def _each(self, values):
        return tuple(values) if self._is_multi else (values,)

    def build(self, inputs_shape: Any, state_shape: Any = None) -> None:
        """Makes every weight. The depth of a memory comes from the shapes of the state, or from its setup."""
        memories = () if state_shape is None else self._each(self.as_state(state_shape).memory)
        for mechanism, shapes in zip(self._attention_mechanisms, memories, strict=False):
            if not mechanism.built:
                mechanism.build(shapes.values)
        for mechanism in self._attention_mechanisms:
            if mechanism.memory_depth is None:
                raise UsageError(f"Expected a memory of {mechanism.name}, by setup_memory or in the state. Received: none")
        if not self.cell.built:
            self.cell.build(self._cell_input_shape(inputs_shape))
        query_shape = (None, self.cell.output_size)
        for mechanism, layer in zip(self._attention_mechanisms, self._attention_layers, strict=True):
            if self.attention_fn is not attend:
                continue  # mechanism and layer are built when this function calls them
            if mechanism.query_depth is None:
                mechanism.build((None, None, mechanism.memory_depth), query_shape)
            if layer is not None and not layer.built:
                layer.build((None, self.cell.output_size + mechanism.memory_depth))

    def _cell_input_shape(self, inputs_shape):
        if self.cell_input_fn is feed:
            return (inputs_shape[0], inputs_shape[-1] + self._attention_size())
        joined = keras.layers.Lambda(lambda pair: self.cell_input_fn(*pair), dtype=self.dtype_policy)
        return joined.compute_output_shape([tuple(inputs_shape), (inputs_shape[0], self._attention_size())])

    def get_initial_state(
        self, inputs: Tensor | None = None, batch_size: Any = None, dtype: Any = None, memory: Any = None
    ) -> AttentionWrapperState:
        """State before the first step; with a symbolic memory a symbolic one, whatever the batch size.

        Args:
            inputs: a tensor whose first size is the batch size, where that is not given.
            batch_size: int or scalar tensor; None: that of the memory.
            dtype: not used; TFA has it. The state has the dtypes of cell and mechanisms.
            memory: what `mechanism.prepare_memory(...)` gave, a list of it for a list of mechanisms; None: what was set up.

        Raises:
            UsageError: there is no memory, or its batch size is another.
        """
        mechanisms = self._attention_mechanisms
        memories = self._each(memory) if memory is not None else tuple(m.take_memory() for m in mechanisms)
        if is_symbolic(memories):
            state, given = self(list(memories), begin=True), self._initial_cell_state
            return state if given is None else state.clone(cell_state=given)
        if inputs is not None and batch_size is None:
            batch_size = ops.shape(inputs)[0]
        rows = ops.shape(memories[0].mask)[0]
        batch_size = rows if batch_size is None else batch_size
        for found in [ops.shape(m.mask)[0] for m in memories]:
            if isinstance(found, int) and isinstance(batch_size, int) and found != batch_size:
                raise UsageError(
                    f"Expected a batch size of {found}, that of the memory (tile_batch repeats it for beams). "
                    f"Received: batch_size={batch_size}"
                )
        cell_state = self._initial_cell_state
        if cell_state is None:
            cell_state = self.cell.get_initial_state(batch_size=batch_size)
        alignments, states = [], []
        for mechanism, its in zip(mechanisms, memories, strict=True):
            with mechanism.using_memory(its):
                alignments.append(mechanism.initial_alignments(batch_size, mechanism.compute_dtype))
                states.append(mechanism.initial_state(batch_size, mechanism.compute_dtype))
        history = self._of_each(AlignmentHistory(ops.zeros((0, *ops.shape(a)), a.dtype)) for a in alignments)
        return AttentionWrapperState(
            cell_state=cell_state,
            attention=ops.zeros((batch_size, self._attention_size()), self.compute_dtype),
            alignments=self._of_each(alignments),
            alignment_history=history if self._alignment_history else (),
            attention_state=self._of_each(states),
            memory=self._of_each(memories),
        )

    def __call__(self, inputs: Nested, state: Nested = None, training: bool | None = None, begin: bool = False) -> Any:
        if (
            begin
        ):  # `get_initial_state` in a functional model: a node of it, but nothing is built, as no shape of inputs is known
            run = functools.partial(keras.Operation.symbolic_call, self) if is_symbolic(inputs) else self.call
            return run(inputs, begin=True)
        return super().__call__(inputs, state, **({} if training is None else {"training": training}))

    def call(self, inputs: Nested, state: Nested = None, training: bool | None = None, begin: bool = False) -> Any:
        if begin:
            memories = [AttentionMemory(*memory) for memory in inputs]  # a loaded model holds them as plain lists
            return self.get_initial_state(memory=memories if self._is_multi else memories[0])
        given, state = state, self.as_state(state)
        listed = not isinstance(given, AttentionWrapperState)
        if listed and state.records and not history_may_grow(outer_layer()):
            raise UsageError(
                "Expected alignment_history=False where a state comes as a list and cannot grow, as in keras.layers.RNN. "
                "Received: True"
            )
        several = len(self._attention_mechanisms) if self._is_multi else None
        check_state(state, inputs.shape[0], self.cell.state_size, self._attention_size(), several)
        cell_arguments = {"training": training} if "training" in inspect.signature(self.cell.call).parameters else {}
        cell_inputs = self.cell_input_fn(ops.cast(inputs, self.compute_dtype), state.attention)
        cell_output, cell_state = self.cell(cell_inputs, state.cell_state, **cell_arguments)
        attentions, alignments, states = [], [], []
        memories, before = self._each(state.memory), self._each(state.attention_state)
        with contextlib.ExitStack() as stack:
            for mechanism, memory in zip(self._attention_mechanisms, memories, strict=True):
                stack.enter_context(mechanism.using_memory(memory))
            for mechanism, layer, old in zip(self._attention_mechanisms, self._attention_layers, before, strict=True):
                for results, result in zip(
                    (attentions, alignments, states), self.attention_fn(mechanism, cell_output, old, layer), strict=True
                ):
                    results.append(result)
        attention = ops.cast(ops.concatenate(attentions, axis=-1), self.compute_dtype)
        history = state.alignment_history
        if state.records:
            history = self._of_each(h.append(a) for h, a in zip(self._each(history), alignments, strict=True))
        next_state = state._replace(
            cell_state=tree.pack_sequence_as(state.cell_state, tree.flatten(cell_state)),
            attention=attention,
            alignments=self._of_each(alignments),
            alignment_history=history,
            attention_state=self._of_each(states),
        )
        output = attention if self._output_attention else cell_output
        if is_rnn_state(given):
            return output, [*self.rnn_state(next_state, output)[:-1], given[-1]]
        return output, list(next_state) if listed else next_state

    def get_config(self) -> dict[str, Any]:
        def kept(function, default):
            return None if function is default else keras.saving.serialize_keras_object(function)

        return {
            **super().get_config(),
            "cell": without_shapes(self.cell),
            "attention_mechanism": keras.saving.serialize_keras_object(self.attention_mechanism),
            "attention_layer_size": self.attention_layer_size,
            "alignment_history": self._alignment_history,
            "cell_input_fn": kept(self.cell_input_fn, feed),
            "output_attention": self._output_attention,
            "attention_layer": without_shapes(self.attention_layer),
            "attention_fn": kept(self.attention_fn, attend),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        parts = ("cell", "attention_mechanism", "attention_layer", "cell_input_fn", "attention_fn")
        loaded = {part: keras.saving.deserialize_keras_object(config[part], custom_objects) for part in parts}
        return cls(**{**config, **loaded})

    def get_build_config(self) -> None:
        return None  # the parent builds the wrapper; otherwise its weights' paths would lack the parent's name
