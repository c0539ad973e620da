"""Text pairs: what is read, what is refused and where, what is counted when bad lines are skipped."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3seq.data.pairs import Pairs, read_pairs, references
from k3seq.errors import DataError, UsageError

pytestmark = pytest.mark.once

CMUDICT = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cmudict"
SIDE = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\t\n\r"), min_size=1).filter(str.strip)

BAD = [
    (b"caf\xe9\tx", "bad UTF-8", "Received: byte 0xe9 at byte 4 of the line"),
    (b"no tab here", "no tab", "Received: a line without a tab"),
    (b"", "no tab", "Received: a line without a tab"),
    (b"a\tb\tc", "more than one tab", "Received: 2 tabs"),
    (b"\tb", "empty source", "Expected a source that is not empty. Received: ''"),
    (b"a\t  ", "empty target", "Expected a target that is not empty. Received: '  '"),
]


def write(path, *lines, end=b"\n"):
    path.write_bytes(b"".join(line + end for line in lines))
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pairs.tsv"


def test_pairs_come_in_order(path):
    pairs = read_pairs(write(path, b"a\tx y", "ü\t日本".encode(), b"a\tz"))
    assert pairs == [("a", "x y"), ("ü", "日本"), ("a", "z")]
    assert isinstance(pairs, Pairs) and not pairs.skipped


@given(st.lists(st.tuples(SIDE, SIDE), max_size=5), st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.booleans())
def test_what_was_written_is_read(tmp_path_factory, pairs, end, mark, last_end):
    path = tmp_path_factory.getbasetemp() / "any.tsv"
    content = end.join("\t".join(pair).encode() for pair in pairs) + end * (last_end and bool(pairs))
    path.write_bytes(b"\xef\xbb\xbf" * (mark and bool(pairs)) + content)
    assert read_pairs(path) == pairs


@pytest.mark.parametrize("line, reason, message", BAD)
def test_a_bad_line_is_refused_with_file_and_line_number(path, line, reason, message):
    write(path, b"a\tb", line, b"c\td")
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    assert str(caught.value).startswith(f"{path}:2: Expected") and str(caught.value).endswith(message)
    assert (caught.value.path, caught.value.line) == (path, 2)


def test_skipped_lines_are_counted_by_reason(path):
    pairs = read_pairs(write(path, b"a\tb", *(line for line, _, _ in BAD), b"c\td"), on_error="skip")
    assert pairs == [("a", "b"), ("c", "d")]
    assert dict(pairs.skipped) == {"bad UTF-8": 1, "no tab": 2, "more than one tab": 1, "empty source": 1, "empty target": 1}


def test_a_limit_counts_pairs_and_stops_before_later_lines(path):
    write(path, b"bad", b"a\tb", b"c\td", b"bad")
    assert read_pairs(path, "skip", limit=2) == [("a", "b"), ("c", "d")]
    assert read_pairs(path, "skip", limit=2).skipped["no tab"] == 1
    assert len(read_pairs(path, "skip", limit=1)) == 1


def test_a_byte_order_mark_inside_the_file_is_text(path):
    assert read_pairs(write(path, b"\xef\xbb\xbfa\tb", b"\xef\xbb\xbfc\td")) == [("a", "b"), ("\ufeffc", "d")]


def test_an_empty_file_has_no_pairs(path):
    assert read_pairs(write(path)) == []


def test_a_missing_file_and_a_folder_are_refused_in_one_line(tmp_path):
    for name, reason in (("none.tsv", "No such file or directory"), ("", "Is a directory")):
        with pytest.raises(DataError) as caught:
            read_pairs(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: Expected a file of text pairs. Received: {reason}"


@pytest.mark.parametrize("arguments, words", [({"on_error": "ignore"}, "raise or skip"), ({"limit": 0}, "limit=0")])
def test_bad_arguments_are_refused(path, arguments, words):
    with pytest.raises(UsageError, match=words):
        read_pairs(write(path, b"a\tb"), **arguments)


def test_references_are_grouped_in_order_without_repeats():
    grouped = references([("b", "2"), ("a", "1"), ("b", "1"), ("b", "2")])
    assert grouped == {"b": ["2", "1"], "a": ["1"]} and list(grouped) == ["b", "a"]


@pytest.mark.skipif(not CMUDICT.is_dir(), reason="CMUdict (../shared/data/cmudict) is not beside this checkout")
@pytest.mark.parametrize("part", ["train", "dev", "test"])
def test_cmudict_is_read_whole(part):
    path = CMUDICT / f"{part}.tsv"
    pairs = read_pairs(path)
    assert len(pairs) == path.read_bytes().count(b"\n") and not pairs.skipped
    grouped = references(pairs)
    assert 1 < max(map(len, grouped.values())) and sum(map(len, grouped.values())) == len(set(pairs))
