"""A compiled run of a model with changed weights or with NaN as the output of one call: what changes depends on it."""

import collections
import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from k3seq.backend import compiled, value_and_grad
from k3seq.errors import UsageError
from k3seq.inspect.subject import Subject
from k3seq.inspect.trace import Record, recorded_calls


class NaNRun:
    """The subject as one compiled function: of its float weights, its inputs, and the number of the call whose output
    becomes NaN."""

    def __init__(self, subject: Subject):
        self.subject = subject
        self.variables = [v for v in subject.weights if keras.backend.is_float_dtype(v.dtype)]
        self.values = [ops.convert_to_numpy(variable.value) for variable in self.variables]
        self.records, self.origins, self.numbers = [], {}, {}
        self._differentiate = compiled(value_and_grad(self._projection))
        value, gradients = self._called(self.values)
        self._value, self._gradients = float(ops.convert_to_numpy(value)), self._arrays(gradients)

    def norms(self) -> dict[int, float]:
        """id of each float weight -> Euclidean norm of its gradient, 0 where it is rounding.

        What cancels out (a bias before a softmax or a normalisation) leaves rounding, and that is another one when the weights
        are another 1e-3 away; a gradient that is small but real stays nearly what it is.
        """
        gradients = self._gradients
        norms = [float(np.linalg.norm(gradient)) for gradient in gradients]
        doubtful = [place for place, norm in enumerate(norms) if 0 < norm <= 1e-4 * max(norms)]
        draw = np.random.default_rng(0)
        for _ in range(8 if doubtful else 0):
            near = [value * (1 + 1e-3 * draw.normal(size=value.shape)).astype(value.dtype) for value in self.values]
            others = self._arrays(self._called(near)[1])
            doubt = [place for place in doubtful if np.linalg.norm(others[place] - gradients[place]) > 0.5 * norms[place]]
            norms = [0.0 if place in doubt else norm for place, norm in enumerate(norms)]
        return {id(variable): norm for variable, norm in zip(self.variables, norms, strict=True)}

    def changes_with(self, variable: keras.Variable) -> bool:
        """Whether the result changes with a weight."""
        place = next(i for i, each in enumerate(self.variables) if each is variable)
        value = self.values[place]
        # NaN passes through arithmetic, perhaps not through an argmax; there, far moves to two sides cannot both choose alike.
        far = 3 * np.cos(np.arange(value.size)).reshape(value.shape)
        others = (np.full_like(value, np.nan), (value + far).astype(value.dtype), (value - far).astype(value.dtype))
        return any(self._result([*self.values[:place], x, *self.values[place + 1 :]]) != self._value for x in others)

    def calls(self) -> Iterator[tuple[Record, tuple[Any, ...], bool | None]]:
        """Yields (record, origins, used), one for all calls that are shown as one, in the order of entering.

        origins: tuple of places of calls and names of inputs. used: whether the result changes with the call's output, None
        where that holds no floats.
        """
        first = {}
        for record in self.records:
            first.setdefault(self._key(record), record)
        places = {key: place for place, key in enumerate(first)}
        for key, record in first.items():
            floats = any(keras.backend.is_float_dtype(dtype) for _, dtype in record.left)
            used = self._result(self.values, self.numbers[key]) != self._value if floats else None
            yield record, tuple(places.get(origin, origin) for origin in self.origins[key]), used

    def _called(self, values, poisoned=-1):
        return self._differentiate([np.ones((), "float32"), *values], self.subject.inputs, np.array(poisoned, "int32"))

    def _arrays(self, gradients):
        return [ops.convert_to_numpy(ops.cast(gradient, "float32")) for gradient in gradients[1:]]

    def _result(self, values, poisoned=-1):
        return float(ops.convert_to_numpy(self._called(values, poisoned)[0]))

    def _projection(self, leaves, inputs, poisoned):
        one, *values = leaves  # with `one` there is something to differentiate for even where there is no weight
        mapping = list(zip(self.variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping), self._watched(inputs, poisoned):
            outputs = self.subject.call(inputs)
        floats = [leaf for leaf in tree.flatten(outputs) if _is_float(leaf)]
        if not floats:
            raise UsageError(f"Expected floats in the result of {self.subject.name}. Received: none")
        return one * sum(_projected(leaf, number) for number, leaf in enumerate(floats))

    @contextlib.contextmanager
    def _watched(self, inputs, poisoned):
        made: dict[int, Any] = {
            id(leaf): (leaf, name) for leaf, (name, *_) in zip(tree.flatten(inputs), self.subject.input_specs, strict=True)
        }
        origins = collections.defaultdict(dict)

        def enter(record, arguments):
            held = (made[id(leaf)] for leaf in tree.flatten(arguments) if id(leaf) in made and made[id(leaf)][0] is leaf)
            origins[self._key(record)] |= dict.fromkeys(origin for _, origin in held)

        def leave(record, result):
            key = self._key(record)
            number = self.numbers.setdefault(key, len(self.numbers))

            def poison(leaf):
                if not _is_float(leaf):
                    return leaf
                leaf = leaf + ops.cast(ops.where(ops.equal(poisoned, number), float("nan"), 0.0), leaf.dtype)
                made[id(leaf)] = (leaf, key)
                return leaf

            return tree.map_structure(poison, result)

        with recorded_calls(self.subject.callables, enter, leave) as records:
            yield
        if not self.records:
            self.records, self.origins = records, dict(origins)

    def _key(self, record):
        """The same key for all calls that are shown as one: those of a Python loop. Each call of a graph has its own key."""
        graph = record.parent is None or hasattr(record.parent.layer, "operations")
        above = None if record.parent is None else self._key(record.parent)
        return id(record.layer), tuple(record.entered), record.occurrence if graph else 0, above


def _is_float(leaf):
    return hasattr(leaf, "dtype") and keras.backend.is_float_dtype(keras.backend.standardize_dtype(leaf.dtype))


def _projected(leaf, number):
    """Sum of the elements, each multiplied by a different number; fill values (the lowest number of a dtype) and NaN count
    as a constant."""
    flat = ops.cast(ops.reshape(leaf, (-1,)), "float32")
    place = ops.cast(ops.arange(ops.shape(flat)[0]), "float32")
    return ops.sum(ops.where(ops.abs(flat) < 1e30, flat, 7.0) * ops.cos(1.7 * place + number))
