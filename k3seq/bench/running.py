"""The object that a maker returns to the worker: it takes steps. Imports no keras, which native peers do not need."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from k3seq.random.bits import Stream
from k3seq.typing import NDArray


@dataclass
class Running:
    """A subject that is ready for its first step.

    Args:
        step: takes one step and returns a value for `wait` and `number`.
        wait: returns when the value of a step is computed.
        number: the loss of a step as a float; None where there is none.
        about: {"backend", "version", "devices", ...}.
        tokens: number of tokens in the value of a step (decoding); None where the `Work` has it.
    """

    step: Callable[[], Any]
    wait: Callable[[Any], Any]
    number: Callable[[Any], float] | None
    about: dict[str, Any] = field(default_factory=dict)
    tokens: Callable[[Any], float] | None = None


class Weights:
    """The starting values of weights, the same for every subject that has the same shapes in the same order.

    Matrices are normal with variance 1 / inputs. A matrix is identified by its shape and by its number among those of the same
    shape, not by its name, so that models of all frameworks get the same values.
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
