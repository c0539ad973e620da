"""Markdown tables, and pages that a command keeps up to date between two marks."""

from collections.abc import Iterable, Sequence

BEGIN, END = "<!-- results: made by a command, not by hand -->", "<!-- end of results -->"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a head and rows of cells."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def filled(page: str, table: str) -> str:
    """The text of a page with `table` between the lines `BEGIN` and `END`.

    Raises:
        ValueError: the page does not contain each of them once.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        counts = f"{page.count(BEGIN)} and {page.count(END)}"
        raise ValueError(f"Expected {BEGIN!r} and {END!r} once each in the page. Received: {counts}")
    return page[: page.index(BEGIN) + len(BEGIN)] + "\n" + table + page[page.index(END) :]
