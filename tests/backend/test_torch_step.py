"""What PyTorch's train step does its own way: Adam in one pass over the weights where it is Adam alone, and Keras' own update
everywhere else; a model built once."""

import keras
import numpy as np
import pytest
from keras import ops

from tagger import LABELS, TOKENS, WEIGHTS, Tagger, largest_difference, weights

if keras.backend.backend() != "torch":
    pytest.skip("the other backends apply Keras' optimizers as they are", allow_module_level=True)

torch = pytest.importorskip("torch")
torch_adam = pytest.importorskip("k3seq.backend.torch_adam")

SHAPES = ((4, 3), (3,), ())
STEPS = 3
# What Keras does around Adam's update; each changes the weights or the optimizer's state.
AROUND = {
    "weight_decay": 0.5,
    "clipnorm": 0.1,
    "clipvalue": 0.1,
    "global_clipnorm": 0.1,
    "use_ema": True,
    "gradient_accumulation_steps": 2,
    "loss_scale_factor": 4.0,
    "amsgrad": True,
}


@pytest.fixture
def kernel(monkeypatch):
    """How often the kernel ran, in a list."""
    calls, original = [], torch._fused_adam_

    def counted(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(torch, "_fused_adam_", counted)
    return calls


def variables(shapes=SHAPES, **options):
    draw = np.random.default_rng(0)
    return [keras.Variable(draw.normal(size=shape).astype("float32"), **options) for shape in shapes]


def gradients(step, shapes=SHAPES):
    draw = np.random.default_rng(step + 1)
    # Falling, so that the largest moment of amsgrad is not the last one.
    return [torch.tensor(draw.normal(size=shape) * 0.3**step, dtype=torch.float32) for shape in shapes]


def trained(optimizer, made, apply):
    """Weights and the optimizer's variables after some updates, the kernel's optimizer built as the step finds it."""
    optimizer.build(made)
    with torch.no_grad():
        for step in range(STEPS):
            apply(optimizer, gradients(step), made)
    return numbers([*made, *optimizer.variables])


def numbers(made):
    return [np.array(ops.convert_to_numpy(variable)) for variable in made]


def by_the_step(optimizer, gradients, made):
    torch_adam.apply(optimizer, gradients, made, [variable.value for variable in made])


def by_keras(optimizer, gradients, made):
    optimizer.apply(gradients, made)


def both(make, kernel, **options):
    """(by the step, by Keras, whether the kernel ran)."""
    found = trained(make(), variables(**options), by_the_step)
    ran = bool(kernel)
    return found, trained(make(), variables(**options), by_keras), ran


SCHEDULE = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)


@pytest.mark.parametrize("rate", [0.1, SCHEDULE], ids=["constant", "schedule"])
def test_one_pass_over_the_weights_gives_the_updates_of_keras(rate, kernel):
    found, expected, ran = both(lambda: keras.optimizers.Adam(rate, beta_1=0.8, beta_2=0.95, epsilon=1e-3), kernel)
    assert ran and len(kernel) == STEPS
    assert largest_difference(found, expected) < 1e-6
    other = trained(keras.optimizers.Adam(rate, beta_1=0.8, beta_2=0.95, epsilon=1e-2), variables(), by_keras)
    assert largest_difference(found, other) > 1e-4


def test_the_first_step_at_the_default_betas_is_that_of_keras(kernel):
    """Keras takes 1 - beta_2 ** step in float32 on every backend: 1.3e-5 off, which an update in float64 is not."""
    (found, expected, ran), start = both(lambda: keras.optimizers.Adam(1.0), kernel), numbers(variables())
    assert ran and largest_difference(found, expected) < 1e-6
    optimizer, made = keras.optimizers.Adam(1.0), variables()
    optimizer.build(made)
    with torch.no_grad():
        by_the_step(optimizer, gradients(0), made)
    moved = np.abs(numbers(made)[0] - start[0])
    assert np.min(moved) > 1.0 + 2e-6 or np.max(moved) < 1.0 - 2e-6  # what Adam says is 1


@pytest.mark.parametrize("name", AROUND)
def test_what_keras_does_around_an_update_is_left_to_keras(name, kernel):
    found, expected, ran = both(lambda: keras.optimizers.Adam(0.1, **{name: AROUND[name]}), kernel)
    assert not ran and largest_difference(found, expected) < 1e-6
    plain = trained(keras.optimizers.Adam(0.1), variables(), by_keras)
    assert len(plain) != len(found) or largest_difference(found, plain) > 1e-4


