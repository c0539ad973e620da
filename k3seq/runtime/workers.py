"""One process per backend: a payload in, a result out, a time limit, stderr kept.

Keras binds its backend when it is imported, so comparing backends needs a process for each. `launch` calls one function in a
new process; a `Worker` stays alive for many requests. When a worker crashes, hangs, raises or lacks its backend, the caller
gets a `Failure` and no exception.

Payloads and results are nested dicts and lists of JSON values with NumPy arrays anywhere (`k3seq.runtime.exchange`). Each
request has its own folder: `request.json` and `request.npz` in, `result.json` and `result.npz` out. Pipes carry one short JSON
line each way, so that neither side waits on a full pipe. What the function prints goes to stderr. Nothing is pickled.
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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k3seq.errors import UsageError
from k3seq.runtime import matrix
from k3seq.runtime.exchange import read, write
from k3seq.runtime.memory import keeping_environment

TIMEOUT = 600.0
_STDERR_KEPT = 200_000  # bytes of the end of stderr that a Failure carries
# A group of its own: all of it can be killed, and Ctrl-C reaches only the caller. The signal makes a worker write its stack.
_OWN_GROUP: dict[str, Any] = (
    {"start_new_session": True}
    if hasattr(os, "killpg")
    else {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
)
_DUMP = getattr(signal, "SIGUSR1", None)
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from k3seq.runtime.workers import serve; serve()"


@dataclass(frozen=True)
class Failure:
    """Why a request has no result.

    `kind` is one of: `missing` (the backend is not installed), `unknown` (there is no such function), `exception` (it raised),
    `result` (it returned something that cannot be sent), `crash` (the process ended), `timeout`. `message` is one line.
    `stderr` is what the process wrote during the request: prints, warnings, tracebacks, and the stack at the time limit.
    """

    kind: str
    message: str
    stderr: str = ""


class Worker(AbstractContextManager):
    """A process with one backend that answers many requests. It starts at the first request, and again after a crash or a hang.

    Args:
        backend: a name of the matrix.
        environment: variables set in the process besides the parent's own and `KERAS_BACKEND`.
        backends: the `k3seq.runtime.matrix.Matrix` that has the backend; None loads it.
    """

    def __init__(
        self, backend: str, environment: Mapping[str, str] | None = None, backends: matrix.Matrix | None = None
    ) -> None:
        self.backend, self._environment, self._matrix = backend, dict(environment or {}), backends
        self._process: Any = None  # a Popen from the first request on

    def request(self, function: str, payload: Any = None, timeout: float | None = TIMEOUT) -> Any:
        """Calls `package.module:function` with the payload and returns its result, or a `Failure`.

        Tuples arrive as lists and NumPy scalars as arrays without dimensions; everything else arrives as it was sent.

        Args:
            function: `package.module:function`; importable from the working directory or from the caller's `sys.path`.
            payload: the function's only argument.
            timeout: seconds, including the start of the process; None waits without limit.

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
            before = self._log.stat().st_size if self._answered else 0  # the first request's stderr includes the start
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

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process and the processes that it started."""
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
                env=keeping_environment() | os.environ | quiet | self._environment | {"KERAS_BACKEND": self.backend},
                **_OWN_GROUP,
            )
        self._reader = threading.Thread(target=_pump, args=(self._process.stdout, self._lines), daemon=True)
        self._reader.start()

    def _send(self, request):
        with suppress(OSError):  # the pipe is broken: the process has ended, which _receive reports
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
            if _DUMP is not None:
                self._process.send_signal(_DUMP)
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
        _end_group(self._process)
        self._process.wait()
        with suppress(OSError):
            self._process.stdin.close()
        self._reader.join(1)  # it closes the other pipe


def launch(
    backend: str,
    function: str,
    payload: Any = None,
    timeout: float | None = TIMEOUT,
    environment: Mapping[str, str] | None = None,
    backends: matrix.Matrix | None = None,
) -> Any:
    """Calls `package.module:function` with the payload in a new process; returns its result or a `Failure` (see `Worker`)."""
    with Worker(backend, environment, backends) as worker:
        return worker.request(function, payload, timeout)


def launch_all(
    names: Sequence[str],
    function: str,
    payload: Any = None,
    timeout: float | None = TIMEOUT,
    environment: Mapping[str, str] | None = None,
    backends: matrix.Matrix | None = None,
    workers: int = 1,
) -> dict[str, Any]:
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


def _end_group(process):
    """Kills the process and the processes that it started."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True)


def _pump(stream, lines):
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def serve() -> None:
    """The worker's side: answers requests until its stdin closes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    os.dup2(2, 1)  # what the function prints, from C too, goes to stderr
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace")
    faulthandler.enable()
    if _DUMP is not None:
        faulthandler.register(_DUMP)
    waiting = queue.SimpleQueue()

    def listen():
        for line in requests:
            waiting.put(json.loads(line))
        os._exit(0)  # the caller has ended: end too, even in the middle of a request

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
