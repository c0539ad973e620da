import keras
import numpy as np
import pytest
from keras import ops

from k3seq.models.examples.vae import VAE

RNG = np.random.default_rng(0)
IMAGES = RNG.random((6, 8, 8, 1)).astype("float32")
NOISE = RNG.normal(size=(6, 2)).astype("float32")
WEIGHT = np.array([1, 2, 0, 1, 0.5, 3], "float32")


def small():
    model = VAE(latent=2, image_shape=(8, 8, 1))
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.15, weight.shape).astype("float32"))
    return model


def numbers(x):
    return ops.convert_to_numpy(x).astype("float64")


def losses_in_numpy(model, noise, weight):
    """The two losses from the encoder's and decoder's own outputs, in float64 probabilities."""
    mean, log_variance = (numbers(part) for part in model.encoder(IMAGES))
    code = mean + np.exp(log_variance / 2) * noise
    p = 1 / (1 + np.exp(-numbers(model.decoder(code.astype("float32")))))
    reconstruction = -(IMAGES * np.log(p) + (1 - IMAGES) * np.log(1 - p)).sum((1, 2, 3))
    kl = 0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance).sum(1)
    return {"reconstruction": np.average(reconstruction, weights=weight), "kl": np.average(kl, weights=weight)}


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_losses_equal_numpy_for_given_noise(weight):
    model = small()
    x = {"image": ops.convert_to_tensor(IMAGES), "noise": ops.convert_to_tensor(NOISE)}
    losses, prediction = model.objective(x, None, None if weight is None else ops.convert_to_tensor(weight), training=True)
    expected = losses_in_numpy(model, NOISE, weight)
    assert prediction is None and list(losses) == list(VAE.loss_names)
    for name, value in expected.items():
        assert float(numbers(losses[name])) == pytest.approx(value, rel=1e-5)
    other = losses_in_numpy(model, -NOISE, np.ones(6) if weight is not None else WEIGHT)
    assert float(numbers(losses["reconstruction"])) != pytest.approx(other["reconstruction"], rel=1e-5)
    assert float(numbers(losses["kl"])) != pytest.approx(other["kl"], rel=1e-5)


def test_training_tracks_three_losses_and_their_sum():
    model = small()
    model.compile(keras.optimizers.SGD(1e-3))
    expected = losses_in_numpy(model, NOISE, None)
    history = model.fit({"image": IMAGES, "noise": NOISE}, batch_size=6, epochs=8, verbose=0).history
    for name, value in expected.items():
        assert history[name][0] == pytest.approx(value, rel=1e-5)
    assert history["loss"][0] == pytest.approx(sum(expected.values()), rel=1e-5)
    assert history["loss"][-1] < history["loss"][0] - 0.1


def test_images_alone_draw_new_noise_in_each_training_step():
    model = small()
    first, second = (float(numbers(model.objective(IMAGES, None, None, True)[0]["reconstruction"])) for _ in range(2))
    assert first != second
    still = [float(numbers(model.objective(IMAGES, None, None, False)[0]["reconstruction"])) for _ in range(2)]
    assert still[0] == still[1] == pytest.approx(losses_in_numpy(model, 0, None)["reconstruction"], rel=1e-5)


def test_large_logits_give_a_finite_loss():
    model = small()
    model.decoder.get_layer("logits").bias.assign(np.full(1, 500, "float32"))
    losses, _ = model.objective(IMAGES, None, None, training=False)
    assert float(numbers(losses["reconstruction"])) == pytest.approx(((1 - IMAGES) * 500).sum((1, 2, 3)).mean(), rel=1e-2)


def test_counts_with_the_default_sizes():
    model = VAE()
    assert (model.encoder.count_params(), model.decoder.count_params()) == (69_076, 65_089)
    assert len(model.trainable_weights) == len({w.path for w in model.trainable_weights}) == 18


def test_codes_become_images():
    images = small().generate(np.zeros((3, 2), "float32"))
    assert isinstance(images, np.ndarray)
    assert images.shape == (3, 8, 8, 1) and images.min() >= 0 and images.max() <= 1


def test_saved_and_loaded_it_gives_the_same_images(tmp_path):
    model = small()
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(numbers(loaded(IMAGES)), numbers(model(IMAGES)))
    assert np.abs(numbers(VAE(image_shape=(8, 8, 1))(IMAGES)) - numbers(model(IMAGES))).max() > 1e-3


@pytest.mark.parametrize("arguments", [{"image_shape": (30, 28, 1)}, {"image_shape": (28, 28)}, {"latent": 0}])
def test_bad_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match="Received"):
        VAE(**arguments)
