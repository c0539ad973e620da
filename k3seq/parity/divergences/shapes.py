"""Reproducers: shapes and names."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from k3seq.parity.divergences.observation import Observation, raised
from k3seq.typing import Shape, Tensor


class _Recorder(keras.layers.Layer):
    """Records the number of steps that its call knows while it is traced."""

    def __init__(self):
        super().__init__()
        self.scale = self.add_weight(shape=(), initializer="ones")
        self.steps = []

    def call(self, x: Tensor) -> Tensor:
        self.steps.append(x.shape[1])
        return ops.sum(x * self.scale, axis=1)

    def compute_output_shape(self, shape: Shape) -> Shape:
        return (shape[0], shape[2])


def relaxed_shapes() -> Observation:
    def known(lengths: Sequence[int]) -> list[int | None]:
        inputs, layer = keras.Input((None, 2)), _Recorder()
        model = keras.Model(inputs, layer(inputs))
        model.compile("sgd", "mse")
        layer.steps.clear()
        for steps in lengths:
            model.train_on_batch(np.ones((1, steps, 2), "float32"), np.ones((1, 2), "float32"))
        return layer.steps

    several, one = known((3, 4, 5)), known((3, 3))
    return Observation(f"steps known: {several}", f"{one} for one shape", None in several, None not in one)


class _Cut(keras.layers.Layer):
    """The rows up to the longest length, or, with `keep=True`, all steps with the rest set to 0."""

    def __init__(self, keep: bool):
        super().__init__()
        self.keep = keep

    def call(self, x: Tensor, lengths: Tensor) -> Tensor:
        if self.keep:
            steps: Tensor = ops.arange(4)
            return ops.where(steps[None, :, None] < lengths[:, None, None], x, 0.0)
        return x[:, : ops.max(lengths)]

    def compute_output_shape(self, x_shape: Shape, lengths_shape: Shape) -> Shape:
        return (lengths_shape[0], None, x_shape[2])


def shape_from_data() -> Observation:
    def fails(keep: bool) -> str | None:
        inputs = [keras.Input((4, 2)), keras.Input((), dtype="int32")]
        model = keras.Model(inputs, _Cut(keep)(*inputs))
        model.compile()
        return raised(lambda: model.predict_on_batch([np.ones((2, 4, 2), "float32"), np.array([1, 3], "int32")]))

    cut, kept = fails(False), fails(True)
    return Observation(cut or "runs", kept or "runs with the static length", bool(cut), not kept)


class _Named(keras.layers.Layer):
    def build(self, query_shape: Shape, memory_shape: Shape) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # Keras passes the shapes by name
        self.kernel = self.add_weight(shape=(query_shape[-1], memory_shape[-1]))

    def call(self, query: Tensor, memory: Tensor) -> Tensor:
        return query @ self.kernel + memory


class _Misnamed(keras.layers.Layer):
    def build(self, first: Shape, second: Shape) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # the trap
        self.kernel = self.add_weight(shape=(first[-1], second[-1]))

    def call(self, query: Tensor, memory: Tensor) -> Tensor:
        return query @ self.kernel + memory


def names_of_build_arguments() -> Observation:
    x = np.ones((1, 2), "float32")
    other, right = raised(lambda: _Misnamed()(x, x)), raised(lambda: _Named()(x, x))
    return Observation(other or "builds", right or "builds with <argument of call>_shape", bool(other), not right)


def numbered_paths() -> Observation:
    def path(**name: Any) -> str:
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, **name)], **name)
        return model.weights[0].path

    numbered, named = [path(), path()], [path(name="named"), path(name="named")]
    return Observation(" and ".join(numbered), " and ".join(named), numbered[0] != numbered[1], named[0] == named[1])


def stateless_call_infers() -> Observation:
    model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
    trainable, non_trainable = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))

    def moved(**mode: bool) -> bool:
        result: Any = model.stateless_call(trainable, non_trainable, np.full((4, 2), 9.0, "float32"), **mode)
        return any(bool(ops.any(new != old)) for new, old in zip(result[1], non_trainable, strict=True))

    silent, trained = not moved(), moved(training=True)
    return Observation("runs as inference" if silent else "trains", "training=True moves the means", silent, trained)
