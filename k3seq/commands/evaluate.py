"""`k3seq evaluate`: how right a trained run is on text pairs it has not seen."""

import time

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from k3seq.errors import DataError, UsageError


def evaluate(directory, data, limit=None, batch_size=64, skip_bad_lines=False, console=None, beam_width=1, length_penalty=0.0):
    """Scores the best result of every source in a TSV file; several targets of one source count as any-of.

    Args:
        directory: what `k3seq train` wrote. data: TSV file, source TAB target. limit: only the first pairs.
        batch_size: sources decoded at once. beam_width, length_penalty: of a beam search, see `Pipeline.decode`.
        skip_bad_lines: count bad lines and leave them out.

    Returns:
        A JSON-able dict: the scores of `metrics.score` and what they were taken on.
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise UsageError(f"Expected --batch-size and --limit of at least 1. Received: {batch_size} and {limit}")
    from k3seq.data.pairs import read_pairs, references

    pairs = read_pairs(data, "skip" if skip_bad_lines else "raise", limit)
    if not pairs:
        raise DataError("Expected at least one pair. Received: none", data)
    known = references(pairs)

    import keras

    from k3seq.metrics import score
    from k3seq.pipeline import Pipeline

    trained, start = Pipeline.load(directory), time.perf_counter()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("decoding", total=len(known))
        results = trained.decode(
            list(known),
            batch_size,
            lambda done: progress.update(bar, completed=done),
            beam_width=beam_width,
            length_penalty=length_penalty,
        )
    cut = trained.target_tokenizer.cut
    scores = score([cut(line) for line in results], [[cut(line) for line in lines] for lines in known.values()])
    table = Table("measure", "value", title=f"{data}: {len(known):,} sources")
    for name, value in scores.items():
        table.add_row(name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else f"{value:,}")
    (console or Console()).print(table)
    return {
        "backend": keras.backend.backend(),
        "data": str(data),
        "sources": len(known),
        "pairs": len(pairs),
        "skipped": dict(pairs.skipped),
        "seconds": time.perf_counter() - start,
        **scores,
    }
