"""What every test needs: the backend bound before keras is imported, the matrix file's expected failures, a headless screen."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest

from k3seq.errors import UsageError
from k3seq.parity.pool import QUICK
from k3seq.runtime import matrix as matrix_file

ROOT = Path(__file__).resolve().parents[1]
MATRIX = matrix_file.load(ROOT / matrix_file.FILE)

os.environ.setdefault("KERAS_BACKEND", next((n for n in MATRIX.training if matrix_file.installed(n, MATRIX)), "jax"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
# JAX compiles the same small functions test after test: a cache beside pytest's own halves the time of a first run. The whole
# run's processes share it; what is in it is found by program, flags and version.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# XLA's costly passes take a third of the time of these tests, for programs that run a few times. XLA_FLAGS="" brings them
# back, as hosted CI does in the job of each backend.
os.environ.setdefault("XLA_FLAGS", QUICK["XLA_FLAGS"])
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one test process per core: more threads only wait for each other

BACKEND = os.environ["KERAS_BACKEND"]
# Folders whose tests also run on a backend that does not train; there a test that needs gradients is skipped.
INFERENCE = ("decode", "layers", "models", "random")
# The modules in cross override train steps, which Keras' model does not have there.
collect_ignore = [] if BACKEND in MATRIX.training else ["cross"]

# How fast an example is drawn or run says something about the machine, and nothing about the code.
hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("suite")


def pytest_addoption(parser):
    parser.addoption("--heavy", action="store_true", help="Run the sweeps that are too long for every run, too.")


def pytest_configure(config):
    matrix_file.require(BACKEND, MATRIX)  # one clear error instead of one per test file


def pytest_report_header(config):
    return f"backend: {BACKEND} {matrix_file.installed(BACKEND, MATRIX)}"


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config, items):
    heavy = pytest.mark.skip(reason="too long for every run: pytest --heavy runs it")
    for item in items:
        if item.path.parent.name in INFERENCE and not any(map(item.get_closest_marker, ("once", "trains"))):
            item.add_marker("inference")
        if item.get_closest_marker("heavy") and not config.getoption("--heavy"):
            item.add_marker(heavy)
        expected = MATRIX.expected_failure(BACKEND, item.nodeid)
        if expected is not None:
            item.add_marker(pytest.mark.xfail(reason=expected.reason, strict=True))


def skipped_without_gradients(item):
    try:
        return (yield)
    except UsageError as error:
        if BACKEND in MATRIX.training or not str(error).startswith("Expected a backend that trains"):
            raise
        pytest.skip(f"{BACKEND} does not train")


pytest_runtest_setup = pytest.hookimpl(wrapper=True)(skipped_without_gradients)
pytest_runtest_call = pytest.hookimpl(wrapper=True)(skipped_without_gradients)


@pytest.fixture(scope="session")
def backend():
    """The name of the backend that keras is on."""
    return BACKEND


@pytest.fixture(scope="session")
def matrix():
    """The project's matrix file, read."""
    return MATRIX


@pytest.fixture(scope="session")
def tolerance():
    """`tolerance(check, dtype="float32", case="")` of the matrix file."""
    return MATRIX.tolerance


@pytest.fixture(scope="session")
def root():
    """The repository root."""
    return ROOT


@pytest.fixture(autouse=True)
def closed_figures():
    """Matplotlib keeps figures until they are closed."""
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """`main` in this process, in an empty folder, with what it changes put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("KERAS_BACKEND", os.environ["KERAS_BACKEND"])
    return tmp_path
