"""Attention of decoder outputs over encoder outputs, all target steps at once."""

from typing import Any

import keras
from keras import initializers, ops

from k3seq import arguments, backend
from k3seq.errors import UsageError
from k3seq.layers.masks import key_mask, masked_softmax
from k3seq.layers.nested import Nested
from k3seq.layers.scores import luong_score
from k3seq.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="k3seq")
class GlobalAttention(Nested, keras.layers.Layer):
    """Luong's global attention with the "general" score, without input feeding (https://arxiv.org/abs/1508.04025, eq. 5, 7, 8).

    No step depends on the attention of the step before, so a whole target is attended in three products. `keys(memory)` is
    computed once per source and is part of the decoding state.

    Call it with query (b, t, d), keys (b, s, d), memory (b, s, m), memory_mask (b, s) bool or None. Returns
    (attended (b, t, units), alignments (b, t, s)).

    Args:
        units: size of the result, an integer of at least 1.

    Raises:
        UsageError: `units` is not such an integer.
    """

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        arguments.positive(units=units)
        self.units = units
        self.key_kernel_initializer = initializers.GlorotUniform()
        self.output_kernel_initializer = initializers.GlorotUniform()

    def build(
        self,
        query_shape: tuple[Any, ...],
        keys_shape: Shape | None = None,
        memory_shape: tuple[Any, ...] = (),
        memory_mask_shape: Shape | None = None,
    ) -> None:
        if not memory_shape:
            raise UsageError("Expected the shape of the memory. Received: memory_shape=()")
        d, m = query_shape[-1], memory_shape[-1]
        self.key_kernel = self.add_weight(name="key_kernel", shape=(m, d), initializer=self.key_kernel_initializer)
        self.output_kernel = self.add_weight(
            name="output_kernel", shape=(m + d, self.units), initializer=self.output_kernel_initializer
        )

    def keys(self, memory: Tensor) -> Tensor:
        """Projects memory (b, s, m) to keys (b, s, d)."""
        return backend.affine(memory, ops.cast(self.key_kernel, memory.dtype))

    def call(self, query: Tensor, keys: Tensor, memory: Tensor, memory_mask: Tensor = None) -> tuple[Tensor, Tensor]:
        alignments = masked_softmax(luong_score(query, keys), key_mask(memory_mask))
        context = ops.matmul(alignments, memory)
        joined = ops.concatenate([context, query], axis=-1)
        return ops.tanh(backend.affine(joined, ops.cast(self.output_kernel, joined.dtype))), alignments

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}
