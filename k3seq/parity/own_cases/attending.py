"""A model around an attention mechanism of `k3seq.seq2seq`, which parity can train and save."""

from collections.abc import Mapping
from typing import Any

import keras

from k3seq.seq2seq import attention_wrapper
from k3seq.seq2seq.basic_decoder import BasicDecoder
from k3seq.seq2seq.sampler import TrainingSampler
from k3seq.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="k3seq")
class Attending(keras.Model):
    """An LSTM cell with attention to a memory, which reads given steps.

    Call it with {"memory": (b, s, m), "memory_lengths": (b,) int32 in 1..s, "steps": (b, t, x), "lengths": (b,) int32 in 0..t};
    it returns logits (b, t, size), 0 after the last step of the longest row.

    Args:
        mechanism: name of a class of `k3seq.seq2seq.attention_wrapper`.
        units: of the cell, the keys and the attention.
        size: of the output layer.
    """

    def __init__(self, mechanism: str, units: int, size: int, **kwargs: Any):
        super().__init__(**{"name": "attending", **kwargs})
        self.config = {"mechanism": mechanism, "units": units, "size": size}
        self.mechanism = getattr(attention_wrapper, mechanism)(units, name="mechanism")
        cell = keras.layers.LSTMCell(units, name="cell")
        self.wrapper = attention_wrapper.AttentionWrapper(cell, self.mechanism, attention_layer_size=units, name="wrapper")
        output = keras.layers.Dense(size, name="output")
        self.decoder = BasicDecoder(self.wrapper, TrainingSampler(), output_layer=output, name="decoder")

    def build(self, inputs_shape: Mapping[str, Shape]) -> None:
        self.mechanism.build(inputs_shape["memory"])
        self.decoder.build(inputs_shape["steps"])

    def call(self, inputs: Mapping[str, Tensor], training: bool = False) -> Tensor:
        memory = self.mechanism.prepare_memory(inputs["memory"], inputs["memory_lengths"])
        state = self.wrapper.get_initial_state(memory=memory)
        given = {"initial_state": state, "sequence_length": inputs["lengths"], "training": training}
        outputs, _, _ = self.decoder(inputs["steps"], **given)
        return outputs.rnn_output

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}
