"""Reproducers: optimizers, train steps and `fit`."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from k3seq.parity.divergences.observation import Observation, raised
from k3seq.parity.subject import array
from k3seq.train.optimizers import DenseGradients
from k3seq.typing import Shape, Tensor

IDS = np.array([[1, 2, 1, 3, 1, 2]], "int32")
UPSTREAM = np.linspace(-1.0, 2.0, 18, dtype="float32").reshape(1, 6, 3)
ONES = np.ones((4, 2), "float32")
SILENT: Any = 0  # Keras declares `verbose` as str


def weighted_sum(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """A loss with the gradient `y_true`."""
    return ops.sum(y_true * y_pred)


def _compiled(
    layers: Sequence[keras.layers.Layer], shape: Shape, optimizer: Any, loss: Any, dtype: str = "float32", **options: Any
) -> keras.Model:
    model = keras.Sequential([keras.Input(shape, dtype=dtype), *layers])
    model.compile(optimizer, loss=loss, **options)
    return model


def _adam_error(optimizer: keras.optimizers.Optimizer) -> float:
    """Largest difference of one Adam step at 0.1 from its definition, for a table of which six tokens look up three rows."""
    model = _compiled([keras.layers.Embedding(4, 3)], (6,), optimizer, weighted_sum, "int32")
    model.set_weights([np.zeros((4, 3), "float32")])
    model.train_on_batch(IDS, UPSTREAM)
    gradient = np.zeros((4, 3))
    np.add.at(gradient, IDS[0], UPSTREAM[0].astype("float64"))
    # After one step the moments are the gradient and its square; Keras adds epsilon before it corrects the second.
    expected = -0.1 * gradient / (np.abs(gradient) + 1e-7 / np.sqrt(1e-3))
    return float(np.abs(model.get_weights()[0] - expected).max())


def embedding_under_adam() -> Observation:
    bare, dense = _adam_error(keras.optimizers.Adam(0.1)), _adam_error(DenseGradients(keras.optimizers.Adam(0.1)))
    return Observation(f"error {bare:.1e}", f"error {dense:.1e} with DenseGradients", bare > 1e-3, dense < 2e-6)


def clipping_hides_it() -> Observation:
    bare = _adam_error(keras.optimizers.Adam(0.1))
    clipped = _adam_error(keras.optimizers.Adam(0.1, global_clipnorm=1e6))
    cured = _adam_error(DenseGradients(keras.optimizers.Adam(0.1)))
    seen = f"error {bare:.1e}; {clipped:.1e} with a global_clipnorm that clips nothing"
    return Observation(seen, f"error {cured:.1e} with DenseGradients, unclipped", bare > 1e-3 > 10 * clipped, cured < 2e-6)


class _Centred(keras.layers.Layer):
    """A scale and a bias, then the mean over the batch is subtracted, which removes the bias."""

    def build(self, input_shape: Shape) -> None:
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")
        self.bias = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="bias")

    def call(self, x: Tensor) -> Tensor:
        y = x * self.scale + self.bias
        return y - ops.mean(y, axis=0)


def squares(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """The sum of squared errors."""
    return ops.sum(ops.square(y_true - y_pred))


def adam_moves_weights_without_gradient() -> Observation:
    noise = np.random.default_rng(1)
    x, y = (noise.normal(size=(32, 3)).astype("float32") for _ in "xy")

    def moved(optimizer: keras.optimizers.Optimizer) -> float:
        """The distance that the bias, on which the loss does not depend, moves in three steps."""
        layer = _Centred()
        model = _compiled([layer], (3,), optimizer, squares)
        for _ in range(3):
            model.train_on_batch(x, y)
        return float(np.abs(layer.bias.numpy()).max())

    adam, sgd = moved(keras.optimizers.Adam(1e-3)), moved(keras.optimizers.SGD(1e-3))
    return Observation(f"moved by {adam:.0e} in 3 steps of 1e-3", f"by {sgd:.0e} under SGD", adam > 1e-4, sgd < 1e-6)


class _Kinds(keras.Model):
    """Records whether `train_step` received an array, before and after `convert_to_tensor`."""

    def __init__(self):
        super().__init__()
        self.kinds = []

    def train_step(self, *args: Any) -> Any:
        x = keras.utils.unpack_x_y_sample_weight(args[-1])[0]
        self.kinds = [isinstance(x, np.ndarray), isinstance(ops.convert_to_tensor(x), np.ndarray)]
        return {} if len(args) == 1 else ({}, args[0])  # JAX passes the state and expects it back


def arrays_in_train_step() -> Observation:
    model = _Kinds()
    model.compile("sgd")
    model.built = True
    model.train_on_batch(ONES, ONES)
    received, converted = model.kinds
    return Observation("a NumPy array" if received else "a tensor", "a tensor after convert_to_tensor", received, not converted)


class _Reads(keras.callbacks.Callback):
    """Reads a variable that was created before `fit`, at once and again after `model.get_weights()`."""

    def __init__(self, variable: keras.Variable):
        super().__init__()
        self.variable = variable

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.at_once = raised(lambda: array(self.variable.value))
        model: Any = self.model
        model.get_weights()
        self.synced = raised(lambda: array(self.variable.value))


def variables_held_during_fit() -> Observation:
    model = _compiled([keras.layers.Dense(1)], (2,), "sgd", "mse")
    reads = _Reads(model.layers[0].kernel)
    model.fit(ONES, ONES[:, :1], callbacks=[reads], verbose=SILENT)
    return Observation(
        reads.at_once or "readable", reads.synced or "readable after get_weights", bool(reads.at_once), not reads.synced
    )


def no_loss_is_zero() -> Observation:
    def fails(loss: Any) -> str | None:
        return raised(lambda: _compiled([keras.layers.Dense(1)], (2,), "sgd", loss).train_on_batch(ONES, ONES[:, :1]))

    without, with_loss = fails(None), fails("mse")
    return Observation(without or "trains on loss 0", with_loss or "trains with a loss", not without, not with_loss)


def steps_per_execution() -> Observation:
    def fails(steps: int) -> str | None:
        model = _compiled([keras.layers.Dense(1)], (2,), "sgd", "mse", steps_per_execution=steps)
        return raised(lambda: model.fit(ONES, ONES[:, :1], batch_size=2, verbose=SILENT))

    two, one = fails(2), fails(1)
    return Observation(two or "trains", one or "trains with 1", bool(two), not one)


def jit_by_default() -> Observation:
    def jit(asked: Any) -> bool:
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=asked)
        return bool(model.jit_compile)

    auto, never = jit("auto"), jit(False)
    return Observation(f"jit_compile is {auto}", f"{never} with jit_compile=False", value=auto, control_value=never)


def values_kept_from_before_a_step() -> Observation:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    variable = model.trainable_variables[0]
    model.train_on_batch(ONES, ONES[:, :1])
    kept, copied = variable.value, variable.numpy()
    model.train_on_batch(ONES, ONES[:, :1])
    lost = raised(lambda: array(kept))
    changed = not lost and not np.allclose(array(kept), 0.8)
    seen = lost or ("changed by the step" if changed else "as it was")
    right = np.allclose(copied, 0.8) and not np.allclose(variable.numpy(), 0.8)  # 1 - 0.1 * 2; then the second step
    return Observation(seen, f"variable.numpy() is a copy: {copied.ravel()}", bool(lost or changed), bool(right))


class _Assigned(keras.layers.Layer):
    """Multiplies by a weight that was first assigned to another variable, or directly."""

    def __init__(self, assigned: bool):
        super().__init__()
        self.assigned = assigned
        self.scale = self.add_weight(shape=(), initializer="ones")
        self.kept = self.add_weight(shape=(), initializer="ones", trainable=False)

    def call(self, x: Tensor) -> Tensor:
        self.kept.assign(self.scale)
        return x * (self.kept if self.assigned else self.scale) + 0.0 * self.scale


def gradient_through_assign() -> Observation:
    def trained(assigned: bool) -> float:
        layer = _Assigned(assigned)
        model = _compiled([layer], (2,), keras.optimizers.SGD(0.5), lambda y, y_pred: ops.mean(y_pred))
        model.train_on_batch(ONES, ONES)
        return float(layer.scale.numpy())

    through, direct = trained(True), trained(False)
    return Observation(
        f"weight {through:g} after a step of -0.5",
        f"{direct:g} where the weight is used directly",
        through != 1.0,
        direct == 0.5,
    )
