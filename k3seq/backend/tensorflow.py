"""TensorFlow: a tape, gradients made dense, and `tf.cond` where a step may be refused."""

import itertools

import keras
import tensorflow as tf
from keras import tree

from k3seq.backend.step import StepContract, counted, unpack


def describe():
    """What runs here: a dict of backend, version, keras, devices, jit (what `jit_compile="auto"` means) and kernels."""
    devices = [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()]
    return {
        "backend": "tensorflow",
        "version": tf.__version__,
        "keras": keras.__version__,
        "devices": devices,
        "jit": any(name.startswith("GPU") for name in devices),
        "kernels": {"lstm_sequence": "tf.while_loop, also over an unknown number of steps"},
    }


def synchronize(value):
    """Waits until every tensor in `value` is computed; returns `value`."""
    for leaf in tree.flatten(value):
        if tf.is_tensor(leaf):
            leaf.numpy()
    return value


def value_and_grad(function, aux=False):
    """A function of the same arguments that returns (value, gradient for the first argument).

    Args:
        function: pure; from a nested structure of float tensors, and more arguments, to a scalar.
        aux: the function returns (scalar, anything else), and that pair stands in the place of the value.
    """

    def differentiate(x, *args):
        x = tree.map_structure(tf.convert_to_tensor, x)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tree.flatten(x))
            value = function(x, *args)
        gradients = _dense(tape.gradient(value[0] if aux else value, tree.flatten(x)), tree.flatten(x))
        return value, tree.pack_sequence_as(x, gradients)

    return differentiate


def compiled(function, variables=(), jit=None):
    """A fast form of a pure function of nested tensors.

    Args:
        function: reads `variables`, changes none of them.
        variables: the Keras variables whose present values each call shall see (a `tf.function` always sees them).
        jit: compile with XLA; None: the backend's default (False here: a plain graph).

    Returns:
        A callable with `compilations()`, how often it was compiled (once per structure, shapes and dtypes).
    """
    counter = [0]
    fast = tf.function(counted(function, counter), jit_compile=bool(jit), autograph=False)

    def call(*args):
        return fast(*tree.map_structure(tf.convert_to_tensor, args))

    call.compilations = lambda: counter[0]
    return call


def lstm_sequence(x, lengths, h, c, kernel, recurrent_kernel, bias):
    """All steps of an LSTM in one `tf.while_loop`, gates in the order i, f, g, o; unlike `keras.ops.scan` also over steps whose
    number is known only when the graph runs, as it is once `fit` has seen two lengths.

    Args:
        x: (b, s, inputs) float. lengths: (b,) int, real steps of right-padded rows, or None when no row is padded.
        h, c: (b, d) initial states. kernel: (inputs, 4d). recurrent_kernel: (d, 4d). bias: (4d,).

    Returns:
        (outputs, h, c): (b, s, d), zero at padding; and the states after each row's last real step, (b, d).
    """
    projected = tf.transpose(tf.matmul(x, kernel) + bias, [1, 0, 2])
    steps = tf.shape(projected)[0]
    inputs = tf.TensorArray(projected.dtype, steps, element_shape=projected.shape[1:]).unstack(projected)
    outputs = tf.TensorArray(h.dtype, steps, element_shape=h.shape)
    ends = None if lengths is None else tf.cast(lengths, tf.int32)[:, None]

    def advance(t, h, c, outputs):
        i, f, g, o = tf.split(inputs.read(t) + tf.matmul(h, recurrent_kernel), 4, axis=-1)
        new_c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        new_h = output = tf.sigmoid(o) * tf.tanh(new_c)
        if ends is not None:
            real = t < ends
            new_h, new_c, output = tf.where(real, new_h, h), tf.where(real, new_c, c), tf.where(real, output, 0.0)
        return t + 1, new_h, new_c, outputs.write(t, output)

    shapes = (tf.TensorShape([]), h.shape, c.shape, tf.TensorShape(None))
    begin = (tf.constant(0), h, c, outputs)
    _, h, c, outputs = tf.while_loop(lambda t, *_: t < steps, advance, begin, shapes, maximum_iterations=steps)
    outputs = tf.transpose(outputs.stack(), [1, 0, 2])
    outputs.set_shape([x.shape[0], x.shape[1], h.shape[1]])
    return outputs, h, c


def _dense(gradients, sources):
    """Dense gradients. Adam, RMSprop and Adagrad square `IndexedSlices` before summing the rows of repeated ids; a missing
    gradient is zero, as it is on JAX."""
    return [
        tf.zeros_like(source) if gradient is None else tf.convert_to_tensor(gradient)
        for gradient, source in zip(gradients, sources, strict=True)
    ]


class StepMixin(StepContract):
    __doc__ = StepContract.__doc__

    def train_step(self, data):
        batch = unpack(data)
        variables = [variable.value for variable in self.trainable_variables]
        before = [tf.identity(variable.value) for variable in self.non_trainable_variables]
        metrics_before = [tf.identity(variable.value) for variable in self.metrics_variables]
        parts, forwards = [], []
        for micro in self._micro_batches(batch):
            with tf.GradientTape() as tape:
                forward = self._losses_of(micro, training=True)
                scaled = self._scaled(forward[0])
            parts.append((forward[3], _dense(tape.gradient(scaled, variables), variables)))
            forwards.append((micro, forward))
        gradients = self._mean_gradients(parts)
        norm = self._norm_of(gradients)
        finite = tf.math.is_finite(norm) & tf.reduce_all([tf.math.is_finite(forward[0]) for _, forward in forwards])
        keep = finite if self._step_options["refuse_nonfinite"] else tf.constant(True)

        def apply():
            self.optimizer.apply(gradients, self.trainable_variables)
            return tf.constant(True)

        if self._refuses():
            tf.cond(keep, apply, lambda: tf.constant(False))
        else:
            apply()
        _restore(self.non_trainable_variables, before, keep)
        _restore(self.metrics_variables, metrics_before, keep)
        for micro, forward in forwards:
            self._record(micro, forward, keep)
        self._record_step(norm, finite)
        return self._logs(training=True)

    def test_step(self, data):
        batch = unpack(data)
        self._record(batch, self._losses_of(batch, training=False))
        return self._logs(training=False)


def _restore(variables: list[keras.Variable], before, keep):
    """Gives variables their earlier values where `keep` is False."""
    # A compiled loss makes its means in the first step: they were not there before, and begin at zero.
    for variable, value in itertools.zip_longest(variables, before):
        variable.assign(tf.where(keep, variable.value, tf.zeros_like(variable.value) if value is None else value))
