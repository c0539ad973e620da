"""What each check makes of the workers' answers: its pairs compared, a row for each. One function per name of `case.CHECKS`."""

from itertools import combinations, permutations

import numpy as np

from k3seq.parity import compare, judge
from k3seq.parity.compare import SHARE, Difference
from k3seq.parity.weights import unlike
from k3seq.runtime.workers import Failure


def pairs(exam, check, requests, measure, kind, message=""):
    """Compares the answers to some requests pair by pair.

    Args:
        exam: the `Examination`. check: its name. requests: their names. measure: (backend, {request: answer}) -> what is
            compared. kind: "weights" (scaled by a share of the largest array) or "outputs". message: of rows that are equal.
    """
    answers = {}
    for request in requests:
        for name, answer in exam.alive(check, exam.answers.get(request, {})).items():
            answers.setdefault(name, {})[request] = answer
    whole = {name: measure(name, found) for name, found in answers.items() if len(found) == len(requests)}
    limit = exam.tolerance(check)
    for a, b in combinations(whole, 2):
        found = compare.compare(whole[a], whole[b], SHARE if kind == "weights" else 0.0, exam.dtype)
        if found.relative <= limit:
            exam.add(check, (a, b), "equal", found, limit, **({"message": message} if message else {}))
            continue
        more = judge.look(exam, check, (a, b), whole, measure, requests, limit, found) if exam.judged else {}
        exam.add(check, (a, b), "differs", found, limit, **more)


def _answered(exam, request):
    return [answer for answer in exam.answers[request].values() if not isinstance(answer, Failure)]


def _nothing(exam, check, requests, message):
    """The row of a check that has nothing to compare, behind those of the workers that failed in it."""
    for request in requests:
        exam.alive(check, exam.answers[request])
    exam.add(check, (), "skipped", message=message)


def parameters(exam):
    for a, b in combinations(exam.built, 2):
        found = compare.parameters(exam.built[a]["table"], exam.built[b]["table"])
        exam.add("parameters", (a, b), "differs" if found.relative else "equal", found, 0.0)


def forward(exam):
    pairs(exam, "forward", [r for r in ("inference", "without") if r in exam.answers], _given(exam), "outputs")


def training(exam):
    if "training" not in exam.answers:
        return exam.add("training", (), "skipped", message="nothing is said of a training mode")
    pairs(exam, "training", ["training"], _given(exam), "outputs")


def _given(exam):
    """Of each request the outputs, those of a second call, and the state afterwards."""

    def measure(name, answers):
        return {
            request: {part: answer[part] for part in ("outputs", "again")} | {"state": exam.renamed(name, answer["state"])}
            for request, answer in answers.items()
        }

    return measure


def gradients(exam):
    requests, answers = [r for r in ("inference", "training") if r in exam.answers], _answered(exam, "inference")
    if answers and not any(answer.get("weights") or answer.get("inputs") for answer in answers):
        return _nothing(exam, "gradients", requests, "neither weights nor floating inputs")
    unreached = sorted({path for a in answers for path, slope in a.get("weights", {}).items() if not np.any(slope)})

    def measure(name, found):
        return {
            request: {"weights": exam.renamed(name, answer.get("weights", {})), "inputs": answer.get("inputs", {})}
            for request, answer in found.items()
        }

    pairs(exam, "gradients", requests, measure, "weights", f"no gradient: {', '.join(unreached)}" if unreached else "")


def sgd(exam):
    _trained(exam, "sgd", "sgd", lambda name, found: exam.renamed(name, found["sgd"]["weights"]), "weights")


def adam(exam):
    _trained(exam, "adam", "adam", lambda name, found: {"losses": found["adam"]["losses"]}, "outputs")


def slots(exam):
    _trained(exam, "slots", "adam", lambda name, found: found["adam"]["slots"], "weights")


