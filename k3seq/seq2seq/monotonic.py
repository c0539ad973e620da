"""Monotonic attention (Raffel et al. 2017, https://arxiv.org/abs/1704.00784) with the scores of Luong and of Bahdanau."""

import random
from typing import Any, NamedTuple

import keras
from keras import initializers, ops

from k3seq.errors import UsageError
from k3seq.layers.alignments import MODES, monotonic_attention
from k3seq.random import fold, key, normal
from k3seq.seq2seq.content import BahdanauScore, LuongScore, layer_or_projection, names_of_none
from k3seq.seq2seq.mechanisms import AttentionMechanism
from k3seq.typing import Initializer, Nested, Tensor


class NoisyState(NamedTuple):
    """State of a monotonic mechanism with noise: alignments (b, s), and `draw` (b, 2) int32, which decoding and which step."""

    alignments: Any
    draw: Any


class MonotonicMechanism(AttentionMechanism):
    """The base of both monotonic mechanisms: bias, noise and alignments. Its state is the previous alignments.

    The scores get the learnt bias `attention_score_bias`, are masked, get noise, and become the probabilities to stop at an
    entry: their sigmoid, or in mode "hard" 1 where they are positive.
    """

    def __init__(self, sigmoid_noise: float, sigmoid_noise_seed: int | None, score_bias_init: float, mode: str, **kwargs: Any):
        if mode not in MODES:
            raise UsageError(f"Expected mode of {', '.join(MODES)}. Received: mode={mode!r}")
        if sigmoid_noise < 0:
            raise UsageError(f"Expected sigmoid_noise of at least 0. Received: sigmoid_noise={sigmoid_noise}")
        super().__init__(None, self.choose, **kwargs)
        self.mode, self.sigmoid_noise, self.score_bias_init = mode, sigmoid_noise, score_bias_init
        self.sigmoid_noise_seed = random.randrange(2**31) if sigmoid_noise_seed is None else sigmoid_noise_seed
        self.attention_score_bias_initializer = initializers.Constant(score_bias_init)

    def build_score(self, depth: Any) -> None:
        super().build_score(depth)
        self.attention_score_bias = self.add_weight(
            name="attention_score_bias", shape=(), initializer=self.attention_score_bias_initializer
        )
        if self.sigmoid_noise > 0:  # counts the decodings: each gets other noise
            self.draws = self.add_weight(name="draws", shape=(), dtype="int32", initializer="zeros", trainable=False)

    def initial_alignments(self, batch_size: Any, dtype: Any = None) -> Tensor:
        """All at the first entry: (batch_size, s)."""
        first = ops.zeros((batch_size,), "int32")
        return ops.one_hot(first, self.alignments_size, dtype=dtype or self.compute_dtype)

    def initial_state(self, batch_size: Any, dtype: Any = None) -> Nested:
        """The initial alignments; with noise a `NoisyState` of them."""
        alignments = self.initial_alignments(batch_size, dtype)
        if not self.sigmoid_noise > 0:
            return alignments
        draw = ops.stack(
            [ops.repeat(ops.reshape(self.draws.value, (1,)), batch_size), ops.zeros((batch_size,), "int32")], axis=1
        )
        self.draws.assign_add(1)
        return NoisyState(alignments, draw)

    @property
    def state_size(self) -> Nested:
        return NoisyState(self.alignments_size, 2) if self.sigmoid_noise > 0 else self.alignments_size

    def calculate_attention(self, query: Tensor, state: Nested) -> tuple[Any, Any]:
        if self.sigmoid_noise > 0:
            state = NoisyState(*state)  # of a loaded functional model it comes as a plain tuple
        scores = self.score(query)
        alignments = self.probability_fn(scores + ops.cast(self.attention_score_bias, scores.dtype), state)
        if not self.sigmoid_noise > 0:
            return alignments, alignments
        return alignments, NoisyState(alignments, state.draw + ops.convert_to_tensor([[0, 1]], dtype=state.draw.dtype))

    def choose(self, scores: Tensor, state: Nested) -> Tensor:
        """Alignments (b, s) of scores (b, s): the `probability_fn` of monotonic attention."""
        previous = state
        if self.sigmoid_noise > 0:
            previous = state.alignments
            scores = scores + ops.cast(self.sigmoid_noise * self._noise(ops.shape(scores), state.draw), scores.dtype)
        chosen = ops.cast(scores > 0, scores.dtype) if self.mode == "hard" else ops.sigmoid(scores)
        return monotonic_attention(chosen, previous, self.mode)

    def _noise(self, shape, draw):
        # the largest of the rows': a row that has ended may have stopped counting
        decoding, step = (ops.max(ops.cast(draw[:, i], "int32")) for i in range(2))
        words = key(self.sigmoid_noise_seed, "sigmoid_noise")
        return normal(fold(fold(words, decoding), step), shape)

    def get_config(self) -> dict[str, Any]:
        names = ("sigmoid_noise", "sigmoid_noise_seed", "score_bias_init", "mode")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="k3seq")
