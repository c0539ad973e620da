"""The Markdown table of parity results."""

import pytest

from k3seq.report.markdown import BEGIN, END, filled, parity_markdown

pytestmark = pytest.mark.once


def row(case, check, verdict="equal", relative=0.0, dtype="float32"):
    return {"case": case, "check": check, "verdict": verdict, "relative": relative, "dtype": dtype}


def result(*rows):
    return {"backends": {"jax": "1.0", "torch": None}, "rows": list(rows)}


def lines(*results, **options):
    return {line.split(" | ")[0]: line for line in parity_markdown(results, **options).splitlines()}


def test_a_cell_is_the_worst_of_its_pairs():
    told = lines(result(row("a", "forward", relative=1e-7), row("a", "forward", relative=3e-7), row("a", "adam", "skipped")))
    assert told["| case"] == "| case | forward | verdict |" and told["| a"] == "| a | 3.0e-07 | equal |"


def test_what_differs_is_bold_and_told_with_its_cause():
    rows = [row("a", "forward", "differs", 0.5), row("a", "files", "differs", "Infinity"), row("b", "forward", "failed", None)]
    told = lines(result(*rows, row("c", "files")), causes={"a": "[why](x.md)"})
    assert told["| a"] == "| a | **5.0e-01** | **not finite** | **differs** [why](x.md) |"
    assert told["| b"] == "| b | **failed** | - | **differs** |" and told["| c"] == "| c | - | 0 | equal |"
    assert "3 cases, 3 comparisons; 1 cases equal, 2 not." in told


def test_a_later_run_of_a_case_takes_the_place_of_an_earlier_one():
    told = lines(result(row("a", "forward", "differs", 1.0), row("b", "forward")), result(row("a", "forward")))
    assert told["| a"] == "| a | 0 | equal |" and "| b" in told


def test_another_dtype_is_another_line():
    assert "| a (bfloat16)" in lines(result(row("a", "forward"), row("a", "forward", dtype="bfloat16")))


def test_a_page_keeps_what_stands_around_the_table():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert filled(page, "new\n") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


@pytest.mark.parametrize("page", ["nothing", f"{BEGIN}\n", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_its_two_lines_is_refused(page):
    with pytest.raises(ValueError, match="once each"):
        filled(page, "")
