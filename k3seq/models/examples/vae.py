"""A variational autoencoder of small images that tracks three losses (Kingma and Welling 2013, arXiv 1312.6114)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from k3seq import arguments
from k3seq.backend import StepMixin
from k3seq.errors import UsageError
from k3seq.typing import NDArray, Tensor


@keras.saving.register_keras_serializable(package="k3seq")
class VAE(StepMixin, keras.Model):
    """Two strided convolutions to a Gaussian of `latent` dimensions, and back.

    It is trained on images `(b, height, width, channels)` with values in [0, 1], as `fit(images)`, or with given noise as
    `fit({"image": images, "noise": (b, latent)})`, which gives the same numbers on every backend. Its losses are
    `reconstruction`, the binary cross-entropy summed over pixels, and `kl`, the divergence from the standard normal summed
    over dimensions. Both are (weighted) means over the batch, and `loss` is their sum.

    `encoder` returns [mean, log variance], each `(b, latent)`; `decoder` returns logits of the pixels. A call returns the
    reconstruction in [0, 1], from the mean except in training or with given noise.

    Args:
        latent: dimensions of the code, an integer of at least 1.
        image_shape: (height, width, channels), height and width multiples of 4.
        seed: seed of the noise that training draws when none is given (the numbers differ between backends).

    Raises:
        UsageError: `latent` or `image_shape` is not as above.
    """

    loss_names = ("reconstruction", "kl")

    def __init__(self, latent: int = 2, image_shape: Sequence[int] = (28, 28, 1), seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        image_shape = tuple(image_shape)
        if len(image_shape) != 3 or image_shape[0] % 4 or image_shape[1] % 4 or min(image_shape) < 1:
            raise UsageError(
                "Expected image_shape as (height, width, channels), with height and width multiples of 4. "
                f"Received: image_shape={image_shape}"
            )
        arguments.positive(latent=latent)
        self.latent = latent
        self.image_shape = image_shape
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.encoder = _encoder(latent, image_shape)
        self.decoder = _decoder(latent, image_shape)
        self.built = True

    def call(self, inputs: Any, training: bool | None = False) -> Tensor:
        return ops.sigmoid(self._through(inputs, training)[0])

    def _through(self, inputs: Any, training: bool | None) -> tuple[Tensor, Tensor, Tensor]:
        """(logits of the pixels, mean, log variance)."""
        image, noise = _image_and_noise(inputs)
        mean, log_variance = self.encoder(image, training=training)
        if noise is None and training:
            noise = keras.random.normal(ops.shape(mean), dtype=mean.dtype, seed=self.seed_generator)
        code = mean if noise is None else mean + ops.exp(0.5 * log_variance) * ops.cast(noise, mean.dtype)
        return self.decoder(code, training=training), mean, log_variance

    def objective(self, x: Any, y: Tensor, sample_weight: Tensor, training: bool) -> tuple[dict[str, Tensor], None]:
        """({"reconstruction", "kl"}, None): means over the batch, weighted by `sample_weight (b,)` where given."""
        logits, mean, log_variance = (ops.cast(part, "float32") for part in self._through(x, training))
        image = ops.cast(_image_and_noise(x)[0], "float32")
        # Cross-entropy from logits as max(l, 0) - l x + log(1 + exp(-|l|)), which has no logarithm of 0.
        pixels = ops.maximum(logits, 0.0) - logits * image + ops.log1p(ops.exp(-ops.abs(logits)))
        divergence = -0.5 * (1.0 + log_variance - ops.square(mean) - ops.exp(log_variance))
        rows = {"reconstruction": ops.sum(pixels, axis=(1, 2, 3)), "kl": ops.sum(divergence, axis=1)}
        if sample_weight is None:
            return {name: ops.mean(row) for name, row in rows.items()}, None
        weight = ops.cast(sample_weight, "float32")
        return {name: ops.divide_no_nan(ops.sum(row * weight), ops.sum(weight)) for name, row in rows.items()}, None

    def batch_weight(self, x: Any, y: Tensor, sample_weight: Tensor) -> Tensor:
        """The sum of the sample weights, or the number of images."""
        if sample_weight is not None:
            return ops.sum(ops.cast(sample_weight, "float32"))
        return ops.cast(ops.shape(_image_and_noise(x)[0])[0], "float32")

    def generate(self, codes: Tensor) -> NDArray[Any]:
        """Images `(b, height, width, channels)` in [0, 1] from `codes (b, latent)`, as a NumPy array."""
        return ops.convert_to_numpy(ops.sigmoid(self.decoder(ops.convert_to_tensor(codes))))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "latent": self.latent, "image_shape": list(self.image_shape), "seed": self.seed}


def _image_and_noise(inputs: Any) -> tuple[Tensor, Tensor]:
    return (inputs["image"], inputs.get("noise")) if isinstance(inputs, dict) else (inputs, None)


def _encoder(latent: int, image_shape: tuple[int, ...]) -> keras.Model:
    image = keras.Input(image_shape, name="image")
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="encoder_conv_0")(image)
    x = layers.Conv2D(64, 3, strides=2, padding="same", activation="relu", name="encoder_conv_1")(x)
    x = layers.Dense(16, activation="relu", name="encoder_dense")(layers.Flatten(name="encoder_flatten")(x))
    outputs = [layers.Dense(latent, name="mean")(x), layers.Dense(latent, name="log_variance")(x)]
    return keras.Model(image, outputs, name="encoder")


def _decoder(latent: int, image_shape: tuple[int, ...]) -> keras.Model:
    height, width, channels = image_shape
    code = keras.Input((latent,), name="code")
    x = layers.Dense(height // 4 * (width // 4) * 64, activation="relu", name="decoder_dense")(code)
    x = layers.Reshape((height // 4, width // 4, 64), name="decoder_reshape")(x)
    x = layers.Conv2DTranspose(64, 3, strides=2, padding="same", activation="relu", name="decoder_conv_0")(x)
    x = layers.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu", name="decoder_conv_1")(x)
    logits = layers.Conv2DTranspose(channels, 3, padding="same", name="logits")(x)
    return keras.Model(code, logits, name="decoder")
