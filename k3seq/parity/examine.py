"""One case on several backends: the requests to its workers. `checks` compares the answers.

The first backend that builds the case returns the table of weights. Their values are drawn here, and every backend receives the
same ones. If a worker fails, only its own rows are lost; the other backends are still compared.
"""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from k3seq.parity import checks as rows_of
from k3seq.parity import compare
from k3seq.parity.case import Case
from k3seq.parity.compare import Difference
from k3seq.parity.pool import WORKER, Pool
from k3seq.parity.rows import Row, without_escapes
from k3seq.parity.tolerances import tolerance
from k3seq.parity.verdicts import DTYPE_CHECKS
from k3seq.parity.weights import Weights, draw_weights
from k3seq.runtime.workers import Failure

Answers = dict[str, Any]  # backend -> answer of its worker, or `Failure`


class Examination:
    """A case and what is known of it so far.

    Args:
        case: what to compare.
        names: installed backends.
        checks: names.
        pool: the workers.
        dtype: one of `verdicts.DTYPES`.
        judged: whether to look for the layer and the backend behind a difference (`judge`).

    Attributes:
        payloads: backend -> what every request to it contains.
        built: backend -> answer of `worker.build`, without the backends that failed.
        answers: name of a request -> backend -> answer or `Failure`.
        paths: backend -> {path of a weight on the first backend: its path on this backend}.
        rows: the results so far.
    """

    def __init__(
        self, case: Case, names: Iterable[str], checks: Iterable[str], pool: Pool, dtype: str = "float32", judged: bool = True
    ):
        self.case, self.names, self.pool, self.dtype, self.judged = case, list(names), pool, dtype, judged
        self.checks = [check for check in checks if dtype == "float32" or check in DTYPE_CHECKS]
        self.answers: dict[str, Answers] = {}
        self.built: Answers = {}
        self.paths: dict[str, dict[str, str]] = {}
        self.requests: dict[str, tuple[str, dict[str, Any]]] = {}
        self.rows: list[Row] = []
        self.started = time.monotonic()
        batches = [case.batch(index) for index in range(case.batches)]
        base = {"key": f"{pool.serial()}", "case": case.to_payload(), "batches": batches, "dtype": dtype, "jit": None}
        self.payloads: dict[str, dict[str, Any]] = {name: dict(base) for name in self.names}

    def examine(self) -> list[Row]:
        """All rows of the case."""
        self._build()
        self._skip_unbuilt()
        if len(self.paths) < 2:  # one backend can still be compared with itself
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

    def submit(self, name: str, function: str, extra: Mapping[str, Any] | None = None) -> Future[Any]:
        """A future of one request to one backend, with the case, its batches and weights."""
        return self.pool.submit(name, f"{WORKER}:{function}", {**self.payloads[name], **(extra or {})}, self.dtype)

    def tolerance(self, check: str) -> float:
        """The largest relative error that a check allows."""
        return tolerance(self.case, check, self.dtype, self.pool.matrix)

    def modes(self) -> dict[str, dict[str, Any]]:
        """{name of a request: arguments of `worker.measure`}."""
        takes = all(answer["takes_training"] for answer in self.built.values())
        inference = {"training": False if takes else None, "without": [], "gradients": "gradients" in self.checks}
        found = {"inference": inference} if {"forward", "gradients"} & set(self.checks) else {}
        if "forward" in self.checks and self.case.optional:
            found["without"] = {**inference, "without": list(self.case.optional), "gradients": False}
        if takes and self.case.training and {"training", "gradients"} & set(self.checks):
            found["training"] = {**inference, "training": True}
        return found

    def add(
        self,
        check: str,
        pair: Iterable[str],
        verdict: str,
        found: Difference | None = None,
        limit: float | None = None,
        **more: str,
    ) -> None:
        """Adds a row; `more` are fields of `Row`."""
        numbers = {} if found is None else {"relative": found.relative, "absolute": found.absolute}
        texts = {} if found is None else {"where": found.place, "message": found.message}
        texts = {name: without_escapes(text) for name, text in {**texts, **more}.items()}
        seconds = round(time.monotonic() - self.started, 2)
        fields = {**numbers, **texts, "tolerance": limit, "dtype": self.dtype, "seconds": seconds}
        self.rows.append(Row(self.case.name, check, tuple(pair), verdict, **fields))

    def succeeded(self, check: str, answers: Answers) -> Answers:
        """The answers without failures; each failure becomes a row."""
        for name, answer in answers.items():
            if isinstance(answer, Failure):
                verdict = "missing" if answer.kind == "missing" else "failed"
                self.add(check, (name,), verdict, message=f"{answer.kind}: {answer.message}", stderr=answer.stderr)
        return {name: answer for name, answer in answers.items() if not isinstance(answer, Failure)}

    def renamed(self, name: str, values: Mapping[str, Any]) -> Weights:
        """{path: value} of a backend with the paths of the first backend, in their order."""
        return {path: values[own] for path, own in self.paths[name].items() if own in values}

    def _build(self) -> None:
        futures = {name: self.submit(name, "build") for name in self.names}
        self.built = self.succeeded("parameters", {name: future.result() for name, future in futures.items()})
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

    def _skip_unbuilt(self) -> None:
        """A row of each other check for each backend that cannot be compared; another row holds the reason."""
        for name in self.names:
            if name not in self.built:
                reason = "the case failed to build here"
            elif name not in self.paths:
                reason = f"its weights cannot be paired with those of {next(iter(self.paths))}"
            else:
                continue
            for check in self.checks:
                if check != "parameters":
                    self.add(check, (name,), "skipped", message=f"not compared: {reason}")

    def _requests(self) -> dict[str, tuple[str, dict[str, Any]]]:
        found = {name: ("measure", mode) for name, mode in self.modes().items()}
        decodes = self.case.decode is not None and "decode" in self.checks
        for optimizer, checks in (("sgd", ("sgd",)), ("adam", ("adam", "slots"))):
            if set(checks) & set(self.checks):
                extra = {"steps": self.case.steps[optimizer], "decode": decodes and optimizer == "sgd"}
                found[optimizer] = ("train", {"optimizer": optimizer, **extra})
        if decodes:
            found["decode"] = ("decode", {})
        return found

    def _jit_requests(self) -> None:
        if "jit" not in self.checks:
            return
        mode = {**next(iter(self.modes().values()), {"training": None, "without": []}), "gradients": True}
        for name in self.paths:
            for jit in self.pool.matrix.backend(name).jit:
                extra = {**mode, "jit": jit, "key": f"{self.payloads[name]['key']} jit {jit}"}
                self.answers.setdefault(f"jit {jit}", {})[name] = self.submit(name, "measure", extra).result()
