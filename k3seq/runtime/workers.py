"""One process per backend: a payload in, a result out, a time limit, stderr kept. Needs POSIX.

Keras binds its backend when it is imported, so what compares backends needs a process for each. `launch` runs one function in a
fresh process; a `Worker` stays alive for many requests. What a worker does wrong (it crashes, hangs, raises, its backend is
missing) comes back as a `Failure` and never as an exception.

Payloads and results are nested dicts and lists of JSON values with NumPy arrays anywhere. Each request has a folder of its own:
`request.json` and `request.npz` in, `result.json` and `result.npz` out. Pipes carry one short JSON line each way, so that
neither side waits on a full pipe; whatever the function prints goes to stderr. Nothing is pickled.
"""

import faulthandler
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k3seq.errors import UsageError
from k3seq.runtime import matrix
from k3seq.runtime.memory import keep_memory

TIMEOUT = 600.0
_STDERR_KEPT = 200_000  # bytes of the end of stderr that a Failure carries
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from k3seq.runtime.workers import serve; serve()"


@dataclass(frozen=True)
class Failure:
    """What went wrong in a worker.

    `kind` is one of: `missing` (the backend is not installed), `unknown` (there is no such function), `exception` (it raised),
    `result` (it returned what cannot be carried), `crash` (the process ended), `timeout`. `message` is one line; `stderr` is
    what the process wrote during the request: prints, warnings, the traceback, and where it stood when the time was over.
    """

    kind: str
    message: str
    stderr: str = ""


class Worker(AbstractContextManager):
    """A process with one backend, kept alive from request to request; it starts at the first, and anew after a crash or a hang.

    Args:
        backend: a name of the matrix.
        environment: variables set in the process besides the parent's own and `KERAS_BACKEND`.
        backends: the `k3seq.runtime.matrix.Matrix` to look the backend up in; None loads it.
    """

    def __init__(self, backend, environment=None, backends=None):
        self.backend, self._environment, self._matrix = backend, dict(environment or {}), backends
        self._process: Any = None  # a Popen from the first request on

    def request(self, function, payload=None, timeout=TIMEOUT):
        """Calls `package.module:function` with the payload and returns what it returns, or a `Failure`.

        Tuples arrive as lists and NumPy scalars as arrays of no dimensions; everything else arrives as it was sent.

        Args:
            function: `package.module:function`; importable from the working directory or from the caller's `sys.path`.
            payload: the function's one argument.
            timeout: seconds, the start of the process among them; None waits for ever.
        Raises:
            UsageError: the payload holds something that is neither JSON nor a NumPy array; the message names the place.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            matrix.require(self.backend, self._matrix)
        except UsageError as error:
            return Failure("missing", str(error))
        self._start()
        with tempfile.TemporaryDirectory(dir=self._folder.name) as folder:
            write(Path(folder, "request"), payload)
            before = self._log.stat().st_size if self._answered else 0  # the first request's stderr has the start in it
            try:
                self._send({"function": function, "folder": folder})
                answer = self._receive(deadline)
            except BaseException:
                self.close()
                raise
            if answer is None:
                return self._ended(before, timeout)
            self._answered = True
            if "kind" in answer:
                return Failure(answer["kind"], answer["message"], self._written(before))
            return read(Path(folder, "result"))

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Ends the process and all that it started."""
        if self._process is not None:
            self._kill()
            self._process = None
            self._folder.cleanup()

    def _start(self):
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        self._folder = tempfile.TemporaryDirectory(prefix="k3seq-")
        self._log = Path(self._folder.name, "stderr")
        self._lines, self._answered = queue.SimpleQueue(), False
        quiet = {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")}
        path = [os.getcwd(), *sys.path, str(Path(__file__).resolve().parents[2])]
        with open(self._log, "ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(list(dict.fromkeys(path)))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ | quiet | self._environment | {"KERAS_BACKEND": self.backend},
                start_new_session=True,  # a group of its own: all of it can be killed, and Ctrl-C reaches the caller alone
            )
        self._reader = threading.Thread(target=_pump, args=(self._process.stdout, self._lines), daemon=True)
        self._reader.start()

    def _send(self, request):
        with suppress(BrokenPipeError):  # it has ended: _receive sees that too, and tells how
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def _receive(self, deadline):
        """The answer; None when the process has ended or the time is over."""
        while deadline is None or time.monotonic() < deadline:
            ended = self._process.poll() is not None  # asked before the queue, so that a last line is not lost
            try:
                line = self._lines.get(timeout=0.2)
            except queue.Empty:
                line = None if ended else b""
            if line is None and self._process.poll() is not None:
                return None
            if line:
                return json.loads(line)
        return None

    def _ended(self, before, timeout):
        code = self._process.poll()
        if code is None:
            kind, message = "timeout", f"Expected an answer within {timeout} s"
            self._process.send_signal(signal.SIGUSR1)  # faulthandler writes to stderr where it stands
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.3)
        else:
            ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            kind, message = "crash", f"The process {ended}"
        self._kill()
        failure = Failure(kind, message, self._written(before))
        self.close()
        return failure

    def _written(self, before):
        with open(self._log, "rb") as log:
            log.seek(max(before, self._log.stat().st_size - _STDERR_KEPT))
            return log.read().decode("utf-8", "replace")

    def _kill(self):
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._reader.join(1)  # it closes the other pipe