class LuongMonotonicAttention(LuongScore, MonotonicMechanism):
    """Monotonic attention with the multiplicative score.

    Args:
        units, memory, memory_sequence_length, scale, score_mask_value: as in `LuongAttention`.
        sigmoid_noise: standard deviation of the noise on the scores, which drives them to 0 or 1; 0: none. As in TFA it is
            added at inference, too.
        sigmoid_noise_seed: int; None: drawn from Python's `random`, which `keras.utils.set_random_seed` seeds.
        score_bias_init: initial value of the scores' bias; negative for long memories.
        mode: "parallel", "recursive" or "hard", see `monotonic_attention`.

    Raises:
        UsageError: an unknown mode, negative noise, or as in `setup_memory`.
    """

    def __init__(
        self,
        units: int,
        memory: Tensor | None = None,
        memory_sequence_length: Tensor | None = None,
        scale: bool = False,
        sigmoid_noise: float = 0.0,
        sigmoid_noise_seed: int | None = None,
        score_bias_init: float = 0.0,
        mode: str = "parallel",
        dtype: Any = None,
        name: str = "LuongMonotonicAttention",
        score_mask_value: float | None = None,
        memory_layer: Any = None,
        query_layer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(
            sigmoid_noise,
            sigmoid_noise_seed,
            score_bias_init,
            mode,
            query_layer=query_layer,
            memory_layer=layer_or_projection(memory_layer, units, "memory_layer", dtype),
            score_mask_value=score_mask_value,
            dtype=dtype,
            name=name,
            **kwargs,
        )
        self.units, self.scale = units, scale
        self._default_layers = names_of_none(memory_layer=memory_layer, query_layer=query_layer)
        if memory is not None:
            self.setup_memory(memory, memory_sequence_length)


@keras.saving.register_keras_serializable(package="k3seq")
class BahdanauMonotonicAttention(BahdanauScore, MonotonicMechanism):
    """Monotonic attention with the additive score.

    Args:
        units, memory, memory_sequence_length, normalize, kernel_initializer, score_mask_value: as in `BahdanauAttention`.
        sigmoid_noise, sigmoid_noise_seed, score_bias_init, mode: as in `LuongMonotonicAttention`.

    Raises:
        UsageError: an unknown mode, negative noise, or as in `setup_memory`.
    """

    def __init__(
        self,
        units: int,
        memory: Tensor | None = None,
        memory_sequence_length: Tensor | None = None,
        normalize: bool = False,
        sigmoid_noise: float = 0.0,
        sigmoid_noise_seed: int | None = None,
        score_bias_init: float = 0.0,
        mode: str = "parallel",
        kernel_initializer: Initializer = "glorot_uniform",
        dtype: Any = None,
        name: str = "BahdanauMonotonicAttention",
        score_mask_value: float | None = None,
        memory_layer: Any = None,
        query_layer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(
            sigmoid_noise,
            sigmoid_noise_seed,
            score_bias_init,
            mode,
            query_layer=layer_or_projection(query_layer, units, "query_layer", dtype),
            memory_layer=layer_or_projection(memory_layer, units, "memory_layer", dtype),
            score_mask_value=score_mask_value,
            dtype=dtype,
            name=name,
            **kwargs,
        )
        self.units, self.normalize = units, normalize
        self._default_layers = names_of_none(memory_layer=memory_layer, query_layer=query_layer)
        self.attention_v_initializer = initializers.get(kernel_initializer)
        if memory is not None:
            self.setup_memory(memory, memory_sequence_length)
