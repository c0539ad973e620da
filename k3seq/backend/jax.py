"""JAX: the state is an argument and a result, and the whole step is one jitted function. See `reference` for each name."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import keras
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer

from k3seq.backend import keras_internals, reference
from k3seq.backend.jax_recurrent import affine as affine
from k3seq.backend.jax_recurrent import gru_sequence as gru_sequence
from k3seq.backend.jax_recurrent import lstm_sequence as lstm_sequence
from k3seq.backend.step import StepContract, counted, unpack
from k3seq.errors import UsageError
from k3seq.typing import NDArray, Nested, Tensor


def describe() -> dict[str, Any]:
    """Backend, version, keras, devices, jit and kernels."""
    return {
        "backend": "jax",
        "version": jax.__version__,
        "keras": keras.__version__,
        "devices": [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()],
        "jit": True,
        "kernels": {f"{name}_sequence": "lax.scan with its own backward pass" for name in ("lstm", "gru")},
    }


def synchronize(value: Nested) -> Nested:
    """Waits until every tensor in `value` is computed; returns `value`."""
    return jax.block_until_ready(value)


def value_and_grad(function: Callable[..., Any], aux: bool = False) -> Callable[..., Any]:
    """`jax.value_and_grad`."""
    return jax.value_and_grad(function, has_aux=aux)


def compiled(function: Callable[..., Any], variables: Sequence[Any] = (), jit: bool | None = None) -> Callable[..., Any]:
    """`jax.jit` of `function`, with the values of `variables` as arguments, unless `jit` is False. It is compiled once for each
    structure, shapes and dtypes."""
    counter = [0]

    def pure(values, *args):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*args)

    fast = pure if jit is False else jax.jit(counted(pure, counter))

    def call(*args):
        return fast([variable.value for variable in variables], *args)

    call.compilations = lambda: counter[0]  # pyright: ignore[reportFunctionMemberAccess] - as in `reference`
    return call


def known(value: Any) -> NDArray[Any] | None:
    """The value as a NumPy array, or None where it is not known yet: inside a trace, or symbolic."""
    return None if isinstance(value, (Tracer, keras.KerasTensor)) else np.asarray(value)


def unroll(
    step: Callable[[Tensor, Nested, Nested], tuple[Nested, Nested]],
    going: Callable[[Nested], Tensor],
    carry: Nested,
    blank: Nested,
    length: Any = None,
    slices: Nested = None,
    whole: bool = False,
) -> tuple[Nested, Nested]:
    """A scan under a trace, where a step after the end costs nothing; the loop of the reference outside of one."""
    if not isinstance(jnp.add(0, 0), Tracer):
        return reference.unroll(step, going, carry, blank, length, slices, whole)
    if not isinstance(length, int):
        raise UsageError(f"Expected maximum_iterations to be an integer where JAX compiles the loop. Received: {length}")

    def advance(carry, time_and_slice):
        time, now = time_and_slice
        return jax.lax.cond(going(carry), lambda: step(time, now, carry), lambda: (carry, blank))

    return jax.lax.scan(advance, carry, (jnp.arange(length, dtype="int32"), slices), length)


def _current(variables, scope):
    return [scope.get_current_value(variable) for variable in variables]


class StepMixin(StepContract):
    __doc__ = StepContract.__doc__

    @contextlib.contextmanager
    def _variables_kept(self) -> Iterator[None]:
        # Keras empties the variables during `fit` and `evaluate`.
        variables = [*self.variables, *(self.optimizer.variables if self.optimizer else ()), *self.metrics_variables]
        before = [(variable, keras_internals.stored_value(variable)) for variable in variables]
        try:
            yield
        except BaseException:
            self.jax_state_sync()
            for variable, value in before:
                if keras_internals.stored_value(variable) is None and value is not None and not value.is_deleted():
                    keras_internals.store_value(variable, value)
            raise

    def train_on_batch(
        self, x: Nested, y: Nested = None, sample_weight: Nested = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """As `keras.Model.train_on_batch`."""
        # Keras puts each array of a batch on the device by itself, twice: that takes longer than a small model computes. The
        # compiled step takes NumPy arrays as they are, also the zeros that the sums of the logs start from.
        made = self.compiled and self.built and self.optimizer.built and self.train_function is not None
        plain = all(isinstance(leaf, (np.ndarray, jax.Array)) for leaf in jax.tree.leaves((x, y, sample_weight)))
        if not made or not plain or class_weight is not None or keras.distribution.distribution() is not None:
            return super().train_on_batch(x, y, sample_weight, class_weight, return_dict)
        for metric in self.metrics:
            if metric is not self._sums:
                metric.reset_state()
        sums = self._sums.sums
        groups = self.trainable_variables, self.non_trainable_variables, self.optimizer.variables, self.metrics_variables
        zeros = np.zeros(sums.shape, "float32")
        state = tuple([zeros if variable is sums else variable.value for variable in variables] for variables in groups)
        step: Any = self.train_function
        logs, state = step(state, iter([(x, y, sample_weight)]))
        for variables, values in zip(groups, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        logs = {name: float(value) for name, value in sorted(logs.items())}  # in the order of Keras, also without jit
        return logs if return_dict else keras_internals.logs_as_list(self, logs)

    def train_step(self, state: Any, data: Any) -> tuple[dict[str, Tensor], Any]:
        """(logs, new state) of a batch; the state is what Keras' JAX trainer passes."""
        trainable, non_trainable, optimizer_variables, metrics = state
        metrics_before, non_trainable_before = metrics, non_trainable
        batch = unpack(data)
        parts, forwards = [], []
        for micro in self._micro_batches(batch):
            differentiate = jax.value_and_grad(self._stateless_forward, has_aux=True)
            (_, aux), gradients = differentiate(trainable, non_trainable, metrics, optimizer_variables, micro)
            forward, non_trainable, metrics = aux
            parts.append((forward[3], gradients))
            forwards.append((micro, forward))
        gradients = self._mean_gradients(parts)
        with keras.StatelessScope(state_mapping=list(zip(self.optimizer.variables, optimizer_variables, strict=True))):
            norm = self._norm_of(gradients)
        finite = jnp.isfinite(norm) & jnp.all(jnp.stack([jnp.isfinite(forward[0]) for _, forward in forwards]))
        new_trainable, new_optimizer = self.optimizer.stateless_apply(optimizer_variables, gradients, trainable)
        keep = finite if self._step_options["refuse_nonfinite"] else True

        def kept(new, old):
            return jax.tree.map(lambda a, b: jnp.where(keep, a, b), new, old)

        if self._refuses():
            new_trainable, new_optimizer = kept(new_trainable, trainable), kept(new_optimizer, optimizer_variables)
        non_trainable, metrics = kept(non_trainable, non_trainable_before), kept(metrics, metrics_before)
        scope = self._metrics_scope(metrics)
        with scope:
            self._record(forwards, keep, norm, finite)
            logs = self._logs(training=True)
        return logs, (new_trainable, non_trainable, new_optimizer, _current(self.metrics_variables, scope))

    def test_step(  # pyright: ignore[reportIncompatibleMethodOverride] - Keras' JAX trainer passes the state
        self, state: Any, data: Any
    ) -> tuple[dict[str, Tensor], Any]:
        """(logs, new state) of an evaluated batch."""
        trainable, non_trainable, metrics = state
        batch = unpack(data)
        _, (forward, non_trainable, metrics) = self._stateless_forward(trainable, non_trainable, metrics, None, batch)
        scope = self._metrics_scope(metrics)
        with scope:
            self._record([(batch, forward)])
            logs = self._logs(training=False)
        return logs, (trainable, non_trainable, _current(self.metrics_variables, scope))

    def _metrics_scope(self, metrics):
        return keras.StatelessScope(state_mapping=list(zip(self.metrics_variables, metrics, strict=True)))

    def _stateless_forward(self, trainable, non_trainable, metrics, optimizer_variables, batch):
        """(scaled total, (forward, non_trainable, metrics)); without optimizer variables it is an evaluation."""
        training = optimizer_variables is not None
        mapping = [
            *zip(self.trainable_variables, trainable, strict=True),
            *zip(self.non_trainable_variables, non_trainable, strict=True),
            *zip(self.metrics_variables, metrics, strict=True),
        ]
        if training:
            mapping += zip(self.optimizer.variables, optimizer_variables, strict=True)
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            forward = self._losses_of(batch, training=training)
            scaled = self._scaled(forward[0]) if training else forward[0]
        updated = (_current(self.non_trainable_variables, scope), _current(self.metrics_variables, scope))
        return scaled, (forward, *updated)
