"""The Markdown table of parity results."""

import pytest

from k3seq.parity.markdown import parity_markdown

pytestmark = pytest.mark.once


def row(case, check, verdict="equal", relative=0.0, dtype="float32"):
    pair = ["jax", "torch"]
    return {"case": case, "check": check, "pair": pair, "verdict": verdict, "relative": relative, "dtype": dtype}


def result(*rows):
    return {"backends": {"jax": "1.0", "torch": None}, "rows": list(rows)}


def lines(*results, **options):
    return {line.split(" | ")[0]: line for line in parity_markdown(results, **options).splitlines()}


def test_a_cell_is_the_worst_of_its_pairs():
    found = lines(result(row("a", "forward", relative=1e-7), row("a", "forward", relative=3e-7), row("a", "adam", "skipped")))
    assert found["| case"] == "| case | forward | verdict |" and found["| a"] == "| a | 3.0e-07 | equal |"


def test_a_difference_is_bold_and_has_its_cause():
    rows = [row("a", "forward", "differs", 0.5), row("a", "files", "differs", "Infinity"), row("b", "forward", "failed", None)]
    found = lines(result(*rows, row("c", "files")), causes={"a": "[why](x.md)"})
    assert found["| a"] == "| a | **5.0e-01** | **not finite** | **differs** [why](x.md) |"
    assert found["| b"] == "| b | **failed** | - | **differs** |" and found["| c"] == "| c | - | 0 | equal |"
    assert "3 cases, 3 comparisons; 1 cases equal, 2 not." in found


def test_a_later_run_of_a_case_replaces_an_earlier_one():
    found = lines(result(row("a", "forward", "differs", 1.0), row("b", "forward")), result(row("a", "forward")))
    assert found["| a"] == "| a | 0 | equal |" and "| b" in found


def test_another_dtype_is_another_line():
    assert "| a (bfloat16)" in lines(result(row("a", "forward"), row("a", "forward", dtype="bfloat16")))
