"""docs/divergences.md from `known.yml`."""

from k3seq.parity.divergences.known import KINDS, Divergence

COMMAND = "k3seq divergences --page docs/divergences.md"
_KINDS = {
    "fault": "Faults: numbers or behaviour are wrong on some backend",
    "difference": "Differences: each backend can be defended, they are not alike",
    "trap": "Traps: the same everywhere, and easily walked into by code that must run everywhere",
}


def markdown(entries: list[Divergence]) -> str:
    """The page: a table of all, then each with symptom, cause, answer and how to see it."""
    versions = ", ".join(f"{name} {version}" for name, version in entries[0].seen_with.items())
    lines = [
        "# Known divergences",
        "",
        f"Made by `{COMMAND}` from `k3seq/parity/divergences/known.yml`; a test keeps the two in step.",
        "",
        f"Seen with {versions}, on a CPU. `k3seq divergences` runs every reproducer in one process per backend and says",
        "what the installed Keras still has; `k3seq divergences ID` runs one. Each reproducer also runs the correct form, and",
        "is called broken where it cannot tell the two apart.",
    ]
    for kind in KINDS:
        chosen = [entry for entry in entries if entry.kind == kind]
        lines += ["", f"## {_KINDS[kind]}", "", "| divergence | seen on |", "|---|---|"]
        lines += [f"| [{entry.title}](#{entry.id}) | {', '.join(entry.backends)} |" for entry in chosen]
        for entry in chosen:
            lines += ["", f'### <a id="{entry.id}"></a>{entry.title}', ""]
            lines += [f"Seen on {', '.join(entry.backends)}.{_others(entry, versions)} {entry.symptom}", ""]
            lines += [f"*Cause.* {entry.cause}", "", f"*k3seq.* {entry.answer}", "", f"`k3seq divergences {entry.id}`"]
    return "\n".join(lines) + "\n"


def _others(entry, versions):
    own = ", ".join(f"{name} {version}" for name, version in entry.seen_with.items())
    return "" if own == versions else f" With {own}."
