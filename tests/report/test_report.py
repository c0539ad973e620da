"""The page stands alone, holds what it is given, and escapes it."""

import html.parser
import subprocess
import sys

import pytest
from markupsafe import Markup
from matplotlib.figure import Figure

from k3seq import report

pytestmark = pytest.mark.once


class Outline(html.parser.HTMLParser):
    """Tags with their attributes, tables as lists of rows of texts, and whether every tag is closed."""

    VOID = ("meta", "br", "img", "path", "use", "rect", "line", "circle")

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def row(case="dense", check="forward", pair=("jax", "torch"), verdict="equal", relative=4e-7, tolerance=2e-6, **more):
    rest = {"absolute": 1e-7, "where": "", "message": "", "judge": "", "stderr": "", "dtype": "float32", "seconds": 0.1}
    given = {"case": case, "check": check, "pair": list(pair), "verdict": verdict, "relative": relative, "tolerance": tolerance}
    return given | rest | more


def results(*rows, ok=True):
    return {"ok": ok, "seconds": 3.2, "backends": {"jax": "0.10.2", "torch": None}, "rows": list(rows)}


ROWS = (
    row(),
    row(pair=("jax", "tensorflow"), relative=9e-7),
    row(check="files", relative=0.0),
    row(
        "lstm",
        verdict="differs",
        relative=0.25,
        where="decoder/lstm, step 3, row 0",
        judge="float64 (jax): torch is off by 0.25",
    ),
    row("lstm", "files", ("torch",), "failed", None, None, message="crash: killed", stderr="Fatal <error>\n" * 3),
    row("lstm", dtype="bfloat16", verdict="differs", relative="Infinity"),
)


def test_the_grid_shows_the_worst_pair_of_each_check():
    page = Outline(report.parity_page(results(*ROWS, ok=False)))
    assert page.tables[0] == [
        ["case", "forward", "files"],
        ["dense", "9.0e-07", "0"],
        ["lstm", "differs 2.5e-01", "failed"],
        ["lstm (bfloat16)", "differs infinite", ""],
    ]
    styles = [attributes.get("class") for tag, attributes in page.tags if tag == "td"][:9]
    assert styles == [None, "equal", "equal", None, "differs", "failed", None, "differs", None]
    assert page.open == []


def test_a_difference_is_told_with_its_layer_its_judge_and_its_log():
    page = report.parity_page(results(*ROWS, ok=False))
    assert "NOT everything is equal: 1 failed, 2 differs, 3 equal. 3 s. Backends: jax 0.10.2, torch not installed." in page
    assert "jax and torch: differs, 2.5e-01 where 2.0e-06 is allowed at decoder/lstm, step 3" in page
    assert "float64 (jax): torch is off by 0.25" in page and "Fatal &lt;error&gt;" in page
    equal = report.parity_page(results(*ROWS[:3]))
    assert "Nothing differs: 3 equal." in equal and "What differs" not in equal and "is off by" not in equal


def test_every_row_is_in_the_tables_of_its_case():
    tables = Outline(report.parity_page(results(*ROWS))).tables[1:]
    assert [len(table) - 1 for table in tables] == [3, 2, 1]
    assert tables[1][1][:7] == [
        "forward",
        "jax and torch",
        "differs",
        "2.5e-01",
        "1.0e-07",
        "2.0e-06",
        "decoder/lstm, step 3, row 0",
    ]


def test_what_it_is_given_is_escaped():
    poison = '<script>alert("x")</script>'
    page = report.parity_page(
        results(row(poison, where=poison, message=poison, judge=poison, stderr=poison, verdict="differs")), poison
    )
    assert "<script" not in page and page.count("&lt;script&gt;") >= 6
    assert "<script" in report.page("t", Markup(poison))  # what is marked as HTML is not


def test_the_page_needs_no_network_and_no_script():
    page = Outline(report.parity_page(results(*ROWS)))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object"} and {"svg", "table", "details", "style"} <= tags
    addresses = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href", "xlink:href")
    ]
    assert addresses and all(value.startswith("#") for value in addresses)  # a picture's own parts


def test_a_run_without_rows_is_a_page():
    page = Outline(report.parity_page({"ok": False, "seconds": 0.0, "backends": {}, "rows": []}))
    assert page.tables == [[["case"]]] and not any(tag == "svg" for tag, _ in page.tags)


def test_a_figure_gives_the_same_text_again():
    def drawn(height):
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([0, height])
        return report.picture(figure, "caption")

    assert drawn(1) == drawn(1) != drawn(2)
    assert "<figcaption>caption</figcaption>" in drawn(1)


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
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
