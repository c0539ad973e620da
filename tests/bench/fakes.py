"""Workers that answer at once, and rows with given figures: what the bench does with them can be checked by eye."""

from k3seq.bench.work import Row, Work
from k3seq.parity.case import Case
from k3seq.runtime import matrix
from k3seq.runtime.workers import Failure

MATRIX = matrix.load()
BACKENDS = MATRIX.training
CASE = Case("case", "k3seq.layers.lstm:LSTM", {"units": 2})
PREPARED = {
    "imported": 1.0,
    "built": 0.5,
    "first": 2.0,
    "step": 0.1,
    "warm": 0.2,
    "base": 1000,
    "first_peak": 1500,
    "losses": [3.0, 2.0, 1.0],
    "tokens": None,
    "about": {"backend": "jax", "version": "1", "keras": "3", "devices": ["cpu"]},
}


def work(implementation="k3seq", backend="jax", problem="one", **more):
    return Work(CASE, problem, "train", backend, True, implementation, **more)


def row(rounds=(), implementation="k3seq", losses=(), **more):
    names = ("status", "message", "parity", "cpu_rounds", "tokens", "peak", "base", "about")
    fields = {"status": "measured" if rounds else "waiting"} | {name: more.pop(name) for name in names if name in more}
    return Row(work(implementation, **more), rounds=list(rounds), losses=list(losses), **fields)


class Script:
    """Makes workers in order, each with its own answers, and keeps what was asked: a list of (number of the worker, function).

    Args:
        answers: for each worker {function: answer, or a list of answers that are given one after another}; an exception is
            raised. What is not named is answered as by a worker that is well.
    """

    def __init__(self, *answers):
        self.answers, self.asked, self.closed, self.steps = answers, [], [], []

    def __call__(self, backend, environment, backends):
        return _Worker(self, len(self.closed), backend)


class _Worker:
    def __init__(self, script, number, backend):
        self.script, self.number = script, number
        script.closed.append(False)
        self.answers = dict(script.answers[number]) if number < len(script.answers) else {}

    def request(self, function, payload, timeout):
        name = function.rpartition(":")[2]
        self.script.asked.append((self.number, name))
        answer = self.answers.get(name, WELL[name])
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        if name == "take":
            self.script.steps.append(payload["steps"])
        return answer

    def close(self):
        self.script.closed[self.number] = True


WELL = {"load": {"imported": 1.0}, "prepare": PREPARED, "take": {"times": [0.1], "cpu": [0.05], "peak": 2000}}
FAILED = Failure("crash", "The process was killed by SIGKILL", "Killed\n")
