"""Models with attention, functional and subclassed, in `.keras` files; mechanisms from their configuration; noise."""

import keras
import numpy as np
import pytest
from keras import ops

import k3seq as tfa
from k3seq.seq2seq.attention_wrapper import AttentionWrapper

B, S, M, X, D, STEPS = 2, 4, 3, 3, 5, 3
RNG = np.random.default_rng(12)
MEMORY, INPUTS = (RNG.normal(size=shape).astype("float32") for shape in ((B, S, M), (B, STEPS, X)))
LENGTHS = np.array([2, 4], "int32")


def numpy(x):
    return ops.convert_to_numpy(x)


@keras.saving.register_keras_serializable(package="tests")
class Attending(keras.layers.Layer):
    """A small layer that is given the memory as a tensor: the functional way."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        mechanism = tfa.seq2seq.BahdanauMonotonicAttention(units, normalize=True, name="mechanism")
        self.attending = AttentionWrapper(keras.layers.GRUCell(units), mechanism, attention_layer_size=units)
        self.rnn = keras.layers.RNN(self.attending, return_sequences=True)

    def build(self, memory_shape, inputs_shape, lengths_shape):
        self.attending.attention_mechanism.build(memory_shape)
        self.rnn.build(inputs_shape)

    def call(self, memory, inputs, lengths):
        ready = self.attending.attention_mechanism.prepare_memory(memory, lengths)
        return self.rnn(inputs, initial_state=list(self.attending.get_initial_state(memory=ready)))

    def compute_output_shape(self, memory_shape, inputs_shape, lengths_shape):
        return (*inputs_shape[:2], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def functional():
    memory, inputs, lengths = keras.Input((S, M)), keras.Input((STEPS, X)), keras.Input((), dtype="int32")
    return keras.Model([memory, inputs, lengths], Attending(D)(memory, inputs, lengths))


@keras.saving.register_keras_serializable(package="tests")
class SetsUp(keras.Model):
    """TFA's way: `setup_memory` in the call of a subclassed model that says nothing of how it is built."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.mechanism = tfa.seq2seq.LuongAttention(units, scale=True)
        self.attending = AttentionWrapper(keras.layers.LSTMCell(units), self.mechanism, attention_layer_size=units)
        self.rnn = keras.layers.RNN(self.attending, return_sequences=True)

    def call(self, inputs):
        memory, steps, lengths = inputs
        self.mechanism.setup_memory(memory, memory_sequence_length=lengths)
        return self.rnn(steps)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pytest.mark.parametrize("make", [functional, lambda: SetsUp(D)], ids=["functional", "subclassed"])
def test_a_trained_and_saved_model_gives_equal_output_after_loading(make, tmp_path):
    model, given = make(), [MEMORY, INPUTS, LENGTHS]
    model.compile(loss="mse", optimizer=keras.optimizers.SGD(1.0))
    losses = [float(model.train_on_batch(given, np.zeros((B, STEPS, D), "float32"))) for _ in range(2)]
    trained = model.predict_on_batch(given)
    assert losses[1] < losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.weights) == len(model.weights)
    np.testing.assert_allclose(loaded.predict_on_batch(given), trained, rtol=1e-6, atol=1e-7)


MECHANISMS = {
    "luong": lambda: tfa.seq2seq.LuongAttention(D, scale=True),
    "bahdanau": lambda: tfa.seq2seq.BahdanauAttention(D, normalize=True),
    "both monotonic": lambda: [
        tfa.seq2seq.LuongMonotonicAttention(D, name="first"),
        tfa.seq2seq.BahdanauMonotonicAttention(D, mode="recursive", sigmoid_noise=0.1, sigmoid_noise_seed=1, name="second"),
    ],
}


def decoding(kind, given):
    """TFA's functional pattern: the memory is a tensor of the graph, and the decoder's final alignments are an output, too."""
    memory, inputs = keras.Input((None, M)), keras.Input((None, X))
    padding = keras.Input((), dtype="int32") if given == "lengths" else keras.Input((None,), dtype="bool")
    _, h, c = keras.layers.LSTM(D, return_state=True)(memory)
    mechanisms = MECHANISMS[kind]()
    each = mechanisms if isinstance(mechanisms, list) else [mechanisms]
    layer_sizes = [D] * len(each) if isinstance(mechanisms, list) else D
    cell = AttentionWrapper(keras.layers.LSTMCell(D), mechanisms, layer_sizes, alignment_history=True)
    if given == "lengths":
        for mechanism in each:
            mechanism.setup_memory(memory, padding)
        state = cell.get_initial_state(batch_size=B, dtype="float32")
    else:
        state = cell.get_initial_state(memory=each[0].prepare_memory(memory, memory_mask=padding))
    decoder = tfa.seq2seq.BasicDecoder(cell, tfa.seq2seq.TrainingSampler(), keras.layers.Dense(6))
    outputs, final, _ = decoder(inputs, initial_state=state.clone(cell_state=[h, c]))
    return keras.Model([memory, inputs, padding], [outputs.rnn_output, *keras.tree.flatten(final.alignments)])


