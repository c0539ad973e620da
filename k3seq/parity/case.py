"""What is compared: a layer or model named `package.module:factory`, its inputs, and the checks it must pass.

A case holds no tensor and no layer, so it can be written down, sent to another process and read without keras. Every number of
its inputs is drawn here, on the host, from `k3seq.random.bits`: the same on every backend.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from k3seq.errors import UsageError
from k3seq.random.bits import Stream

# In the order in which they are run and shown; `jit` and the dtypes other than float32 run when they are asked for.
CHECKS = ("parameters", "forward", "training", "gradients", "sgd", "adam", "slots", "decode", "files", "jit")
DEFAULT_CHECKS = CHECKS[:-1]
DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class Spec:
    """An array to be drawn.

    Args:
        shape: ints. dtype: a NumPy name.
        low, high: floats are uniform in [low, high), or standard normal where both are None; integers lie in [low, high), low
            being 0 where it is None; a bool is True with probability `high` (0.75 where it is None).
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    low: float | None = None
    high: float | None = None

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if np.dtype(self.dtype).kind in "iu" and self.high is None:
            raise UsageError(f"Expected high, the end of the range, for an array of {self.dtype}. Received: {self}")

    def draw(self, stream: Stream) -> np.ndarray:
        """The array, from a stream of random numbers."""
        kind = np.dtype(self.dtype).kind
        if kind == "b":
            return stream.uniform(self.shape) < (0.75 if self.high is None else self.high)
        if kind in "iu":
            return stream.integers(int(self.low or 0), int(self.high or 0), self.shape).astype(self.dtype)
        if self.low is None and self.high is None:
            return stream.normal(self.shape).astype(self.dtype)
        low, high = self.low or 0.0, 1.0 if self.high is None else self.high
        return (low + (high - low) * stream.uniform(self.shape)).astype(self.dtype)


@dataclass(frozen=True)
class Case:
    """One thing to compare.

    Args:
        name: what stands in the table; patterns on the command line and `wider` tolerances go by it.
        factory: `package.module:name`, what returns a Keras layer or model: a function or the class itself.
        arguments: keyword arguments of the factory, JSON values.
        inputs: the first argument of the call: a `Spec`, an array, or a nested dict or list of them. None: the call has none.
        call: keyword arguments of the call, further inputs of a layer: specs, arrays, nested, or JSON values, which stay.
        optional: names of `call` that are masks or lengths: `forward` also runs without them.
        training: compare in training mode too, where the layer knows one. False for what draws its own random numbers in
            training, stock `keras.layers.Dropout` for instance, whose numbers differ on every backend by design.
        labels: what a model is trained on: "outputs" (random targets of the outputs' shapes, under a mean squared error), a
            nested structure of specs and arrays, or None for a model that needs none.
        sample_weight: a spec or array, or None.
        loss: what `compile` gets: a name that Keras knows, `package.module:name` of a loss (a class is called without
            arguments), or None for a model that has its own. A bare layer's loss is the squared distance of its outputs to
            random targets.
        rates: learning rates of the two optimizers, {"sgd": 0.1, "adam": 0.01}.
        batches: training goes round this many batches; specs are drawn anew for each, arrays stay.
        decode: options of greedy decoding for a model with `start` and `step`: {"max_steps", "start", "end"}; or
            `package.module:name` of a function of (model, inputs) that returns tokens; or None.
        margin: where decoded tokens part and the two best log-probabilities are nearer than this, it is a tie.
        seed: of weights and inputs.
        checks: names out of `CHECKS`.
        tolerances: check or dtype.check -> largest relative error, in the place of the matrix file's, such as
            {"forward": 1e-5, "bfloat16.forward": 0.05}.

    Raises:
        UsageError: a factory without a colon, or an unknown check.
    """

    name: str
    factory: str
    arguments: dict[str, Any] = field(default_factory=dict)
    inputs: Any = None
    call: dict[str, Any] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    training: bool = True
    labels: Any = "outputs"
    sample_weight: Any = None
    loss: str | None = None
    rates: dict[str, float] = field(default_factory=lambda: {"sgd": 0.1, "adam": 0.01})
    batches: int = 2
    decode: Any = None
    margin: float = 1e-4
    seed: int = 0
    checks: tuple[str, ...] = DEFAULT_CHECKS
    tolerances: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("optional", "checks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if ":" not in self.factory:
            raise UsageError(f"Expected a factory as package.module:name. Received: {self.factory}")
        check_names(self.checks, CHECKS, "checks")
        check_names(self.optional, self.call, "optional arguments")

    def batch(self, index: int = 0) -> dict[str, Any]:
        """The arrays of one batch: {"inputs", "call", "labels", "sample_weight"}, every spec drawn."""
        parts = {part: getattr(self, part) for part in ("inputs", "call", "labels", "sample_weight")}
        return _drawn(parts, lambda place: Stream(self.seed, f"parity {self.name} {place} {index}"), "")

    def to_payload(self) -> dict[str, Any]:
        """JSON values and arrays alone, as `k3seq.runtime.workers` carries them."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def check_names(given, known, what):
    """UsageError for a name of `given` that is not in `known`."""
    for name in given:
        if name not in known:
            raise UsageError(f"Expected {what} out of {', '.join(known) or 'none'}. Received: {name}")


def from_payload(payload: dict[str, Any]) -> Case:
    """The case that `Case.to_payload` wrote."""
    return Case(**{name: specs(value) for name, value in payload.items()})


def specs(value):
    """A nested structure of JSON in which each {"shape": [...], ...} becomes a `Spec`: how a command line tells inputs.

    Raises:
        UsageError: a key that `Spec` does not have.
    """
    if isinstance(value, dict) and isinstance(value.get("shape"), list | tuple):
        check_names(value, [f.name for f in dataclasses.fields(Spec)], "keys of an input")
        return Spec(**value)
    if isinstance(value, dict):
        return {k: specs(v) for k, v in value.items()}
    return [specs(v) for v in value] if isinstance(value, list | tuple) else value


def _plain(value):
    if isinstance(value, Spec):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _drawn(value, stream, place):
    if isinstance(value, Spec):
        return value.draw(stream(place))
    if isinstance(value, dict):
        return {k: _drawn(v, stream, f"{place}/{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_drawn(v, stream, f"{place}/{i}") for i, v in enumerate(value)]
    return value
