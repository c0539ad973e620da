"""`k3seq provenance`: the table, the picture and the data of a model."""

import json

import keras
import numpy as np
import pytest

from k3seq.commands import provenance
from k3seq.errors import DataError, UsageError
from k3seq.report.record import plain


def tiny():
    """A model of one input."""
    return keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2, name="dense")], name="tiny")


def subclassed():
    """A model whose inputs are not known."""

    class Subclassed(keras.Model):
        def call(self, x):
            return x

    model = Subclassed(name="subclassed")
    model.built = True
    return model


NAME = f"{__name__}:tiny"


def test_the_table_is_printed_and_the_data_are_json(capsys, tmp_path):
    data = json.loads(json.dumps(plain(provenance.provenance(NAME, picture=tmp_path / "p.png")), allow_nan=False))
    assert [(w["path"], w["verdict"]) for w in data["weights"]] == [
        ("tiny/dense/kernel", "gradient"),
        ("tiny/dense/bias", "gradient"),
    ]
    assert "weights: 2 gradient" in capsys.readouterr().out
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_inputs_come_from_a_file(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((5, 3), "float32"))
    found = provenance.provenance(NAME, inputs=tmp_path / "x.npz")
    assert found["inputs"] == [("x", (5, 3), "float32")]
    assert [w["verdict"] for w in found["weights"]] == ["zero gradient", "gradient"]  # zeros in, no gradient for the kernel


@pytest.mark.once
def test_a_model_that_needs_inputs_and_a_file_without_arrays_are_refused(tmp_path):
    with pytest.raises(UsageError, match="Expected inputs to call subclassed with"):
        provenance.provenance(f"{__name__}:subclassed")
    (tmp_path / "x.npz").write_text("no arrays")
    (tmp_path / "empty.npz").touch()
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04")
    for name in ("x.npz", "absent.npz", "empty.npz", "half.npz"):
        with pytest.raises(DataError, match=rf"{name}: Expected an \.npz file of arrays"):
            provenance.provenance(NAME, inputs=tmp_path / name)
