"""Workers that crash, hang, raise, print, or return what cannot be sent."""

import math
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from k3seq.errors import UsageError
from k3seq.runtime import matrix
from k3seq.runtime.memory import keeping_environment
from k3seq.runtime.workers import Failure, Worker, launch, launch_all

pytestmark = pytest.mark.once

# A backend that is always there: these tests are about processes, so its module is one of the standard library.
PLAIN = matrix.Matrix(backends={n: matrix.Backend(n, "json", ("none",), "nothing") for n in ("plain", "other")})
HERE = "tests_of_launch"
ROOT = Path(__file__).resolve().parents[2]

FUNCTIONS = """
import os, sys, time, json, subprocess
calls = []

def echo(payload):
    return payload

def environment(names):
    return {name: os.environ.get(name) for name in names}

def noisy(payload):
    print("printed", flush=True)
    os.write(1, b"written below Python\\n")
    sys.stderr.write("wrote to stderr\\n")
    return payload

def count(payload):
    calls.append(payload)
    return len(calls)

def crash(code):
    os.write(2, b"last words\\n")
    os._exit(code)

def kill(number):
    os.kill(os.getpid(), number)

def hang_somewhere(payload):
    time.sleep(600)

def hang_with_child(path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(path, "w") as f:
        f.write(str(child.pid))
    time.sleep(600)

def fail(text):
    raise ValueError(text)

def leave(payload):
    sys.exit("left")

def bad_result(payload):
    return {"ok": [1, object()]}

def array_kinds(payload):
    return [str(a.dtype) + str(a.shape) for a in payload]
"""


@pytest.fixture(scope="module", autouse=True)
def functions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("functions")
    (folder / f"{HERE}.py").write_text(FUNCTIONS)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def warm():
    with Worker("plain", backends=PLAIN) as worker:
        yield worker


def call(worker, name, payload=None, timeout=30):
    return worker.request(f"{HERE}:{name}", payload, timeout)


def test_json_values_come_back_as_they_were(warm):
    value = {"a": [1, 2.5, None, True, "漢字 ‮\n\"'\x00"], "": {"b": []}, "größer": 2**70, "~": -0.0}
    back = call(warm, "echo", value)
    assert back == value
    assert math.copysign(1, back["~"]) == -1


def test_nan_and_infinity_survive(warm):
    back = call(warm, "echo", [math.nan, math.inf, -math.inf, np.array([np.nan, np.inf, -np.inf])])
    assert math.isnan(back[0]) and back[1:3] == [math.inf, -math.inf]
    np.testing.assert_array_equal(back[3], [np.nan, np.inf, -np.inf])


def test_arrays_anywhere_keep_dtype_shape_and_values(warm):
    import ml_dtypes

    value = {
        "a": [np.arange(6, dtype="int32").reshape(2, 3), {"b": np.zeros((0, 4), "float16")}],
        "bool": np.array([True, False]),
        "scalar": np.float32(1.5),
        "text": np.array(["ä", "bc"]),
        "fortran": np.asfortranarray(np.arange(4.0).reshape(2, 2)),
        "bfloat16": np.array([[1.0, -2.5]], ml_dtypes.bfloat16),
    }
    back = call(warm, "echo", value)
    for one, other in [(value[k], back[k]) for k in list(value)[1:]] + list(zip(value["a"][:1], back["a"][:1], strict=True)):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)
    assert back["a"][1]["b"].shape == (0, 4)
    assert call(warm, "array_kinds", [value["bfloat16"]]) == ["bfloat16(1, 2)"]


def test_an_array_at_the_top_and_a_dict_that_looks_like_a_reference(warm):
    np.testing.assert_array_equal(call(warm, "echo", np.arange(3)), [0, 1, 2])
    assert call(warm, "echo", {"value": 1, "arrays": [[[], "a0", None]]}) == {"value": 1, "arrays": [[[], "a0", None]]}


def test_big_arrays_pass(warm):
    big = np.random.default_rng(0).standard_normal((2000, 2000))
    np.testing.assert_array_equal(call(warm, "echo", {"big": big})["big"], big)


def test_long_json_does_not_fill_the_pipe(warm):
    value = ["x" * 100] * 50_000
    assert call(warm, "echo", value) == value


@pytest.mark.parametrize(
    "payload, message",
    [
        ({"a": [1, object()]}, r"builtins\.object at \['a'\]\[1\]"),
        ({1: 2}, "a dict with a key that is not a str at the top"),
        (b"bytes", "builtins.bytes at the top"),
        ([np.array([object()])], r"numpy\.ndarray at \[0\]"),
    ],
)
def test_a_payload_that_cannot_be_carried_is_refused_with_its_place(warm, payload, message):
    with pytest.raises(UsageError, match=message):
        call(warm, "echo", payload)


def test_prints_do_not_disturb_the_answer(warm):
    assert call(warm, "noisy", "same") == "same"


def test_the_process_stays_for_the_next_request_and_after_an_exception(warm):
    first = call(warm, "count")
    assert call(warm, "fail", "x").kind == "exception"
    assert call(warm, "count") == first + 1


def test_an_exception_comes_back_with_its_traceback_and_only_its_own_stderr(warm):
    call(warm, "noisy")
    failure = call(warm, "fail", "two\nlines é")
    assert (failure.kind, failure.message) == ("exception", "ValueError: two lines é")
    assert "in fail" in failure.stderr and "wrote to stderr" not in failure.stderr


