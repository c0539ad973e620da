"""The HTML page of a parity run."""

import pytest
from markupsafe import Markup

from k3seq import report
from k3seq.parity.page import parity_page
from report.outline import Outline

pytestmark = pytest.mark.once


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
        judge="float64 reference (jax): torch differs by 2.5e-01",
    ),
    row("lstm", "files", ("torch",), "failed", None, None, message="crash: killed", stderr="Fatal <error>\n" * 3),
    row("lstm", dtype="bfloat16", verdict="differs", relative="Infinity"),
)


def test_the_grid_shows_the_worst_pair_of_each_check():
    page = Outline(parity_page(results(*ROWS, ok=False)))
    assert page.tables[0] == [
        ["case", "forward", "files"],
        ["dense", "9.0e-07", "0"],
        ["lstm", "differs 2.5e-01", "failed"],
        ["lstm (bfloat16)", "differs infinite", ""],
    ]
    styles = [attributes.get("class") for tag, attributes in page.tags if tag == "td"][:9]
    assert styles == [None, "equal", "equal", None, "differs", "failed", None, "differs", None]
    assert page.open == []


def test_a_difference_is_shown_with_its_layer_its_judge_and_its_log():
    page = parity_page(results(*ROWS, ok=False))
    assert "NOT everything is equal: 1 failed, 2 differs, 3 equal. 3 s. Backends: jax 0.10.2, torch not installed." in page
    assert "lstm, forward, jax and torch: differs by 2.5e-01 (tolerance 2.0e-06) at decoder/lstm, step 3" in page
    assert "torch differs by 2.5e-01" in page and "Fatal &lt;error&gt;" in page
    equal = parity_page(results(*ROWS[:3]))
    assert "Nothing differs: 3 equal." in equal and "What differs" not in equal and "differs by" not in equal


def test_every_row_is_in_the_tables_of_its_case():
    tables = Outline(parity_page(results(*ROWS))).tables[1:]
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


def test_all_text_is_escaped():
    poison = '<script>alert("x")</script>'
    page = parity_page(
        results(row(poison, where=poison, message=poison, judge=poison, stderr=poison, verdict="differs")), poison
    )
    assert "<script" not in page and page.count("&lt;script&gt;") >= 6
    assert "<script" in report.page("t", Markup(poison))  # Markup is not escaped


def test_the_page_needs_no_network_and_no_script():
    page = Outline(parity_page(results(*ROWS)))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object"} and {"svg", "table", "details", "style"} <= tags
    addresses = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href", "xlink:href")
    ]
    assert addresses and all(value.startswith("#") for value in addresses)  # parts of a picture


def test_a_run_without_rows_is_a_page():
    page = Outline(parity_page({"ok": False, "seconds": 0.0, "backends": {}, "rows": []}))
    assert page.tables == [[["case"]]] and not any(tag == "svg" for tag, _ in page.tags)
