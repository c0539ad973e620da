"""Parts of an HTML page: they are written completely, escaped, and the same for the same input."""

import subprocess
import sys

import pytest
from matplotlib.figure import Figure

from k3seq import report
from report.outline import Outline

pytestmark = pytest.mark.once


def test_a_page_has_its_parts_and_escapes_text():
    parts = [report.text("<b>"), report.log("a < b"), report.fold("more", report.text("x"), opened=True)]
    page = report.page("T", report.section("S", report.table(["x"], [[1], [report.Cell("2", "number", "hint")]]), *parts))
    outline = Outline(page)
    assert outline.tables == [[["x"], ["1"], ["2"]]] and outline.open == []
    assert "&lt;b&gt;" in page and "a &lt; b" in page and '<td class="number" title="hint">2</td>' in page


def test_a_figure_gives_the_same_text_again():
    def drawn(height):
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([0, height])
        return report.picture(figure, "caption")

    assert drawn(1) == drawn(1) != drawn(2)
    assert "<figcaption>caption</figcaption>" in drawn(1)


def test_a_page_is_written_completely_or_not_at_all(tmp_path):
    report.write(tmp_path / "page.html", report.page("new", report.section("a", report.table(["x"], [[1]]))))
    assert "<td>1</td>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    with pytest.raises(UnicodeEncodeError):
        report.write(tmp_path / "page.html", "half \ud800")
    assert "<td>1</td>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_importing_it_imports_neither_keras_nor_matplotlib():
    heavy = ("keras", "jax", "tensorflow", "torch", "matplotlib")
    code = f"import sys, k3seq.report; print([n for n in {heavy!r} if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