def test_sys_exit_is_an_exception_of_the_function(warm):
    assert call(warm, "leave") == Failure("exception", "SystemExit: left", call(warm, "leave").stderr)


@pytest.mark.parametrize("name", ["no_such_module:f", f"{HERE}:no_such_function", f"{HERE}:", "justaword"])
def test_an_unknown_function_is_named(warm, name):
    failure = warm.request(name, None, 30)
    assert failure.kind == "unknown"
    assert failure.message.startswith(("AttributeError", "ModuleNotFoundError"))


def test_a_result_that_cannot_be_carried_is_a_failure_with_its_place(warm):
    failure = call(warm, "bad_result")
    assert failure.kind == "result" and "builtins.object at ['ok'][1]" in failure.message


def test_a_crash_is_a_failure_with_code_and_last_words_and_the_worker_starts_anew():
    with Worker("plain", backends=PLAIN) as worker:
        assert call(worker, "count") == 1
        failure = call(worker, "crash", 7)
        assert (failure.kind, failure.message) == ("crash", "The process ended with exit code 7")
        assert "last words" in failure.stderr
        assert call(worker, "count") == 1


def test_a_signal_is_named():
    failure = launch("plain", f"{HERE}:kill", int(signal.SIGKILL), 30, backends=PLAIN)
    assert failure.message == "The process was killed by SIGKILL"
    failure = launch("plain", f"{HERE}:kill", int(signal.SIGSEGV), 30, backends=PLAIN)
    assert failure.kind == "crash" and "Segmentation fault" in failure.stderr and "in kill" in failure.stderr


def test_a_hang_ends_with_the_time_limit_and_its_stack():
    failure = launch("plain", f"{HERE}:hang_somewhere", None, 2, backends=PLAIN)
    assert (failure.kind, failure.message) == ("timeout", "Expected an answer within 2 s")
    assert "in hang_somewhere" in failure.stderr


def test_the_processes_that_a_hung_worker_started_end_too(tmp_path):
    assert launch("plain", f"{HERE}:hang_with_child", str(tmp_path / "pid"), 3, backends=PLAIN).kind == "timeout"
    child = int((tmp_path / "pid").read_text())
    for _ in range(50):
        if not alive(child):
            return
        time.sleep(0.1)
    pytest.fail(f"Expected process {child} to end. Received: it still runs")


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_missing_backend_is_a_failure_with_the_install_command():
    absent = matrix.Matrix(backends={"torch": matrix.Backend("torch", "no_such_framework", ("no",), "pip install it")})
    failure = launch("torch", f"{HERE}:echo", 1, backends=absent)
    assert failure.kind == "missing" and failure.message.endswith("pip install it")
    assert launch("mxnet", f"{HERE}:echo", 1, backends=absent).kind == "missing"


def test_the_backend_and_the_environment_reach_the_process(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    names = ["KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL", "OMP_NUM_THREADS", "EXTRA"]
    got = launch("plain", f"{HERE}:environment", names, 30, {"EXTRA": "é"}, PLAIN)
    assert [got[n] for n in names] == ["plain", os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"), "3", "é"]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_backend_answers_and_one_that_fails_does_not_end_the_others(workers):
    got = launch_all(["plain", "gone", "other"], f"{HERE}:environment", ["KERAS_BACKEND"], 30, backends=PLAIN, workers=workers)
    assert list(got) == ["plain", "gone", "other"]
    assert got["gone"].kind == "missing"
    assert (got["plain"], got["other"]) == ({"KERAS_BACKEND": "plain"}, {"KERAS_BACKEND": "other"})


def test_workers_keep_freed_memory_by_their_environment(monkeypatch):
    monkeypatch.delenv("K3SEQ_KEEP_MEMORY", raising=False)
    names = list(keeping_environment())
    assert (len(names) == 3) == (platform.libc_ver()[0] == "glibc")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")  # the caller's own setting counts
    got = launch("plain", f"{HERE}:environment", names, 30, backends=PLAIN)
    assert got == keeping_environment() | ({"MALLOC_ARENA_MAX": "7"} if names else {})
    monkeypatch.setenv("K3SEQ_KEEP_MEMORY", "0")
    assert keeping_environment() == {}


WITHOUT_POSIX = """
import os, signal, subprocess, sys
for name in ("killpg", "getpgid", "setsid", "fork"):
    delattr(os, name)
for name in ("SIGUSR1", "SIGKILL"):
    delattr(signal, name)
calls = []
import importlib, builtins
from k3seq.runtime import matrix, workers
real = subprocess.run
def run(command, **options):
    calls.append(command[:3])
    return real(["kill", "-9", command[-1]], **options)
subprocess.run = run
plain = matrix.Matrix(backends={"plain": matrix.Backend("plain", "json", ("none",), "nothing")})
print(workers.launch("plain", "math:sqrt", 4, backends=plain))
print(workers.launch("plain", "time:sleep", 60, 2, backends=plain).kind)
print(calls == [["taskkill", "/F", "/T"]] * 2)
"""


def test_workers_run_where_posix_calls_are_missing():
    done = subprocess.run([sys.executable, "-c", WITHOUT_POSIX], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2.0", "timeout", "True"]


def test_nothing_stays_behind_after_closing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    worker = Worker("plain", backends=PLAIN)
    assert call(worker, "echo", np.arange(2)).tolist() == [0, 1]
    assert len(list(tmp_path.iterdir())) == 1
    worker.close()
    worker.close()
    assert list(tmp_path.iterdir()) == []