def test_every_option_of_an_update_is_known():
    assert set(torch_adam._AROUND) == set(AROUND)
    given = keras.optimizers.Adam(0.1).get_config()
    own = {"name", "learning_rate", "beta_1", "beta_2", "epsilon", "ema_momentum", "ema_overwrite_frequency"}
    assert set(given) - own == set(AROUND)


def test_a_constraint_is_left_to_keras(kernel):
    made = variables()
    for variable in made:
        variable.constraint = keras.constraints.NonNeg()
    trained(keras.optimizers.Adam(0.1), made, by_the_step)
    assert not kernel and min(np.min(value) for value in numbers(made)) == 0.0


def test_another_optimizer_of_the_same_family_is_left_to_keras(kernel):
    class Doubled(keras.optimizers.Adam):
        pass

    for make in (lambda: Doubled(0.1), lambda: keras.optimizers.AdamW(0.1), lambda: keras.optimizers.Nadam(0.1)):
        found, expected, ran = both(make, kernel)
        assert not ran and largest_difference(found, expected) < 1e-6


def test_weights_and_gradients_of_any_layout_get_their_own_updates(kernel):
    """The kernel goes over memory, whatever the layout of a tensor is."""

    def turned(values):
        return torch.nn.Parameter(values.T.contiguous().T)

    straight, weights_turned, slopes_turned = (variables(SHAPES[:1]) for _ in range(3))
    weights_turned[0]._value = turned(weights_turned[0].value)
    assert not weights_turned[0].value.is_contiguous()
    for made in (straight, weights_turned, slopes_turned):
        slope = gradients(0)[0]
        optimizer = keras.optimizers.Adam(0.1)
        optimizer.build(made)
        with torch.no_grad():
            by_the_step(optimizer, [turned(slope).detach() if made is slopes_turned else slope], made)
    assert len(kernel) == 2
    for made in (weights_turned, slopes_turned):
        assert largest_difference(numbers(made), numbers(straight)) < 1e-6
    # The control: what the kernel does to the turned gradient.
    value, slope = variables(SHAPES[:1])[0].value.detach(), turned(gradients(0)[0]).detach()
    zeros = [torch.zeros(SHAPES[0]) for _ in range(2)]
    options = dict(lr=0.1, beta1=0.9, beta2=0.999, eps=1e-7, weight_decay=0.0, amsgrad=False, maximize=False)
    torch._fused_adam_([value], [slope], zeros[:1], zeros[1:], [], [torch.tensor(1.0)], **options)
    assert largest_difference([value.numpy()], numbers(straight)) > 1e-2


def test_weights_that_the_optimizer_was_not_built_for_are_refused_by_keras(kernel):
    optimizer, made = keras.optimizers.Adam(0.1), variables()
    optimizer.build(made[:2])
    with pytest.raises(ValueError, match="Unknown variable"):
        by_the_step(optimizer, gradients(0), made)
    assert not kernel


def test_a_model_trains_by_the_kernel_and_its_moments_go_on_with_keras(kernel):
    """The optimizer's variables are Keras' own: two steps by the kernel and two by Keras are four of either."""

    def steps(model, *options):
        for option in options:
            model.optimizer.clipvalue = option  # beyond every gradient: it clips nothing, and Keras does it
            model.train_on_batch(TOKENS, LABELS, WEIGHTS)
        return weights(model)

    models = [Tagger() for _ in range(3)]
    for model in models:
        model.compile(keras.optimizers.Adam(0.1), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    mixed = steps(models[0], None, None, 1e9, 1e9)
    assert len(kernel) == 2
    keras_alone = steps(models[1], 1e9, 1e9, 1e9, 1e9)
    assert largest_difference(mixed, keras_alone) < 1e-5
    assert largest_difference(mixed, steps(models[2], None, None, None)) > 1e-3


def test_a_model_is_built_for_the_first_batch_after_compile_and_not_for_the_next(monkeypatch):
    model, built = Tagger(), []
    original = keras.Model._symbolic_build
    monkeypatch.setattr(keras.Model, "_symbolic_build", lambda self, *a, **k: (built.append(1), original(self, *a, **k)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    for _ in range(3):
        assert "accuracy" not in model.train_on_batch(TOKENS, LABELS, return_dict=True)
    assert len(built) == 1
    model.compile(keras.optimizers.SGD(0.1), loss=loss, metrics=["accuracy"])
    for _ in range(2):
        assert 0.0 <= model.train_on_batch(TOKENS, LABELS, return_dict=True)["accuracy"] <= 1.0
    assert len(built) == 2
