"""Batches: the contract of docs/architecture.md, seeded orders, few shapes, little padding."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3seq.data.batches import Batches, encode_pairs, pad, source_batches
from k3seq.data.buckets import least_padding
from k3seq.data.pairs import read_pairs
from k3seq.data.tokenizers import CharTokenizer, SpaceTokenizer
from k3seq.errors import DataError, UsageError
from k3seq.random.bits import Stream

pytestmark = pytest.mark.once

EXAMPLES = [([10 + i] * (1 + i % 5), [50 + i] * (i % 4)) for i in range(23)]


def rows(batch):
    """The (source, target) pairs in a batch, read back through lengths and weights."""
    x, y, weight = batch
    found = []
    for source, length, target, labels, weights in zip(x["source"], x["source_lengths"], x["target"], y, weight, strict=True):
        steps = int(weights.sum())
        if steps:
            assert target[0] == 1 and labels[steps - 1] == 2
            assert target[1:steps].tolist() == labels[: steps - 1].tolist()
            assert not target[steps:].any() and not labels[steps:].any() and not source[length:].any()
            found.append((source[:length].tolist(), labels[: steps - 1].tolist()))
    return found


def order(batches):
    return [row for batch in batches for row in rows(batch)]


def test_a_batch_by_hand():
    examples = [([7, 8, 9], [5]), ([6], [4, 3])]
    x, y, weight = list(Batches([*examples[:1] * 3, *examples], 3, shuffle=False).epoch(0))[1]
    assert x["source"].tolist() == [[7, 8, 9], [6, 0, 0], [0, 0, 0]]
    assert x["source_lengths"].tolist() == [3, 1, 1]
    assert x["target"].tolist() == [[1, 5, 0], [1, 4, 3], [1, 0, 0]]
    assert y.tolist() == [[5, 2, 0], [4, 3, 2], [0, 0, 0]]
    assert weight.tolist() == [[1, 1, 0], [1, 1, 1], [0, 0, 0]]
    assert {x["source"].dtype, x["source_lengths"].dtype, x["target"].dtype, y.dtype} == {np.dtype(np.int32)}
    assert weight.dtype == np.float32 and sorted(x) == ["source", "source_lengths", "target"]


@pytest.mark.parametrize("buckets", [None, 1, 3, 100, [3, 6], [(2, 9), (9, 9)]])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_holds_every_example_once(buckets, shuffle):
    batches = Batches(EXAMPLES, 4, seed=1, shuffle=shuffle, buckets=buckets)
    found = list(batches.epoch(0))
    assert len(found) == len(batches)
    assert sorted(order(found)) == sorted(EXAMPLES)
    shapes = {(x["source"].shape, y.shape) for x, y, _ in found}
    assert shapes <= {((4, source), (4, target)) for source, target in batches.buckets}
    if isinstance(buckets, int):
        assert len(batches.buckets) <= buckets


def test_without_shuffling_and_buckets_the_order_is_kept():
    assert order(Batches(EXAMPLES, 4, shuffle=False).epoch(3)) == EXAMPLES


def test_epochs_differ_and_a_seed_repeats_them():
    batches = Batches(EXAMPLES, 4, seed=1, buckets=2)
    assert order(batches.epoch(0)) == order(Batches(EXAMPLES, 4, seed=1, buckets=2).epoch(0))
    assert order(batches.epoch(0)) != order(batches.epoch(1))
    assert order(batches.epoch(0)) != order(Batches(EXAMPLES, 4, seed=2, buckets=2).epoch(0))


def test_iterating_again_gives_the_next_epoch():
    batches = Batches(EXAMPLES, 4, seed=1)
    assert [order(batches) for _ in range(3)] == [order(batches.epoch(i)) for i in range(3)]


def test_the_order_comes_from_the_stream():
    expected = [EXAMPLES[i] for i in Stream(5, "batches, epoch 2").permutation(len(EXAMPLES))]
    chunks = [expected[i : i + 4] for i in range(0, len(expected), 4)]
    found = [rows(batch) for batch in Batches(EXAMPLES, 4, seed=5).epoch(2)]
    assert sorted(found) == sorted(chunks) and found != chunks


def test_an_epoch_resumes_from_a_saved_state():
    batches = Batches(EXAMPLES, 4, seed=1)
    whole = order(batches.epoch(0))
    iterator = batches.epoch(0)
    taken = order(itertools.islice(iterator, 2))
    fresh = batches.epoch(0)
    fresh.set_state(iterator.get_state())
    assert taken + order(fresh) == whole and taken


def test_buckets_of_the_training_set_can_be_used_for_another_set():
    train = Batches(EXAMPLES, 4, buckets=3)
    dev = Batches(EXAMPLES[:3], 4, buckets=train.buckets)
    assert dev.buckets == train.buckets
    with pytest.raises(UsageError, match=r"Expected examples that fit .* Received: \(9, 2\) in example 1"):
        Batches([EXAMPLES[0], ([1] * 9, [1])], 4, buckets=train.buckets)


def test_more_buckets_pad_less():
    def cells(buckets):
        return sum(x["source"].size + y.size for x, y, _ in Batches(EXAMPLES * 20, 4, buckets=buckets))

    assert cells(1) > cells(2) > cells(4)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(1, 4))
def test_bucket_widths_pad_least_of_all_choices(lengths, count):
    def cost(cuts):
        return sum(min(cut for cut in cuts if cut >= length) for length in lengths)

    distinct = sorted(set(lengths))
    best = min(
        cost(cuts)
        for size in range(1, min(count, len(distinct)) + 1)
        for cuts in itertools.combinations(distinct, size)
        if cuts[-1] == distinct[-1]
    )
    found = least_padding(np.array(lengths), count)
    assert found == sorted(set(found)) and len(found) <= count
    assert cost(found) == best


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"examples": []}, "at least one example"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"buckets": 0}, "buckets=0"),
        ({"buckets": []}, "buckets=\\[\\]"),
        ({"buckets": [(1, 2, 3)]}, "pairs of widths"),
        ({"buckets": [2]}, "fit into buckets"),
        ({"examples": [([1], []), ([], [1])]}, "Received: none in example 1"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": float("inf")}, "seed=inf"),
        ({"buckets": b"4"}, "buckets=b'4'"),
        ({"buckets": [(1, 2.5)]}, "buckets=2.5"),
        ({"batch_size": True}, "batch_size=True"),
        ({"examples": None}, "list of \\(source ids, target ids\\). Received: None"),
        ({"examples": ["lstm"]}, "list of \\(source ids, target ids\\). Received: \\['lstm'\\]"),
        ({"examples": iter([([1], [1])])}, "list of \\(source ids, target ids\\). Received: <list_itera"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        Batches(**{"examples": EXAMPLES, "batch_size": 2, **arguments}).plan(0)


def test_padding_keeps_rows_and_fills_with_zeros():
    assert pad([[1, 2], [], [3]]).tolist() == [[1, 2], [0, 0], [3, 0]]
    assert pad([[1]], width=3, dtype="int64").dtype == np.int64
    assert pad([], width=2).shape == (0, 2) and pad([[], []]).shape == (2, 0)
    with pytest.raises(UsageError, match="at most 1 ids. Received: 2 at row 1"):
        pad([[1], [1, 2]], width=1)


CHARS, SYMBOLS = CharTokenizer(list("abc")), SpaceTokenizer(["X", "Y"])


def test_pairs_are_encoded_side_by_side():
    assert encode_pairs([("ab", "Y X"), ("z", "X")], CHARS, SYMBOLS) == [([4, 5], [5, 4]), ([3], [4])]


def test_a_pair_from_a_file_is_refused_with_its_line(tmp_path):
    (tmp_path / "dev.tsv").write_text("bad\na\tX\nabc\tX\n")
    pairs = read_pairs(tmp_path / "dev.tsv", on_error="skip")
    with pytest.raises(DataError, match="dev.tsv:3: Expected at most 2 source tokens. Received: 3$") as caught:
        encode_pairs(pairs, CHARS, SYMBOLS, 2, 1)
    assert caught.value.line == 3
    with pytest.raises(UsageError, match="Expected text to be a str. Received: b'a'"):
        encode_pairs([(b"a", "X")], CHARS, SYMBOLS)


@pytest.mark.parametrize(
    "pair, reason, words",
    [
        (("abc", "X"), "source too long", "Expected at most 2 source tokens. Received: 3 in pair 1"),
        (("a", "X Y"), "target too long", "Expected at most 1 target tokens. Received: 2 in pair 1"),
        (("a", "  "), "empty target", "Expected at least 1 target tokens. Received: 0 in pair 1"),
        (("", "X"), "empty source", "Expected at least 1 source tokens. Received: 0 in pair 1"),
    ],
)
def test_pairs_that_do_not_fit_are_refused_or_counted(pair, reason, words):
    pairs = [("a", "X"), pair, ("b", "Y")]
    with pytest.raises(DataError, match=words):
        encode_pairs(pairs, CHARS, SYMBOLS, 2, 1)
    found = encode_pairs(pairs, CHARS, SYMBOLS, 2, 1, on_error="skip")
    assert found == [([4], [4]), ([5], [5])] and dict(found.skipped) == {reason: 1}


def texts_of(batches):
    """The texts of source batches in the order of their positions, each of them in one row."""
    texts = {}
    for x, positions in batches:
        assert len(x["source"]) >= len(positions) and (x["source_lengths"][len(positions) :] == 1).all()
        for row, position in enumerate(positions):
            assert position not in texts
            texts[position] = CHARS.decode(x["source"][row, : x["source_lengths"][row]])
    return [texts[position] for position in sorted(texts)]


def test_source_batches_keep_the_order_of_the_input():
    lines = ["abc", "a", "", "cb", "c" * 9]
    found = list(source_batches(iter(lines), CHARS, 2))
    assert [positions for _, positions in found] == [[0, 1], [2, 3], [4]]
    assert [x["source"].shape for x, _ in found] == [(2, 8), (2, 8), (2, 16)]
    assert texts_of(found) == lines
    assert found[1][0]["source_lengths"].tolist() == [1, 2]  # an empty line is one pad


def test_no_batch_has_more_rows_than_there_are_lines():
    (x, positions), *others = source_batches(["a", "b", "c"], CHARS, 100_000_000)
    assert x["source"].shape == (3, 8) and positions == [0, 1, 2] and not others
    (x, y, weight), *others = Batches(EXAMPLES[:3], 100_000_000)
    assert len(x["source"]) == len(y) == len(weight) == 3 and not others


def test_a_long_line_pads_no_other_line():
    lines = ["a", "b" * 1500, "c", "a" * 1200, "b" * 600, "c" * 10_000]
    found = list(source_batches(lines, CHARS, 8))
    assert [positions for _, positions in found] == [[0, 2], [5], [3, 1], [4]]
    assert [x["source"].shape for x, _ in found] == [(6, 8), (1, 16384), (2, 2048), (4, 1024)]
    assert texts_of(found) == lines


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=12), st.integers(1, 8), st.sampled_from([None, [8, 600, 5000]]))
def test_every_line_is_in_one_batch_whose_size_is_bounded(lengths, batch_size, widths):
    lines = ["ab"[row % 2] * length for row, length in enumerate(lengths)]
    found = list(source_batches(iter(lines), CHARS, batch_size, widths))
    assert texts_of(found) == lines
    for x, positions in found:
        rows, width = x["source"].shape
        longest = max(lengths[position] for position in positions)
        assert rows <= min(batch_size, len(lines)) and (rows == 1 or rows * width <= batch_size * 512 or longest <= 512)
        assert all(longest <= 512 or 2 * lengths[position] >= longest for position in positions)


def test_source_batches_use_the_smallest_width_that_holds_them():
    found = list(source_batches(["a", "ab", "abc"], CHARS, 1, widths=[5, 2]))
    assert [x["source"].shape for x, _ in found] == [(1, 2), (1, 2), (1, 5)]
    with pytest.raises(UsageError, match="at most 5 source tokens. Received: 6 in line 2"):
        list(source_batches(["a", "abcabc"], CHARS, 1, widths=[5, 2]))
    with pytest.raises(UsageError, match="at most 4 source tokens. Received: 5 in line 3"):
        list(source_batches(["a", "", "abcab", "abcabc"], CHARS, 4, widths=[5, 2], max_tokens=4))
    for most in (0, 1.5, "2"):
        with pytest.raises(UsageError, match=f"Expected at least 1 token in the longest line allowed. Received: {most!r}"):
            next(source_batches(["a"], CHARS, 1, max_tokens=most))
    for batch_size in (0, 1.5, "2"):
        with pytest.raises(UsageError, match=f"batch_size={batch_size!r}"):
            next(source_batches(["a"], CHARS, batch_size))
