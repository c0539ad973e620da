"""Runs reproducers in one live process per backend and says what the installed Keras still has. Imports no keras."""

from concurrent.futures import ThreadPoolExecutor

from k3seq.parity.divergences.known import Divergence
from k3seq.runtime import matrix
from k3seq.runtime.workers import Failure, Worker

TIMEOUT = 180.0  # seconds a reproducer may take, the start of its process among them
OBSERVE = "k3seq.parity.divergences.observation:observe"
STATUSES = ("present", "gone", "absent", "new", "not applicable", "broken")


def observe(entries: list[Divergence], backends: list[str], known=None, on_answer=None) -> dict[str, dict[str, dict | Failure]]:
    """What each reproducer gave on each installed backend: {id: {backend: Observation as a dict, or Failure}}.

    A crash or hang costs one answer: the next reproducer gets a new process.

    Args:
        entries: what to run. backends: names of the matrix; those that are not installed are left out.
        known: the `k3seq.runtime.matrix.Matrix`; None loads it. on_answer: called with (id, backend) after each.
    """
    known = known or matrix.load()
    names = [name for name in backends if matrix.installed(name, known)]
    found: dict[str, dict] = {entry.id: {} for entry in entries}

    def go_through(name):
        with Worker(name, backends=known) as worker:
            for entry in entries:
                found[entry.id][name] = worker.request(OBSERVE, {"reproducer": entry.reproducer}, TIMEOUT)
                if on_answer:
                    on_answer(entry.id, name)

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(go_through, names))
    return {one: {name: answers[name] for name in names} for one, answers in found.items()}


def judge(entry: Divergence, answers: dict[str, dict | Failure]) -> dict[str, dict]:
    """Says for each backend what stands: {backend: {"status", "seen", "control"}}.

    `present`, or `gone` where the catalogue says that it is there; `absent`, or `new` where it does not; `not applicable` where
    the values of several backends are compared, those here are alike, and not all of them are here; `broken` where the
    reproducer failed, or where its control, the correct form, shows the divergence too: then it measures nothing.
    """
    values = {name: answer for name, answer in answers.items() if not isinstance(answer, Failure) and answer["present"] is None}
    differs = _differ([answer["value"] for answer in values.values()])
    alike = not _differ([answer["control_value"] for answer in values.values()])
    verdicts = {}
    for name, answer in answers.items():
        if isinstance(answer, Failure):
            verdicts[name] = {"status": "broken", "seen": f"{answer.kind}: {answer.message}", "control": ""}
            continue
        present, cured = (differs, alike) if name in values else (answer["present"], answer["cured"])
        listed = name in entry.backends
        status = ("present" if listed else "new") if present else ("gone" if listed else "absent")
        if not cured:
            status = "broken"
        elif name in values and not differs and not set(entry.backends) <= set(values):
            status = "not applicable"
        verdicts[name] = {"status": status, "seen": answer["seen"], "control": answer["control"]}
    return verdicts


def _differ(values):
    return any(value != values[0] for value in values[1:])
