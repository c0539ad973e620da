"""A run as a Python user meets it: made, saved, loaded, decoding text."""

import io

import pytest

from k3seq.commands import decode
from k3seq.data.tokenizers import CharTokenizer
from k3seq.errors import DataError, UsageError
from k3seq.models import LSTMSeq2Seq, TransformerSeq2Seq
from k3seq.pipeline import Pipeline
from k3seq.random import initialize

LINES = ["abc", "", "c", "cab", "  "]


def run(kind=LSTMSeq2Seq, **sizes):
    tokenizer = CharTokenizer.fit(["abc "])
    return Pipeline(initialize(kind(8, 8, **sizes), 0), tokenizer, tokenizer, max_steps=6, history={"note": "kept"})


@pytest.fixture(scope="module")
def lstm():
    return run(embed_dim=4, units=8)


def test_saved_and_loaded_it_decodes_the_same(lstm, tmp_path):
    lstm.save(tmp_path / "run")
    again = Pipeline.load(tmp_path / "run")
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


def test_a_line_longer_than_the_model_takes_is_named():
    short = run(TransformerSeq2Seq, embed_dim=8, dense_dim=8, num_heads=2, num_layers=1, max_steps=12)
    assert len(short.decode(["a" * 12])) == 1
    with pytest.raises(UsageError, match="Expected at most 12 source tokens. Received: 13 in line 2"):
        short.decode(["a", "a" * 13])


def test_the_command_names_the_line_however_many_came_before(tmp_path):
    short = run(TransformerSeq2Seq, embed_dim=8, dense_dim=8, num_heads=2, num_layers=1, max_steps=12)
    short.save(tmp_path)
    lines, output = [b"a\n"] * 20, io.StringIO()
    assert decode.decode(tmp_path, lines, output, batch_size=1)["lines"] == output.getvalue().count("\n") == 20
    with pytest.raises(UsageError, match="Received: 13 in line 21"):
        decode.decode(tmp_path, [*lines, b"a" * 13], io.StringIO(), batch_size=1)


def test_tokens_outside_the_vocabulary_are_counted_once(lstm):
    assert [unknown for _, unknown in lstm.batches(["abx", "", "zz", "c"], batch_size=2)] == [1, 2]


@pytest.mark.parametrize("name", ["model.keras", "source.json", "run.json"])
def test_a_damaged_file_is_named(lstm, tmp_path, name):
    lstm.save(tmp_path)
    (tmp_path / name).write_bytes(b"{")
    with pytest.raises(DataError, match=name):
        Pipeline.load(tmp_path)


def test_a_missing_model_is_named(lstm, tmp_path):
    lstm.save(tmp_path)
    (tmp_path / "model.keras").unlink()
    with pytest.raises(DataError, match="model.keras: Expected a file of the run. Received: No such file"):
        Pipeline.load(tmp_path)
    with pytest.raises(UsageError, match="without run.json"):
        Pipeline.load(tmp_path / "nowhere")
