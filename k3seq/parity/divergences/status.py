"""Runs reproducers in one live process per backend and reports what the installed Keras still has. Imports no Keras."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from k3seq.parity.divergences.known import Divergence
from k3seq.runtime import matrix
from k3seq.runtime.workers import Failure, Worker

TIMEOUT = 180.0  # seconds that a reproducer may take, the start of its process included
OBSERVE = "k3seq.parity.divergences.observation:observe"
# present: listed for this backend and seen; gone: listed, not seen; absent: neither listed nor seen; new: seen, not listed
# not applicable: the values of several backends are compared, those here are equal, and not all listed backends are here
# broken: the reproducer failed, or the correct form has the divergence too
STATUSES = ("present", "gone", "absent", "new", "not applicable", "broken")

Answer = dict[str, Any] | Failure  # an `Observation` as a dict


def observe(
    entries: Sequence[Divergence],
    backends: Sequence[str],
    known: matrix.Matrix | None = None,
    on_answer: Callable[[str, str], None] | None = None,
) -> dict[str, dict[str, Answer]]:
    """Runs the reproducers on each installed backend and returns {id: {backend: Observation as a dict, or Failure}}.

    A crash or a timeout affects one answer only: the next reproducer runs in a new process.

    Args:
        entries: divergences to reproduce.
        backends: names of the matrix; those that are not installed are left out.
        known: the matrix file; None loads it.
        on_answer: called with (id, backend) after each.
    """
    matrix_file = known or matrix.load()
    names = [name for name in backends if matrix.installed(name, matrix_file)]
    found: dict[str, dict[str, Answer]] = {entry.id: {} for entry in entries}

    def reproduce_all(name: str) -> None:
        with Worker(name, backends=matrix_file) as worker:
            for entry in entries:
                found[entry.id][name] = worker.request(OBSERVE, {"reproducer": entry.reproducer}, TIMEOUT)
                if on_answer:
                    on_answer(entry.id, name)

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(reproduce_all, names))
    return {one: {name: answers[name] for name in names} for one, answers in found.items()}


def assess(entry: Divergence, answers: Mapping[str, Answer]) -> dict[str, dict[str, str]]:
    """The status of a divergence on each backend: {backend: {"status": one of `STATUSES`, "seen", "control"}}.

    Args:
        entry: the divergence.
        answers: backend -> Observation as a dict, or Failure.
    """
    values = {n: a for n, a in answers.items() if not isinstance(a, Failure) and a["present"] is None}
    differs = _differ([answer["value"] for answer in values.values()])
    equal = not _differ([answer["control_value"] for answer in values.values()])
    found = {}
    for name, answer in answers.items():
        if isinstance(answer, Failure):
            found[name] = {"status": "broken", "seen": f"{answer.kind}: {answer.message}", "control": ""}
            continue
        present, cured = (differs, equal) if name in values else (answer["present"], answer["cured"])
        listed = name in entry.backends
        status = ("present" if listed else "new") if present else ("gone" if listed else "absent")
        if not cured:
            status = "broken"
        elif name in values and not differs and not set(entry.backends) <= set(values):
            status = "not applicable"
        found[name] = {"status": status, "seen": answer["seen"], "control": answer["control"]}
    return found


def _differ(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values[1:])
