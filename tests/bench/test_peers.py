"""Packages that are compared with k3seq's Transformer: rows, weights and scores; those that are not installed are skipped."""

import importlib.util
import sys

import numpy as np
import pytest

from bench.fakes import BACKENDS, row
from k3seq.bench import groups, problems, table
from k3seq.bench.peers import transformer
from k3seq.bench.running import Weights
from k3seq.bench.worker import load
from k3seq.layers.positions import sinusoid
from k3seq.runtime.workers import Failure, Worker

TINY = dict(
    source_vocabulary_size=13, target_vocabulary_size=11, embed_dim=8, dense_dim=16, num_heads=2, num_layers=2, max_steps=12
)
PACKAGES = {"hub": "keras_hub", "marian": "transformers", "ctranslate": "ctranslate2"}
STEPS, END, ROWS = 9, 2, 6
ALL_END_LATE, SOME_END_EARLY = 2, 7  # seeds


def rows_of(suite, problem, backends=BACKENDS, jits="matrix"):
    return [w for group in groups(suite, backends, jits) for w in group if w.problem == problem]


@pytest.mark.once
@pytest.mark.parametrize("problem", ["transformer-v8000 greedy", "transformer-v8000 beam 5"])
def test_decoding_a_transformer_is_compared_with_three_packages(problem):
    works = rows_of("decode", problem)
    assert {(w.implementation, w.backend, w.jit) for w in works if w.implementation != "k3seq"} == {
        *(("hub", name, entry.jit[0]) for name, entry in BACKENDS.items()),
        ("transformers", "torch", None),
        ("ctranslate2", "torch", None),
    }
    ours = works[0]
    assert all(w.case is ours.case and w.options == ours.options and w.kind == "decode" for w in works)
    assert {w.target for w in works if w.implementation != "k3seq"} == {f"k3seq.bench.peers.{name}:decode" for name in PACKAGES}


@pytest.mark.once
def test_packages_follow_the_backends_and_modes_that_are_asked_for():
    problem = "transformer-v8000 greedy"
    assert {w.implementation for w in rows_of("decode", problem, {"jax": BACKENDS["jax"]})} == {"k3seq", "hub"}
    eager = {(w.implementation, w.backend) for w in rows_of("decode", problem, jits="no jit")}
    assert {pair for pair in eager if pair[0] == "hub"} == {("hub", "torch")}
    assert {w.implementation for w in rows_of("decode", "lstm-v4000 greedy")} == {"k3seq"}


@pytest.mark.once
def test_every_row_of_training_a_transformer_has_one_of_kerashub():
    works = rows_of("train", "transformer-v8000")
    ours, hub = (
        [(w.backend, w.jit, w.tokens) for w in works if w.implementation == implementation]
        for implementation in ("k3seq", "hub")
    )
    assert ours == hub and len(works) == len(ours) + len(hub)
    assert {w.target for w in works if w.implementation == "hub"} == {"k3seq.bench.peers.hub:train"}


@pytest.mark.once
@pytest.mark.parametrize("module", PACKAGES)
def test_a_package_that_is_not_installed_is_named(module, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGES[module], None)  # importing it raises ModuleNotFoundError
    monkeypatch.delitem(sys.modules, f"k3seq.bench.peers.{module}", raising=False)
    assert load({"maker": f"k3seq.bench.peers.{module}:decode"}) == {"missing": PACKAGES[module]}


@pytest.mark.once
def test_the_table_says_why_a_missing_row_has_no_figures():
    message = "Expected the package ctranslate2. Received: not installed"
    *_, last = table.cells(row(implementation="ctranslate2", status="missing", message=message), {})
    assert str(last) == f"missing: {message}"


@pytest.mark.once
def test_a_peers_weights_are_those_that_the_model_starts_from():
    from k3seq.models.transformer import TransformerSeq2Seq

    weights, own = Weights(5), {}
    for variable in TransformerSeq2Seq(**TINY).trainable_variables:
        if len(variable.shape) > 1:
            own[variable.path] = weights.draw(*variable.shape)
    drawn = transformer.starting_weights(TINY, Weights(5))
    found = {f"{side}_embedding/embeddings": drawn[side] for side in ("source", "target")}
    found["output/kernel"] = drawn["output"]
    names = {"encoder": {"self": "attention"}, "decoder": {"self": "self_attention", "cross": "cross_attention"}}
    for coder, attentions in names.items():
        for i, block in enumerate(drawn[f"{coder}s"]):
            found |= {f"{coder}_{i}/dense_{part}/kernel": block[part] for part in ("inner", "outer")}
            for attention, name in attentions.items():
                found |= {f"{coder}_{i}/{name}/{part}/kernel": block[attention][part] for part in transformer.ATTENTION}
    assert set(found) == set(own)
    for path, value in own.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)


