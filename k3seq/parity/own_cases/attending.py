"""A model around an attention mechanism of `k3seq.seq2seq`, so that parity has something to train and to save."""

import keras

from k3seq.seq2seq import attention_wrapper
from k3seq.seq2seq.basic_decoder import BasicDecoder
from k3seq.seq2seq.sampler import TrainingSampler


@keras.saving.register_keras_serializable(package="k3seq")
class Attending(keras.Model):
    """A cell that attends to a memory and reads given steps.

    Call it with {"memory": (b, s, m), "memory_lengths": (b,) int32 in 1..s, "steps": (b, t, x), "lengths": (b,) int32 in 0..t};
    it returns logits (b, t, size), 0 after the longest row.

    Args:
        mechanism: a class of `k3seq.seq2seq.attention_wrapper`, by name. units: of the cell, the keys and the attention.
        size: of the output layer.
    """

    def __init__(self, mechanism, units, size, **kwargs):
        super().__init__(**{"name": "attending", **kwargs})
        self.config = {"mechanism": mechanism, "units": units, "size": size}
        self.mechanism = getattr(attention_wrapper, mechanism)(units, name="mechanism")
        cell = keras.layers.LSTMCell(units, name="cell")
        self.wrapper = attention_wrapper.AttentionWrapper(cell, self.mechanism, attention_layer_size=units, name="wrapper")
        output = keras.layers.Dense(size, name="output")
        self.decoder = BasicDecoder(self.wrapper, TrainingSampler(), output_layer=output, name="decoder")

    def build(self, inputs_shape):
        self.mechanism.build(inputs_shape["memory"])
        self.decoder.build(inputs_shape["steps"])

    def call(self, inputs, training=False):
        memory = self.mechanism.prepare_memory(inputs["memory"], inputs["memory_lengths"])
        state = self.wrapper.get_initial_state(memory=memory)
        given = {"initial_state": state, "sequence_length": inputs["lengths"], "training": training}
        outputs, _, _ = self.decoder(inputs["steps"], **given)
        return outputs.rnn_output

    def get_config(self):
        return {**super().get_config(), **self.config}
