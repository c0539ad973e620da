"""A page of HTML that stands alone: no network, no scripts, pictures inside. Everything that is not `Markup` is escaped."""

import functools
import io
from dataclasses import dataclass

from k3seq.data.files import replacing
from k3seq.errors import require_extra


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, a CSS class of the page (`number`, or a verdict of parity), and a hint shown on hovering."""

    text: str
    style: str = ""
    hint: str = ""


def page(title, *parts):
    """The whole page as a string.

    Args:
        title: text. parts: what `section`, `table`, `fold`, `text`, `log` and `picture` give; a str is escaped.
    """
    return _environment().get_template("page.html").render(title=title, parts=parts)


def section(title, *parts):
    """Parts under a heading."""
    return _part("section", title, parts)


def table(head, rows):
    """A table; `head` are column names, `rows` are lists of `Cell` or of anything with a text."""
    cells = [[cell if isinstance(cell, Cell) else Cell(str(cell)) for cell in row] for row in rows]
    return _part("table", head, cells)


def fold(summary, *parts, opened=False):
    """Parts that a click on the summary shows and hides."""
    return _part("fold", summary, parts, opened)


def text(words):
    """A paragraph."""
    return _part("text", words)


def log(words):
    """Text as a program printed it."""
    return _part("log", words)


def picture(figure, caption=""):
    """A matplotlib figure as SVG inside of the page; the same figure gives the same text."""
    with require_extra("report"):
        import matplotlib

    written = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "k3seq"}):
        figure.savefig(written, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    svg = written.getvalue()
    return _part("picture", _markup(svg[svg.index("<svg") :]), caption)


def write(path, html):
    """Writes the page under `path`, complete or not at all; OSError where it cannot."""
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


@functools.cache
def _environment():
    with require_extra("report"):
        import jinja2

    loader = jinja2.PackageLoader("k3seq.report", "templates")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)


def _part(macro, *arguments):
    return _markup(getattr(_environment().get_template("parts.html").module, macro)(*arguments).strip())


def _markup(html):
    """The text marked as HTML, so that a page does not escape it."""
    with require_extra("report"):
        from markupsafe import Markup
    return Markup(html)
