"""The checks, a function for each of `verdicts.CHECKS`: it compares the answers of the workers pair by pair and adds rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from k3seq.parity import compare, judge
from k3seq.parity.compare import SHARE, Difference
from k3seq.parity.weights import perturbed
from k3seq.runtime.workers import Failure

if TYPE_CHECKING:
    from k3seq.parity.examine import Examination

# (backend, {name of a request: answer}) -> the nested structure of arrays that is compared
Measure = Callable[[str, Mapping[str, Any]], Any]


def pairs(exam: Examination, check: str, requests: Sequence[str], measure: Measure, share: float, message: str = "") -> None:
    """Compares the answers to some requests pair by pair.

    Args:
        exam: the case.
        check: name of the check.
        requests: names of the requests.
        measure: returns what is compared.
        share: see `compare.SHARE`.
        message: of rows that are equal.
    """
    answers: dict[str, dict[str, Any]] = {}
    for request in requests:
        for name, answer in exam.succeeded(check, exam.answers.get(request, {})).items():
            answers.setdefault(name, {})[request] = answer
    values = {name: measure(name, found) for name, found in answers.items() if len(found) == len(requests)}
    limit = exam.tolerance(check)
    for a, b in combinations(values, 2):
        found = compare.compare(values[a], values[b], share, exam.dtype)
        if found.relative <= limit:
            exam.add(check, (a, b), "equal", found, limit, **({"message": message} if message else {}))
            continue
        more = judge.explain(exam, check, (a, b), values, measure, requests, limit, found) if exam.judged else {}
        exam.add(check, (a, b), "differs", found, limit, **more)


def _answered(exam: Examination, request: str) -> list[Any]:
    return [answer for answer in exam.answers[request].values() if not isinstance(answer, Failure)]


def _skip(exam: Examination, check: str, requests: Iterable[str], message: str) -> None:
    """The row of a check that has nothing to compare, after the rows of the workers that failed in it."""
    for request in requests:
        exam.succeeded(check, exam.answers[request])
    exam.add(check, (), "skipped", message=message)


def parameters(exam: Examination) -> None:
    """Compares the tables of weights."""
    for a, b in combinations(exam.built, 2):
        found = compare.parameters(exam.built[a]["table"], exam.built[b]["table"])
        exam.add("parameters", (a, b), "differs" if found.relative else "equal", found, 0.0)


def forward(exam: Examination) -> None:
    """Compares outputs and state in inference, with and without the optional arguments."""
    pairs(exam, "forward", [r for r in ("inference", "without") if r in exam.answers], _outputs(exam), 0.0)


def training(exam: Examination) -> None:
    """Compares outputs and state in training mode."""
    if "training" not in exam.answers:
        exam.add("training", (), "skipped", message="the layer has no training mode, or the case leaves it out")
    else:
        pairs(exam, "training", ["training"], _outputs(exam), 0.0)


def _outputs(exam: Examination) -> Measure:
    """Returns, for each request, the outputs, those of a second call, and the state afterwards."""

    def measure(name: str, answers: Mapping[str, Any]) -> Any:
        return {
            request: {part: answer[part] for part in ("outputs", "again")} | {"state": exam.renamed(name, answer["state"])}
            for request, answer in answers.items()
        }

    return measure


def gradients(exam: Examination) -> None:
    """Compares the gradients of weights and floating inputs in both modes."""
    requests, answers = [r for r in ("inference", "training") if r in exam.answers], _answered(exam, "inference")
    if answers and not any(answer.get("weights") or answer.get("inputs") for answer in answers):
        return _skip(exam, "gradients", requests, "neither weights nor floating inputs")
    unreached = {path for a in answers for path, gradient in a.get("weights", {}).items() if not np.any(gradient)}

    def measure(name: str, found: Mapping[str, Any]) -> Any:
        return {
            request: {"weights": exam.renamed(name, answer.get("weights", {})), "inputs": answer.get("inputs", {})}
            for request, answer in found.items()
        }

    pairs(exam, "gradients", requests, measure, SHARE, f"no gradient: {', '.join(sorted(unreached))}" if unreached else "")


def sgd(exam: Examination) -> None:
    """Compares the weights after some steps of SGD."""
    _trained(exam, "sgd", "sgd", lambda name, found: exam.renamed(name, found["sgd"]["weights"]), SHARE)


def adam(exam: Examination) -> None:
    """Compares the losses of some steps of Adam."""
    _trained(exam, "adam", "adam", lambda name, found: {"losses": found["adam"]["losses"]}, 0.0)


def slots(exam: Examination) -> None:
    """Compares the optimizer's variables after the first step of Adam."""
    _trained(exam, "slots", "adam", lambda name, found: found["adam"]["slots"], SHARE)


