"""The wrapper: memory and alignments travel as state, nothing stays behind, and what is wrong is said once and clearly."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

import golden
import k3seq as tfa
from k3seq import backend
from k3seq.errors import UsageError
from k3seq.seq2seq.attention_wrapper import AttentionWrapper, AttentionWrapperState

B, S, M, X, D, STEPS = 2, 4, 3, 3, 5, 3
RNG = np.random.default_rng(11)
MEMORY, INPUTS = (RNG.normal(size=shape).astype("float32") for shape in ((B, S, M), (B, STEPS, X)))
LENGTHS = np.array([2, 4], "int32")
MASK = np.arange(S)[None, :] < LENGTHS[:, None]


def numpy(x):
    return keras.tree.map_structure(lambda leaf: ops.convert_to_numpy(ops.cast(leaf, "float32")), x)


def wrapper(mechanism=None, cell=None, seed=3, **options):
    """A wrapper with weights that are the same everywhere."""
    mechanism = mechanism or tfa.seq2seq.LuongAttention(D, scale=True)
    built = AttentionWrapper(cell or keras.layers.LSTMCell(D), mechanism, **options)
    for one in mechanism if isinstance(mechanism, list) else [mechanism]:
        one.build((B, S, M))
    built.build((B, X))
    return tfa.random.initialize(built, seed)


@pytest.fixture(scope="module")
def luong():
    return wrapper(attention_layer_size=D)


def steps(attending, memory, inputs, lengths=None, mask=None):
    """(outputs (b, t, d), last state) of one step after the other; a pure function."""
    mechanism = attending.attention_mechanism
    state = attending.get_initial_state(memory=mechanism.prepare_memory(memory, lengths, mask))
    outputs = []
    for t in range(STEPS):
        output, state = attending(inputs[:, t], state)
        outputs.append(output)
    return ops.stack(outputs, axis=1), state


@functools.cache
def compiled(attending, masked_by):
    def pure(memory, inputs, rest):
        return steps(attending, memory, inputs, **{masked_by: rest})

    return backend.compiled(pure, attending.variables)


def run(attending, memory, inputs, lengths=None, mask=None):
    if lengths is not None:
        return numpy(compiled(attending, "lengths")(memory, inputs, lengths))
    return numpy(compiled(attending, "mask")(memory, inputs, np.ones((B, S), bool) if mask is None else mask))


def test_lengths_and_the_mask_they_stand_for_are_the_same_and_padding_does_not_matter(luong):
    outputs, state = run(luong, MEMORY, INPUTS, LENGTHS)
    by_mask, _ = run(luong, MEMORY, INPUTS, None, MASK)
    padded, _ = run(luong, np.where(MASK[:, :, None], MEMORY, 7.0).astype("float32"), INPUTS, LENGTHS)
    unmasked, _ = run(luong, MEMORY, INPUTS)
    np.testing.assert_allclose(outputs, by_mask, atol=1e-6)
    np.testing.assert_allclose(outputs, padded, atol=1e-6)
    assert (state.alignments[0, 2:] == 0).all() and np.abs(outputs - unmasked).max() > 1e-3


def test_a_fully_masked_row_has_uniform_alignments_and_no_context(luong):
    mask = np.array([[False] * S, [True] * S])
    _, state = run(luong, MEMORY, INPUTS, None, mask)
    np.testing.assert_allclose(state.alignments[0], 1 / S, rtol=1e-6)
    assert (state.memory.values[0] == 0).all() and np.ptp(state.alignments[1]) > 1e-3


def test_a_memory_set_up_beforehand_is_the_one_given_in_the_state(luong):
    mechanism = luong.attention_mechanism
    expected, _ = run(luong, MEMORY, INPUTS, LENGTHS)
    mechanism.setup_memory(MEMORY, memory_sequence_length=LENGTHS)
    state = luong.get_initial_state(batch_size=B, dtype="float32")
    for t in range(STEPS):
        output, state = luong(INPUTS[:, t], state)
    assert golden.relative_error(numpy(output), expected[:, -1]) < 1e-5


def test_setting_memory_again_without_lengths_drops_the_old_mask(luong):
    mechanism = luong.attention_mechanism
    values = mechanism([MEMORY, LENGTHS], setup_memory=True)
    assert (numpy(values)[0, 2:] == 0).all()
    mechanism(MEMORY, setup_memory=True)
    assert numpy(mechanism.values).tolist() == MEMORY.tolist()
    query, state = np.ones((B, D), "float32"), mechanism.initial_state(B)
    alignments, _ = mechanism([query, state])
    assert (numpy(alignments) > 0).all() and (numpy(mechanism.keys)[0, 2:] != 0).any()


class SetsUp(keras.Model):
    """TFA's way: the memory is set up in the call of a model."""

    def __init__(self, attending):
        super().__init__()
        self.attending = attending

    def call(self, inputs):
        memory, lengths, steps = inputs
        self.attending.attention_mechanism.setup_memory(memory, lengths)
        state = self.attending.get_initial_state(batch_size=ops.shape(memory)[0])
        return self.attending(steps[:, 0], state)[0]


