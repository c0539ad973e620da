"""Keyed numbers: tensors against NumPy, bit for bit, in one compiled call; NumPy against Threefry's own file and the truth."""

import itertools
import math
import statistics

import numpy as np
import pytest
from keras import ops

from k3seq import backend
from k3seq.errors import UsageError
from k3seq.random import keyed, quantiles
from k3seq.random.bits import Stream, key_words, threefry

KEY = keyed.key(5, "test")
STEP = 3
LOGITS = np.random.default_rng(0).normal(size=(4, 9)).astype("float32")
LOGITS[0, :5] = -np.inf


def draws(key, step, logits, rows):
    """One of everything; `rows` is 0..3."""
    key = keyed.fold(key, step)
    return {
        "fold": key,
        "fold_rows": keyed.fold(key, rows),
        "split": keyed.split(key, 3),
        "bits": keyed.bits(key, (3, 5)),
        "bits_of_keys": keyed.bits(keyed.split(key, 3), (2, 3)),
        "uniform": keyed.uniform(key, (3, 5)),
        "normal": keyed.normal(key, (100, 100)),
        "gumbel": keyed.gumbel(key, (100, 100)),
        "bernoulli": keyed.bernoulli(key, 0.3, (50,)),
        "bernoulli_of_tensor": keyed.bernoulli(key, logits[:, 1:2] > 0, (4, 3)),
        "categorical": keyed.categorical(key, logits),
        "categorical_of_keys": keyed.categorical(keyed.fold(key, rows), logits),
        "permutation": keyed.permutation(key, 50),
    }


@pytest.fixture(scope="module")
def on_host():
    return draws(KEY, STEP, LOGITS, np.arange(4, dtype=np.int32))


@pytest.fixture(scope="module")
def on_device():
    """All draws from a compiled function whose key, step and logits are its arguments."""
    values = backend.compiled(draws)(KEY, np.int32(STEP), LOGITS, np.arange(4, dtype=np.int32))
    return {name: np.array(ops.convert_to_numpy(value)) for name, value in values.items()}


def test_a_compiled_draw_equals_numpy_bit_for_bit(on_host, on_device):
    for name, value in on_host.items():
        assert on_device[name].dtype == value.dtype, name
        np.testing.assert_array_equal(on_device[name], value, err_msg=name)


def test_another_step_gives_other_numbers(on_host):
    other = draws(KEY, STEP + 1, LOGITS, np.arange(4, dtype=np.int32))
    assert all(not np.array_equal(other[name], value) for name, value in on_host.items() if name != "bernoulli_of_tensor")


def test_an_eager_draw_equals_a_compiled_one(on_device):
    key = ops.convert_to_tensor(on_device["fold"])
    np.testing.assert_array_equal(ops.convert_to_numpy(keyed.uniform(key, (3, 5))), on_device["uniform"])


once = pytest.mark.once


