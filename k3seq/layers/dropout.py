"""Dropout (Srivastava et al. 2014, JMLR 15) whose masks are the same on every backend."""

import keras
from keras import ops

from k3seq.errors import UsageError
from k3seq.layers.nested import Nested
from k3seq.random import keyed


@keras.saving.register_keras_serializable(package="k3seq")
class Dropout(Nested, keras.layers.Layer):
    """Sets inputs to zero with probability `rate` in training and scales the rest, so that a model trains alike everywhere.

    A mask depends on the seed, the layer's path and how often the layer has been called in training: layers of one model may
    share a seed, micro-batches and repeated calls get masks of their own, and a step that is refused gives its mask back. The
    count is the variable `counter`, int32 and not trainable, which is saved with the model; with `native` it is the state of a
    `keras.random.SeedGenerator`, and with rate 0 there is none. A layer without a name of its own has one that Keras numbers
    by what the process made before: name it where another process shall repeat it.

    `rate` is taken in steps of 2**-16 (never as 0 or 1 unless it is), and the scale is the inverse of what that keeps.

    Args:
        rate: float in 0..1. At 0 the layer does nothing, at 1 training gives zeros.
        seed: integer in 0..2**64-1. Unlike Keras' None, the default is not another seed in every process.
        noise_shape: tuple of ints and None as in `keras.layers.Dropout`: the mask's shape, which broadcasts to the inputs';
            None (in it) is the inputs' length. `(None, 1, None)` drops the same units at every step.
        native: draw from the backend's own generator: other masks on each backend; faster on torch and in TensorFlow's graphs.

    Raises:
        UsageError: a rate, seed or noise shape that is not as above, or a noise shape of another rank than the inputs.
    """

    def __init__(self, rate, seed=0, noise_shape=None, native=False, **kwargs):
        super().__init__(**kwargs)
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
            raise UsageError(f"Expected rate to be a number in 0..1. Received: rate={rate!r}")
        keyed.key(seed)
        if noise_shape is not None:
            if not isinstance(noise_shape, (list, tuple)) or not all(
                d is None or type(d) is int and d > 0 for d in noise_shape
            ):
                raise UsageError(f"Expected noise_shape as a tuple of positive ints and None. Received: {noise_shape!r}")
            noise_shape = tuple(noise_shape)
        self.rate, self.seed, self.noise_shape, self.native = rate, seed, noise_shape, native
        self.supports_masking = True

    def build(self, input_shape):
        if self.noise_shape is not None and len(self.noise_shape) != len(input_shape):
            raise UsageError(f"Expected noise_shape with the rank of {tuple(input_shape)}. Received: {self.noise_shape}")
        self.key = keyed.key(self.seed, self.path)
        if self.rate and self.native:
            self.seed_generator = keras.random.SeedGenerator(int(self.key[0]) & 0x7FFFFFFF, name="noise")
        elif self.rate:
            self.counter = self.add_weight(name="counter", shape=(), initializer="zeros", dtype="int32", trainable=False)

    def call(self, inputs, training=False):
        if not training or not self.rate:
            return inputs
        if self.native:
            return keras.random.dropout(inputs, self.rate, self.noise_shape, seed=self.seed_generator)
        kept = kept_of(self.rate)
        mask = keep_mask(keyed.fold(self.key, ops.convert_to_tensor(self.counter)), kept, self._mask_shape(inputs))
        self.counter.assign(ops.add(self.counter, 1))
        # In the inputs' type before the product: torch would else multiply by the scale in float32, and round only then.
        scale = ops.convert_to_tensor(65536 / max(kept, 1), dtype=inputs.dtype)
        return ops.where(mask, inputs * scale, ops.zeros((), dtype=inputs.dtype))

    def _mask_shape(self, inputs):
        shape = ops.shape(inputs)
        if self.noise_shape is None:
            return shape
        return tuple(whole if length is None else length for whole, length in zip(shape, self.noise_shape, strict=True))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        config = {"rate": self.rate, "seed": self.seed, "noise_shape": self.noise_shape, "native": self.native}
        return {**super().get_config(), **config}


def kept_of(rate):
    """How many of 65,536 a rate above 0 keeps: none at 1 and not all below it."""
    return 0 if rate == 1 else min(max(round(65536 * (1 - rate)), 1), 65535)


def keep_mask(key, kept, shape):
    """bool of `shape`, True where the input stays: 16 bits each, the low halves of `bits` first, then the high halves.

    Half the words of `bernoulli`, which are most of the cost.

    Args:
        key: `(2,)` int32. kept: int in 0..65535, of 65,536. shape: as in `bits`.
    """
    size = 1
    for length in shape:
        size = size * length
    words = keyed.bits(key, ((size + 1) // 2,))
    # A half is compared as the upper part of a signed word, whatever lies below it.
    limit = (kept - 32768) * 65536
    halves = ops.concatenate([words * 65536 < limit, words < limit], axis=0)
    return ops.reshape(halves[:size], shape)