def test_a_call_leaves_no_memory_behind():
    attending = wrapper()
    model, mechanism = SetsUp(attending), attending.attention_mechanism
    model([MEMORY, LENGTHS, INPUTS])
    assert not mechanism.memory_initialized and mechanism.keys is None
    model.compile(loss="mse", optimizer="sgd", jit_compile=keras.backend.backend() != "torch")
    model.train_on_batch([MEMORY, LENGTHS, INPUTS], np.zeros((B, M), "float32"))
    assert not mechanism.memory_initialized
    with pytest.raises(
        UsageError, match="Expected a memory of LuongAttention, by setup_memory or in the state. Received: none"
    ):
        attending.get_initial_state(batch_size=B)
    mechanism.setup_memory(MEMORY)  # outside of any call it is the caller's, and stays
    assert mechanism.memory_initialized and attending.get_initial_state().memory.mask.shape == (B, S)


def test_the_history_has_the_alignments_of_every_step_time_major(luong):
    attending = AttentionWrapper(luong.cell, luong.attention_mechanism, attention_layer=luong._attention_layers[0],
                                 alignment_history=True)  # fmt: skip
    outputs, state = run(attending, MEMORY, INPUTS, LENGTHS)
    expected, last = run(luong, MEMORY, INPUTS, LENGTHS)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)
    assert state.alignment_history.stack().shape == (STEPS, B, S) and not last.records
    np.testing.assert_array_equal(state.alignment_history.stack()[-1], state.alignments)
    resumed = state.paused().resumed(state.alignment_history.stack())
    assert resumed.records and not state.paused().records
    np.testing.assert_array_equal(resumed.alignment_history.stack(), state.alignment_history.stack())


@pytest.mark.parametrize("kind", ["stacked", "two mechanisms"])
def test_in_a_keras_rnn_it_gives_what_single_steps_give(kind):
    mechanism, cell = tfa.seq2seq.LuongAttention(D), keras.layers.GRUCell(D)
    if kind == "stacked":
        cell = keras.layers.StackedRNNCells([keras.layers.LSTMCell(D), cell])
    else:
        mechanism = [mechanism, tfa.seq2seq.BahdanauMonotonicAttention(D, name="second")]
    attending = wrapper(mechanism, cell)
    rnn = keras.layers.RNN(attending, return_sequences=True)
    given = [ops.convert_to_tensor(a) for a in (MEMORY, INPUTS, LENGTHS)]
    mechanisms = mechanism if isinstance(mechanism, list) else [mechanism]

    def both(memory, inputs, lengths):
        memories = [one.prepare_memory(memory, lengths) for one in mechanisms]
        state = attending.get_initial_state(memory=memories if len(memories) == 2 else memories[0])
        unrolled = rnn(inputs, initial_state=list(state))
        outputs = []
        for t in range(STEPS):
            output, state = attending(inputs[:, t], state)
            outputs.append(output)
        return unrolled, ops.stack(outputs, axis=1)

    rnn.build((B, STEPS, X))
    unrolled, stepped = numpy(backend.compiled(both, attending.variables)(*given))
    assert golden.relative_error(unrolled, stepped) < 1e-5
    assert golden.relative_error(unrolled[:, ::-1], stepped) > 1e-3


HALVES = [("mixed_float16", "LuongMonotonicAttention"), ("mixed_bfloat16", "BahdanauAttention")]


@pytest.mark.parametrize("policy, kind", HALVES)
def test_in_half_precision_every_state_keeps_its_dtype_and_is_finite(policy, kind):
    half = policy.removeprefix("mixed_")
    mechanism = getattr(tfa.seq2seq, kind)(D, dtype=policy)
    attending = wrapper(mechanism, keras.layers.LSTMCell(D, dtype=policy), attention_layer_size=D, dtype=policy)

    def step(memory, inputs, lengths):
        before = attending.get_initial_state(memory=mechanism.prepare_memory(memory, lengths), dtype="float32")
        before = before.clone(cell_state=[ops.ones((B, D), "float32")] * 2)
        return before, *attending(inputs[:, 0], before)

    before, output, after = backend.compiled(step, attending.variables)(MEMORY, INPUTS, LENGTHS)
    dtypes = [[keras.backend.standardize_dtype(leaf.dtype) for leaf in keras.tree.flatten(s)] for s in (before, after)]
    assert dtypes[0] == dtypes[1] == [half] * 7 + ["bool"]
    assert keras.backend.standardize_dtype(output.dtype) == half
    assert all(np.isfinite(leaf).all() for leaf in keras.tree.flatten(numpy([output, after])))


