"""`Pipeline`: decoding text, saving, loading, and what it refuses."""

import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from k3seq.commands import decode
from k3seq.data.pairs import read_pairs
from k3seq.data.tokenizers import CharTokenizer
from k3seq.errors import DataError, UsageError
from k3seq.models import LSTMSeq2Seq, TransformerSeq2Seq
from k3seq.pipeline import Pipeline
from k3seq.random import initialize

LINES = ["abc", "", "c", "cab", "  "]


def pipeline(kind=LSTMSeq2Seq, **sizes):
    tokenizer = CharTokenizer.fit(["abc "])
    return Pipeline(initialize(kind(8, 8, **sizes), 0), tokenizer, tokenizer, max_steps=6, history={"note": "kept"})


@pytest.fixture(scope="module")
def lstm():
    return pipeline(embed_dim=4, units=8)


@pytest.fixture(scope="module")
def short():
    """A pipeline whose model takes 12 tokens."""
    return pipeline(TransformerSeq2Seq, embed_dim=8, dense_dim=8, num_heads=2, num_layers=1, max_steps=12)


@pytest.fixture(scope="module")
def saved(lstm, tmp_path_factory):
    lstm.save(tmp_path_factory.mktemp("saved") / "run")
    return tmp_path_factory.getbasetemp() / "saved0" / "run"


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of a saved run, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "run"))


def test_saved_and_loaded_it_decodes_the_same(lstm, saved):
    again = Pipeline.load(saved)
    assert again.decode(LINES) == lstm.decode(LINES) and again.max_steps == 6 and again.history["note"] == "kept"
    assert lstm.decode(LINES)[0] != "" and [lstm.decode(LINES)[i] for i in (1, 4)] == ["", ""]


def test_results_do_not_depend_on_the_batch_size(lstm):
    seen = []
    assert lstm.decode(LINES, batch_size=2, on_batch=seen.append) == lstm.decode(LINES, batch_size=5)
    assert seen == [2, 4, 5]


def test_beams_give_one_result_a_line_whatever_the_batch_size(lstm):
    wide = lstm.decode(LINES, batch_size=5, beam_width=3)
    assert len(wide) == len(LINES) and [wide[i] for i in (1, 4)] == ["", ""]
    assert lstm.decode(LINES, batch_size=2, beam_width=3) == wide
    with pytest.raises(UsageError, match="beam_width"):
        lstm.decode(LINES, beam_width=0)


def test_a_line_longer_than_the_model_takes_is_named(short):
    assert len(short.decode(["a" * 12])) == 1
    with pytest.raises(UsageError, match="Expected at most 12 source tokens. Received: 13 in line 2"):
        short.decode(["a", "a" * 13])


def test_a_model_without_a_limit_takes_lines_up_to_max_source_tokens(lstm):
    with pytest.raises(UsageError, match="Expected at most 10000 source tokens. Received: 1000000 in line 2"):
        lstm.decode(["a", "a" * 1_000_000])
    with pytest.raises(UsageError, match="Expected at most 3 source tokens. Received: 4 in line 1"):
        lstm.decode(["abca"], max_source_tokens=3)
    lines = ["a" * 600, "ab", "", "b" * 520, "c"]
    assert lstm.decode(lines) == [lstm.decode([line], batch_size=5)[0] for line in lines]


def test_a_batch_has_no_more_rows_than_there_are_lines(lstm):
    assert lstm.decode(LINES, batch_size=100_000_000) == lstm.decode(LINES, batch_size=5)


@pytest.mark.parametrize("lines", ["ab", b"ab", None, 5, [b"ab"], [None], [5], ["a", ["b"]]], ids=str)
def test_what_is_no_list_of_lines_is_refused(lstm, lines):
    for use in (lstm.decode, lambda lines: list(lstm.batches(lines))):
        with pytest.raises(UsageError, match="Expected (lines to be a list of str|text to be a str). Received: "):
            use(lines)


@pytest.mark.parametrize("options", [{"length_penalty": 1.0}, {"length_penalty": float("nan"), "beam_width": 2}], ids=str)
def test_a_length_penalty_that_does_nothing_is_refused(lstm, options):
    with pytest.raises(UsageError, match="Expected a finite length_penalty, and beam_width above 1 with it. Received: "):
        lstm.decode(LINES, **options)


def test_pairs_too_long_for_the_model_are_named_before_training(short, lstm, tmp_path):
    path = tmp_path / "dev.tsv"
    path.write_text(f"{'a' * 12}\t{'b' * 11}\n" * 2)
    assert len(short.encode_pairs(read_pairs(path))) == 2
    for line, found in (
        (f"{'a' * 13}\tb", "12 source tokens. Received: 13"),
        (f"a\t{'b' * 12}", "11 target tokens. Received: 12"),
    ):
        path.write_text(f"a\tb\n{line}\n")
        with pytest.raises(DataError, match=f"dev.tsv:2: Expected at most {found}$"):
            short.encode_pairs(read_pairs(path))
        assert len(lstm.encode_pairs(read_pairs(path))) == 2
        assert sum(short.encode_pairs(read_pairs(path), on_error="skip").skipped.values()) == 1