@pytest.mark.parametrize("kind, given", [(kind, "lengths") for kind in MECHANISMS] + [("luong", "a mask")])
def test_a_functional_decoder_with_attention_is_saved_with_its_paths_and_outputs(kind, given, tmp_path):
    model, batch = decoding(kind, given), [MEMORY, INPUTS, LENGTHS if given == "lengths" else np.arange(S) < LENGTHS[:, None]]
    model.save(tmp_path / "model.keras")  # before the first call: noise counts the decodings
    expected = model.predict_on_batch(batch)
    assert expected[0].shape == (B, STEPS, 6) and expected[1].shape == (B, S) and (expected[1][0, 2:] == 0).all()
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert [weight.path for weight in loaded.weights] == [weight.path for weight in model.weights]
    assert any(weight.path.startswith("basic_decoder") and "/attention_wrapper" in weight.path for weight in loaded.weights)
    for found, wanted in zip(loaded.predict_on_batch(batch), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    mechanism = next(layer for layer in loaded._flatten_layers() if hasattr(layer, "memory_layer"))
    mechanism.memory_layer.kernel.assign(mechanism.memory_layer.kernel + 1.0)  # the control; of two copies one would not hear
    assert np.abs(loaded.predict_on_batch(batch)[0] - expected[0]).max() > 1e-4


CONFIGURATIONS = [
    ("LuongAttention", {"scale": True, "probability_fn": "hardmax", "score_mask_value": -9.0}, 2),
    ("BahdanauAttention", {"normalize": True, "kernel_initializer": "ones"}, 5),
    ("LuongMonotonicAttention", {"mode": "hard", "score_bias_init": -1.5, "sigmoid_noise_seed": 4}, 2),
    ("BahdanauMonotonicAttention", {"mode": "recursive", "sigmoid_noise": 0.5, "sigmoid_noise_seed": 4}, 4),
]


@pytest.mark.once
@pytest.mark.parametrize("name, options, count", CONFIGURATIONS, ids=[c[0] for c in CONFIGURATIONS])
def test_a_mechanism_is_the_same_from_its_configuration(name, options, count):
    mechanism = getattr(tfa.seq2seq, name)(D, **options)
    config = keras.saving.serialize_keras_object(mechanism)
    again = keras.saving.deserialize_keras_object(config)
    assert keras.saving.serialize_keras_object(again) == config
    assert {option: again.get_config()[option] for option in options if option != "kernel_initializer"} == {
        option: value for option, value in options.items() if option != "kernel_initializer"
    }
    again.build((B, S, M), (B, D))
    assert len(again.trainable_variables) == count
    if "score_bias_init" in options:
        assert float(numpy(again.attention_score_bias)) == -1.5


@pytest.mark.once
def test_every_weight_has_a_path_of_its_own_and_starts_from_one_seed():
    mechanisms = [tfa.seq2seq.BahdanauAttention(D, normalize=True), tfa.seq2seq.LuongMonotonicAttention(D, scale=True)]
    attending = AttentionWrapper(keras.layers.LSTMCell(D), mechanisms, attention_layer_size=[D, D], name="attending")
    for one in mechanisms:
        one.build((B, S, M))
    attending.build((B, X))
    paths = [variable.path for variable in attending.trainable_variables]
    assert len(set(paths)) == len(paths) == 3 + 5 + 3 + 2
    tfa.random.initialize(attending, 5)
    assert float(numpy(mechanisms[0].attention_g)) == pytest.approx(D**-0.5)


@pytest.mark.once
def test_a_wrapper_from_its_configuration_has_the_same_parts():
    mechanisms = [tfa.seq2seq.LuongAttention(D), tfa.seq2seq.BahdanauAttention(D)]
    attending = AttentionWrapper(keras.layers.GRUCell(D), mechanisms, [D, 2], output_attention=False, alignment_history=True)
    again = AttentionWrapper.from_config(attending.get_config())
    assert again.get_config() == attending.get_config()
    assert [type(m).__name__ for m in again.attention_mechanism] == ["LuongAttention", "BahdanauAttention"]
    assert again.output_size == D and again.state_size.cell_state == D


def noisy(seed):
    mechanism = tfa.seq2seq.LuongMonotonicAttention(M, sigmoid_noise=1.0, sigmoid_noise_seed=seed)
    mechanism.build((B, S, M), (B, M))
    mechanism.memory_layer.kernel.assign(np.eye(M))
    mechanism.setup_memory(MEMORY)
    return mechanism


def test_noise_differs_from_step_to_step_and_decoding_to_decoding_and_repeats_with_its_seed():
    query = np.ones((B, M), "float32")
    found = {}
    for name, seed in (("first", 7), ("again", 7), ("other", 8)):
        mechanism = noisy(seed)
        for decoding in range(2):
            state = mechanism.initial_state(B)
            before = state.alignments
            for step in range(2):
                alignments, state = mechanism([query, state._replace(alignments=before)])
                found[name, decoding, step] = numpy(alignments)
    draws = [found["first", d, s] for d in range(2) for s in range(2)] + [found["other", 0, 0]]
    assert all(np.abs(a - b).max() > 1e-3 for i, a in enumerate(draws) for b in draws[:i])
    for decoding in range(2):
        np.testing.assert_array_equal(found["first", decoding, 1], found["again", decoding, 1])
