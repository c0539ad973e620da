"""`k3seq evaluate`: scores a trained run on text pairs."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from k3seq.commands.consoles import log_console, progress_bar, results_console
from k3seq.commands.options import check_search
from k3seq.commands.process import without_tensorflow
from k3seq.errors import DataError
from k3seq.typing import Json

if TYPE_CHECKING:
    from k3seq.pipeline import Pipeline


def evaluate(
    directory: str,
    data: str,
    limit: int | None = None,
    skip_bad_lines: bool = False,
    console: Console | None = None,
    *,
    batch_size: int = 64,
    beam_width: int = 1,
    length_penalty: float = 0.0,
) -> dict[str, Json]:
    """Scores the best result of every source in a file of pairs, and prints a table.

    Args:
        directory: run directory.
        data: file of pairs, source TAB target. Several targets of one source count as any-of.
        limit: number of pairs to read; None reads all.
        skip_bad_lines: whether bad lines are counted and left out.
        console: where the table is printed.
        batch_size, beam_width, length_penalty: as in `Pipeline.decode`.

    Returns:
        The scores of `metrics.score`, and the counts they were computed from.

    Raises:
        DataError: the file cannot be read, or has no pair. UsageError: a source is longer than the model can take.
    """
    check_search(beam_width, length_penalty)
    from k3seq.data.pairs import read_pairs, references

    pairs = read_pairs(data, "skip" if skip_bad_lines else "raise", limit)
    if not pairs:
        raise DataError("Expected at least one pair. Received: none", data)
    known = references(pairs)

    import keras

    from k3seq.pipeline import Pipeline

    with without_tensorflow():
        trained = Pipeline.load(directory)
    started = time.perf_counter()
    with progress_bar(log_console()) as progress:
        bar = progress.add_task("decoding", total=len(known))
        scores = score_pairs(
            trained,
            known,
            batch_size,
            lambda done: progress.update(bar, completed=done),
            beam_width=beam_width,
            length_penalty=length_penalty,
        )
    table = Table("measure", "value", title=f"{data}: {len(known):,} sources")
    for name, value in scores.items():
        table.add_row(name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else f"{value:,}")
    (console or results_console()).print(table)
    return {
        "backend": keras.backend.backend(),
        "data": str(data),
        "sources": len(known),
        "pairs": len(pairs),
        "skipped": dict(pairs.skipped),
        "seconds": time.perf_counter() - started,
        **scores,
    }


def score_pairs(
    trained: "Pipeline",
    known: Mapping[str, list[str]],
    batch_size: int,
    on_batch: Callable[[int], None],
    **search: Any,
) -> dict[str, Json]:
    """The scores of `metrics.score` for the decoded sources.

    Args:
        trained: the pipeline.
        known: source -> its targets, each of which counts as right.
        batch_size, on_batch: as in `Pipeline.decode`.
        search: beam_width and length_penalty of `Pipeline.decode`.
    """
    from k3seq.metrics import score

    results = trained.decode(list(known), batch_size, on_batch, **search)
    cut = trained.target_tokenizer.cut
    return score([cut(line) for line in results], [[cut(line) for line in lines] for lines in known.values()])
