"""The examples, run with few steps: each has at most 100 lines, and its output is checked."""

import ast
import importlib.util
import types
from pathlib import Path

import keras
import numpy as np
import pytest

from k3seq.data import arithmetic, read_shards, shard_paths
from k3seq.runtime import matrix as matrix_file

ROOT = Path(__file__).resolve().parents[2]
BACKEND = keras.config.backend()
MATRIX = matrix_file.load(ROOT / matrix_file.FILE)
JIT = MATRIX.backends[BACKEND].jit
FILES = sorted((ROOT / "examples").glob("*.py"))


def example(name):
    """The module of an example, imported by its path."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def faults(text):
    """The faults of an example, as a list of texts."""
    tree = ast.parse(text)
    docstring = ast.get_docstring(tree) or ""
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    found = {
        "more than 100 lines": len(text.splitlines()) > 100,
        "has no summary": len(docstring.splitlines()[0] if docstring else "") < 40,
        "has no command line in its docstring": "KERAS_BACKEND=" not in docstring or "python examples/" not in docstring,
        "takes no --steps": '"--steps"' not in text,
        "has no main": "main" not in names,
        "changes the import path": "sys.path" in text,
    }
    return [fault for fault, there in found.items() if there]


@pytest.mark.once
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_short_and_documented(path):
    assert faults(path.read_text()) == []


@pytest.mark.once
def test_a_bad_example_has_every_fault():
    assert len(faults("import sys\nsys.path.append('')\n" + "\n" * 99)) == 6


@pytest.mark.once
def test_every_example_is_in_the_readme_and_run_here():
    readme, here = (ROOT / "examples" / "README.md").read_text(), Path(__file__).read_text()
    for path in FILES:
        assert f"| `{path.name}` |" in readme
        assert f'example("{path.stem}").main(' in here


def test_the_custom_model_learns_and_is_the_same_after_loading(tmp_path, capsys):
    facts = example("custom_layer").main(["--steps", "120", "--out", str(tmp_path)])
    assert facts["parameters"] == (10 * 32 + 32) + (32 * 2 + 2)
    # Half is chance: the classes are equally frequent.
    assert facts["before"]["accuracy"] < 0.65 and facts["after"]["accuracy"] > 0.8
    assert facts["after"]["loss"] < 0.75 * facts["before"]["loss"]
    assert (tmp_path / "custom_layer.keras").is_file()
    assert facts["difference"] == 0
    printed = capsys.readouterr().out
    assert "inner (Affine)" in printed and "Total params: 418" in printed
    # Negative control: the loaded model is a separate one, and another weight gives another output.
    loaded, x = facts["loaded"], np.ones((1, 10), "float32")
    before = loaded.predict(x, verbose=0)
    loaded.outer.bias.assign([1.0, -1.0])
    assert np.abs(loaded.predict(x, verbose=0) - before).max() > 1e-2


def test_an_untrained_custom_model_has_low_accuracy():
    facts = example("custom_layer").main(["--steps", "1"])
    assert facts["after"]["accuracy"] < 0.65


def test_the_encoder_decoder_has_the_counts_of_the_source_and_learns(capsys):
    facts = example("encoder_decoder").main(["--steps", "60", "--trace"])
    assert facts["parameters"] == {"encoder": 54_440, "decoder": 54_440, "output": 32_500}
    first, last = facts["losses"]
    assert first == pytest.approx(np.log(500), abs=0.02)
    assert last < 3.0 < first  # the model has learned the ten words and the end: ln 11 = 2.4
    tokens, lengths, scores, _ = facts["decoded"]
    assert tokens.shape == (128, 20) and lengths.shape == scores.shape == (128,)
    assert ((tokens == 2) | ((tokens >= 4) & (tokens < 14))).all()
    assert 0 <= facts["right"] <= 128
    trace = {passage.path: passage for passage in facts["trace"]}
    assert trace["encoder/embedding"].left == [((128, 30, 50), "float32")]
    assert trace["decoder"].entered == [((128, 20), "int32"), ((128, 64), "float32"), ((128, 64), "float32")]
    assert trace["output"].left == [((128, 20, 500), "float32")]
    printed = capsys.readouterr().out
    assert "141,380 parameters" in printed
    assert all(str(passage) in printed for passage in facts["trace"])


@pytest.fixture(scope="module")
def sliding(tmp_path_factory):
    """A full run of the sliding-context example, compiled if possible, and the arguments of the TensorBoard callback."""
    module, out = example("sliding_context"), tmp_path_factory.mktemp("records")
    seen = types.SimpleNamespace(made=[], epochs=[], steps=[])

    class Recorder(keras.callbacks.Callback):
        def __init__(self, *arguments, **options):
            super().__init__()
            seen.made.append((arguments, options))

        def on_epoch_end(self, epoch, logs):
            seen.epochs.append(logs["loss"])

        def on_train_batch_end(self, batch, logs):
            seen.steps.append(logs["loss"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.callbacks, "TensorBoard", Recorder)
        patch.setattr(module, "importlib", finder())
        jit = ["--jit"] if True in JIT else []
        facts = module.main(["--out", str(out), "--logdir", "logs", *jit])
    return types.SimpleNamespace(facts=facts, out=out, seen=seen)


def finder(*missing):
    """An `importlib` that finds every module but these."""
    return types.SimpleNamespace(util=types.SimpleNamespace(find_spec=lambda name: None if name in missing else name))


def test_the_sliding_context_model_gives_the_losses_of_the_source(sliding):
    facts = sliding.facts
    assert (facts["parameters"], facts["trainable"]) == (145_633, 145_508)
    first, *_, fifth = facts["losses"]
    assert len(facts["losses"]) == 5 and facts["losses"] == sorted(facts["losses"], reverse=True)
    assert 2.54 <= first <= 2.74 and 1.38 <= fifth <= 1.65


def test_the_window_ends_with_the_last_problem_of_its_row_and_its_result(sliding):
    paths = shard_paths(sliding.out, "arithmetic")
    records = read_shards(paths)
    assert (len(paths), len(records)) == (2, 100)
    rows = [arithmetic.from_example(records[index]) for index in (95, 96)]
    own, neighbour = (f"{row.defs}:{row.op}:{row.res}|"[-25:] for row in rows)
    assert sliding.facts["window"].endswith(own) and not sliding.facts["window"].endswith(neighbour)


def test_eager_steps_give_the_losses_of_compiled_ones(sliding, capsys):
    [loss] = example("sliding_context").main(["--no-jit", "--steps", "2"])["losses"]
    assert f"loss of each epoch: {loss:.4f}" in capsys.readouterr().out
    tolerance = MATRIX.tolerance("adam_losses")
    # The logs of a step are the mean of the epoch so far. The control: one step more is seen.
    assert loss == pytest.approx(sliding.seen.steps[1], rel=tolerance)
    assert loss != pytest.approx(sliding.seen.steps[2], rel=tolerance)


def test_tensorboard_gets_the_loss_of_each_epoch(sliding):
    assert sliding.seen.made == [(("logs",), {"write_graph": False})]
    assert sliding.seen.epochs == sliding.facts["losses"]


def test_missing_tensorboard_is_one_line_that_names_the_command(tmp_path, monkeypatch, capsys):
    module = example("sliding_context")
    monkeypatch.setattr(module, "importlib", finder("tensorboard"))
    assert module.tensorboard(str(tmp_path)) == []
    assert capsys.readouterr().out.splitlines() == [
        f"No logs in {tmp_path}: Keras writes them with tensorboard. Try: pip install tensorboard"
    ]


@pytest.mark.parametrize("steps", ["0", "-1"])
def test_the_sliding_context_example_refuses_a_number_of_steps_below_one(steps, capsys):
    with pytest.raises(SystemExit):
        example("sliding_context").main(["--steps", steps])
    assert f"Expected --steps of at least 1. Received: --steps {steps}" in capsys.readouterr().err


def test_the_functional_tour_prints_every_part(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["functional_tour.py", "--steps", "2", "--out", str(tmp_path)])
    example("functional_tour").main()
    forms, tickets, vae, ascent = capsys.readouterr().out.splitlines()
    count = (4 * 8 + 8) + (8 * 3 + 3)
    assert forms.startswith(f"three forms: {[count] * 3} parameters, outputs within ")
    assert float(forms.rsplit(" ", 1)[1]) < 1e-6
    assert "priority" in tickets and "department" in tickets
    assert [word.split()[0] for word in vae.removeprefix("vae: ").split(", ")] == ["loss", "reconstruction", "kl"]
    before, after = (float(word) for word in ascent.removeprefix("ascent: activation from ").split(" to "))
    assert after > before
    for name in ("vae.png", "ascent.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_training_loop_learns_to_copy():
    result = example("training_loop").main(["--steps", "40"])
    assert len(result["losses"]) == 40 and abs(result["losses"][0] - np.log(10)) < 0.1
    assert np.mean(result["losses"][-5:]) < 0.9 * result["losses"][0]
    assert result["accuracy"] > 1.5 / 8  # by chance one of eight symbols


def test_the_book_decoder_learns_and_prints_its_provenance(tmp_path, capsys):
    picture = tmp_path / "book.png"
    sizes = ["--units", "32", "--vocabulary-size", "20", "--picture", str(picture)]
    facts = example("book_decoder").main(["--steps", "32", *sizes])
    before, after = facts["losses"]
    assert before == pytest.approx(np.log(20), abs=0.05) and after < before - 0.02
    paths = [call.path.split("/")[-1].rstrip("_0123456789") for call in facts["provenance"].calls if call.depth == 0]
    assert paths == ["embedding", "embedding", "lstm", "basic_decoder", "softmax"]
    # One shared embedding; kernel, recurrent kernel and bias of both LSTMs; kernel and bias of the output layer.
    assert [weight.verdict for weight in facts["provenance"].weights] == ["gradient"] * 9
    assert sum(np.prod(weight.shape) for weight in facts["provenance"].weights) == facts["model"].count_params()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "weights: 9 gradient" in capsys.readouterr().out
