"""`dynamic_decode` on decoders small enough to follow by hand."""

import numpy as np
import pytest
from keras import layers, ops

from k3seq import backend
from k3seq.errors import UsageError
from k3seq.seq2seq.decoder import BaseDecoder, Decoder, dynamic_decode
from k3seq.seq2seq.expect import WrongType

ENDS = np.array([1, 3, 2], "int32")


class Counter(BaseDecoder):
    """Row i ends in its step `ENDS[i]`; outputs and state are the number of the step, from 1."""

    own = False

    def initialize(self, inputs, initial_state=None):
        self._ends = inputs
        return ops.equal(inputs, 0), ops.cast(inputs, "float32"), initial_state

    def step(self, time, inputs, state, training=None):
        count = state["count"] + 1
        outputs = {"count": count, "twice": ops.stack([count, count], axis=-1)}
        return outputs, {"count": count, "scalar": state["scalar"] + 1}, inputs, ops.equal(time + 1, self._ends)

    batch_size = 3
    output_size = {"count": (), "twice": 2}
    output_dtype = {"count": "float32", "twice": "float32"}

    @property
    def tracks_own_finished(self):
        return self.own


def decode(decoder=None, ends=ENDS, **options):
    state = {"count": ops.zeros((len(ends),)), "scalar": ops.zeros(())}
    outputs, state, lengths = dynamic_decode(
        decoder or Counter(),
        decoder_init_input=ops.convert_to_tensor(ends),
        decoder_init_kwargs={"initial_state": state},
        **options,
    )
    return [
        ops.convert_to_numpy(leaf) for leaf in (outputs["count"], outputs["twice"], state["count"], state["scalar"], lengths)
    ]


def test_rows_compute_on_until_the_last_has_ended():
    count, twice, last, scalar, lengths = decode()
    np.testing.assert_array_equal(count, [[1, 2, 3]] * 3)
    np.testing.assert_array_equal(twice[..., 0], count)
    np.testing.assert_array_equal(last, [3, 3, 3])
    np.testing.assert_array_equal(lengths, ENDS)
    assert scalar == 3


def test_imputed_rows_give_zeros_and_keep_their_state_but_not_a_scalar():
    count, twice, last, scalar, _ = decode(impute_finished=True)
    np.testing.assert_array_equal(count, [[1, 0, 0], [1, 2, 3], [1, 2, 0]])
    np.testing.assert_array_equal(twice[..., 1], count)
    np.testing.assert_array_equal(last, [1, 3, 2])
    assert scalar == 3


def test_time_major_outputs_are_transposed():
    np.testing.assert_array_equal(decode(output_time_major=True)[0], np.array([[1, 2, 3]] * 3).T)


@pytest.mark.parametrize("limit", [2, np.int32(2)])
def test_the_limit_cuts_outputs_and_lengths(limit):
    count, _, last, _, lengths = decode(maximum_iterations=limit)
    np.testing.assert_array_equal(count, [[1, 2]] * 3)
    np.testing.assert_array_equal(lengths, [1, 2, 2])
    np.testing.assert_array_equal(last, [2, 2, 2])


def test_a_limit_of_zero_decodes_nothing():
    count, twice, last, _, lengths = decode(maximum_iterations=0)
    assert count.shape == (3, 0) and twice.shape == (3, 0, 2)
    assert not last.any() and not lengths.any()


def test_a_compiled_decoding_has_all_steps_with_zeros_after_the_last():
    def compiled(ends):
        state = {"count": ops.zeros((3,)), "scalar": ops.zeros(())}
        arguments = {"decoder_init_input": ends, "decoder_init_kwargs": {"initial_state": state}}
        outputs, state, lengths = dynamic_decode(Counter(), maximum_iterations=5, **arguments)
        return outputs["count"], state["count"], lengths

    count, last, lengths = (ops.convert_to_numpy(leaf) for leaf in backend.compiled(compiled)(ENDS))
    np.testing.assert_array_equal(count[:, :3], [[1, 2, 3]] * 3)
    assert not count[:, 3:].any()
    np.testing.assert_array_equal(last, [3, 3, 3])
    np.testing.assert_array_equal(lengths, ENDS)


def test_inside_another_layer_outputs_have_all_steps():
    class Outer(layers.Layer):
        def call(self, ends):
            outputs, _, lengths = dynamic_decode(
                Counter(),
                maximum_iterations=5,
                decoder_init_input=ends,
                decoder_init_kwargs={"initial_state": {"count": ops.zeros((3,)), "scalar": ops.zeros(())}},
            )
            return outputs["count"], lengths

    count, lengths = (ops.convert_to_numpy(leaf) for leaf in Outer()(ENDS))
    np.testing.assert_array_equal(count, [[1, 2, 3, 0, 0]] * 3)
    np.testing.assert_array_equal(lengths, ENDS)


def test_a_decoder_that_tracks_its_own_end_may_go_on_after_it():
    class Blinking(Counter):
        own = True

        def step(self, time, inputs, state, training=None):
            outputs, state, inputs, _ = super().step(time, inputs, state)
            ended = [[True, False, False], [False, True, True], [True, True, True]]
            return outputs, state, inputs, ops.take(ops.convert_to_tensor(ended), time, axis=0)

    np.testing.assert_array_equal(decode(Blinking())[4], [3, 2, 2])


def test_a_plain_decoder_and_its_finalize_are_used():
    class Plain(Decoder):
        batch_size, output_size, output_dtype = 2, (), "int32"

        def initialize(self, name=None):
            return ops.zeros((2,), "bool"), ops.zeros((2,)), ops.zeros((2,))

        def step(self, time, inputs, state, training=None, name=None):
            return ops.zeros((2,), "int32") + time, state + 1, inputs, ops.zeros((2,), "bool")

        def finalize(self, outputs, final_state, sequence_lengths):
            return outputs + 10, sequence_lengths

    outputs, state, _ = dynamic_decode(Plain(), maximum_iterations=3)
    np.testing.assert_array_equal(ops.convert_to_numpy(outputs), [[10, 11, 12]] * 2)
    np.testing.assert_array_equal(ops.convert_to_numpy(state), [3, 3])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(maximum_iterations=[3]), UsageError, r"Expected maximum_iterations to be a scalar. Received: \[3\]"),
        (dict(enable_tflite_convertible=True), UsageError, "Expected maximum_iterations with enable_tflite_convertible"),
        (dict(maximum_iteration=3), WrongType, "Expected the arguments of dynamic_decode. Received: maximum_iteration$"),
    ],
)
def test_wrong_arguments_raise(options, error, message):
    with pytest.raises(error, match=message):
        decode(**options)


def test_what_is_no_decoder_is_a_type_error():
    with pytest.raises(TypeError, match="Expected decoder to be a Decoder or a BaseDecoder. Received: decoder=3"):
        dynamic_decode(3)


@pytest.mark.parametrize("what", ["state", "outputs"])
def test_a_step_that_changes_a_structure_raises(what):
    class Changing(Counter):
        def step(self, time, inputs, state, training=None):
            outputs, state, inputs, ended = super().step(time, inputs, state)
            (outputs if what == "outputs" else state).pop("count")
            return outputs, state, inputs, ended

    with pytest.raises(UsageError, match=f"Expected (a )?{what} of 2 tensors from a step, as it took. Received: 1"):
        decode(Changing())