def words(key, n, high=0):
    """`n` words in the order of `bits`, by the NumPy file's Threefry in uint32."""
    blocks = np.arange((n + 1) // 2, dtype=np.uint32)
    return threefry(key.view(np.uint32), np.stack([blocks, np.full_like(blocks, high)])).reshape(-1)[:n]


@once
def test_bits_are_threefry_over_counted_blocks():
    np.testing.assert_array_equal(keyed.bits(KEY, (3, 5)).view(np.uint32).ravel(), words(KEY, 15))
    assert sorted(keyed.bits(KEY, (4,)).view(np.uint32)) == sorted(Stream(5, "test").bits(4))


@once
@pytest.mark.parametrize(
    "key, counter, expected",
    [
        ([0, 0], [0, 0], [0x6B200159, 0x99BA4EFE]),
        ([0xFFFFFFFF, 0xFFFFFFFF], [0xFFFFFFFF, 0xFFFFFFFF], [0x1CB996FC, 0xBB002BE7]),
        ([0x13198A2E, 0x03707344], [0x243F6A88, 0x85A308D3], [0xC4923A9C, 0x483DF7A0]),
    ],
)
def test_the_rounds_in_signed_words_equal_the_published_vectors(key, counter, expected):
    """Random123's kat_vectors, threefry2x32 20."""
    key, (low, high) = np.array(key, np.uint32).view(np.int32), np.array(counter, np.uint32).view(np.int32)
    found = keyed._threefry(np, key, low[None], high)
    assert np.concatenate(found).view(np.uint32).tolist() == expected


@once
def test_fold_and_split_are_threefry_over_counters_that_no_draw_uses():
    data = np.array([7, 2**32 - 1], np.uint32)
    folded = threefry(KEY.view(np.uint32), np.stack([data, np.full_like(data, 2**32 - 1)])).T
    np.testing.assert_array_equal(keyed.fold(KEY, data.view(np.int32)).view(np.uint32), folded)
    np.testing.assert_array_equal(keyed.fold(KEY, 2**32 - 1), keyed.fold(KEY, -1))
    np.testing.assert_array_equal(keyed.fold(KEY, 7), keyed.fold(KEY, data.view(np.int32))[0])
    np.testing.assert_array_equal(keyed.split(KEY, 3).view(np.uint32).T.ravel(), words(KEY, 6, 2**32 - 2))
    np.testing.assert_array_equal(keyed.split(KEY, 2), keyed.split(KEY, 3)[:2])
    assert keyed.fold(KEY, np.zeros((2, 3), np.int32)).shape == (2, 3, 2)


@once
def test_seed_names_and_their_order_each_change_the_key():
    keys = [keyed.key(0), keyed.key(1), keyed.key(2**32), keyed.key(0, "a"), keyed.key(0, "a", "b"), keyed.key(0, "b", "a")]
    assert len({tuple(key) for key in keys}) == len(keys)
    np.testing.assert_array_equal(keyed.key(3, "a").view(np.uint32), key_words(3, "a"))
    np.testing.assert_array_equal(keyed.key(3), keyed.key(3, ""))


@once
def test_bad_seeds_names_and_data_are_refused():
    with pytest.raises(UsageError, match="Expected seed to be an integer in 0..2\\*\\*64-1. Received: seed=-1"):
        keyed.key(-1)
    with pytest.raises(UsageError, match="Expected names to be text. Received: name=3"):
        keyed.key(0, 3)
    with pytest.raises(UsageError, match="Received: data=4294967296"):
        keyed.fold(KEY, 2**32)


@once
def test_a_row_of_keys_draws_what_each_key_draws():
    keys = keyed.split(KEY, 3)
    for draw in (keyed.bits, keyed.normal):
        np.testing.assert_array_equal(draw(keys, (2, 3)), np.stack([draw(key, (2, 3)) for key in keys]))
    ids = keyed.categorical(keyed.split(KEY, 4), LOGITS)
    assert [keyed.categorical(key, row) for key, row in zip(keyed.split(KEY, 4), LOGITS, strict=True)] == ids.tolist()


@once
def test_empty_shapes_and_scalars_are_drawn():
    assert keyed.bits(KEY, ()).shape == () and keyed.normal(KEY, (0, 3)).shape == (0, 3)
    assert keyed.permutation(KEY, 0).tolist() == [] and keyed.permutation(KEY, 1).tolist() == [0]


@once
def test_uniform_numbers_are_the_top_24_bits():
    expected = (words(KEY, 10**5) >> np.uint32(8)) / 2**24
    found = keyed.uniform(KEY, (10**5,))
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32 and found.max() < 1
    assert np.abs(np.histogram(found, 20, (0, 1))[0] - 5000).max() < 5 * math.sqrt(5000)


@once
def test_bernoulli_is_never_at_0_always_at_1_and_as_often_as_p_between():
    draw = keyed.bernoulli(KEY, np.array([[0.0], [1.0], [0.3]]), (3, 10**5))
    assert draw.dtype == bool and draw.sum(1)[:2].tolist() == [0, 10**5]
    assert abs(draw[2].mean() - 0.3) < 5 * math.sqrt(0.21 / 10**5)


def distance(sample, cdf):
    """Kolmogorov and Smirnov's, looked at in every tenth place."""
    exact = np.array([cdf(x) for x in np.sort(sample.astype(np.float64))[::10]])
    below = np.arange(0, sample.size, 10) / sample.size
    return max((exact - below).max(), (below + 10 / sample.size - exact).max())


LIMIT = 1.95e-3  # of the distance of 1e6 draws: one wrong alarm in a thousand


@once
def test_a_million_normal_numbers_follow_the_normal_distribution():
    drawn = keyed.normal(keyed.key(1, "quality"), (10**6,))
    cdf = statistics.NormalDist().cdf
    assert drawn.dtype == np.float32 and distance(drawn, cdf) < LIMIT
    assert distance(drawn * np.float32(1.01), cdf) > LIMIT  # 1 % off is seen
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((drawn.astype(np.float64) ** power).mean() - moment) < 5 * math.sqrt(variance / 10**6)
    for limit in (3.0, 4.0):  # both tails
        expected = 10**6 * cdf(-limit)
        assert np.abs([(drawn > limit).sum() - expected, (drawn < -limit).sum() - expected]).max() < 5 * math.sqrt(expected)
    pairs = drawn.reshape(2, -1)  # words of one block lie half a draw apart
    assert abs((pairs[0] * pairs[1]).mean()) < 5 / math.sqrt(pairs.shape[1])
    assert abs((drawn[1:] * drawn[:-1]).mean()) < 5 / math.sqrt(drawn.size)


@once
def test_gumbel_numbers_follow_the_gumbel_distribution():
    drawn = keyed.gumbel(keyed.key(2, "quality"), (10**6,))
    cdf = lambda x: math.exp(-math.exp(-x))  # noqa: E731
    assert distance(drawn, cdf) < LIMIT and distance(drawn * np.float32(1.01), cdf) > LIMIT


NORMAL = statistics.NormalDist().inv_cdf
CASES = [
    (quantiles.normal_table, NORMAL, lambda p: -NORMAL(p), 1.1e-5),
    (quantiles.gumbel_table, lambda p: -math.log(-math.log(p)), lambda p: -math.log(-math.log1p(-p)), 3e-5),
]


@once
@pytest.mark.parametrize("table, lower, upper, error", CASES, ids=["normal", "gumbel"])
def test_every_octave_of_both_tails_is_near_the_true_quantile(table, lower, upper, error):
    rng, largest = np.random.default_rng(0), 0.0
    for octave in range(31):
        places = np.unique((rng.integers(0, 2**30, 300) | 1 << 30) >> octave >> 1)
        p = (2 * places + 1) / 2.0**32
        for quantile, sign in ((lower, 0), (upper, -(2**31))):
            found = keyed._quantile((places + sign).astype(np.int32), table())
            largest = max(largest, np.abs(found - [quantile(x) for x in p]).max())
    assert error / 4 < largest < error  # and it is not zero: the table is coarser than float32


@once
def test_the_tables_have_mean_and_variance_of_their_distributions():
    weight = np.tile(2.0 ** -(np.arange(quantiles.HALF) // quantiles.SEGMENTS + 2) / quantiles.SEGMENTS, 2)
    within = np.mean((np.arange(4096) * 2 - 4095.0) ** 2)
    for table, mean, variance in ((CASES[0][0], 0.0, 1.0), (CASES[1][0], 0.5772156649, math.pi**2 / 6)):
        middles, gradients = (column.astype(np.float64) for column in table())
        found = (weight * middles).sum()
        assert abs(found - mean) < 1e-7
        assert abs((weight * (middles**2 + gradients**2 * within)).sum() - found**2 - variance) < 3e-7


@once
@pytest.mark.parametrize("table", [quantiles.normal_table, quantiles.gumbel_table])
def test_the_product_in_a_table_is_exact_so_that_only_the_sum_is_rounded(table):
    middles, gradients = table()
    for within in (1, 2731, 4093, 4095):
        exact = gradients.astype(np.float64) * within
        np.testing.assert_array_equal(exact.astype(np.float32), exact)
        fused = (middles.astype(np.float64) + exact).astype(np.float32)
        np.testing.assert_array_equal(middles + gradients * np.float32(within), fused)
    unrounded = gradients.astype(np.float64) * 1.0001 * 4095
    assert np.any(unrounded.astype(np.float32) != unrounded)


@once
@pytest.mark.parametrize("lower, upper", [case[1:3] for case in CASES], ids=["normal", "gumbel"])
def test_the_tables_do_not_depend_on_the_last_bit_of_a_logarithm(lower, upper):
    """Quantiles that are off by 1e-14, one way and the other, round to the same tables."""

    def shifted(quantile, factor):
        return lambda p: quantile(p) * factor

    tables = [quantiles.table(shifted(lower, f), shifted(upper, f)) for f in (1.0, 1 + 1e-14, 1 - 1e-14, 1 + 1e-6)]
    for one, other in itertools.combinations(tables[:3], 2):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(tables[0][0], tables[3][0])


@once
def test_a_host_key_draws_for_tensors_what_it_draws_for_numpy():
    ids = keyed.categorical(KEY, ops.convert_to_tensor(LOGITS))
    np.testing.assert_array_equal(ops.convert_to_numpy(ids), keyed.categorical(KEY, LOGITS))
    chances = np.linspace(0, 1, 7).astype("float32")
    chosen = keyed.bernoulli(KEY, ops.convert_to_tensor(chances), (7,))
    np.testing.assert_array_equal(ops.convert_to_numpy(chosen), keyed.bernoulli(KEY, chances, (7,)))


def test_categorical_draws_each_id_as_often_as_its_probability():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05, 1e-30], np.float32))
    ids = keyed.categorical(KEY, np.broadcast_to(logits, (10**5, 5)))
    assert ids.dtype == np.int32
    frequencies = np.bincount(ids, minlength=5) / 10**5
    np.testing.assert_allclose(frequencies, np.exp(logits), atol=5 * math.sqrt(0.25 / 10**5))
    assert not np.allclose(frequencies, [0.49, 0.31, 0.15, 0.05, 0], atol=5 * math.sqrt(0.25 / 10**5))


@once
def test_categorical_never_draws_a_forbidden_id_and_takes_the_lowest_of_equals():
    logits = np.full((10**4, 3), -np.inf, np.float32)
    assert set(keyed.categorical(KEY, logits)) == {0}
    logits[:, 2] = -50.0
    assert set(keyed.categorical(KEY, logits)) == {2}
    assert keyed.categorical(KEY, np.full((3,), 1e30, np.float32)) == 0  # the noise is lost in the rounding


@once
def test_a_permutation_holds_every_number_once_and_every_order_as_often():
    orders = [tuple(keyed.permutation(key, 4).tolist()) for key in keyed.split(KEY, 4800)]
    counts = [orders.count(order) for order in itertools.permutations(range(4))]
    assert sum(counts) == 4800 and np.abs(np.array(counts) - 200).max() < 5 * math.sqrt(200)
