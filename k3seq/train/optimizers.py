"""The cure for models that keep Keras' own train step: an optimizer that gets whole gradients on every backend."""

import keras

from k3seq import backend
from k3seq.errors import UsageError


def _of_inner(name):
    """A property that reads and sets the attribute of the inner optimizer."""

    def setter(self, value):
        if "inner_optimizer" in self.__dict__:  # Optimizer.__init__ sets defaults before there is one
            setattr(self.inner_optimizer, name, value)

    return property(lambda self: getattr(self.inner_optimizer, name), setter)


@keras.saving.register_keras_serializable(package="k3seq")
class DenseGradients(keras.optimizers.Optimizer):
    """Wraps an optimizer so that the gradient of an `Embedding` reaches it with the rows of repeated ids summed.

    Keras on TensorFlow hands an embedding's gradient on as `tf.IndexedSlices`, one slice per looked-up id, and Adam, RMSprop,
    Adagrad and their like square each slice: a token that occurs twice gets a sum of squares where the square of the sum is
    meant (`k3seq divergences embedding-under-adam`). On JAX and torch gradients are whole, and this changes nothing.

        model.compile(DenseGradients(keras.optimizers.Adam(1e-3)), loss=...)

    Models with `k3seq.backend.StepMixin` do the same in their step and need no wrapper. Learning-rate schedules, clipping, EMA,
    accumulation and weight decay are the inner optimizer's, as is every variable: the wrapper has no state of its own. The
    price on TensorFlow is a gradient as large as the embedding.

    Args:
        inner_optimizer: a Keras optimizer or its name. Loss scaling goes around the wrapper, where `compile` puts it by itself
            under `mixed_float16`: `LossScaleOptimizer(DenseGradients(keras.optimizers.Adam()))`.
        name: of the wrapper, in the configuration.

    Raises:
        UsageError: not an optimizer, or a `LossScaleOptimizer` (under `mixed_float16` `compile` would scale a second time).
    """

    def __init__(self, inner_optimizer, name="dense_gradients"):
        super().__init__(learning_rate=0.0, name=name)
        try:
            inner_optimizer = keras.optimizers.get(inner_optimizer)
        except (TypeError, ValueError) as error:
            raise UsageError(f"Expected a Keras optimizer or its name. Received: {inner_optimizer!r}") from error
        if isinstance(inner_optimizer, keras.optimizers.LossScaleOptimizer):
            raise UsageError(
                "Expected LossScaleOptimizer(DenseGradients(...)). Received: DenseGradients(LossScaleOptimizer(...))"
            )
        if inner_optimizer is None:
            raise UsageError("Expected a Keras optimizer or its name. Received: None")
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
    def variables(self):
        return self.inner_optimizer.variables

    def build(self, variables):
        if not self.built:
            self.inner_optimizer.build(variables)

    def apply(self, grads, trainable_variables=None):
        self.inner_optimizer.apply([backend.dense(g) for g in grads], trainable_variables)

    def apply_gradients(self, grads_and_vars):
        return self.inner_optimizer.apply_gradients([(backend.dense(g), v) for g, v in grads_and_vars])

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        return self.inner_optimizer.stateless_apply(optimizer_variables, [backend.dense(g) for g in grads], trainable_variables)

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def finalize_variable_values(self, var_list):
        self.inner_optimizer.finalize_variable_values(var_list)

    def set_weights(self, weights):
        self.inner_optimizer.set_weights(weights)

    def save_own_variables(self, store):
        """Nothing: Keras saves the inner optimizer as an object of its own."""

    def load_own_variables(self, store):
        """Nothing: see `save_own_variables`."""

    def get_config(self):
        return {"name": self.name, "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        inner = keras.saving.deserialize_keras_object(config["inner_optimizer"], custom_objects=custom_objects)
        return cls(inner, name=config["name"])
