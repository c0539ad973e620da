"""Importing the packages without Keras imports no heavy package."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("grain", "jax", "tensorflow", "torch", "keras", "sentencepiece", "array_record", "rapidfuzz")


def printed(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.split()


def heavy_after(code):
    return printed(f"import sys\n{code}\nprint(*[name for name in {HEAVY} if name in sys.modules])")


def test_no_public_name_of_these_packages_imports_a_heavy_package():
    code = (
        "import k3seq.data, k3seq.metrics, k3seq.random\n"
        "for package in (k3seq.data, k3seq.metrics, k3seq.random):\n"
        "    assert set(package.__all__) <= set(dir(package))\n"
        "    [getattr(package, name) for name in package.__all__]"
    )
    assert heavy_after(code) == []
    assert "rapidfuzz" in heavy_after("from k3seq.metrics import score; score([[1]], [[[1]]])")  # the check can fail


def test_an_unknown_name_is_refused():
    import k3seq.data

    with pytest.raises(AttributeError, match="Expected one of .*in k3seq.data. Received: nothing"):
        _ = k3seq.data.nothing
