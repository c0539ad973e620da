"""One case on several backends: the requests that its workers get; what their answers say is `checks`.

The first backend that builds the case gives the table of weights. Their values are drawn here, and every backend gets the same
ones. A worker that fails costs its own rows; the other backends are compared all the same.
"""

import time

from k3seq.parity import checks as rows_of
from k3seq.parity import compare
from k3seq.parity.pool import WORKER
from k3seq.parity.rows import Row
from k3seq.parity.tolerances import tolerance
from k3seq.parity.weights import draw_weights
from k3seq.runtime.workers import Failure

STEPS = {"sgd": 20, "adam": 50}
MEASURED = ("parameters", "forward", "training", "gradients")  # what other dtypes than float32 are held to


class Examination:
    """A case on its way through the checks.

    Args:
        case: a `Case`. names: installed backends. checks: names. pool: a `Pool`. dtype: one of `DTYPES`. judged: whether
            differences are looked into (`judge`).

    Attributes:
        payloads: backend -> what every request to it holds. answers: request name -> backend -> answer or `Failure`.
        paths: backend -> {path of the first backend: its own path}.
    """

    def __init__(self, case, names, checks, pool, dtype="float32", judged=True):
        self.case, self.names, self.pool, self.dtype, self.judged = case, list(names), pool, dtype, judged
        self.checks = [check for check in checks if dtype == "float32" or check in MEASURED]
        self.answers, self.paths, self.rows = {}, {}, []
        self.started = time.monotonic()
        key = f"{pool.serial()}"
        batches = [case.batch(index) for index in range(case.batches)]
        base = {"key": key, "case": case.to_payload(), "batches": batches, "dtype": dtype, "jit": None}
        self.payloads = {name: dict(base) for name in self.names}

    def run(self):
        """All rows of the case."""
        self._build()
        self._left_out()
        if len(self.paths) < 2:  # a backend that is alone can still be compared with itself
            self.checks = [check for check in self.checks if check == "jit" and self.paths]
        self.requests = self._requests()
        futures = {
            (request, name): self.submit(name, function, extra)
            for request, (function, extra) in self.requests.items()
            for name in self.paths
        }
        for (request, name), future in futures.items():
            self.answers.setdefault(request, {})[name] = future.result()
        self._jit_requests()
        for check in self.checks:
            if check != "parameters":
                rows_of.ROWS[check](self)
        return self.rows

    def submit(self, name, function, extra=None):
        """A future of one request to one backend, with the case, its batches and weights."""
        return self.pool.submit(name, f"{WORKER}:{function}", {**self.payloads[name], **(extra or {})}, self.dtype)

    def tolerance(self, check):
        return tolerance(self.case, check, self.dtype, self.pool.matrix)

    # Requests

    def _build(self):
        futures = {name: self.submit(name, "build") for name in self.names}
        built = {name: future.result() for name, future in futures.items()}
        self.built = {name: answer for name, answer in built.items() if not isinstance(answer, Failure)}
        self.alive("parameters", built)
        if not self.built:
            return
        first = next(iter(self.built.values()))
        values = draw_weights(first["table"], first["values"], self.case.seed)
        for name, answer in self.built.items():
            paths = compare.paired(first["table"], answer["table"])
            if paths is not None:
                self.paths[name] = paths
                self.payloads[name]["weights"] = {paths[path]: value for path, value in values.items()}
        if "parameters" in self.checks or len(self.paths) < len(self.built):
            rows_of.parameters(self)

    def _left_out(self):
        """A row of each other check for each backend that cannot take part in it; the cause has a row of its own."""
        for name in self.names:
            if name not in self.built:
                why = "it was not built here"
            elif name not in self.paths:
                why = f"its weights cannot be paired with those of {next(iter(self.paths))}"
            else:
                continue
            for check in self.checks:
                if check != "parameters":
                    self.add(check, (name,), "skipped", message=f"not compared: {why}")

    def modes(self):
        """{request name: arguments of `worker.measure`}."""
        takes = all(answer["takes_training"] for answer in self.built.values())
        inference = {"training": False if takes else None, "without": [], "gradients": "gradients" in self.checks}
        found = {"inference": inference} if {"forward", "gradients"} & set(self.checks) else {}
        if "forward" in self.checks and self.case.optional:
            found["without"] = {**inference, "without": list(self.case.optional), "gradients": False}
        if takes and self.case.training and {"training", "gradients"} & set(self.checks):
            found["training"] = {**inference, "training": True}
        return found

    def _requests(self):
        found = {name: ("measure", mode) for name, mode in self.modes().items()}
        decodes = self.case.decode is not None and "decode" in self.checks
        for optimizer, checks in (("sgd", ("sgd",)), ("adam", ("adam", "slots"))):
            if set(checks) & set(self.checks):
                ends = {"decode": decodes and optimizer == "sgd"}
                found[optimizer] = ("train", {"optimizer": optimizer, "steps": STEPS[optimizer], **ends})
        if decodes:
            found["decode"] = ("decode", {})
        return found

    def _jit_requests(self):
        if "jit" not in self.checks:
            return
        mode = {**next(iter(self.modes().values()), {"training": None, "without": []}), "gradients": True}
        for name in self.paths:
            for jit in self.pool.matrix.backend(name).jit:
                extra = {**mode, "jit": jit, "key": f"{self.payloads[name]['key']} jit {jit}"}
                self.answers.setdefault(f"jit {jit}", {})[name] = self.submit(name, "measure", extra).result()

    # Rows

    def add(self, check, pair, verdict, found=None, limit=None, **more):
        numbers = {} if found is None else {"relative": found.relative, "absolute": found.absolute, "where": found.place}
        seconds = round(time.monotonic() - self.started, 2)
        fields = {**numbers, "message": found.message if found else "", "tolerance": limit, **more}
        self.rows.append(Row(self.case.name, check, tuple(pair), verdict, dtype=self.dtype, seconds=seconds, **fields))

    def alive(self, check, answers):
        """The answers of the workers that did not fail; each other one gets a row."""
        for name, answer in answers.items():
            if isinstance(answer, Failure):
                verdict = "missing" if answer.kind == "missing" else "failed"
                self.add(check, (name,), verdict, message=f"{answer.kind}: {answer.message}", stderr=answer.stderr)
        return {name: answer for name, answer in answers.items() if not isinstance(answer, Failure)}

    def renamed(self, name, values):
        """{path: value} of a backend under the first backend's paths, in their order."""
        return {path: values[own] for path, own in self.paths[name].items() if own in values}
