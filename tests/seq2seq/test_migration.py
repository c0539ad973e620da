"""What docs/migration.md says is true: its Python runs, and its names are there."""

import re

import numpy as np
import pytest
from keras import ops

import k3seq.seq2seq


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page(root):
    return (root / "docs" / "migration.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def values(page, tmp_path_factory):
    """The names that the page's Python leaves, its blocks run one after the other in a folder of their own."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("migration"))
        for code in blocks(page, "python"):
            exec(compile(code, "docs/migration.md", "exec"), found)  # noqa: S102
    return found


def test_the_model_with_a_decoder_object_learns_and_is_the_same_after_loading(values):
    first, second = values["history"]["loss"]
    assert second < first < 1.1 * np.log(12)
    batch = [values[name][:32] for name in ("source", "target", "lengths")]
    outputs = [ops.convert_to_numpy(values[name](batch)) for name in ("model", "loaded")]
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-5, atol=1e-6)
    batch[0] = batch[0][::-1]  # the control: another source has another output
    assert np.abs(ops.convert_to_numpy(values["model"](batch)) - outputs[0]).max() > 1e-3


def test_greedy_inference_gives_ids_of_the_vocabulary_up_to_the_limit(values):
    ids, counts = values["ids"], ops.convert_to_numpy(values["counts"])
    assert ids.shape[0] == 32 and 1 <= ids.shape[1] <= 5 and ((ids >= 0) & (ids < 12)).all()
    assert counts.shape == (32,) and counts.max() == ids.shape[1]
    predicted = values["predicted_ids"]  # the same in a functional model, whose steps beyond the last are 0
    np.testing.assert_array_equal(predicted[:, : ids.shape[1]], ids)


def test_the_loop_by_hand_lowers_the_sequence_loss(values):
    losses = values["losses"]
    assert abs(losses[0] - np.log(12)) < 0.2 and np.mean(losses[-3:]) < losses[0] - 0.1


def test_beams_come_best_first_and_one_call_finds_them_too(values):
    predicted, state = values["predicted"], values["state"]
    scores = ops.convert_to_numpy(state.log_probs)
    assert predicted.shape[0] == 32 and predicted.shape[2] == 3 and (np.diff(scores, axis=1) <= 0).all()
    assert values["best"].shape == (32, 5) and values["scores"].shape == (32,)
    # Without a length penalty both rank by log-probability. What one call keeps of finished beams can only be better.
    assert (values["scores"] >= scores[:, 0] - 1e-4).all()


def test_each_weight_of_a_dictionary_goes_back_to_its_own(values):
    assert values["placed"] == {f"{weight.path}:0": weight.path for weight in values["translator"].weights}


@pytest.mark.once
def test_every_public_name_stands_in_the_table_and_every_name_of_the_page_exists(page):
    table = page.split("## Names")[1].split("## 1.")[0]
    public = [name for name in k3seq.seq2seq.__all__ if not name.startswith("_")]
    assert len(public) > 30 and [name for name in public if f"`{name}`" not in table and f".{name}`" not in table] == []
    used = set(re.findall(r"tfa\.seq2seq\.(\w+)", page))
    assert "BasicDecoder" in used and [name for name in used if not hasattr(k3seq.seq2seq, name)] == []
    assert not hasattr(k3seq.seq2seq, "NoSuchDecoder")
