"""JAX: state goes in and comes out, and the whole step is one jitted function."""

import contextlib

import jax
import keras
import numpy as np
from jax import numpy as jnp

from k3seq.backend.jax_recurrent import affine as affine
from k3seq.backend.jax_recurrent import gru_sequence as gru_sequence
from k3seq.backend.jax_recurrent import lstm_sequence as lstm_sequence
from k3seq.backend.loop import eager_loop
from k3seq.backend.step import StepContract, counted, unpack
from k3seq.errors import UsageError


def describe():
    """What runs here: a dict of backend, version, keras, devices, jit (what `jit_compile="auto"` means) and kernels."""
    return {
        "backend": "jax",
        "version": jax.__version__,
        "keras": keras.__version__,
        "devices": [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()],
        "jit": True,
        "kernels": {f"{name}_sequence": "lax.scan with a backward pass of its own" for name in ("lstm", "gru")},
    }


def synchronize(value):
    """Waits until every tensor in `value` is computed; returns `value`."""
    return jax.block_until_ready(value)


def value_and_grad(function, aux=False):
    """A function of the same arguments that returns (value, gradient for the first argument).

    Args:
        function: pure; from a nested structure of float tensors, and more arguments, to a scalar.
        aux: the function returns (scalar, anything else), and that pair stands in the place of the value.
    """
    return jax.value_and_grad(function, has_aux=aux)


def compiled(function, variables=(), jit=None):
    """A fast form of a pure function of nested tensors.

    Args:
        function: reads `variables`, changes none of them.
        variables: the Keras variables whose present values each call shall see.
        jit: compile with XLA; None: the backend's default (True here).

    Returns:
        A callable with `compilations()`, how often it was compiled (once per structure, shapes and dtypes).
    """
    counter = [0]

    def pure(values, *args):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*args)

    fast = pure if jit is False else jax.jit(counted(pure, counter))

    def call(*args):
        return fast([variable.value for variable in variables], *args)

    call.compilations = lambda: counter[0]
    return call


def ready(layer, args, kwargs):
    """Whether a layer need only be called: no; a call is traced once, and Keras may do around it what it does."""
    return False


crossentropies = None


def dense(gradient):
    """A gradient with one value per weight: as it is here."""
    return gradient


def known(value):
    """The value as a NumPy array, or None where it is not known yet: inside a trace, or symbolic."""
    return None if isinstance(value, (jax.core.Tracer, keras.KerasTensor)) else np.asarray(value)


def unroll(step, going, carry, blank, length=None, slices=None, whole=False):
    """Steps a recurrence while `going(carry)` holds, at most `length` times, differentiable: a scan
    under a trace (where a step after the end costs nothing), a Python loop outside of one.

    Args:
        step: (time, now, carry) -> (carry, output): time an int32 scalar, now the part of `slices` at that time; structure,
            shapes and dtypes of carry do not change, output is like `blank`.
        going: carry -> bool scalar.
        carry: nested structure of tensors.
        blank: nested structure of tensors, what stands in the place of the output of a step that does not run.
        length: int, None for no limit (an eager loop only).
        slices: nested structure of tensors (length, ...), or None. whole: give `length` outputs also where the loop is eager.

    Returns:
        (carry, outputs): outputs (steps, ...), the steps that ran, or all `length` of them where `whole` or traced.
    """
    if not isinstance(jnp.add(0, 0), jax.core.Tracer):
        return eager_loop(step, going, carry, blank, length, slices, whole)
    if not isinstance(length, int):
        raise UsageError(f"Expected maximum_iterations to be an integer where JAX compiles the loop. Received: {length}")

    def advance(carry, place):
        return jax.lax.cond(going(carry), lambda: step(*place, carry), lambda: (carry, blank))

    return jax.lax.scan(advance, carry, (jnp.arange(length, dtype="int32"), slices), length)


def _current(variables, scope):
    return [scope.get_current_value(variable) for variable in variables]


class StepMixin(StepContract):
    __doc__ = StepContract.__doc__

    @contextlib.contextmanager
    def _variables_kept(self):
        # Keras empties the variables during `fit` and `evaluate`.
        variables = [*self.variables, *(self.optimizer.variables if self.optimizer else ()), *self.metrics_variables]
        before = [(variable, variable._value) for variable in variables]
        try:
            yield
        except BaseException:
            self.jax_state_sync()
            for variable, value in before:
                if variable._value is None and value is not None and not value.is_deleted():
                    variable._value = value
            raise

    def _train_on(self, batch):
        # Keras puts each array of a batch on the device by itself, twice, and sets every mean to zero by an operation: longer
        # than a small model computes. The compiled step takes NumPy arrays as they are, the zeros among them.
        plain = all(isinstance(leaf, (np.ndarray, jax.Array)) for leaf in jax.tree.leaves(batch))
        if not plain or keras.distribution.distribution() is not None:
            return None
        self._reset_other_metrics()
        zeros = {id(v): np.zeros(v.shape, jnp.dtype(v.dtype)) for metric in self._own_metrics() for v in metric.variables}
        groups = self.trainable_variables, self.non_trainable_variables, self.optimizer.variables, self.metrics_variables
        state = tuple([zeros[id(v)] if id(v) in zeros else v.value for v in variables] for variables in groups)
        logs, state = self.train_function(state, iter([batch]))
        for variables, values in zip(groups, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        return logs

    def train_step(self, state, data):
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
            for micro, forward in forwards:
                self._record(micro, forward, keep)
            self._record_step(norm, finite)
            logs = self._logs(training=True)
        return logs, (new_trainable, non_trainable, new_optimizer, _current(self.metrics_variables, scope))

    def test_step(self, state, data):
        trainable, non_trainable, metrics = state
        batch = unpack(data)
        _, (forward, non_trainable, metrics) = self._stateless_forward(trainable, non_trainable, metrics, None, batch)
        scope = self._metrics_scope(metrics)
        with scope:
            self._record(batch, forward)
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
