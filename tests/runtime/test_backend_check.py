"""A missing backend is named with the command that installs it, whichever package is imported first."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.once

WITHOUT_TORCH = (
    "import importlib.util as u; find = u.find_spec; u.find_spec = lambda n, *a: None if n == 'torch' else find(n, *a); "
)


def imported(module, code=WITHOUT_TORCH, **environment):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}import k3seq.{module}"],
        env={"PATH": "/usr/bin:/bin", "TF_CPP_MIN_LOG_LEVEL": "2", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]


@pytest.mark.parametrize("module", ["backend", "layers", "models", "decode", "train", "inspect"])
def test_a_missing_backend_is_named_with_its_command(module):
    code, error = imported(module, KERAS_BACKEND="torch")
    assert code == 1
    assert error.startswith(
        'k3seq.errors.MissingBackend: KERAS_BACKEND is torch, which is not installed: pip install "k3seq[torch]"'
    )


@pytest.mark.parametrize("name", ["nonsense", "a.b", "JAX"])
def test_a_name_that_keras_does_not_know_is_refused(name):
    code, error = imported("layers", "", KERAS_BACKEND=name)
    expected = f"Expected one of jax, tensorflow, torch. Received: {name!r}, from KERAS_BACKEND"
    assert (code, error) == (1, f"k3seq.errors.UsageError: {expected}")


def test_the_configuration_file_of_keras_is_read(tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    code, error = imported("layers", KERAS_HOME=str(tmp_path))
    assert code == 1 and "keras.json is torch" in error
    (tmp_path / "keras.json").write_text("broken")
    without = WITHOUT_TORCH.replace("'torch'", "'tensorflow'")
    code, error = imported("layers", without, KERAS_HOME=str(tmp_path))
    assert code == 1 and "KERAS_BACKEND is not set and Keras' default backend is tensorflow" in error


def test_packages_without_keras_need_no_backend():
    assert imported("data", KERAS_BACKEND="torch") == (0, "")
