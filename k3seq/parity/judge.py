"""The judge: for a difference, which backend is wrong, and where.

It runs the case again in float64 (the reference run), on the backends that compute in float64, and records the calls of all
layers on both backends of the pair (`bisect` compares them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from k3seq.parity import bisect, compare
from k3seq.parity.compare import SHARE, Difference
from k3seq.parity.pool import TRACE, WORKER
from k3seq.runtime.workers import Failure

if TYPE_CHECKING:
    from k3seq.parity.checks import Measure
    from k3seq.parity.examine import Examination

FUNCTIONS = {"inference": "measure", "without": "measure", "training": "measure", "sgd": "train", "adam": "train"}


def explain(
    exam: Examination,
    check: str,
    pair: tuple[str, str],
    values: Mapping[str, Any],
    measure: Measure,
    requests: Sequence[str],
    limit: float,
    found: Difference,
) -> dict[str, str]:
    """Explains a difference: {"where", "judge"}, fields of a `Row`.

    Args:
        exam: the case.
        check: name of the check.
        pair: the two backends.
        values: backend -> what was compared.
        measure: turns answers into that.
        requests: names of the requests behind it.
        limit: the tolerance.
        found: the difference.
    """
    place = locate(exam, check, pair, requests, limit)
    return {
        "where": f"{place}: {found.place}" if place else found.place,
        "judge": blame(exam, check, values, measure, requests, limit),
    }


def locate(exam: Examination, check: str, pair: tuple[str, str], requests: Sequence[str], limit: float) -> str:
    """The first layer, step and row with a mismatch, as text; empty where no call has one."""
    if check in ("forward", "training"):
        for request in requests:
            calls = _calls(exam, request, pair)
            place = calls and bisect.first_mismatch(*calls, limit)
            if place:
                return str(place)
        return ""
    calls = _calls(exam, "training" if "training" in exam.modes() else "inference", pair)
    if check == "gradients":
        for request in requests:
            ours, theirs = (exam.renamed(name, exam.answers[request][name].get("weights", {})) for name in pair)
            place = bisect.last_wrong_gradient(calls[0] if calls else [], ours, theirs, limit)
            if place:
                return str(place)
        return ""
    return _training_step(exam, check, pair, calls, limit)


def _calls(exam: Examination, request: str, pair: tuple[str, str]) -> tuple[bisect.Calls, bisect.Calls] | None:
    mode = exam.modes().get(request) or {"training": None, "without": []}
    function = f"{TRACE}:trace"
    futures = [exam.pool.submit(name, function, {**exam.payloads[name], **mode}, exam.dtype) for name in pair]
    first, second = (future.result() for future in futures)
    return None if isinstance(first, Failure) or isinstance(second, Failure) else (first, second)


def _training_step(
    exam: Examination, check: str, pair: tuple[str, str], calls: tuple[bisect.Calls, bisect.Calls] | None, limit: float
) -> str:
    """The layer whose weights differ after the first step, and the first step with another loss."""
    optimizer = "sgd" if check == "sgd" else "adam"
    answers = [exam.answers[optimizer][name] for name in pair]
    step = bisect.first_wrong_step(answers[0]["losses"], answers[1]["losses"], exam.tolerance("adam"))
    futures = [exam.submit(name, "train", {"optimizer": optimizer, "steps": 1}) for name in pair]
    after_one = [future.result() for future in futures]
    if any(isinstance(answer, Failure) for answer in after_one):
        return ""
    start = exam.renamed(pair[0], exam.payloads[pair[0]]["weights"])
    moves = []
    for name, answer in zip(pair, after_one, strict=True):
        after = exam.renamed(name, answer["weights"])
        moves.append({path: after[path] - start[path] for path in after if start[path].dtype.kind == "f"})
    # A step of Adam divides a gradient by its own size: only a difference that is large beside the step points to a layer.
    relative = 1e-3 if optimizer == "adam" else 10 * limit
    place = bisect.last_wrong_gradient(calls[0] if calls else [], moves[0], moves[1], relative)
    if place is None:
        return f"training step {step}" if step is not None else ""
    return f"{place}, training step {0 if step is None else step}"


def blame(
    exam: Examination, check: str, values: Mapping[str, Any], measure: Measure, requests: Sequence[str], limit: float
) -> str:
    """Which backends differ from the float64 reference run.

    Of several float64 runs the one that agrees with most other runs is the reference. The result is text such as "float64
    reference (jax): tensorflow differs by 6.8e-02; jax (1.1e-07), torch (2.0e-07) agree". It says so where a float64 run fails,
    or where the reference agrees with no other run.
    """
    references, failed = {}, []
    for name in (name for name in exam.pool.present("float64") if name in exam.names):
        try:
            references[name] = _float64(exam, name, measure, requests)
        except _NoReference as error:
            failed.append(f"float64 run on {name} failed: {error}")
    if not references:
        return "; ".join(failed) or "no float64 reference: none of the backends has float64"
    share = 0.0 if check in ("forward", "training", "adam") else SHARE
    runs = (*values.values(), *references.values())
    votes = {
        name: sum(compare.compare(reference, run, share).relative <= 10 * limit for run in runs)
        for name, reference in references.items()
    }
    best = max(votes, key=lambda name: votes[name])
    errors = {name: compare.compare(value, references[best], share).relative for name, value in values.items()}
    if votes[best] == 1:  # itself only
        return "; ".join([f"float64 reference ({best}) agrees with no other run: {_errors(errors)}", *failed])
    wrong = {name: error for name, error in errors.items() if not error <= limit}
    right = {name: error for name, error in errors.items() if name not in wrong}
    results = [f"{name} differs by {error:.1e}" for name, error in wrong.items()]
    results += [f"{_errors(right)} agree{'s' * (len(right) == 1)}"] if right else []
    return "; ".join([f"float64 reference ({best}): {results[0]}", *results[1:], *failed])


def _errors(errors: Mapping[str, float]) -> str:
    return ", ".join(f"{name} ({error:.1e})" for name, error in errors.items())


class _NoReference(Exception):
    """A float64 run that failed, and why."""


def _float64(exam: Examination, name: str, measure: Measure, requests: Sequence[str]) -> Any:
    """What `measure` returns for a float64 run, with the first backend's paths; raises `_NoReference`."""
    payload = next(iter(exam.payloads.values()))
    base = {**payload, "key": f"{payload['key']} float64", "dtype": "float64"}
    base.pop("weights", None)
    first = next(iter(exam.paths))

    def ask(function: str, payload: Mapping[str, Any]) -> Any:
        answer = exam.pool.request(name, f"{WORKER}:{function}", payload, "float64")
        if isinstance(answer, Failure):
            raise _NoReference(f"{answer.kind}: {answer.message}")
        return answer

    built = ask("build", base)
    paths = compare.paired(exam.built[first]["table"], built["table"])
    if paths is None:
        raise _NoReference(f"its weights cannot be paired with those of {first}")
    weights = exam.payloads[first]["weights"]
    base["weights"] = {
        paths[path]: value.astype(np.float64) if value.dtype.kind == "f" else value for path, value in weights.items()
    }
    answers = {request: ask(FUNCTIONS[request], {**base, **exam.requests[request][1]}) for request in requests}
    exam.paths[f"{name} float64"] = paths
    try:
        return measure(f"{name} float64", answers)
    finally:
        del exam.paths[f"{name} float64"]


