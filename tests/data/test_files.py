"""Files that are replaced as a whole, and lines of text."""

import os

import pytest

from k3seq.data.files import replacing, text_lines
from k3seq.errors import DataError

pytestmark = pytest.mark.once


def test_a_file_is_replaced_as_a_whole_or_stays(tmp_path):
    path = tmp_path / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError), replacing(path):
        pass  # nothing was written
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_have_no_ends_and_no_byte_order_mark(end):
    lines = [b"\xef\xbb\xbfa b " + end, end, "ü\r".encode() + end, b"\xef\xbb\xbflast"]
    assert text_lines(iter(lines)) == ["a b ", "", "ü\r", "\ufefflast"]
    assert text_lines([]) == []


def test_a_line_that_is_not_utf_8_is_refused_with_its_number():
    with pytest.raises(DataError, match="stdin:2: Expected UTF-8. Received: byte 0xe9 at byte 4 of the line$"):
        text_lines([b"a\n", b"caf\xe9\n"])