@pytest.mark.once
@pytest.mark.parametrize("units", [6, 7])
def test_a_peers_positions_are_those_of_the_model(units):
    np.testing.assert_allclose(transformer.positions(64, units), sinusoid(64, units), rtol=0, atol=1e-6)


@pytest.mark.once
def test_hypotheses_are_counted_and_scored_up_to_their_end():
    tokens = np.array([[3, END, 3, END], [3, 4, 3, 4]])
    np.testing.assert_array_equal(transformer.lengths(tokens, END), [2, 4])
    np.testing.assert_array_equal(transformer.shifted(tokens, 1), [[1, 3, END, 3], [1, 3, 4, 3]])
    probabilities = np.random.default_rng(0).dirichlet(np.ones(5), (2, 4))
    gained = np.log(np.take_along_axis(probabilities, tokens[..., None], -1)[..., 0])
    expected = (gained[0, :2].sum() + gained[1].sum()) / 2
    logits = np.log(probabilities) + np.array([[[900.0]], [[-900.0]]])  # which a softmax takes no notice of
    assert transformer.score(logits, tokens, END) == pytest.approx(expected, abs=1e-12)


def decoding(beams, seed):
    """A payload of the tiny Transformer."""
    sizes, limits = dict(vocabulary=11, source=5, target=STEPS), {"max_steps": STEPS, "start": 1, "end": END}
    factory = "k3seq.models.transformer:TransformerSeq2Seq"
    case = problems.seq2seq("tiny", factory, TINY, sizes, ROWS, decode=limits, seed=seed)
    return {"case": case.to_payload(), "batch": case.batch(0), "jit": None, "options": {"beams": beams}}


class Peer:
    """A row's process; each call makes the subject anew and gives (losses, tokens)."""

    def __init__(self, worker, module):
        self.worker, self.maker = worker, f"k3seq.bench.{module}"

    def __call__(self, payload, function="decode"):
        found = self.worker.request("k3seq.bench.worker:prepare", {"maker": f"{self.maker}:{function}", **payload}, 300)
        assert not isinstance(found, Failure), found.stderr
        return found["losses"], found["tokens"]


@pytest.fixture(scope="module")
def peers(backend):
    """Makes a `Peer`; where its package is not installed the test is skipped."""
    workers = {}

    def made(module):
        package = PACKAGES.get(module.removeprefix("peers."))
        if package and importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
        if module not in workers:
            workers[module] = Worker(backend)
        return Peer(workers[module], module)

    yield made
    for worker in workers.values():
        worker.close()


# KerasHub's beams that have ended go on adding to their scores: the test below.
SAME = [
    (module, beams, seed)
    for module in PACKAGES
    for beams in (1, 5)
    for seed in (ALL_END_LATE, SOME_END_EARLY)
    if (module, beams, seed) != ("hub", 5, SOME_END_EARLY)
]


@pytest.mark.parametrize("module, beams, seed", SAME)
def test_a_package_finds_hypotheses_of_the_same_score_and_length(peers, module, beams, seed):
    peer, ours = peers(f"peers.{module}"), peers("subjects")
    expected, tokens = ours(decoding(beams, seed))
    found, counted = peer(decoding(beams, seed))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert counted == tokens
    assert (tokens < ROWS * STEPS) == (seed == SOME_END_EARLY)
    assert abs(peer(decoding(beams, seed + 10))[0][0] / expected[0] - 1) > 1e-2  # other weights, another score


def test_kerashubs_beams_are_worse_where_rows_end_early(peers):
    hub, ours = peers("peers.hub"), peers("subjects")
    assert hub(decoding(5, SOME_END_EARLY))[0][0] < ours(decoding(5, SOME_END_EARLY))[0][0] - 1e-2


def test_kerashub_trains_to_the_same_losses(peers):
    sizes = dict(vocabulary=11, source=5, target=STEPS)
    factory = "k3seq.models.transformer:TransformerSeq2Seq"

    def payload(seed):
        case = problems.seq2seq("tiny", factory, TINY, sizes, ROWS, padded=True, seed=seed)
        return {"case": case.to_payload(), "batch": case.batch(0), "jit": False, "options": {}}

    hub, ours = peers("peers.hub"), peers("subjects")
    (first, *expected), _ = ours(payload(0), "train")
    (found, *later), _ = hub(payload(0), "train")
    assert found == pytest.approx(first, rel=1e-5)
    # Keras' Adam, which KerasHub has, errs on TensorFlow where a batch repeats ids (docs/divergences.md), and of 11 many are.
    np.testing.assert_allclose(later, expected, rtol=2e-3)
    assert expected[-1] < first * 0.98
    assert abs(hub(payload(1), "train")[0][0] / first - 1) > 1e-3