def tie(exam: Examination, request: str, pair: tuple[str, str], decoded: tuple[Any, Any]) -> tuple[str, str, str]:
    """(verdict, where, message) of decoded tokens that differ.

    The verdict is `tie` where, in each row, the first token that differs was chosen between two whose log-probabilities are
    nearer than the case's margin, so that rounding decides.
    """
    ours, theirs = decoded
    names = [key for key in ours if np.asarray(ours[key]).dtype.kind in "iu" and np.ndim(ours[key]) == 2]
    unequal = [key for key in names if np.shape(ours[key]) == np.shape(theirs.get(key)) and np.any(ours[key] != theirs[key])]
    if not unequal:
        found = compare.compare(ours, theirs)
        return "differs", found.place, found.message or "the tokens are equal"
    tokens = ours[unequal[0]]
    wrong = tokens != theirs[unequal[0]]
    rows = np.flatnonzero(wrong.any(axis=1))
    steps = wrong[rows].argmax(axis=1)
    order = np.lexsort((rows, steps))
    where = f"{unequal[0]}, step {steps[order[0]]}, row {rows[order[0]]}"
    message = f"{len(rows)} of {len(tokens)} rows differ"
    if isinstance(exam.case.decode, str) or request != "decode":
        return "differs", where, message
    gaps = [exam.submit(name, "gaps", {"tokens": tokens}).result() for name in pair]
    if any(isinstance(answer, Failure) for answer in gaps):
        return "differs", where, message
    gap = float(max(np.minimum(*gaps)[rows, steps]))
    verdict = "tie" if gap < exam.case.margin else "differs"
    return verdict, where, f"{message}; the best two scores differ by {gap:.1e}, margin {exam.case.margin:.1e}"
