"""One live process per installed backend, shared by the tests of this folder."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from k3seq.parity.pool import QUICK
from k3seq.runtime.matrix import installed
from k3seq.runtime.workers import Failure, Worker


class Backends:
    """Live workers. They get this process's `sys.path`, so functions of `cross` are found there as they are here."""

    def __init__(self, names, matrix):
        self.workers = {name: Worker(name, QUICK, matrix) for name in names}
        self.pool = ThreadPoolExecutor(max_workers=2)

    def ask(self, function, payloads):
        """The results of one request per backend, two at a time: {backend: payload} -> {backend: result}."""
        running = {name: self.pool.submit(self.workers[name].request, function, payloads[name], 300) for name in payloads}
        results = {name: future.result() for name, future in running.items()}
        for name, result in results.items():
            if isinstance(result, Failure):
                pytest.fail(f"{function} on {name}: {result.kind}: {result.message}\n{result.stderr[-4000:]}")
        return results

    def ask_all(self, function, payload):
        """The same request on every backend."""
        return self.ask(function, dict.fromkeys(self.workers, payload))

    def close(self):
        self.pool.shutdown()
        for worker in self.workers.values():
            worker.close()


@pytest.fixture(scope="package")
def backends(matrix):
    names = [name for name in matrix.training if installed(name, matrix)]
    if len(names) < 2:
        pytest.skip(f"fewer than two backends are installed ({', '.join(names)}): there is nothing to compare")
    workers = Backends(names, matrix)
    yield workers
    workers.close()
