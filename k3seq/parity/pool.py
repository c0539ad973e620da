"""Live workers, one per backend, and the requests that a case makes of them."""

import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from k3seq.errors import UsageError
from k3seq.runtime import matrix as matrix_file
from k3seq.runtime.workers import Worker

WORKER, TRACE = "k3seq.parity.worker", "k3seq.parity.trace"
# float64 is there only where this stands in the environment before the import; torch, on which Keras multiplies float64
# matrices in float32, has none.
FLOAT64 = {"jax": {"JAX_ENABLE_X64": "1"}, "tensorflow": {}}
# Set where the caller's environment says nothing; what it says counts (XLA_FLAGS="" brings all of XLA back). Most of the time
# would go into XLA's costly passes over hundreds of programs that run once. Threads beyond one per process wait for each other
# on small layers. JAX meets the same program again (a loaded model, a mode that changes nothing) and finds it compiled.
QUICK = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    **dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"),
}
CACHE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


class Pool(AbstractContextManager):
    """One live worker per backend, kept from case to case and from run to run; use it in a `with` statement.

    Workers start at their first request. JAX with float64 is a worker of its own, started where it is asked for.

    Args:
        backends: names of the matrix; None: all that train.
        matrix: a `k3seq.runtime.matrix.Matrix`; None loads it.
        environment: variables of every worker; they count before those of the caller's environment.
        timeout: seconds that one request may take.

    Attributes:
        names: of the backends. installed: name -> version or None. folder: for files that one backend writes and another reads.

    Raises:
        UsageError: a backend that the matrix does not know.
    """

    def __init__(self, backends=None, matrix=None, environment=None, timeout=120.0):
        self.matrix = matrix or matrix_file.load()
        self.names = [self.matrix.backend(name).name for name in (backends or self.matrix.training)]
        if len(set(self.names)) < len(self.names):
            raise UsageError(f"Expected each backend once. Received: {', '.join(self.names)}")
        self.installed = {name: matrix_file.installed(name, self.matrix) for name in self.names}
        self.timeout = timeout
        self._folder = tempfile.TemporaryDirectory(prefix="k3seq-parity-")
        self.folder = self._folder.name
        own = "JAX_COMPILATION_CACHE_DIR" in os.environ
        cache = {} if own else {"JAX_COMPILATION_CACHE_DIR": f"{self.folder}/jax", **CACHE}
        self._environment = {k: os.environ.get(k, v) for k, v in {**QUICK, **cache}.items()} | dict(environment or {})
        self._workers, self._queues, self._lock = {}, {}, threading.Lock()
        self._serial = 0

    def present(self, dtype="float32"):
        """The installed backends that have a dtype."""
        has = [n for n in self.names if self.installed[n] is not None]
        if dtype == "float64":
            return [n for n in has if n in FLOAT64]
        return [n for n in has if dtype == "float32" or dtype in self.matrix.backend(n).dtypes]

    def submit(self, backend, function, payload=None, dtype="float32"):
        """A future of what `request` returns."""
        kind = (backend, dtype == "float64" and bool(FLOAT64.get(backend)))
        with self._lock:
            if kind not in self._workers:
                extra = FLOAT64[backend] if kind[1] else {}
                self._workers[kind] = Worker(backend, self._environment | extra, self.matrix)
                self._queues[kind] = ThreadPoolExecutor(max_workers=1)
        return self._queues[kind].submit(self._workers[kind].request, function, payload, self.timeout)

    def request(self, backend, function, payload=None, dtype="float32"):
        """The answer of one worker, or a `Failure`; requests to one worker wait for each other.

        Args:
            backend: a name. function: `package.module:function`. payload: its argument. dtype: whose worker.
        """
        return self.submit(backend, function, payload, dtype).result()

    def serial(self):
        """A number that no other caller gets: keys by which workers keep what they built."""
        with self._lock:
            self._serial += 1
            return self._serial

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Ends all workers."""
        for queue in self._queues.values():
            queue.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers.values():
            worker.close()
        self._folder.cleanup()
