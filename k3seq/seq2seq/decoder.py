"""Decoders and the loop that runs them: `tfa.seq2seq.decoder` on three backends."""

import abc
from typing import Any

import keras
from keras import ops, tree

from k3seq import backend
from k3seq.errors import UsageError
from k3seq.seq2seq import expect
from k3seq.seq2seq.enclosing import outer_call
from k3seq.seq2seq.recurrence import Recurrence
from k3seq.typing import Nested, Tensor


class _Protocol:
    """The members of a decoder that `dynamic_decode` uses, apart from `initialize` and `step`."""

    @property
    def batch_size(self) -> Any:
        """Rows of the batch: an int, or a scalar tensor; known after `initialize`."""
        raise NotImplementedError

    @property
    def output_size(self) -> Any:
        """Structure of the outputs of a step, at each leaf the shape (a tuple, or an int) without the batch axis."""
        raise NotImplementedError

    @property
    def output_dtype(self) -> Any:
        """Structure of the outputs of a step, at each leaf its dtype."""
        raise NotImplementedError

    @property
    def longest(self) -> Any:
        """The most steps that the inputs of this call allow (an int, or a scalar tensor), or None: no limit."""
        return None

    @property
    def reads(self) -> Nested:
        """Time-major tensors of which the step at `time` needs row `time`, or None. `read` is then called before each step.

        A loop passes such rows at far less cost than a step that takes them from the whole tensor, above all in training:
        the gradient of the whole tensor is then made of rows, too.
        """
        return None

    def read(self, now: Nested) -> None:
        """Receives the row of `reads` for the next step."""
        return None

    def begin(self, inputs: Nested, state: Nested, training: bool | None, impute_finished: bool) -> None:
        """Called between `initialize` and the first step: work that must not be done in a compiled loop."""
        return None

    def close(self) -> None:
        """Called at the end, also after an error: drops the tensors of the call."""
        return None

    def finalize(self, outputs: Nested, final_state: Nested, sequence_lengths: Tensor) -> tuple[Any, Any]:
        """Called after the last step with time-major outputs. Returns (outputs, final_state).

        Not defined here: `dynamic_decode` then leaves both as they are.
        """
        raise NotImplementedError

    @property
    def tracks_own_finished(self) -> bool:
        """Whether `finished` of a step is final; otherwise a row that has once ended stays ended.

        True for decoders that move rows between steps, as beam search does.
        """
        return False


class Decoder(_Protocol, abc.ABC):
    """A decoder that is not a Keras layer and gets its inputs in its constructor."""

    @abc.abstractmethod
    def initialize(self, name: str | None = None) -> tuple[Any, ...]:
        """Returns (finished, initial inputs, initial state); `finished` is bool (b,)."""

    @abc.abstractmethod
    def step(
        self, time: Tensor, inputs: Nested, state: Nested, training: bool | None = None, name: str | None = None
    ) -> tuple[Any, ...]:
        """Returns (outputs, next state, next inputs, finished); `time` is an int32 scalar."""


