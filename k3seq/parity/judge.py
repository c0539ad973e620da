"""Of a difference: which backend is off, and where. Asks the workers again, in float64 and call by call."""

import numpy as np

from k3seq.parity import bisect, compare
from k3seq.parity.compare import SHARE
from k3seq.parity.pool import TRACE, WORKER
from k3seq.runtime.workers import Failure

REQUESTS = {"inference": "measure", "without": "measure", "training": "measure", "sgd": "train", "adam": "train"}


def look(exam, check, pair, whole, measure, requests, limit, found):
    """What is known of a difference: {"where", "judge"}, fields of a `Row`.

    Args:
        exam: the `Examination`. check: its name. pair: the two backends. whole: backend -> what was compared.
        measure: what takes answers there. requests: their names. limit: the tolerance. found: the `Difference`.
    """
    place = where(exam, check, pair, requests, limit)
    told = f"{place}: {found.place}" if place else found.place
    return {"where": told, "judge": verdict(exam, check, whole, measure, requests, limit)}


def where(exam, check, pair, requests, limit):
    """The first layer, step and row where a pair parts, as text; empty where no call says so."""
    if check in ("forward", "training"):
        for request in requests:
            calls = _calls(exam, request, pair)
            place = calls and bisect.first_part(*calls, limit)
            if place:
                return str(place)
        return ""
    calls = _calls(exam, "training" if "training" in exam.modes() else "inference", pair)
    if check == "gradients":
        for request in requests:
            gradients = [exam.renamed(name, exam.answers[request][name].get("weights", {})) for name in pair]
            place = bisect.last_gradient(calls[0] if calls else [], *gradients, limit)
            if place:
                return str(place)
        return ""
    return _training_step(exam, check, pair, calls, limit)


def _calls(exam, request, pair):
    mode = exam.modes().get(request) or {"training": None, "without": []}
    function = f"{TRACE}:trace"
    futures = [exam.pool.submit(name, function, {**exam.payloads[name], **mode}, exam.dtype) for name in pair]
    calls = [future.result() for future in futures]
    return None if any(isinstance(answer, Failure) for answer in calls) else calls


def _training_step(exam, check, pair, calls, limit):
    """The layer whose weights part in the first step, and the first step whose losses do."""
    optimizer = "sgd" if check == "sgd" else "adam"
    answers = [exam.answers[optimizer][name] for name in pair]
    step = bisect.first_step(answers[0]["losses"], answers[1]["losses"], exam.tolerance("adam"))
    extra = {"optimizer": optimizer, "steps": 1}
    futures = [exam.submit(name, "train", extra) for name in pair]
    ones = [future.result() for future in futures]
    if any(isinstance(answer, Failure) for answer in ones):
        return ""
    start = exam.renamed(pair[0], exam.payloads[pair[0]]["weights"])
    moves = []
    for name, answer in zip(pair, ones, strict=True):
        after = exam.renamed(name, answer["weights"])
        moves.append({path: after[path] - start[path] for path in after if start[path].dtype.kind == "f"})
    # One step of Adam divides a gradient by its own size: only a difference that is large beside the step tells a layer.
    place = bisect.last_gradient(calls[0] if calls else [], *moves, 1e-3 if optimizer == "adam" else 10 * limit)
    if place is None:
        return f"training step {step}" if step is not None else ""
    return f"{place}, training step {0 if step is None else step}"