def _trained(exam: Examination, check: str, request: str, measure: Measure, share: float) -> None:
    answers = _answered(exam, request)
    if answers and all(answer["losses"] is None for answer in answers):
        return _skip(exam, check, [request], "no weights to train")
    if check == "slots" and answers and all(answer["slots"] is None for answer in answers):
        return _skip(exam, check, [request], "a bare layer has no optimizer")
    pairs(exam, check, [request], measure, share)


def decode(exam: Examination) -> None:
    """Compares decoded tokens, before training and after the steps of SGD."""
    if exam.case.decode is None:
        return exam.add("decode", (), "skipped", message="the case does not decode")
    before = exam.succeeded("decode", exam.answers["decode"])
    trained = {n: a for n, a in exam.answers.get("sgd", {}).items() if not isinstance(a, Failure) and a["losses"] is not None}
    after = {name: answer["decoded"] for name, answer in trained.items()}
    for request, decoded, note in (("decode", before, ""), ("sgd", after, f"after {exam.case.steps['sgd']} SGD steps")):
        for a, b in combinations(decoded, 2):
            _tokens(exam, request, (a, b), (decoded[a], decoded[b]), note)
    return None


def _tokens(exam: Examination, request: str, pair: tuple[str, str], decoded: tuple[Any, Any], note: str) -> None:
    limit, found = exam.tolerance("decode"), compare.compare(*decoded)
    if found.relative <= limit:
        return exam.add("decode", pair, "equal", found, limit, message=note)
    verdict, where, message = judge.tie(exam, request, pair, decoded)
    return exam.add("decode", pair, verdict, found, limit, where=where, message=f"{message} {note}".strip())


def directions(names: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs (writer, reader) of the check `files`: all of them."""
    return list(permutations(names, 2))


def files(exam: Examination) -> None:
    """Compares weights and outputs of files: every backend writes one with weights of its own, and every other one reads it."""
    saved = {}
    for index, name in enumerate(exam.paths):
        values = perturbed(exam.payloads[name]["weights"], exam.case.seed + index)
        place = {"folder": exam.pool.folder, "name": f"{exam.payloads[name]['key']}-{name}", "weights": values}
        saved[name] = (place, exam.submit(name, "save", place))
    written = exam.succeeded("files", {name: future.result() for name, (_, future) in saved.items()})
    loads = {
        (w, r): exam.submit(r, "load", {key: saved[w][0][key] for key in ("folder", "name")})
        for w, r in directions(list(exam.paths))
        if w in written
    }
    for (writer, reader), future in loads.items():
        answer = future.result()
        if isinstance(answer, Failure):
            message = f"{reader} cannot load the file of {writer}: {answer.message}"
            exam.add("files", (writer, reader), "failed", message=message, stderr=answer.stderr)
        else:
            _file(exam, (writer, reader), written[writer], answer)


def _file(exam: Examination, pair: tuple[str, str], written: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    limit = exam.tolerance("files")
    tables = compare.parameters(written["table"], answer["table"])
    values = compare.compare(list(written["values"].values()), list(answer["values"].values()))
    outputs = compare.compare(written["outputs"], answer["outputs"])
    if tables.relative or values.relative:
        worst = tables if tables.relative else Difference(values.relative, values.absolute, "a weight", values.message)
        return exam.add("files", pair, "differs", worst, 0.0)
    return exam.add("files", pair, "equal" if outputs.relative <= limit else "differs", outputs, limit)


def jit(exam: Examination) -> None:
    """Compares each backend with itself, compiled and not compiled."""
    for name in exam.paths:
        requests = [r for r in ("jit True", "jit False") if name in exam.answers.get(r, {})]
        answers = {r: exam.answers[r][name] for r in requests}
        for answer in answers.values():
            exam.succeeded("jit", {name: answer})
        values = [_outputs(exam)(name, {"x": a}) for a in answers.values() if not isinstance(a, Failure)]
        if len(requests) < 2:
            exam.add("jit", (name,), "skipped", message=f"{name} has one way to run: {', '.join(requests)}")
        elif len(values) == 2:
            limit, found = exam.tolerance("jit"), compare.compare(*values)
            exam.add("jit", (name, name), "equal" if found.relative <= limit else "differs", found, limit, message="on and off")


ROWS: dict[str, Callable[[Examination], None]] = {
    check.__name__: check for check in (parameters, forward, training, gradients, sgd, adam, slots, decode, files, jit)
}
