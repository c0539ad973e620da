"""Parity results as a Markdown table, and a page that holds one: how docs/stock-layers.md is kept."""

import math

ORDER = ("parameters", "forward", "training", "gradients", "sgd", "adam", "slots", "decode", "files", "jit")
PASSING = ("equal", "tie", "skipped")
BEGIN, END = "<!-- results: made by a command, not by hand -->", "<!-- end of results -->"


def parity_markdown(results, causes=None):
    """A line for every case: its factory's name in the case, the largest relative error of any pair per check, a verdict.

    Args:
        results: what `k3seq parity --json` wrote, dicts; a case of a later one takes the place of the same of an earlier one.
        causes: case -> Markdown of why it differs.

    Returns:
        The backends' versions, the table, and a line of counts. What differs is bold; "not finite" stands for NaN, infinities
        and unlike shapes or paths; "-" is nothing to compare.
    """
    held, backends = {}, {}
    for result in results:
        backends |= {name: version for name, version in result["backends"].items() if version}
        fresh = {}
        for row in result["rows"]:
            if row["case"]:
                key = row["case"] if row["dtype"] == "float32" else f"{row['case']} ({row['dtype']})"
                fresh.setdefault(key, []).append(row)
        held |= fresh
    checks = [check for check in ORDER if any(r["check"] == check and _counts(r) for rows in held.values() for r in rows)]
    lines = [", ".join(f"{name} {version}" for name, version in backends.items()) + ".", ""]
    lines += [_line(["case", *checks, "verdict"]), _line(["---"] * (len(checks) + 2))]
    wrong = 0
    for case, rows in held.items():
        bad = any(row["verdict"] not in PASSING for row in rows)
        wrong += bad
        verdict = f"**differs** {(causes or {}).get(case, '')}".strip() if bad else "equal"
        lines.append(_line([case, *(_cell([r for r in rows if r["check"] == check]) for check in checks), verdict]))
    compared = sum(_counts(row) for rows in held.values() for row in rows)
    return "\n".join(
        [*lines, "", f"{len(held)} cases, {compared} comparisons; {len(held) - wrong} cases equal, {wrong} not.", ""]
    )


def filled(page, table):
    """A page's text with `table` between the lines `BEGIN` and `END`.

    Raises:
        ValueError: the page does not hold both, once each.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(
            f"Expected {BEGIN!r} and {END!r} once each in the page. Received: {page.count(BEGIN)} and {page.count(END)}"
        )
    return page[: page.index(BEGIN) + len(BEGIN)] + "\n" + table + page[page.index(END) :]


def _counts(row):
    return row["verdict"] in ("equal", "tie", "differs")


def _line(cells):
    return f"| {' | '.join(cells)} |"


def _cell(rows):
    rows = [row for row in rows if row["verdict"] != "skipped"]
    if not rows:
        return "-"
    if any(row["verdict"] in ("failed", "missing") for row in rows):
        return "**failed**"
    size = max(float(row["relative"]) for row in rows if row["relative"] is not None)
    told = ("0" if size == 0 else f"{size:.1e}") if math.isfinite(size) else "not finite"
    return f"**{told}**" if any(row["verdict"] == "differs" for row in rows) else told