def test_the_gradient_of_the_memory_and_of_the_scale_is_the_slope_of_the_loss(luong):
    scale = luong.attention_mechanism.attention_g

    def loss(parts):
        memory, g = parts
        with keras.StatelessScope(state_mapping=[(scale, g)]):
            return ops.sum(ops.square(steps(luong, memory, ops.convert_to_tensor(INPUTS))[0]))

    direction = RNG.normal(size=MEMORY.shape).astype("float32")

    def gradients(memory, direction):
        one = ops.ones(())
        _, (along_memory, along_g) = backend.value_and_grad(loss)((memory, one))
        by_hand = (loss((memory + 1e-2 * direction, one)) - loss((memory - 1e-2 * direction, one))) / 2e-2
        by_hand_g = (loss((memory, one + 1e-2)) - loss((memory, one - 1e-2))) / 2e-2
        return ops.sum(along_memory * direction), by_hand, along_g, by_hand_g

    got = numpy(backend.compiled(gradients)(ops.convert_to_tensor(MEMORY), ops.convert_to_tensor(direction)))
    assert got[0] == pytest.approx(got[1], rel=1e-2) and got[2] == pytest.approx(got[3], rel=1e-2)
    assert abs(got[0]) > 1e-3 and abs(got[2]) > 1e-4


REFUSED = {
    "an empty row": (
        lambda w: w.attention_mechanism.setup_memory(MEMORY, np.array([0, 4])),
        "Expected memory_sequence_length in 1..4. Received: 0 at row 0",
    ),
    "lengths and a mask": (
        lambda w: w.attention_mechanism.setup_memory(MEMORY, LENGTHS, MASK),
        "Expected memory_sequence_length or memory_mask. Received: both",
    ),
    "lengths of another batch": (
        lambda w: w.attention_mechanism.setup_memory(MEMORY, np.array([1, 2, 3])),
        r"Expected memory_sequence_length of shape \(2,\), as memory has. Received: shape \(3,\)",
    ),
    "a memory of another depth": (
        lambda w: w.attention_mechanism.setup_memory(MEMORY[:, :, :2]),
        "Expected memory of depth 3. Received: depth 2",
    ),
    "another batch size": (
        lambda w: w.get_initial_state(batch_size=6, memory=w.attention_mechanism.prepare_memory(MEMORY)),
        "Expected a batch size of 2, that of the memory .* Received: batch_size=6",
    ),
    "a bare cell state": (
        lambda w: w(INPUTS[:, 0], [np.zeros((B, D), "float32")] * 2),
        "Expected state to be an AttentionWrapperState with a memory, .* Received: list of 2 parts",
    ),
    "a cell state short of a tensor": (
        lambda w: w(INPUTS[:, 0], state_of(w)._replace(cell_state=[np.zeros((B, D), "float32")])),
        "Expected cell_state of 2 tensors, as the cell has. Received: 1",
    ),
    "an attention of another width": (
        lambda w: w(INPUTS[:, 0], state_of(w)._replace(attention=np.zeros((B, 1), "float32"))),
        r"Expected attention of shape \(2, 5\) in the state. Received: shape \(2, 1\)",
    ),
    "a clone of another shape": (
        lambda w: state_of(w).clone(cell_state=[np.zeros((3, D), "float32")] * 2),
        r"Expected cell_state of shape \(2, 5\), as the state has. Received: shape \(3, 5\)",
    ),
    "a clone of an unknown field": (lambda w: state_of(w).clone(time=0), "Expected fields of cell_state, .* Received: time"),
    "sizes and layers": (
        lambda w: AttentionWrapper(w.cell, w.attention_mechanism, 3, attention_layer=keras.layers.Dense(3)),
        "Expected attention_layer_size or attention_layer. Received: both",
    ),
    "sizes short of one": (
        lambda w: AttentionWrapper(w.cell, [w.attention_mechanism] * 2, [3]),
        "Expected attention_layer_size for each of 2 mechanisms. Received: 1",
    ),
    "a mechanism that is none": (
        lambda w: AttentionWrapper(w.cell, keras.layers.Dense(2)),
        "Expected attention_mechanism to be an AttentionMechanism. Received: .*Dense",
    ),
    "an unknown probability": (
        lambda w: tfa.seq2seq.LuongAttention(D, probability_fn="sparsemax"),
        "Expected probability_fn of softmax, hardmax, or a function of the scores. Received: probability_fn='sparsemax'",
    ),
    "a query of another depth": (
        lambda w: tfa.seq2seq.LuongAttention(D, MEMORY)([np.zeros((B, 2), "float32"), np.zeros((B, S), "float32")]),
        "Expected queries of depth 5, that of the keys. Received: depth 2",
    ),
}


def state_of(attending):
    return attending.get_initial_state(memory=attending.attention_mechanism.prepare_memory(MEMORY))


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(what, luong):
    call, message = REFUSED[what]
    with pytest.raises(UsageError, match=message):
        call(luong)


def test_a_state_of_the_wrong_type_is_a_type_error_as_in_tensorflow_addons(luong):
    with pytest.raises(TypeError, match="Received: NoneType"):
        luong(INPUTS[:, 0], None)
    assert AttentionWrapperState._fields[:5] == (
        "cell_state",
        "attention",
        "alignments",
        "alignment_history",
        "attention_state",
    )