def verdict(exam, check, whole, measure, requests, limit):
    """Which backends are off, by float64: "float64 (jax): off tensorflow 6.8e-02; near jax 1.1e-07, torch 2.0e-07".

    Of several float64 runs the one that most others agree with is believed; where none is ahead, that is what is said. A run
    that fails is told: "float64 (tensorflow): ValueError: ...".
    """
    truths, failed = {}, []
    for name in exam.pool.present("float64"):
        try:
            truths[name] = _float64(exam, name, measure, requests)
        except _NoTruth as error:
            failed.append(f"float64 ({name}): {error}")
    if not truths:
        return "; ".join(failed) or "float64: no installed backend has it"
    share = 0.0 if check in ("forward", "training", "adam") else SHARE
    votes = {
        name: sum(compare.compare(truth, other, share).relative <= 10 * limit for other in (*whole.values(), *truths.values()))
        for name, truth in truths.items()
    }
    best = max(votes, key=lambda name: votes[name])
    errors = {name: compare.compare(value, truths[best], share).relative for name, value in whole.items()}
    if votes[best] == 1:  # itself alone
        return "; ".join([f"float64 ({best}) agrees with none: {_numbers(errors)}", *failed])
    off = {name: error for name, error in errors.items() if not error <= limit}
    near = {name: error for name, error in errors.items() if name not in off}
    said = [f"off {_numbers(off)}"] if off else []
    said += [f"near {_numbers(near)}"] if near else []
    return "; ".join([f"float64 ({best}): {said[0]}", *said[1:], *failed])


def _numbers(errors):
    return ", ".join(f"{name} {error:.1e}" for name, error in errors.items())


class _NoTruth(Exception):
    """A float64 run that came to nothing, and why."""


def _float64(exam, name, measure, requests):
    """What `measure` makes of a float64 run's answers, under the first backend's paths; raises `_NoTruth`."""
    held = next(iter(exam.payloads.values()))
    base = {**held, "key": f"{held['key']} float64", "dtype": "float64"}
    base.pop("weights", None)
    first = next(iter(exam.paths))

    def ask(function, payload):
        answer = exam.pool.request(name, f"{WORKER}:{function}", payload, "float64")
        if isinstance(answer, Failure):
            raise _NoTruth(f"{answer.kind}: {answer.message}")
        return answer

    built = ask("build", base)
    paths = compare.paired(exam.built[first]["table"], built["table"])
    if paths is None:
        raise _NoTruth(f"its weights cannot be paired with those of {first}")
    weights = exam.payloads[first]["weights"]
    base["weights"] = {paths[path]: _wide(value) for path, value in weights.items()}
    answers = {request: ask(REQUESTS[request], {**base, **exam.requests[request][1]}) for request in requests}
    exam.paths[f"{name} float64"] = paths
    try:
        return measure(f"{name} float64", answers)
    finally:
        del exam.paths[f"{name} float64"]


def _wide(value):
    return value.astype(np.float64) if value.dtype.kind == "f" else value


def tie(exam, request, a, b, decoded):
    """(verdict, where, message) of decoded tokens that differ.

    It is a tie where, in each row, the first token that differs was chosen among two whose log-probabilities are nearer than
    the case's margin: rounding decides there.
    """
    ours, theirs = decoded[a], decoded[b]
    names = [key for key in ours if np.asarray(ours[key]).dtype.kind in "iu" and np.ndim(ours[key]) == 2]
    unlike = [key for key in names if np.shape(ours[key]) == np.shape(theirs.get(key)) and np.any(ours[key] != theirs[key])]
    if not unlike:
        found = compare.compare(ours, theirs)
        return "differs", found.place, found.message or "the tokens are equal"
    tokens = ours[unlike[0]]
    apart = tokens != theirs[unlike[0]]
    rows = np.flatnonzero(apart.any(axis=1))
    steps = apart[rows].argmax(axis=1)
    order = np.lexsort((rows, steps))
    where = f"{unlike[0]}, step {steps[order[0]]}, row {rows[order[0]]}"
    message = f"{len(rows)} of {len(tokens)} rows differ"
    if isinstance(exam.case.decode, str) or request != "decode":
        return "differs", where, message
    gaps = [exam.submit(name, "gaps", {"tokens": tokens}).result() for name in (a, b)]
    if any(isinstance(answer, Failure) for answer in gaps):
        return "differs", where, message
    gap = float(max(np.minimum(*gaps)[rows, steps]))
    near = gap < exam.case.margin
    return "tie" if near else "differs", where, f"{message}; best two scores {gap:.1e} apart, margin {exam.case.margin:.1e}"
