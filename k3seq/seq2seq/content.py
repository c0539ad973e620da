"""Multiplicative (Luong) and additive (Bahdanau) attention, under softmax or hardmax."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import initializers, ops

from k3seq.errors import UsageError
from k3seq.layers.alignments import hardmax, softmax
from k3seq.layers.dense import Projection
from k3seq.layers.scores import additive_score, luong_score
from k3seq.seq2seq.mechanisms import AttentionMechanism
from k3seq.typing import Initializer, Nested, Tensor

PROBABILITIES = {"softmax": softmax, "hardmax": hardmax}


def named_probability(probability_fn: Any) -> Callable[[Any, Any], Any]:
    """A function of (scores, state) from a name or from a function of the scores.

    Raises:
        UsageError: another name, or something that cannot be called.
    """
    function = PROBABILITIES.get(probability_fn) if isinstance(probability_fn, str) else probability_fn
    if not callable(function):
        raise UsageError(
            f"Expected probability_fn of {', '.join(PROBABILITIES)}, or a function of the scores. "
            f"Received: probability_fn={probability_fn!r}"
        )
    return lambda scores, state: function(scores)


def probability_config(probability_fn: Any) -> Any:
    """A name as it is, a registered function as Keras serialises it."""
    return probability_fn if isinstance(probability_fn, str) else keras.saving.serialize_keras_object(probability_fn)


def layer_or_projection(layer: Any, units: int, name: str, dtype: Any) -> keras.layers.Layer:
    """The layer that was given, or a linear layer of this size without a bias."""
    return Projection(units, name=name, dtype=dtype) if layer is None else layer


def names_of_none(**layers: Any) -> tuple[str, ...]:
    """The names of the layers that were not given."""
    return tuple(name for name, layer in layers.items() if layer is None)


class LuongScore(AttentionMechanism):
    """The weights and the score of multiplicative attention: `attention_g` where `scale` is True."""

    units: int
    scale: bool

    def build_score(self, depth: Any) -> None:
        self.attention_g = None
        if self.scale:
            self.attention_g_initializer = initializers.Ones()
            self.attention_g = self.add_weight(name="attention_g", shape=(), initializer=self.attention_g_initializer)
        super().build_score(depth)

    def score(self, query: Tensor) -> Tensor:
        """Scores (b, s) of a query (b, units)."""
        query = query if self.query_layer is None else self.query_layer(query)
        scores = luong_score(ops.expand_dims(query, 1), self.keys)[:, 0]
        return scores if self.attention_g is None else ops.cast(self.attention_g, scores.dtype) * scores

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "scale": self.scale}


class BahdanauScore(AttentionMechanism):
    """The weights and the score of additive attention: `attention_v`, and `attention_g`, `attention_b` with `normalize`."""

    units: int
    normalize: bool
    attention_v_initializer: Any

    def build_score(self, depth: Any) -> None:
        self.attention_v = self.add_weight(name="attention_v", shape=(depth,), initializer=self.attention_v_initializer)
        self.attention_g = self.attention_b = None
        if self.normalize:
            self.attention_g_initializer = initializers.Constant(math.sqrt(1.0 / depth))
            self.attention_b_initializer = initializers.Zeros()
            self.attention_g = self.add_weight(name="attention_g", shape=(), initializer=self.attention_g_initializer)
            self.attention_b = self.add_weight(name="attention_b", shape=(depth,), initializer=self.attention_b_initializer)
        super().build_score(depth)

    def score(self, query: Tensor) -> Tensor:
        """Scores (b, s) of a query (b, d)."""
        query = self.query_layer(query)
        weights = [w if w is None else ops.cast(w, query.dtype) for w in (self.attention_v, self.attention_g, self.attention_b)]
        return additive_score(ops.expand_dims(query, 1), self.keys, *weights)[:, 0]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "normalize": self.normalize,
            "kernel_initializer": initializers.serialize(self.attention_v_initializer),
        }


class ContentMechanism(AttentionMechanism):
    """The base of softmax and hardmax attention: a probability by name, and alignments without the previous ones.

    Args:
        probability_fn: "softmax", "hardmax", or a function of the scores (b, s). options: of `AttentionMechanism`.
    """

    def __init__(self, probability_fn: Any, **options: Any):
        super().__init__(None, named_probability(probability_fn), **options)
        self.probability_fn_name = probability_fn

    def calculate_attention(self, query: Tensor, state: Nested) -> tuple[Any, Any]:
        alignments = self.probability_fn(self.score(query), state)
        return alignments, alignments

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "probability_fn": probability_config(self.probability_fn_name)}


@keras.saving.register_keras_serializable(package="k3seq")
class LuongAttention(LuongScore, ContentMechanism):
    """Multiplicative attention (Luong et al. 2015, https://arxiv.org/abs/1508.04025).

    Args:
        units: depth of the keys, which must be that of the queries.
        memory: (b, s, m), or None: `setup_memory` follows. memory_sequence_length: (b,) int or None.
        scale: multiply the scores by a learnt scalar.
        probability_fn: "softmax", "hardmax", or a function of the scores (b, s).
        score_mask_value: as in `AttentionMechanism`.

    Raises:
        UsageError: an unknown `probability_fn`, or as in `setup_memory`.
    """

    def __init__(
        self,
        units: int,
        memory: Tensor | None = None,
        memory_sequence_length: Tensor | None = None,
        scale: bool = False,
        probability_fn: Any = "softmax",
        dtype: Any = None,
        name: str = "LuongAttention",
        score_mask_value: float | None = None,
        memory_layer: Any = None,
        query_layer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(
            probability_fn,
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
class BahdanauAttention(BahdanauScore, ContentMechanism):
    """Additive attention (Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473).

    Args:
        units: depth of keys and projected queries.
        memory: (b, s, m), or None: `setup_memory` follows. memory_sequence_length: (b,) int or None.
        normalize: weight normalisation of the score's vector (Salimans & Kingma 2016, https://arxiv.org/abs/1602.07868).
        probability_fn: "softmax", "hardmax", or a function of the scores (b, s).
        kernel_initializer: of the score's vector `attention_v`.
        score_mask_value: as in `AttentionMechanism`.

    Raises:
        UsageError: an unknown `probability_fn`, or as in `setup_memory`.
    """

    def __init__(
        self,
        units: int,
        memory: Tensor | None = None,
        memory_sequence_length: Tensor | None = None,
        normalize: bool = False,
        probability_fn: Any = "softmax",
        kernel_initializer: Initializer = "glorot_uniform",
        dtype: Any = None,
        name: str = "BahdanauAttention",
        score_mask_value: float | None = None,
        memory_layer: Any = None,
        query_layer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(
            probability_fn,
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