class BaseDecoder(_Protocol, keras.layers.Layer):
    """A decoder that is a Keras layer: a call runs `dynamic_decode` on it.

    Called with `inputs` (structure of tensors, usually (b, t, d)), `initial_state` and the keyword arguments of its
    `initialize`, it returns (outputs, final state, lengths) as `dynamic_decode` does. Inputs keep their dtype; the cell casts
    them.

    Args:
        output_time_major, impute_finished, maximum_iterations, parallel_iterations, swap_memory: as in `dynamic_decode`.
    """

    def __init__(
        self,
        output_time_major: bool = False,
        impute_finished: bool = False,
        maximum_iterations: Any = None,
        parallel_iterations: int = 32,
        swap_memory: bool = False,
        **kwargs: Any,
    ):
        expect.steps("maximum_iterations", maximum_iterations)
        super().__init__(**{"autocast": False, **kwargs})
        self.output_time_major = output_time_major
        self.impute_finished = impute_finished
        self.maximum_iterations = maximum_iterations
        self.parallel_iterations = parallel_iterations
        self.swap_memory = swap_memory
        self.supports_masking = True

    def call(self, inputs: Nested, initial_state: Nested = None, training: bool | None = None, **kwargs: Any) -> Any:
        return dynamic_decode(
            self,
            output_time_major=self.output_time_major,
            impute_finished=self.impute_finished,
            maximum_iterations=self.maximum_iterations,
            parallel_iterations=self.parallel_iterations,
            swap_memory=self.swap_memory,
            training=training,
            decoder_init_input=inputs,
            decoder_init_kwargs={**kwargs, "initial_state": initial_state},
        )

    def initialize(self, inputs: Nested, initial_state: Nested = None, **kwargs: Any) -> tuple[Any, ...]:
        """Called once before the first step.

        Args:
            inputs, initial_state: as in the call. **kwargs: what else the call was given.

        Returns:
            (finished, initial inputs, initial state): bool (b,), and the structures that `step` takes.
        """
        raise NotImplementedError

    def step(self, time: Tensor, inputs: Nested, state: Nested, training: bool | None = None) -> tuple[Any, ...]:
        """One step.

        Args:
            time: int32 scalar. inputs, state: as the step before (or `initialize`) gave them. training: bool or None.

        Returns:
            (outputs, next state, next inputs, finished): outputs shaped as `output_size` says; state and inputs with the
            structure, shapes and dtypes that they had; finished bool (b,).
        """
        raise NotImplementedError

    def compute_mask(self, inputs: Nested, previous_mask: Any) -> None:
        return None

    def get_config(self) -> dict[str, Any]:
        names = ("output_time_major", "impute_finished", "maximum_iterations", "parallel_iterations", "swap_memory")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def dynamic_decode(
    decoder: Any,
    output_time_major: bool = False,
    impute_finished: bool = False,
    maximum_iterations: Any = None,
    parallel_iterations: int = 32,
    swap_memory: bool = False,
    training: bool | None = None,
    scope: Any = None,
    enable_tflite_convertible: bool = False,
    **kwargs: Any,
) -> tuple[Any, Any, Any]:
    """Runs a decoder: `initialize` once, then `step` until every row has ended.

    It ends early on every backend and can be differentiated on every backend. How many steps the outputs have:

    - called eagerly and on its own: as many as were taken, max(lengths) for a `BasicDecoder`, as in TFA;
    - inside a compiled function, or inside another layer or a model: `maximum_iterations`, or the steps of the training
      inputs, the smaller of the two. Steps that no row takes are 0 in the outputs (also in sample ids).
      Where neither number is known, JAX raises, and TensorFlow's graph and eager loops give the steps taken. So does a
      TensorFlow function whose number of steps is unknown while it is traced.

    Args:
        decoder: a `Decoder` or a `BaseDecoder`.
        output_time_major: outputs (t, b, ...) in place of (b, t, ...).
        impute_finished: outputs of rows that have ended are 0 and their state stays as it was; otherwise they compute on.
        maximum_iterations: most steps: an int, or a scalar tensor (not under a trace on JAX); None: until all rows end.
        parallel_iterations, swap_memory, scope: not used; TFA has them.
        training: handed to `decoder.step`.
        enable_tflite_convertible: needs `maximum_iterations`, as in TFA; no effect on the result.
        **kwargs: `decoder_init_input` and `decoder_init_kwargs`, for a `BaseDecoder`'s `initialize`.

    Returns:
        (outputs, final state, lengths): the structures that the decoder gives, and int32 (b,), the steps until each row
        ended; where a decoder tracks that itself, as beam search does, the `lengths` of its final state.

    Raises:
        WrongType: (TypeError) `decoder` is not a decoder, or an argument is not known.
        UsageError: (ValueError) `maximum_iterations` is not a scalar or is missing where it is needed; a step gives other
            structures than it took.
    """
    expect.type_of("decoder", decoder, (Decoder, BaseDecoder), "a Decoder or a BaseDecoder")
    first, arguments = kwargs.pop("decoder_init_input", None), kwargs.pop("decoder_init_kwargs", {})
    if kwargs:
        raise expect.WrongType(f"Expected the arguments of dynamic_decode. Received: {', '.join(sorted(kwargs))}")
    limit = _limit(maximum_iterations)
    if enable_tflite_convertible and limit is None:
        raise UsageError("Expected maximum_iterations with enable_tflite_convertible=True. Received: maximum_iterations=None")
    try:
        initial = decoder.initialize() if isinstance(decoder, Decoder) else decoder.initialize(first, **arguments)
        finished, inputs, state = tree.map_structure(ops.convert_to_tensor, tuple(initial))
        decoder.begin(inputs, state, training, impute_finished)
        loop = Recurrence(decoder, impute_finished, training, ops.cast(finished, "bool"), inputs, state)
        # Inside another layer or a model outputs have one length, however the call runs.
        longest, whole = _shorter(limit, decoder.longest), outer_call(decoder) is not None
        outputs, state, lengths = loop.run(longest, whole)
        if longest is not None and not isinstance(longest, int) and not whole:
            taken = ops.max(lengths)  # TensorFlow's graph does not know the number of steps: as many as were taken
            outputs = tree.map_structure(lambda leaf: leaf[:taken], outputs)
        if decoder.tracks_own_finished and hasattr(state, "lengths"):
            lengths = state.lengths  # those of the beams, which have changed places
        try:
            outputs, state = decoder.finalize(outputs, state, lengths)
        except NotImplementedError:
            pass
    finally:
        decoder.close()
    if not output_time_major:
        outputs = tree.map_structure(lambda leaf: ops.swapaxes(leaf, 0, 1), outputs)
    return outputs, state, lengths


def _limit(maximum_iterations):
    """`maximum_iterations` as an int, a traced scalar, or None."""
    if maximum_iterations is None:
        return None
    expect.steps("maximum_iterations", maximum_iterations)
    known = backend.known(maximum_iterations)
    return maximum_iterations if known is None else max(int(known), 0)


def _shorter(limit, longest):
    if limit is None or longest is None:
        return longest if limit is None else limit
    return min(limit, longest) if isinstance(limit, int) and isinstance(longest, int) else ops.minimum(limit, longest)
