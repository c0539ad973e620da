"""The pure scores against NumPy in float64."""

import numpy as np
import pytest
from keras import ops

import golden
from k3seq.layers.scores import additive_score, luong_score

RNG = np.random.default_rng(5)
QUERY, KEYS, V, B = (RNG.normal(size=shape).astype("float32") for shape in ((2, 3, 4), (2, 5, 4), (4,), (4,)))


def test_the_luong_score_is_the_dot_product_of_each_query_with_each_key():
    expected = np.einsum("btd,bsd->bts", QUERY.astype(float), KEYS.astype(float))
    got = ops.convert_to_numpy(luong_score(ops.convert_to_tensor(QUERY), ops.convert_to_tensor(KEYS)))
    assert golden.relative_error(got, expected) < 1e-6
    assert golden.relative_error(got, expected[::-1]) > 0.1


@pytest.mark.parametrize("normalized", [False, True])
def test_the_additive_score_is_a_vector_times_the_tanh_of_the_sum(normalized):
    hidden = KEYS.astype(float)[:, None] + QUERY.astype(float)[:, :, None]
    v, more = V.astype(float), ()
    if normalized:
        hidden, v, more = hidden + B, 0.7 * v / np.linalg.norm(v), (np.float32(0.7), B)
    expected = np.tanh(hidden) @ v
    got = additive_score(*(ops.convert_to_tensor(a) for a in (QUERY, KEYS, V, *more)))
    assert golden.relative_error(ops.convert_to_numpy(got), expected) < 1e-6
    assert golden.relative_error(ops.convert_to_numpy(got), np.tanh(hidden) @ V * 1.01) > 1e-3
