"""What a maker gives the worker: something that takes steps. Imports no keras: native peers need none."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from k3seq.random.bits import Stream
from k3seq.typing import NDArray


@dataclass
class Running:
    """A subject that is ready for its first step.

    Args:
        step: takes one step and returns what `wait` and `number` take.
        wait: returns when what the step gave is computed.
        number: the step's loss as a float; None: there is none to compare.
        about: {"backend", "version", "devices", ...}.
        tokens: of the step's result, where only it knows them (decoding); None: the `Work` says.
    """

    step: Callable[[], Any]
    wait: Callable[[Any], Any]
    number: Callable[[Any], float] | None
    about: dict[str, Any] = field(default_factory=dict)
    tokens: Callable[[Any], float] | None = None


class Weights:
    """The starting values of weights, the same for every subject that has the same shapes in the same order.

    Matrices are normal, of variance 1 over the inputs of a unit. They are told apart by shape and by their number among those
    of the same shape, not by name, so that a framework's own model gets what Keras' gets.
    """

    def __init__(self, seed: int = 0):
        self.seed, self._met = seed, {}

    def draw(self, *shape: int) -> NDArray[Any]:
        """The next matrix of a shape, float32."""
        number = self._met[shape] = self._met.get(shape, -1) + 1
        fan_in = 1
        for size in shape[:-1]:
            fan_in *= size
        noise = Stream(self.seed, f"bench weight {shape} {number}").normal(shape)
        return (noise * fan_in**-0.5).astype("float32")
