"""`k3seq decode`: lines in, one result a line out, in order."""

import sys
import time
from collections.abc import Iterable
from typing import TextIO

from k3seq.commands.consoles import log_console, progress_bar
from k3seq.commands.options import check_search
from k3seq.commands.process import without_tensorflow
from k3seq.errors import UsageError
from k3seq.typing import Json


def decode(
    directory: str,
    lines: Iterable[bytes] | None = None,
    output: TextIO | None = None,
    batch_size: int = 64,
    beam_width: int = 1,
    length_penalty: float = 0.0,
) -> dict[str, Json]:
    """Decodes UTF-8 lines with a trained run.

    Args:
        directory: run directory.
        lines: an iterable of bytes; None reads standard input.
        output: a text stream; None is standard output.
        batch_size, beam_width, length_penalty: as in `Pipeline.decode`.

    Returns:
        {"backend", "lines", "seconds", "unknown" (tokens outside the source vocabulary), "results" ([source, result] pairs)}.

    Raises:
        DataError: a line is not UTF-8, with its number. UsageError: a line is longer than the model can take.
    """
    check_search(beam_width, length_penalty)
    if lines is None and sys.stdin is None:
        raise UsageError("Expected lines on standard input. Received: standard input is closed")
    from k3seq.data.files import text_lines

    sources = text_lines(sys.stdin.buffer if lines is None else lines)

    import keras

    from k3seq.pipeline import Pipeline

    with without_tensorflow():
        trained = Pipeline.load(directory)
    written, log = output or sys.stdout, log_console()
    started, results, unknown = time.perf_counter(), [], 0
    with progress_bar(log) as progress:
        bar = progress.add_task("decoding", total=len(sources))
        for found, strange in trained.batches(sources, batch_size, beam_width=beam_width, length_penalty=length_penalty):
            results += found
            unknown += strange
            written.write("".join(f"{result}\n" for result in found))
            written.flush()
            progress.update(bar, completed=len(results))
    if unknown:
        log.print(f"{unknown} tokens are not in the vocabulary of the source")
    return {
        "backend": keras.backend.backend(),
        "lines": len(sources),
        "seconds": time.perf_counter() - started,
        "unknown": unknown,
        "results": [list(pair) for pair in zip(sources, results, strict=True)],
    }