def _trained(exam, check, request, measure, kind):
    answers = _answered(exam, request)
    if answers and all(answer["losses"] is None for answer in answers):
        return _nothing(exam, check, [request], "no weights to train")
    if check == "slots" and answers and all(answer["slots"] is None for answer in answers):
        return _nothing(exam, check, [request], "a bare layer has no optimizer")
    pairs(exam, check, [request], measure, kind)


def decode(exam):
    if exam.case.decode is None:
        return exam.add("decode", (), "skipped", message="the case does not decode")
    before = exam.alive("decode", exam.answers["decode"])
    trained = {n: a for n, a in exam.answers.get("sgd", {}).items() if not isinstance(a, Failure) and a["losses"] is not None}
    for request, decoded in (("decode", before), ("sgd", {name: answer["decoded"] for name, answer in trained.items()})):
        for a, b in combinations(decoded, 2):
            _tokens(exam, request, a, b, decoded)


def _tokens(exam, request, a, b, decoded):
    limit, told = exam.tolerance("decode"), "" if request == "decode" else "after 20 SGD steps"
    found = compare.compare(decoded[a], decoded[b])
    if found.relative <= limit:
        return exam.add("decode", (a, b), "equal", found, limit, message=told)
    verdict, where, message = judge.tie(exam, request, a, b, decoded)
    exam.add("decode", (a, b), verdict, found, limit, where=where, message=f"{message} {told}".strip())


def files(exam):
    """Every backend writes weights of its own, every other one reads them."""
    saved = {}
    for index, name in enumerate(exam.paths):
        values = unlike(exam.payloads[name]["weights"], exam.case.seed + index)
        place = {"folder": exam.pool.folder, "name": f"{exam.payloads[name]['key']}-{name}", "weights": values}
        saved[name] = (place, exam.submit(name, "save", place))
    written = exam.alive("files", {name: future.result() for name, (_, future) in saved.items()})
    loads = {
        (w, r): exam.submit(r, "load", {key: saved[w][0][key] for key in ("folder", "name")})
        for w, r in permutations(exam.paths, 2)
        if w in written
    }
    for (writer, reader), future in loads.items():
        answer = future.result()
        if isinstance(answer, Failure):
            message = f"{reader} cannot load what {writer} wrote: {answer.message}"
            exam.add("files", (writer, reader), "failed", message=message, stderr=answer.stderr)
        else:
            _file(exam, writer, reader, written[writer], answer)


def _file(exam, writer, reader, written, answer):
    limit = exam.tolerance("files")
    tables = compare.parameters(written["table"], answer["table"])
    values = compare.compare(list(written["values"].values()), list(answer["values"].values()))
    outputs = compare.compare(written["outputs"], answer["outputs"])
    if tables.relative or values.relative:
        worst = tables if tables.relative else Difference(values.relative, values.absolute, "a weight", values.message)
        return exam.add("files", (writer, reader), "differs", worst, 0.0)
    exam.add("files", (writer, reader), "equal" if outputs.relative <= limit else "differs", outputs, limit)


def jit(exam):
    """Each backend with itself, compiled and not."""
    for name in exam.paths:
        requests = [r for r in ("jit True", "jit False") if name in exam.answers.get(r, {})]
        answers = {r: exam.answers[r][name] for r in requests}
        for answer in answers.values():
            exam.alive("jit", {name: answer})
        whole = {r: _given(exam)(name, {"x": a}) for r, a in answers.items() if not isinstance(a, Failure)}
        if len(requests) < 2:
            exam.add("jit", (name,), "skipped", message=f"{name} knows one way here: {', '.join(requests)}")
        elif len(whole) == 2:
            limit, found = exam.tolerance("jit"), compare.compare(*whole.values())
            same = found.relative <= limit
            exam.add("jit", (name, name), "equal" if same else "differs", found, limit, message="on and off")


ROWS = {check.__name__: check for check in (parameters, forward, training, gradients, sgd, adam, slots, decode, files, jit)}
