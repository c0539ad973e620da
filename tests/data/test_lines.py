"""Lines of text from files and standard input."""

import pytest

from k3seq.data.files import text_lines
from k3seq.errors import DataError

pytestmark = pytest.mark.once


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_have_no_ends_and_no_byte_order_mark(end):
    lines = [b"\xef\xbb\xbfa b " + end, end, "ü".encode() + end, b"\xef\xbb\xbflast"]
    assert text_lines(iter(lines)) == ["a b ", "", "ü", "\ufefflast"]
    assert text_lines([]) == []


def test_a_line_that_is_not_utf_8_is_refused_with_its_number():
    with pytest.raises(DataError, match="stdin:2: Expected UTF-8. Received: byte 0xe9 at byte 4 of the line$"):
        text_lines([b"a\n", b"caf\xe9\n"])
