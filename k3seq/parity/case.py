"""A parity case: a layer or model named `package.module:factory`, its inputs, and the checks it must pass.

A case holds no tensor and no layer, so that it can be sent to other processes and read without Keras. Its inputs are drawn on
the host from `k3seq.random.bits`, so that every backend receives the same numbers.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from k3seq.errors import UsageError
from k3seq.parity.verdicts import CHECKS, DEFAULT_CHECKS
from k3seq.random.bits import Stream
from k3seq.typing import Json, NDArray, Nested


@dataclass(frozen=True)
class Spec:
    """An array that is drawn at random.

    Args:
        shape: sizes, at least 0.
        dtype: a NumPy name of a bool, integer, float or complex type.
        low, high: floats are uniform in [low, high), or standard normal where both are None. Integers lie in [low, high); low
            is 0 where it is None. A bool is True with probability `high`, 0.75 where it is None.

    Raises:
        UsageError: a size that is no integer or is negative, an unknown dtype, an integer without `high`, or an empty range.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    low: float | None = None
    high: float | None = None

    def __post_init__(self):
        sizes = self.shape if isinstance(self.shape, list | tuple) else (self.shape,)
        if not all(isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 0 for n in sizes):
            raise UsageError(f"Expected shape as a list of sizes of at least 0, such as [2, 5]. Received: {self.shape!r}")
        object.__setattr__(self, "shape", tuple(int(n) for n in sizes))
        try:
            kind = np.dtype(self.dtype).kind
        except TypeError:
            kind = "?"
        if kind not in "biufc":
            raise UsageError(f"Expected dtype as a NumPy name such as float32, int32 or bool. Received: {self.dtype!r}")
        for bound in (self.low, self.high):
            if bound is not None and not isinstance(bound, int | float | np.number):
                raise UsageError(f"Expected low and high as numbers. Received: {bound!r}")
        if kind in "iu" and self.high is None:
            raise UsageError(f"Expected high, the end of the range, for an array of {self.dtype}. Received: {self}")
        if kind in "iuf" and self.high is not None and self.high <= (self.low or 0):
            raise UsageError(f"Expected high above low. Received: {self}")

    def draw(self, stream: Stream) -> NDArray[Any]:
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
    """One layer or model to compare.

    Args:
        name: shown in tables; patterns on the command line and the entries of `wider` tolerances match it.
        factory: `package.module:name` of a function or class that returns a Keras layer or model.
        arguments: keyword arguments of the factory, JSON values.
        inputs: the first argument of the call: a `Spec`, an array, or a nested dict or list of them. None: there is none.
        call: keyword arguments of the call: specs, arrays, nested, or JSON values, which stay as they are.
        optional: names of `call` that are masks or lengths: `forward` also runs without them.
        training: whether to compare in training mode too, where the layer has one. False for a layer that draws its own random
            numbers in training, such as `keras.layers.Dropout`: its numbers differ on every backend by design.
        labels: labels of a model: "outputs" (random targets with the shapes of the outputs, under a mean squared error), a
            nested structure of specs and arrays, or None for a model that needs none.
        sample_weight: a spec, an array, or None.
        loss: argument of `compile`: a name that Keras knows, `package.module:name` of a loss (a class is called without
            arguments), or None for a model that has its own loss. The loss of a bare layer is the squared distance of its
            outputs to random targets.
        rates: learning rates of the two optimizers, {"sgd": 0.1, "adam": 0.01}.
        batches: number of batches that training cycles through; each has new draws of the specs, arrays stay.
        decode: options of greedy decoding for a model with `start` and `step`: {"max_steps", "start", "end"}; or
            `package.module:name` of a function (model, inputs) -> tokens; or None.
        margin: decoded tokens that differ are a tie where the two best log-probabilities are nearer than this.
        seed: of weights and inputs.
        checks: names out of `verdicts.CHECKS`.
        steps: training steps of the checks `sgd` (weights afterwards) and `adam` (losses), {"sgd": 20, "adam": 50}.
        tolerances: check or dtype.check -> largest relative error, in place of the matrix file's, such as
            {"forward": 1e-5, "bfloat16.forward": 0.05}.

    Raises:
        UsageError: a factory without a colon, or an unknown check, optional argument or optimizer.
    """

    name: str
    factory: str
    arguments: dict[str, Any] = field(default_factory=dict)
    inputs: Nested = None
    call: dict[str, Any] = field(default_factory=dict)
    optional: Sequence[str] = ()
    training: bool = True
    labels: Nested = "outputs"
    sample_weight: Any = None
    loss: str | None = None
    rates: dict[str, float] = field(default_factory=lambda: {"sgd": 0.1, "adam": 0.01})
    batches: int = 2
    decode: Any = None
    margin: float = 1e-4
    seed: int = 0
    checks: Sequence[str] = DEFAULT_CHECKS
    steps: dict[str, int] = field(default_factory=lambda: {"sgd": 20, "adam": 50})
    tolerances: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("optional", "checks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if ":" not in self.factory:
            raise UsageError(f"Expected a factory as package.module:name. Received: {self.factory}")
        check_names(self.checks, CHECKS, "checks")
        check_names(self.optional, self.call, "optional arguments")
        check_names(self.steps, ("sgd", "adam"), "optimizers in steps")

    def batch(self, index: int = 0) -> dict[str, Any]:
        """The arrays of one batch: {"inputs", "call", "labels", "sample_weight"}, every spec drawn."""
        parts = {part: getattr(self, part) for part in ("inputs", "call", "labels", "sample_weight")}
        return _drawn(parts, lambda place: Stream(self.seed, f"parity {self.name} {place} {index}"), "")

    def to_payload(self) -> dict[str, Any]:
        """The case as JSON values and arrays, as `k3seq.runtime.workers` sends them."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def check_names(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raises UsageError for a name of `given` that is not in `known`."""
    known = list(known)
    for name in given:
        if name not in known:
            raise UsageError(f"Expected {what} out of {', '.join(known) or 'none'}. Received: {name}")


def from_payload(payload: dict[str, Any]) -> Case:
    """The case that `Case.to_payload` wrote."""
    return Case(**{name: specs(value) for name, value in payload.items()})


def specs(value: Json) -> Nested:
    """A nested structure in which each {"shape": [...], ...} becomes a `Spec`; everything else stays.

    Raises:
        UsageError: a key or value that `Spec` does not take.
    """
    if isinstance(value, dict) and isinstance(value.get("shape"), list | tuple):
        check_names(value, [f.name for f in dataclasses.fields(Spec)], "keys of an input")
        return Spec(**value)
    if isinstance(value, dict):
        return {k: specs(v) for k, v in value.items()}
    return [specs(v) for v in value] if isinstance(value, list | tuple) else value


def check_inputs(value: Json) -> None:
    """Checks JSON that describes inputs, as `--inputs` gives it.

    Raises:
        UsageError: anything but {"shape": [...], "dtype", "low", "high"} or a nested dict or list of these.
    """

    def check(part: Nested) -> None:
        if isinstance(part, dict | list) and part:
            for child in part.values() if isinstance(part, dict) else part:
                check(child)
        elif not isinstance(part, Spec):
            wanted = 'inputs as {"shape": [2, 5], "dtype": "int32", "high": 20}, or a dict or list of these'
            raise UsageError(f"Expected {wanted}. Received: {part!r} in {value!r}")

    check(specs(value))


def _plain(value: Nested) -> Nested:
    if isinstance(value, Spec):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _drawn(value: Nested, stream: Callable[[str], Stream], place: str) -> Nested:
    if isinstance(value, Spec):
        return value.draw(stream(place))
    if isinstance(value, dict):
        return {k: _drawn(v, stream, f"{place}/{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_drawn(v, stream, f"{place}/{i}") for i, v in enumerate(value)]
    return value
