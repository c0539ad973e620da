"""Live worker processes, one per backend."""

import os
import tempfile
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from k3seq.errors import UsageError
from k3seq.runtime import matrix as matrix_file
from k3seq.runtime.workers import Worker

WORKER, TRACE = "k3seq.parity.worker", "k3seq.parity.trace"
# The backends that compute in float64, and the environment variables that this needs before the import. Torch is missing:
# Keras on torch multiplies float64 matrices in float32.
FLOAT64 = {"jax": {"JAX_ENABLE_X64": "1"}, "tensorflow": {}}
# Defaults; the caller's environment has priority (XLA_FLAGS="" enables all of XLA's passes). Hundreds of programs run once
# here, and XLA's expensive passes would take most of the time. One thread per process: layers are small, and more threads wait
# for each other. JAX compiles some programs again (a loaded model, a mode that changes nothing) and finds them in its cache.
QUICK = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    **dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"),
}
CACHE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


class Pool(AbstractContextManager):
    """One live worker per backend, shared by all cases and runs; use it in a `with` statement.

    A worker starts at its first request. JAX with float64 is a worker of its own.

    Args:
        backends: names of the matrix; None: all that train.
        matrix: the matrix file; None loads it.
        environment: variables of every worker; they have priority over the caller's environment.
        timeout: seconds that one request may take.

    Attributes:
        names: of the backends.
        installed: name -> version or None.
        folder: for files that one backend writes and another reads.

    Raises:
        UsageError: a backend that the matrix does not know, or one that is named twice.
    """

    def __init__(
        self,
        backends: Iterable[str] | None = None,
        matrix: matrix_file.Matrix | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = 120.0,
    ):
        self.matrix = matrix or matrix_file.load()
        self.names = [self.matrix.backend(name).name for name in (backends or self.matrix.training)]
        if len(set(self.names)) < len(self.names):
            raise UsageError(f"Expected each backend once. Received: {', '.join(self.names)}")
        self.installed = {name: matrix_file.installed(name, self.matrix) for name in self.names}
        self.timeout = timeout
        self._folder = tempfile.TemporaryDirectory(prefix="k3seq-parity-")
        self.folder = self._folder.name
        has_cache = "JAX_COMPILATION_CACHE_DIR" in os.environ
        cache = {} if has_cache else {"JAX_COMPILATION_CACHE_DIR": f"{self.folder}/jax", **CACHE}
        self._environment = {k: os.environ.get(k, v) for k, v in {**QUICK, **cache}.items()} | dict(environment or {})
        self._workers: dict[tuple[str, bool], Worker] = {}
        self._queues: dict[tuple[str, bool], ThreadPoolExecutor] = {}
        self._lock = threading.Lock()
        self._serial = 0

    def present(self, dtype: str = "float32") -> list[str]:
        """The installed backends that have a dtype."""
        found = [n for n in self.names if self.installed[n] is not None]
        if dtype == "float64":
            return [n for n in found if n in FLOAT64]
        return [n for n in found if dtype == "float32" or dtype in self.matrix.backend(n).dtypes]

    def submit(self, backend: str, function: str, payload: Any = None, dtype: str = "float32") -> Future[Any]:
        """A future of what `request` returns."""
        kind = (backend, dtype == "float64" and bool(FLOAT64.get(backend)))
        with self._lock:
            if kind not in self._workers:
                extra = FLOAT64[backend] if kind[1] else {}
                self._workers[kind] = Worker(backend, self._environment | extra, self.matrix)
                self._queues[kind] = ThreadPoolExecutor(max_workers=1)
        return self._queues[kind].submit(self._workers[kind].request, function, payload, self.timeout)

    def request(self, backend: str, function: str, payload: Any = None, dtype: str = "float32") -> Any:
        """The answer of one worker, or a `k3seq.runtime.workers.Failure`; requests to one worker run one after another.

        Args:
            backend: its name.
            function: `package.module:function`.
            payload: argument of the function.
            dtype: float64 selects the worker that has it.
        """
        return self.submit(backend, function, payload, dtype).result()

    def serial(self) -> int:
        """A number that no other caller gets; workers keep what they built under such keys."""
        with self._lock:
            self._serial += 1
            return self._serial

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all workers."""
        for waiting in self._queues.values():
            waiting.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers.values():
            worker.close()
        self._folder.cleanup()
