"""What a row's process does: makes its subject, then takes steps in every round. The maker's module brings the framework."""

import gc
import importlib
import os
import time
from collections.abc import Callable
from typing import Any

from k3seq.bench import memory
from k3seq.bench.running import Running
from k3seq.bench.work import OPTIONAL
from k3seq.runtime import memory as kept_memory

WARM = 3  # steps before the first round; the losses of these are compared
_held: dict[str, Running] = {}


def load(payload: dict[str, Any]) -> dict[str, Any]:
    """{"maker"} imports the maker's module, with the framework; returns {"imported": seconds} or {"missing": a package}."""
    began = time.perf_counter()
    try:
        importlib.import_module(payload["maker"].partition(":")[0])
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in OPTIONAL:
            return {"missing": error.name}
        raise
    return {"imported": time.perf_counter() - began}


def prepare(payload: dict[str, Any], clock: Callable[[], float] = time.perf_counter) -> dict[str, Any]:
    """{"maker", "case", "batch", "jit", "options"} makes the subject and takes its first steps.

    Returns:
        {"imported", "built", "first", "step", "warm": seconds; "base", "first_peak": bytes; "losses", "tokens", "about"};
        `step` is the last of the first steps, `warm` all of them but the first.
    """
    imported = load(payload)["imported"]
    base = memory.current()
    began = clock()
    module, _, name = payload["maker"].partition(":")
    running = _held["running"] = getattr(importlib.import_module(module), name)(payload)
    built = clock() - began
    losses, times, value = [], [], None
    for _ in range(WARM):
        seconds, _, value = timed(running, clock)
        times.append(seconds)
        if running.number:
            losses.append(float(running.number(value)))
    return {
        "imported": imported,
        "built": built,
        "first": times[0],
        "step": times[-1],
        "warm": sum(times[1:]),
        "base": base,
        "first_peak": memory.peak(),
        "losses": losses,
        "tokens": None if running.tokens is None else float(running.tokens(value)),
        "about": running.about | {"pid": os.getpid(), "memory_kept": kept_memory.kept_by_environment()},
    }


def take(payload: dict[str, Any], clock: Callable[[], float] = time.perf_counter) -> dict[str, Any]:
    """{"steps"} takes so many; returns {"times", "cpu": seconds of each by the clock and of all threads, "peak": bytes}."""
    running = _held["running"]
    gc.collect()
    memory.forget_peak()
    times, cpu = zip(*(timed(running, clock)[:2] for _ in range(payload["steps"])), strict=True)
    return {"times": times, "cpu": cpu, "peak": memory.peak()}


def timed(running: Running, clock: Callable[[], float] = time.perf_counter) -> tuple[float, float, Any]:
    """(seconds, processor seconds, value) of one step, the clocks stopped when its value is computed."""
    began, worked = clock(), time.process_time()
    value = running.step()
    running.wait(value)
    return clock() - began, time.process_time() - worked, value
