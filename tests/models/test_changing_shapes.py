"""One compiled model meets batches of other sizes: TensorFlow then traces with unknown dimensions, JAX compiles again."""

import numpy as np
import pytest
from keras import ops

from k3seq.models import registry
from k3seq.random import initialize
from k3seq.train.losses import TokenCrossentropy


def batch(rows, source_steps, target_steps, seed):
    draw = np.random.default_rng(seed)
    x = {
        "source": draw.integers(4, 9, (rows, source_steps)).astype("int32"),
        "source_lengths": draw.integers(1, source_steps + 1, rows).astype("int32"),
        "target": draw.integers(4, 9, (rows, target_steps)).astype("int32"),
    }
    y = draw.integers(4, 9, (rows, target_steps)).astype("int32")
    return x, y, (draw.random((rows, target_steps)) < 0.8).astype("float32")


def model(kind):
    sizes = {"units": 8, "layers": 1}
    sizes |= {
        "transformer": {"heads": 2, "dense": 8, "max_steps": 16},
        "sliding": {"dense": 8, "width_source": 8, "width_target": 8},
    }.get(kind, {"embedding": 4})
    made = initialize(registry.seq2seq(kind, 9, 9, **sizes), 0)
    made.compile("sgd", loss=TokenCrossentropy())
    return made


@pytest.mark.parametrize("kind", registry.KINDS)
def test_losses_do_not_depend_on_the_shapes_seen_before(kind):
    shapes = [(2, 3, 4), (2, 7, 5), (3, 1, 1), (2, 5, 8)]
    travelled = model(kind)
    for seed, shape in enumerate(shapes):
        x, y, weight = batch(*shape, seed)
        fresh = model(kind)
        for variable, value in zip(fresh.variables, travelled.variables, strict=True):
            variable.assign(value)
        logs = []
        for each in (travelled, fresh):
            each.reset_metrics()
            logs.append(each.train_on_batch(x, y, weight, return_dict=True))
        np.testing.assert_allclose(logs[0]["loss"], logs[1]["loss"], rtol=1e-5)
        assert np.isfinite(logs[0]["loss"])
    assert travelled(batch(2, 4, 6, 9)[0]).shape == (2, 6, 9)
    assert np.abs(ops.convert_to_numpy(travelled.weights[0]) - ops.convert_to_numpy(model(kind).weights[0])).max() > 0
