"""Counter-based random numbers: published vectors, an oracle in plain Python integers, and the shape of each distribution."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k3seq.errors import UsageError
from k3seq.random import bits
from k3seq.random.bits import Stream, threefry

pytestmark = pytest.mark.once

WORD = st.integers(0, 2**32 - 1)


def plain_threefry(key, counter):
    """Threefry-2x32-20 by the paper, one word at a time."""
    keys = [key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDA]
    x, y = (counter[0] + keys[0]) % 2**32, (counter[1] + keys[1]) % 2**32
    for turn in range(20):
        rotation = (13, 15, 26, 6, 17, 29, 16, 24)[turn % 8]
        x = (x + y) % 2**32
        y = ((y << rotation) % 2**32 | y >> (32 - rotation)) ^ x
        if turn % 4 == 3:
            done = turn // 4 + 1
            x, y = (x + keys[done % 3]) % 2**32, (y + keys[(done + 1) % 3] + done) % 2**32
    return [x, y]


def plain_words(seed, name, n):
    name = hashlib.sha256(name.encode()).digest()
    words = [int.from_bytes(name[:4], "little"), int.from_bytes(name[4:8], "little")]
    key = plain_threefry([seed % 2**32, seed >> 32], words)
    return [word for block in range((n + 1) // 2) for word in plain_threefry(key, [block, 0])][:n]


@pytest.mark.parametrize(
    "key, counter, words",
    [
        ([0, 0], [0, 0], [0x6B200159, 0x99BA4EFE]),
        ([0xFFFFFFFF, 0xFFFFFFFF], [0xFFFFFFFF, 0xFFFFFFFF], [0x1CB996FC, 0xBB002BE7]),
        ([0x13198A2E, 0x03707344], [0x243F6A88, 0x85A308D3], [0xC4923A9C, 0x483DF7A0]),
    ],
)
def test_threefry_equals_the_published_vectors(key, counter, words):
    assert threefry(key, counter).tolist() == words
    assert threefry(key, [counter[0] ^ 1, counter[1]]).tolist() != words


@given(st.lists(WORD, min_size=2, max_size=2), st.lists(st.tuples(WORD, WORD), min_size=1, max_size=5))
def test_threefry_equals_plain_python_on_every_counter(key, counters):
    found = threefry(key, np.array(counters, np.uint32).T)
    assert found.T.tolist() == [plain_threefry(key, list(counter)) for counter in counters]


@pytest.mark.parametrize("seed, name", [(0, ""), (7, "epoch 3"), (2**64 - 1, "weights")])
def test_a_stream_equals_plain_python(seed, name):
    assert Stream(seed, name).bits(7).tolist() == plain_words(seed, name, 7)
    expected = np.array([word >> 8 for word in plain_words(seed, name, 6)]) / 2**24
    np.testing.assert_array_equal(Stream(seed, name).uniform((2, 3)), expected.reshape(2, 3))


def test_seed_name_and_position_each_change_the_numbers():
    stream = Stream(1, "a")
    first, second = stream.bits(4).tolist(), stream.bits(4).tolist()
    rows = [
        first,
        second,
        Stream(2, "a").bits(4).tolist(),
        Stream(1, "b").bits(4).tolist(),
        Stream(2**32 + 1, "a").bits(4).tolist(),
    ]
    assert len({tuple(row) for row in rows}) == 5
    assert Stream(1, "a").bits(4).tolist() == first


def test_logarithm_cosine_and_sine_are_right_to_the_last_bits():
    x = np.concatenate([np.linspace(1e-10, 1, 20001), [2.0**-32, 0.5, 1.0]])
    np.testing.assert_allclose(bits._log(x), [math.log(v) for v in x], rtol=1e-14, atol=1e-15)
    turns = np.linspace(0, 1, 20001)[:-1]
    cosine, sine = bits._cosine_and_sine(turns)
    np.testing.assert_allclose(cosine, np.cos(2 * np.pi * turns), atol=2e-15)
    np.testing.assert_allclose(sine, np.sin(2 * np.pi * turns), atol=2e-15)


def test_normal_numbers_follow_the_normal_distribution():
    drawn = Stream(3).normal((200, 501))
    assert drawn.dtype == np.float32 and drawn.shape == (200, 501)
    ordered = np.sort(drawn.ravel().astype(np.float64))
    expected = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in ordered])
    distance = np.abs(expected - np.arange(1, ordered.size + 1) / ordered.size).max()
    limit = 1.95 / math.sqrt(ordered.size)  # Kolmogorov and Smirnov, one wrong alarm in a thousand
    assert distance < limit
    uniform = np.sort(Stream(3).uniform(ordered.size)) * 4 - 2
    wrong = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in uniform])
    assert np.abs(wrong - np.arange(1, ordered.size + 1) / ordered.size).max() > limit


def test_box_muller_uses_one_radius_for_two_numbers():
    words = np.array(plain_words(5, "", 2)) / 2**32
    radius, angle = math.sqrt(-2 * math.log(words[0] + 2**-32)), 2 * math.pi * words[1]
    np.testing.assert_allclose(Stream(5).normal(2), [radius * math.cos(angle), radius * math.sin(angle)], rtol=1e-6)


def test_uniform_numbers_stay_below_one_in_equal_bins():
    drawn = Stream(4).uniform(100000)
    assert drawn.dtype == np.float32 and drawn.min() >= 0 and drawn.max() < 1
    counts = np.histogram(drawn, 20, (0, 1))[0]
    assert np.abs(counts - 5000).max() < 5 * math.sqrt(5000)


@settings(max_examples=50)
@given(st.integers(-(2**31), 2**31 - 1), st.integers(1, 2**32), st.integers(0, 100))
def test_integers_stay_in_range(low, width, seed):
    drawn = Stream(seed).integers(low, low + width, 20)
    assert drawn.dtype == np.int64 and drawn.min() >= low and drawn.max() < low + width


def test_integers_are_unbiased_where_plain_multiplication_is_not():
    # 3 * 2**30 values from 2**32 words: without rejection every third value would be drawn twice as often.
    width = 3 * 2**30
    counts = np.bincount(Stream(6).integers(0, width, 30000) % 3, minlength=3)
    assert np.abs(counts - 10000).max() < 500
    biased = (Stream(6).bits(30000).astype(np.uint64) * np.uint64(width)) >> np.uint64(32)
    assert np.abs(np.bincount((biased % np.uint64(3)).astype(int), minlength=3) - 10000).max() > 500


def test_a_permutation_holds_every_number_once_in_every_place():
    firsts = []
    for seed in range(600):
        order = Stream(seed).permutation(6)
        assert sorted(order.tolist()) == list(range(6))
        firsts.append(order[0])
    assert np.abs(np.bincount(firsts, minlength=6) - 100).max() < 50
    assert Stream(0).permutation(0).tolist() == []


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True, None])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(UsageError, match="Expected seed"):
        Stream(seed)


@pytest.mark.parametrize("low, high", [(0, 0), (3, 2), (0, 2**32 + 1)])
def test_an_impossible_range_is_refused(low, high):
    with pytest.raises(UsageError, match="Expected 1 to"):
        Stream(0).integers(low, high)
