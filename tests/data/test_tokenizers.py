"""Tokenizers: ids, round trips, files that are whole or refused."""

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
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
        (WordTokenizer, "हिन्दी में, cafe\u0301s", ["हिन्दी", "में", ",", "cafe\u0301s"]),
        (WordTokenizer, "می\u200cخواهم ❤\ufe0fa", ["می\u200cخواهم", "❤\ufe0f", "a"]),
        (WordTokenizer, "a \u0301b \u200d", ["a", "\u0301", "b", "\u200d"]),
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
def test_decoding_characters_gives_the_text_back(text):
    if text:
        assert CharTokenizer.fit([text]).decode(CharTokenizer.fit([text]).encode(text)) == text


@given(st.text(max_size=30))
def test_words_stay_whole_when_joined_and_cut_again(text):
    symbols = WordTokenizer.cut(text)
    assert WordTokenizer.cut(WordTokenizer.join(symbols)) == symbols
    assert "".join(symbols) == "".join(text.split())


ODD = st.sampled_from(
    [
        "<unk>",
        "<s>",
        "</s>",
        "<pad>",
        "\u2581",
        "\u2585",
        "\x1f",
        "\0",
        "\ufdd0",
        "\ufdd1",
        "\ufdd2",
        "\ufdd2a",
        "⁇",
        " ",
        "\n",
        "\ufeff",
    ]
)


@settings(max_examples=30)
@given(st.lists(st.lists(ODD | st.text(max_size=3), min_size=1).map("".join).filter(str.strip), min_size=1, max_size=3))
def test_decoding_subwords_gives_every_text_back(texts):
    tokenizer = SubwordTokenizer.fit([*texts, "plain text"])
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", ["<unk>", "a <s>b</s>", "<pad>", "a\u2581b", "a\0b", "\ufdd2a\ufdd0", "  a  ", "a\tb\n"])
def test_decoding_subwords_gives_special_texts_back_that_were_not_trained_on(text):
    tokenizer = SubwordTokenizer.fit([f"{symbol} x" for symbol in text if symbol.strip()] + ["a\tb\nc <>unkspd/"] * 2)
    assert tokenizers.UNKNOWN not in tokenizer.encode(text) and tokenizer.decode(tokenizer.encode(text)) == text


def test_a_long_text_gives_pieces_too():
    tokenizer = SubwordTokenizer.fit(["c", "".join("ab "[i * i % 7 % 3] for i in range(30_000))], 12)
    assert tokenizers.UNKNOWN not in tokenizer.encode("ab ab c")


@pytest.mark.heavy
def test_decoding_subwords_gives_every_character_back():
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for start in range(0, len(characters), 3000):
        texts = [f"a{character}b" for character in characters[start : start + 3000]]
        tokenizer = SubwordTokenizer.fit([*texts, "ab"], 8000)
        assert [text for text in texts if tokenizer.decode(tokenizer.encode(text)) != text] == []


def test_subwords_refuse_lone_surrogates_and_characters_keep_them(tmp_path):
    for use in (SubwordTokenizer.fit(TEXTS, 60).encode, lambda text: SubwordTokenizer.fit([*TEXTS, text])):
        with pytest.raises(UsageError, match=r"Expected text without lone surrogates. Received: '\\ud800' at position 1"):
            use("a\ud800")
    CharTokenizer.fit(["a\ud800"]).save(tmp_path / "char.json")
    assert tokenizers.load(tmp_path / "char.json").decode([4, 5]) == "a\ud800"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [b"ab", None, 5, ["a"], np.array(["a"])], ids=lambda value: type(value).__name__)
def test_what_is_no_text_is_refused(kind, text):
    tokenizer = fitted(kind)
    for use in (tokenizer.encode, tokenizer.cut, lambda text: type(tokenizer).fit([text])):
        with pytest.raises(UsageError, match=f"Expected text to be a str. Received: .* of type {type(text).__name__}"):
            use(text)


@pytest.mark.parametrize("kind", KINDS)
def test_one_text_instead_of_several_is_refused(kind):
    for texts in ("abc", None, 5):
        with pytest.raises(UsageError, match="Expected texts to be a list of str. Received: "):
            tokenizers.of_kind(kind).fit(texts)
    with pytest.raises(UsageError, match="Expected text to be a str. Received: 97 of type int"):
        tokenizers.of_kind(kind).fit(b"abc")


@pytest.mark.parametrize("ids", ["12", b"12", None, 5, [1.5], ["4"], np.array([4.0]), [[4]]], ids=str)
def test_what_is_no_list_of_ids_is_refused(ids):
    with pytest.raises(UsageError, match="Expected ids to be integers. Received: "):
        CharTokenizer(["a"]).decode(ids)


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


@pytest.mark.parametrize("symbols", [None, 1.5, {"a": 4}])
def test_symbols_that_are_no_list_are_refused(symbols):
    with pytest.raises(UsageError, match="Expected symbols to be a list of str. Received: symbols="):
        tokenizers.CharTokenizer(symbols)


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
