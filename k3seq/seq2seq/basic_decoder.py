"""A decoder whose sampler chooses the next input: `tfa.seq2seq.basic_decoder` on three backends."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import keras
from keras import KerasTensor, ops, tree

from k3seq.backend.keras_internals import layers_of
from k3seq.errors import UsageError
from k3seq.seq2seq import expect
from k3seq.seq2seq.attention_functions import track_each, without_shapes
from k3seq.seq2seq.beams import check_parts
from k3seq.seq2seq.decoder import BaseDecoder
from k3seq.seq2seq.parts import OutputShape, build_cell, loaded_parts
from k3seq.seq2seq.recurrence import kinds_of
from k3seq.seq2seq.sampler import Sampler
from k3seq.typing import Nested, Shape, Tensor


class BasicDecoderOutput(NamedTuple):
    """The output of a step of a `BasicDecoder`, or (with a time axis) of a call.

    rnn_output: (b, ..., o), of the output layer, or of the cell where there is none. sample_id: (b, ...), of the sampler.
    """

    rnn_output: Any
    sample_id: Any


@keras.saving.register_keras_serializable(package="k3seq")
class BasicDecoder(BaseDecoder):
    """A cell, a sampler and an output layer.

    Called as `decoder(inputs, initial_state=state, ...)`, eagerly, inside a model, or in the functional API; such a functional
    model saves to `.keras`. The other arguments of the call are the sampler's: `sequence_length` or `mask`
    (training), `embedding` (scheduled), `auxiliary_inputs`, `start_tokens`, `end_token` (greedy and drawn), `step`. Returns
    (`BasicDecoderOutput` (b, t, ...), final state, lengths (b,) int32); of the number of steps t see `dynamic_decode`.

    Args:
        cell: an RNN cell: `output_size`, `state_size` and (inputs, states, training) -> (outputs, states).
        sampler: a `Sampler`.
        output_layer: a layer on the cell's outputs, or None.
        **kwargs: `BaseDecoder`'s (`maximum_iterations`, `impute_finished`, ...) and a layer's.

    Raises:
        WrongType: (TypeError) `cell`, `sampler` or `output_layer` is something else.
        UsageError: at the call, without an initial state or with one of another structure than the cell's; from the sampler.
    """

    def __init__(self, cell: Any, sampler: Any, output_layer: keras.layers.Layer | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if not callable(cell) or not all(hasattr(cell, name) for name in ("output_size", "state_size")):
            raise expect.WrongType(f"Expected cell to be an RNN cell. Received: cell={cell!r}")
        expect.type_of("sampler", sampler, Sampler, "a Sampler")
        if output_layer is not None:
            expect.type_of("output_layer", output_layer, keras.layers.Layer, "a layer")
        self.cell: Any = cell
        self.sampler, self.output_layer = sampler, output_layer
        self._sampler_layers = list(sampler.layers)
        track_each(self, "_sampler_layers", self._sampler_layers)
        track_each(self, "_sampler_variables", sampler.variables)
        self._late = self._builds = False

    def build(
        self, inputs_shape: Any = None, initial_state_shape: Any = None, auxiliary_inputs_shape: Shape | None = None
    ) -> None:
        depth = self.sampler.depth(inputs_shape, auxiliary_inputs_shape)
        self._builds = depth is not None
        if self._builds:
            self._build_layers((None, depth), initial_state_shape)

    def _build_layers(self, shape, state_shape):
        build_cell(self.cell, shape, state_shape)
        if self.output_layer is not None and not self.output_layer.built:
            self.output_layer.build(_with_batch(self.cell.output_size))
        for layer in self._sampler_layers:
            if not layer.built:
                layer.build(_with_batch(self._rnn_output_size()))

    def call(
        self,
        inputs: Nested,
        initial_state: Nested = None,
        training: bool | None = None,
        sequence_length: Tensor | None = None,
        mask: Tensor | None = None,
        embedding: Any = None,
        auxiliary_inputs: Tensor | None = None,
        start_tokens: Any = None,
        end_token: Any = None,
        step: Any = None,
        **kwargs: Any,
    ) -> Any:
        given = {
            "sequence_length": sequence_length,
            "mask": mask,
            "embedding": embedding,
            "auxiliary_inputs": auxiliary_inputs,
            "start_tokens": start_tokens,
            "end_token": end_token,
            "step": step,
        }
        kwargs.update((name, value) for name, value in given.items() if value is not None)
        return super().call(inputs, initial_state, training, **kwargs)

    def initialize(self, inputs: Nested, initial_state: Nested = None, **kwargs: Any) -> tuple[Any, ...]:
        """`inputs` and `kwargs` are the sampler's; `initial_state` is the cell's, with b rows. See `BaseDecoder.initialize`."""
        initial_state = _state_of(self.cell, initial_state)
        finished, first = self.sampler.initialize(inputs, **kwargs)
        state = tree.map_structure(self._in_precision, initial_state)
        batch = self.sampler.batch_size
        for leaf, kind in zip(tree.flatten(state), tree.flatten(kinds_of(state)), strict=True):
            if isinstance(batch, int) and kind == "moves" and len(leaf.shape) and leaf.shape[0] not in (batch, None):
                raise UsageError(f"Expected initial_state for {batch} rows. Received: shape {tuple(leaf.shape)}")
        self._state_dtype = keras.backend.standardize_dtype(tree.flatten(state)[0].dtype)
        self._build_layers(tuple(tree.flatten(first)[0].shape), tree.map_structure(lambda leaf: tuple(leaf.shape), state))
        return finished, first, state

    def _in_precision(self, leaf):
        """NumPy's float64 in the cell's dtype; every other dtype as it is."""
        leaf, wanted = ops.convert_to_tensor(leaf), getattr(self.cell, "compute_dtype", None)
        return ops.cast(leaf, wanted) if wanted and keras.backend.standardize_dtype(leaf.dtype) == "float64" else leaf

    def begin(self, inputs: Nested, state: Nested, training: bool | None, impute_finished: bool) -> None:
        self.sampler.advance(training)
        if training:
            for cell in self._dropping():
                # One mask for all steps, as in Keras' RNN, and drawn before the loop: a draw changes a variable.
                cell.get_dropout_mask(ops.ones((self.batch_size, cell.kernel.shape[0]), cell.compute_dtype))
                cell.get_recurrent_dropout_mask(ops.ones((self.batch_size, cell.units), cell.compute_dtype))
        defined_here = type(self).step is BasicDecoder.step
        self._late = defined_here and self.output_layer is not None and self.sampler.reads_only
        self._imputed = impute_finished

    def _dropping(self):
        cells = layers_of(self.cell) if isinstance(self.cell, keras.layers.Layer) else []
        return [cell for cell in cells if hasattr(cell, "get_dropout_mask")]

    def close(self) -> None:
        for cell in self._dropping():
            cell.reset_dropout_mask()
            cell.reset_recurrent_dropout_mask()
        self._late = False
        self.sampler.release()

    @property
    def batch_size(self) -> Any:
        return self.sampler.batch_size

    @property
    def longest(self) -> Any:
        return self.sampler.longest

    @property
    def reads(self) -> Nested:
        return self.sampler.reads

    def read(self, now: Nested) -> None:
        self.sampler.read(now)

    def _rnn_output_size(self):
        if self.output_layer is None or self._late:
            return _with_batch(self.cell.output_size)[1:]
        return tuple(self.output_layer.compute_output_shape(_with_batch(self.cell.output_size)))[1:]

    @property
    def output_size(self) -> Any:
        return BasicDecoderOutput(OutputShape(self._rnn_output_size()), OutputShape(self.sampler.sample_ids_shape))

    @property
    def output_dtype(self) -> Any:
        last = self.cell if self.output_layer is None or self._late else self.output_layer
        dtype = getattr(last, "compute_dtype", None) or self._state_dtype
        return BasicDecoderOutput(dtype, self.sampler.sample_ids_dtype)

    def step(self, time: Tensor, inputs: Nested, state: Nested, training: bool | None = None) -> tuple[Any, ...]:
        """One step of cell, output layer and sampler. See `BaseDecoder.step`; outputs are a `BasicDecoderOutput`."""
        outputs, state = self.cell(inputs, state, training=training)
        if self._late:
            ids = ops.zeros((self.batch_size,), "int32")
        else:
            outputs = outputs if self.output_layer is None else self.output_layer(outputs)
            ids = self.sampler.sample(time=time, outputs=outputs, state=state)
        finished, next_inputs, state = self.sampler.next_inputs(time=time, outputs=outputs, state=state, sample_ids=ids)
        return BasicDecoderOutput(outputs, ids), state, next_inputs, finished

    def finalize(self, outputs: Nested, final_state: Nested, sequence_lengths: Tensor) -> tuple[Any, Any]:
        """Applies the output layer to all steps at once where no step needed it: one product instead of t small ones."""
        if not self._late or self.output_layer is None:
            raise NotImplementedError
        steps = ops.shape(outputs.rnn_output)[0]
        ends = sequence_lengths if self._imputed else ops.max(sequence_lengths, keepdims=True)
        runs = ops.arange(steps, dtype="int32")[:, None] < ends[None]
        logits = self.output_layer(outputs.rnn_output)
        ids = self.sampler.sample(time=None, outputs=logits, state=final_state)
        logits = ops.where(runs[..., None], logits, ops.zeros_like(logits))
        return BasicDecoderOutput(logits, ops.where(runs, ids, ops.zeros_like(ids))), final_state

    def compute_output_spec(
        self, inputs: Nested, initial_state: Nested = None, training: bool | None = None, **kwargs: Any
    ) -> tuple[Any, Any, Any]:
        initial_state = _state_of(self.cell, initial_state)
        if not getattr(self.cell, "built", True):
            raise UsageError(
                "Expected a cell that is built, as the sampler does not know the size of its inputs. Received: a cell not built"
            )
        first = tree.flatten(initial_state)[0]
        self._state_dtype = first.dtype
        counts = (self.maximum_iterations, None if inputs is None else self.sampler.steps(tree.flatten(inputs)[0].shape))
        known = [count for count in counts if isinstance(count, int)]
        steps = min(known) if known else None
        state = tree.map_structure(
            lambda leaf, kind: KerasTensor((steps, *leaf.shape[1:]) if kind == "history" else leaf.shape, leaf.dtype),
            initial_state,
            kinds_of(initial_state),
        )
        before = (steps, first.shape[0]) if self.output_time_major else (first.shape[0], steps)
        sizes, dtypes = self.output_size, self.output_dtype
        outputs = BasicDecoderOutput(*(KerasTensor((*before, *size), dtype) for size, dtype in zip(sizes, dtypes, strict=True)))
        return outputs, state, KerasTensor((first.shape[0],), "int32")

    def get_config(self) -> dict[str, Any]:
        # Where the sampler's inputs do not show the shapes, the config keeps them.
        serialised = without_shapes if self._builds else keras.saving.serialize_keras_object
        parts = {"cell": serialised(self.cell), "output_layer": serialised(self.output_layer)}
        return {**super().get_config(), **parts, "sampler": keras.saving.serialize_keras_object(self.sampler)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        return cls(**loaded_parts(config, ("cell", "sampler", "output_layer"), custom_objects))


def _with_batch(size):
    """A cell's `output_size`, an int or a shape, as a shape with an unknown batch."""
    return (None, size) if isinstance(size, int) else (None, *size)


def _state_of(cell, state):
    """The state in the cell's own types, checked: a functional model that was loaded holds their named tuples as plain ones."""
    if state is None:
        raise UsageError("Expected initial_state. Received: initial_state=None")
    state = _named(cell, state)
    check_parts(state, cell.state_size)
    return state


def _named(cell, state):
    cells = getattr(cell, "cells", ())
    if cells and isinstance(state, list | tuple) and len(state) == len(cells):
        return [_named(*pair) for pair in zip(cells, state, strict=True)]
    return cell.as_state(state) if hasattr(cell, "as_state") else state
