"""docs/divergences.md from `known.yml`."""

from k3seq.parity.divergences.known import KINDS, Divergence

COMMAND = "k3seq divergences --page docs/divergences.md"
HEADINGS = {
    "fault": "Faults: wrong numbers or wrong behaviour on some backend",
    "difference": "Differences: backends do not agree, and each result can be justified",
    "trap": "Traps: the same on every backend, and easy to miss in code that must run everywhere",
}


def markdown(entries: list[Divergence]) -> str:
    """The page: tables of all divergences, then each with symptom, cause, k3seq's answer and its command."""
    versions = ", ".join(f"{name} {version}" for name, version in entries[0].seen_with.items())
    lines = [
        "# Known divergences",
        "",
        "Where Keras behaves differently on JAX, TensorFlow and PyTorch, why, and what to do about it.",
        "",
        f"Seen with {versions}, on a CPU. `k3seq divergences` runs every reproducer in one process per backend and reports",
        "which divergences the installed Keras still has; `k3seq divergences ID` runs one. Each reproducer also runs the",
        "correct form. It is reported as broken where that form has the divergence too.",
        "",
        f"This page is made by `{COMMAND}` from `k3seq/parity/divergences/known.yml`; a test compares the two.",
    ]
    for kind in KINDS:
        chosen = [entry for entry in entries if entry.kind == kind]
        lines += ["", f"## {HEADINGS[kind]}", "", "| divergence | seen on |", "|---|---|"]
        lines += [f"| [{entry.title}](#{entry.id}) | {', '.join(entry.backends)} |" for entry in chosen]
        for entry in chosen:
            lines += ["", f'### <a id="{entry.id}"></a>{entry.title}', ""]
            lines += [f"Seen on {', '.join(entry.backends)}.{_other_versions(entry, versions)} {entry.symptom}", ""]
            lines += [f"*Cause.* {entry.cause}", "", f"*In k3seq.* {entry.answer}", "", f"`k3seq divergences {entry.id}`"]
    return "\n".join(lines) + "\n"


def _other_versions(entry: Divergence, versions: str) -> str:
    own = ", ".join(f"{name} {version}" for name, version in entry.seen_with.items())
    return "" if own == versions else f" With {own}."
