"""Live workers that all tests of parity share: starting them takes longer than most tests."""

import pytest

from k3seq.parity import Pool
from k3seq.runtime.matrix import installed


@pytest.fixture(scope="session")
def workers(matrix):
    """A pool with a worker for each installed backend; skips the test where fewer than two are installed."""
    names = [name for name in matrix.training if installed(name, matrix)]
    if len(names) < 2:
        pytest.skip(f"fewer than two backends are installed ({', '.join(names)}): there is nothing to compare")
    with Pool(names, matrix) as pool:
        yield pool


@pytest.fixture(scope="session")
def workers_of(workers):
    """`workers_of(*names)` is the pool; it skips the test where one of these backends is not installed."""

    def needed(*names):
        missing = [name for name in names if name not in workers.names]
        if missing:
            pytest.skip(f"not installed: {', '.join(missing)}")
        return workers

    return needed