def test_the_command_names_the_line_however_many_came_before(short, tmp_path):
    short.save(tmp_path)
    lines, output = [b"a\n"] * 20, io.StringIO()
    assert decode.decode(tmp_path, lines, output, batch_size=1)["lines"] == output.getvalue().count("\n") == 20
    with pytest.raises(UsageError, match="Received: 13 in line 21"):
        decode.decode(tmp_path, [*lines, b"a" * 13], io.StringIO(), batch_size=1)


def test_tokens_outside_the_vocabulary_are_counted_once(lstm):
    assert [unknown for _, unknown in lstm.batches(["abx", "", "zz", "c"], batch_size=2)] == [1, 2]


@pytest.mark.parametrize("name", ["model.keras", "source.json", "run.json"])
def test_a_damaged_file_is_named(copied, name):
    (copied / name).write_bytes(b"{")
    with pytest.raises(DataError, match=name):
        Pipeline.load(copied)


def test_a_missing_model_or_run_is_named(copied):
    (copied / "model.keras").unlink()
    with pytest.raises(DataError, match="model.keras: Expected a file of the run. Received: No such file"):
        Pipeline.load(copied)
    with pytest.raises(UsageError, match="without run.json"):
        Pipeline.load(copied / "nowhere")


@pytest.mark.parametrize("symbols", [["a", "b"], ["b", "a", "c", " "]], ids=["shortened", "reordered"])
def test_another_vocabulary_is_refused(copied, symbols):
    CharTokenizer(symbols).save(copied / "source.json")
    with pytest.raises(DataError, match="source.json: Expected the file that was saved with run.json"):
        Pipeline.load(copied)


def test_another_model_is_refused(copied, tmp_path):
    pipeline(embed_dim=4, units=8).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.keras", copied / "model.keras")
    with pytest.raises(DataError, match="model.keras: Expected the file that was saved with run.json"):
        Pipeline.load(copied)


@pytest.mark.parametrize("max_steps", [0, -1, 1.5, "6", None, True])
def test_a_run_without_a_longest_result_is_refused(copied, max_steps):
    content = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps({**content, "max_steps": max_steps}))
    with pytest.raises(DataError, match="run.json: Expected max_steps of at least 1. Received: "):
        Pipeline.load(copied)


def test_what_does_not_fit_together_is_refused(lstm):
    large = CharTokenizer("abcdefg")
    for arguments, words in (
        ((large, lstm.target_tokenizer, 6), "a source tokenizer of at most 8 ids, like the model. Received: 11 ids"),
        ((lstm.source_tokenizer, large, 6), "a target tokenizer of at most 8 ids, like the model. Received: 11 ids"),
        ((lstm.source_tokenizer, lstm.target_tokenizer, 0), "max_steps of at least 1. Received: 0"),
    ):
        with pytest.raises(UsageError, match=f"Expected {words}"):
            Pipeline(lstm.model, *arguments)


def test_a_save_that_fails_leaves_the_older_run(lstm, copied):
    class Failing:
        def save(self, path):
            path.write_bytes(b"half of a model")
            raise OSError(28, "No space left on device")

    failing = Pipeline(Failing(), CharTokenizer(["x"]), CharTokenizer(["y"]), max_steps=9)
    with pytest.raises(DataError, match="run: Expected a run directory that can be written. Received: No space left"):
        failing.save(copied)
    assert sorted(os.listdir(copied)) == ["model.keras", "run.json", "source.json", "target.json"]
    again = Pipeline.load(copied)
    assert again.decode(LINES) == lstm.decode(LINES) and again.max_steps == 6


# Saves two pipelines in turn. The order of the vocabulary and max_steps differ, so that mixed files would be seen.
SAVES = """
import itertools, sys
from tests.test_pipeline import CharTokenizer, Pipeline, pipeline
first, second = (pipeline(embed_dim=4, units=8) for _ in range(2))
second.max_steps, second.source_tokenizer = 7, CharTokenizer(["c", "b", "a", " "])
first.save(sys.argv[1])
print("saved", flush=True)
for each in itertools.cycle([second, first]):
    each.save(sys.argv[1])
"""


@pytest.mark.heavy
def test_a_process_killed_at_any_time_leaves_one_whole_run(root, tmp_path):
    generator = random.Random(0)
    for _ in range(20):
        command = [sys.executable, "-c", SAVES, str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        with subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "saved\n"
            time.sleep(generator.uniform(0, 0.3))
            process.kill()
        found = Pipeline.load(tmp_path)
        assert (found.max_steps, found.source_tokenizer.symbols[0]) in {(6, " "), (7, "c")}


def test_the_history_alone_is_saved(lstm, copied):
    Pipeline(lstm.model, lstm.source_tokenizer, lstm.target_tokenizer, 6, {"epochs": [1]}).save_history(copied)
    assert Pipeline.load(copied).history == {"epochs": [1]}


def test_saving_and_loading_print_nothing(backend, root, tmp_path):
    if backend == "tensorflow":
        pytest.skip("TensorFlow is imported before, by Keras")
    code = (
        "import sys; from tests.test_pipeline import pipeline, Pipeline\n"
        "pipeline(embed_dim=4, units=8).save(sys.argv[1]); Pipeline.load(sys.argv[1])\n"
        "print('on stderr', file=sys.stderr)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"} | {
        "PYTHONPATH": str(root)
    }
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "on stderr\n")
