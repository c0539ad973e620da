"""Markdown tables and the pages that contain them."""

import pytest

from k3seq.report.markdown import BEGIN, END, filled, markdown_table

pytestmark = pytest.mark.once


def test_a_table_has_a_head_and_rows():
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_page_keeps_the_text_around_the_table():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert filled(page, "new\n") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


@pytest.mark.parametrize("page", ["nothing", f"{BEGIN}\n", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_its_two_marks_is_refused(page):
    with pytest.raises(ValueError, match="once each"):
        filled(page, "")