def launch(backend, function, payload=None, timeout=TIMEOUT, environment=None, backends=None):
    """Calls `package.module:function` with the payload in a fresh process; returns its result or a `Failure` (see `Worker`)."""
    with Worker(backend, environment, backends) as worker:
        return worker.request(function, payload, timeout)


def launch_all(names, function, payload=None, timeout=TIMEOUT, environment=None, backends=None, workers=1):
    """The same call on several backends, `workers` of them at a time.

    Returns:
        A dict backend -> result or `Failure`, in the order of `names`.
    """
    processes = {name: Worker(name, environment, backends) for name in names}
    pool = ThreadPoolExecutor(max_workers=workers)
    try:
        running = {name: pool.submit(worker.request, function, payload, timeout) for name, worker in processes.items()}
        return {name: future.result() for name, future in running.items()}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in processes.values():
            worker.close()


def _pump(stream, lines):
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def write(path, value):
    """Writes JSON values and NumPy arrays as `path.json` and, where there are arrays, `path.npz`; UsageError for all else."""
    import numpy as np

    arrays, places = {}, []

    def plain(value, place):
        if value is None or isinstance(value, str | bool | int | float) and not isinstance(value, np.generic):
            return value
        if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
            array, key = np.asarray(value), f"a{len(places)}"
            native = array.dtype.kind != "V"  # bfloat16 and the float8 family are void to the .npy format: their bytes travel
            arrays[key] = array if native else np.frombuffer(array.tobytes(), "uint8")
            places.append([place, key, None if native else [array.dtype.name, list(array.shape)]])
            return None
        if isinstance(value, dict) and all(isinstance(k, str) for k in value):
            return {k: plain(v, [*place, k]) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v, [*place, i]) for i, v in enumerate(value)]
        where = "".join(f"[{p!r}]" for p in place) or "the top"
        named = f"{type(value).__module__}.{type(value).__name__}"
        kind = "a dict with a key that is no str" if isinstance(value, dict) else named
        raise UsageError(f"Expected JSON values and NumPy arrays. Received: {kind} at {where}")

    document = {"value": plain(value, []), "arrays": places}
    Path(f"{path}.json").write_text(json.dumps(document), encoding="utf-8")
    if arrays:
        np.savez(f"{path}.npz", **arrays)


def read(path):
    """What `write` wrote."""
    document = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
    holder = {"value": document["value"]}
    if document["arrays"]:
        import numpy as np

        with np.load(f"{path}.npz", allow_pickle=False) as arrays:
            for place, key, shaped in document["arrays"]:
                array = arrays[key]
                if shaped:
                    ml_dtypes = importlib.import_module("ml_dtypes")
                    array = np.frombuffer(array.tobytes(), getattr(ml_dtypes, shaped[0])).reshape(shaped[1]).copy()
                target, last = holder, "value"
                for step in place:
                    target, last = target[last], step
                target[last] = array
    return holder["value"]


def serve():
    """The worker's side: answers requests until its stdin closes."""
    keep_memory()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    os.dup2(2, 1)  # what the function prints, from C too, goes to stderr
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace")
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    waiting = queue.SimpleQueue()

    def listen():
        for line in requests:
            waiting.put(json.loads(line))
        os._exit(0)  # the caller has gone: end, even in the middle of a request

    threading.Thread(target=listen, daemon=True).start()
    while True:
        answer = _answer(**waiting.get())
        sys.stdout.flush()
        sys.stderr.flush()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(function, folder):
    kind, (module, _, name) = "unknown", function.partition(":")
    try:
        called: Any = importlib.import_module(module)
        for part in name.split("."):
            called = getattr(called, part)
        kind = "exception"
        result = called(read(Path(folder, "request")))
        kind = "result"
        write(Path(folder, "result"), result)
        return {}
    except BaseException as error:
        traceback.print_exc()
        text = " ".join(str(error).split())
        return {"kind": kind, "message": f"{type(error).__name__}: {text}" if text else type(error).__name__}
