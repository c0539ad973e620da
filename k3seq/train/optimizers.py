"""An optimizer wrapper for models that keep Keras' own train step: dense embedding gradients on every backend."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from k3seq import backend
from k3seq.errors import UsageError
from k3seq.typing import Tensor


def _of_inner(name: str) -> Any:
    """A property that reads and sets the attribute of the inner optimizer."""

    def setter(self, value):
        if "inner_optimizer" in self.__dict__:  # Optimizer.__init__ sets defaults before there is one
            setattr(self.inner_optimizer, name, value)

    return property(lambda self: getattr(self.inner_optimizer, name), setter)


@keras.saving.register_keras_serializable(package="k3seq")
class DenseGradients(keras.optimizers.Optimizer):
    """Wraps an optimizer so that it gets the gradient of an `Embedding` with the rows of repeated ids summed.

    Keras on TensorFlow passes an embedding's gradient as `tf.IndexedSlices`, with one slice per looked-up id. Adam, RMSprop and
    Adagrad square each slice, so a token that occurs twice gets a sum of squares instead of the square of the sum (`k3seq
    divergences embedding-under-adam`). On JAX and torch gradients are dense, and the wrapper has no effect.

        model.compile(DenseGradients(keras.optimizers.Adam(1e-3)), loss=...)

    Models with `k3seq.backend.StepMixin` do the same in their step and need no wrapper. Learning-rate schedules, clipping, EMA,
    accumulation, weight decay and all variables belong to the inner optimizer: the wrapper has no state. On TensorFlow the
    gradient takes as much memory as the embedding.

    Args:
        inner_optimizer: a Keras optimizer or its name. Loss scaling wraps the wrapper, as `compile` does under `mixed_float16`:
            `LossScaleOptimizer(DenseGradients(keras.optimizers.Adam()))`.
        name: name of the wrapper in the configuration.

    Raises:
        UsageError: not an optimizer, or a `LossScaleOptimizer` (under `mixed_float16` `compile` would scale a second time).
    """

    def __init__(self, inner_optimizer: Any, name: str = "dense_gradients"):
        super().__init__(learning_rate=0.0, name=name)
        try:
            inner_optimizer = keras.optimizers.get(inner_optimizer)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"Expected inner_optimizer to be a Keras optimizer or its name. Received: inner_optimizer={inner_optimizer!r}"
            ) from error
        if isinstance(inner_optimizer, keras.optimizers.LossScaleOptimizer):
            raise UsageError(
                "Expected LossScaleOptimizer(DenseGradients(...)). Received: DenseGradients(LossScaleOptimizer(...))"
            )
        if inner_optimizer is None:
            raise UsageError("Expected inner_optimizer to be a Keras optimizer or its name. Received: inner_optimizer=None")
        self.inner_optimizer = inner_optimizer

    built = _of_inner("built")
    weight_decay = _of_inner("weight_decay")
    clipnorm = _of_inner("clipnorm")
    global_clipnorm = _of_inner("global_clipnorm")
    clipvalue = _of_inner("clipvalue")
    use_ema = _of_inner("use_ema")
    ema_momentum = _of_inner("ema_momentum")
    ema_overwrite_frequency = _of_inner("ema_overwrite_frequency")
    loss_scale_factor = _of_inner("loss_scale_factor")  # LossScaleOptimizer sets it to None on what it wraps
    gradient_accumulation_steps = _of_inner("gradient_accumulation_steps")
    learning_rate = _of_inner("learning_rate")
    iterations = _of_inner("iterations")

    @property
    def variables(self) -> list[Any]:
        return self.inner_optimizer.variables

    def build(self, variables: Sequence[Any]) -> None:
        if not self.built:
            self.inner_optimizer.build(variables)

    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence[Any] | None = None) -> None:
        self.inner_optimizer.apply([backend.dense(g) for g in grads], trainable_variables)

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Tensor, Any]]) -> Any:
        return self.inner_optimizer.apply_gradients([(backend.dense(g), v) for g, v in grads_and_vars])

    def stateless_apply(
        self, optimizer_variables: Sequence[Tensor], grads: Sequence[Tensor], trainable_variables: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        return self.inner_optimizer.stateless_apply(optimizer_variables, [backend.dense(g) for g in grads], trainable_variables)

    def scale_loss(self, loss: Tensor) -> Tensor:
        return self.inner_optimizer.scale_loss(loss)

    def exclude_from_weight_decay(self, var_list: Sequence[Any] | None = None, var_names: Sequence[str] | None = None) -> None:
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        self.inner_optimizer.finalize_variable_values(var_list)

    def set_weights(self, weights: Sequence[Any]) -> None:
        self.inner_optimizer.set_weights(weights)

    def save_own_variables(self, store: Any) -> None:
        """Does nothing: Keras saves the inner optimizer separately."""

    def load_own_variables(self, store: Any) -> None:
        """Does nothing: see `save_own_variables`."""

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "DenseGradients":
        inner = keras.saving.deserialize_keras_object(config["inner_optimizer"], custom_objects=custom_objects)
        return cls(inner, name=config["name"])
