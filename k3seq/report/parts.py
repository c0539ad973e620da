"""An HTML page that needs no other file, no network and no scripts. Everything that is not `Markup` is escaped."""

import functools
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from k3seq.data.files import replacing
from k3seq.errors import require_extra

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, a CSS class of the page (`number`, or a verdict of parity), and a hint shown on hovering."""

    text: str
    style: str = ""
    hint: str = ""


def page(title: str, *parts: str) -> str:
    """The whole page.

    Args:
        title: text.
        parts: of `section`, `table`, `fold`, `text`, `log` and `picture`; a plain str is escaped.
    """
    return _environment().get_template("page.html").render(title=title, parts=parts)


def section(title: str, *parts: str) -> "Markup":
    """Parts under a heading."""
    return _part("section", title, parts)


def table(head: Sequence[str], rows: Iterable[Iterable[Any]]) -> "Markup":
    """A table; `head` are column names, `rows` are lists of `Cell` or of anything that `str` takes."""
    cells = [[cell if isinstance(cell, Cell) else Cell(str(cell)) for cell in row] for row in rows]
    return _part("table", head, cells)


def fold(summary: str, *parts: str, opened: bool = False) -> "Markup":
    """Parts that a click on the summary shows and hides."""
    return _part("fold", summary, parts, opened)


def text(words: str) -> "Markup":
    """A paragraph."""
    return _part("text", words)


def log(words: str) -> "Markup":
    """Output of a program, in a fixed-width font."""
    return _part("log", words)


def picture(figure: "Figure", caption: str = "") -> "Markup":
    """A matplotlib figure as SVG inside the page; the same figure gives the same text."""
    with require_extra("report"):
        import matplotlib

    written = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "k3seq"}):
        figure.savefig(written, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    svg = written.getvalue()
    return _part("picture", _markup(svg[svg.index("<svg") :]), caption)


def write(path: str | PathLike[str], html: str) -> None:
    """Writes a page to a file, completely or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


@functools.cache
def _environment() -> "jinja2.Environment":
    with require_extra("report"):
        import jinja2

    loader = jinja2.PackageLoader("k3seq.report", "templates")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)


def _part(macro: str, *arguments: Any) -> "Markup":
    return _markup(getattr(_environment().get_template("parts.html").module, macro)(*arguments).strip())


def _markup(html: str) -> "Markup":
    """The text marked as HTML, so that a page does not escape it."""
    with require_extra("report"):
        from markupsafe import Markup
    return Markup(html)
