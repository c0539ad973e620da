"""Attention of decoder outputs over encoder outputs, all target steps at once."""

import keras
from keras import initializers, ops

from k3seq import backend
from k3seq.layers.masks import key_mask, masked_softmax
from k3seq.layers.nested import Nested
from k3seq.layers.scores import luong_score


@keras.saving.register_keras_serializable(package="k3seq")
class GlobalAttention(Nested, keras.layers.Layer):
    """Luong's global attention with the "general" score, without input feeding (https://arxiv.org/abs/1508.04025, eq. 5, 7, 8).

    Because no step waits for the attention of the one before it, a whole target is attended in three products.
    `keys(memory)` is computed once per source and travels in the decoding state.

    Call it with query (b, t, d), keys (b, s, d), memory (b, s, m), memory_mask (b, s) bool or None. Returns
    (attended (b, t, units), alignments (b, t, s)).

    Args:
        units: size of the result.
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.key_kernel_initializer = initializers.GlorotUniform()
        self.output_kernel_initializer = initializers.GlorotUniform()

    def build(self, query_shape, keys_shape=None, memory_shape=None, memory_mask_shape=None):
        d, m = query_shape[-1], memory_shape[-1]
        self.key_kernel = self.add_weight(name="key_kernel", shape=(m, d), initializer=self.key_kernel_initializer)
        self.output_kernel = self.add_weight(
            name="output_kernel", shape=(m + d, self.units), initializer=self.output_kernel_initializer
        )

    def keys(self, memory):
        """Projects memory (b, s, m) to keys (b, s, d)."""
        return backend.affine(memory, ops.cast(self.key_kernel, memory.dtype))

    def call(self, query, keys, memory, memory_mask=None):
        alignments = masked_softmax(luong_score(query, keys), key_mask(memory_mask))
        context = ops.matmul(alignments, memory)
        both = ops.concatenate([context, query], axis=-1)
        return ops.tanh(backend.affine(both, ops.cast(self.output_kernel, both.dtype))), alignments

    def get_config(self):
        return {**super().get_config(), "units": self.units}
