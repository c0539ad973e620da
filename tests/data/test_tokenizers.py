"""Tokenizers: ids, round trips, files that are whole or refused."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3seq.data import tokenizers
from k3seq.data.tokenizers import CharTokenizer, SpaceTokenizer, SubwordTokenizer, WordTokenizer
from k3seq.errors import DataError, UsageError

pytestmark = pytest.mark.once

TEXTS = ["the cat sat", "the dog sat down", "a cat, a dog!", "it's the end"] * 5
KINDS = sorted(tokenizers.KINDS)


def fitted(kind):
    return tokenizers.of_kind(kind).fit(iter(TEXTS), 60 if kind == "subword" else None)


def test_special_ids_are_the_first_four():
    assert (tokenizers.PAD, tokenizers.START, tokenizers.END, tokenizers.UNKNOWN) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    "cls, text, symbols",
    [
        (CharTokenizer, "a b", ["a", " ", "b"]),
        (SpaceTokenizer, " AH0  B\tT ", ["AH0", "B", "T"]),
        (WordTokenizer, "It's über-nice, no?", ["It", "'", "s", "über", "-", "nice", ",", "no", "?"]),
    ],
)
def test_each_kind_cuts_text_in_its_way(cls, text, symbols):
    assert cls.cut(text) == symbols
    tokenizer = cls(symbols)
    assert tokenizer.encode(text) == list(range(4, 4 + len(symbols)))


def test_symbols_are_ordered_by_frequency_and_then_by_code_point():
    assert SpaceTokenizer.fit(["c b b", "a c d"]).symbols == ["b", "c", "a", "d"]
    assert SpaceTokenizer.fit(["d c a c b b"]).symbols == SpaceTokenizer.fit(["b c b c a d"]).symbols


def test_a_smaller_vocabulary_keeps_the_frequent_symbols_and_the_rest_is_unknown():
    tokenizer = SpaceTokenizer.fit(["c b b", "a c d"], vocabulary_size=6)
    assert tokenizer.vocabulary_size == 6 and tokenizer.symbols == ["b", "c"]
    assert tokenizer.encode("b a c") == [4, tokenizers.UNKNOWN, 5]
    assert tokenizer.decode([4, 3, 5]) == "b <unk> c"


@pytest.mark.parametrize("kind", KINDS)
def test_start_and_end_are_added_when_asked(kind):
    tokenizer = fitted(kind)
    plain = tokenizer.encode("the cat")
    assert tokenizer.encode("the cat", start=True, end=True) == [1, *plain, 2]
    assert min(plain) > 2 and max(plain) < tokenizer.vocabulary_size
    assert all(type(index) is int for index in plain)


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_stops_at_the_end_and_drops_pads_and_starts(kind):
    tokenizer = fitted(kind)
    plain = tokenizer.encode("the cat")
    assert tokenizer.decode(np.array([1, 0, *plain, 2, 5, 9999])) == "the cat"
    assert tokenizer.decode([*plain, 4]) != "the cat"


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_outside_the_vocabulary_is_refused(kind):
    tokenizer = fitted(kind)
    for index in (-1, tokenizer.vocabulary_size):
        with pytest.raises(UsageError, match=f"Expected ids in 0..{tokenizer.vocabulary_size - 1}. Received: {index}"):
            tokenizer.decode([index])


@given(st.text(max_size=30))
def test_characters_come_back_as_they_were(text):
    if text:
        assert CharTokenizer.fit([text]).decode(CharTokenizer.fit([text]).encode(text)) == text


@given(st.lists(st.text(alphabet="abcdefgh tsi'", min_size=1).filter(str.strip), min_size=1, max_size=3))
def test_subwords_bring_known_characters_back_with_their_spaces(texts):
    tokenizer = ROUND_TRIP
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text


ROUND_TRIP = SubwordTokenizer.fit(["abcdefgh tsi'", "the cats this cat's bed"] * 10, 40)


def test_subwords_learn_frequent_pieces_and_the_same_ones_every_time():
    texts = ["singing", "ringing", "bringing", "thinking"] * 20
    tokenizer = SubwordTokenizer.fit(texts, 30)
    assert tokenizer.vocabulary_size <= 30
    assert len(tokenizer.encode("singing")) < len("singing")
    assert tokenizer.model == SubwordTokenizer.fit(texts, 30).model
    assert "".join(tokenizer.cut("ringing")).replace("\u2581", "") == "ringing"
    assert tokenizers.UNKNOWN in tokenizer.encode("xyz")


@pytest.mark.parametrize("kind", KINDS)
def test_saving_and_loading_keeps_every_id(kind, tmp_path):
    tokenizer = fitted(kind)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = tokenizers.load(tmp_path / "tokenizer.json")
    assert type(loaded) is type(tokenizer) and loaded.vocabulary_size == tokenizer.vocabulary_size
    for text in TEXTS[:4]:
        assert loaded.encode(text) == tokenizer.encode(text)
    assert os.listdir(tmp_path) == ["tokenizer.json"]


def damaged(content, **changes):
    return json.dumps({**json.loads(content), **changes})


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_with_its_name(kind, tmp_path):
    path = tmp_path / "tokenizer.json"
    fitted(kind).save(path)
    content = path.read_text()
    field = "model" if kind == "subword" else "symbols"
    bad = [
        content[: len(content) // 2],
        "[]",
        "{}",
        damaged(content, kind="bytes"),
        damaged(content, kind=[]),
        damaged(content, **{field: 5}),
        damaged(content, **{field: "abc"}),
        damaged(content, **{field: ["a", "a"]}),
        damaged(content, **{field: "QUJD" if kind == "subword" else ["a", ""]}),
    ]
    for text in bad:
        path.write_text(text)
        with pytest.raises(DataError, match="tokenizer.json: Expected") as caught:
            tokenizers.load(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="as JSON"):
        tokenizers.load(path)
    path.write_text(content)
    assert tokenizers.load(path).kind == kind


def test_a_missing_file_is_refused_in_one_line(tmp_path):
    with pytest.raises(DataError, match="Received: No such file or directory"):
        tokenizers.load(tmp_path / "none.json")


def test_saving_into_a_missing_folder_leaves_nothing(tmp_path):
    with pytest.raises(OSError):
        CharTokenizer(["a"]).save(tmp_path / "none" / "tokenizer.json")
    assert os.listdir(tmp_path) == []


def test_an_unknown_kind_names_the_choices():
    with pytest.raises(UsageError, match="Expected one of char, space, word, subword. Received: tokens='bytes'"):
        tokenizers.of_kind("bytes")


@pytest.mark.parametrize("kind", KINDS)
def test_texts_without_symbols_and_tiny_vocabularies_are_refused(kind):
    with pytest.raises(DataError, match="at least one symbol"):
        tokenizers.of_kind(kind).fit([""])
    with pytest.raises(UsageError, match="vocabulary_size of at least 5. Received: vocabulary_size=4"):
        tokenizers.of_kind(kind).fit(TEXTS, 4)


def test_a_vocabulary_too_small_for_the_characters_is_refused():
    with pytest.raises(UsageError, match="Received: 6: Vocabulary size is smaller than required_chars"):
        SubwordTokenizer.fit(TEXTS, 6)
