"""`k3seq decode`: lines in, one result a line out, in order."""

import sys
import time

from rich.console import Console
from rich.progress import Progress

from k3seq.errors import DataError, UsageError


def decode(directory, lines=None, output=None, batch_size=64, beam_width=1, length_penalty=0.0):
    """Decodes UTF-8 lines with a trained run.

    Args:
        directory: what `k3seq train` wrote. lines: an iterable of bytes; None: stdin. output: a text stream; None: stdout.
        batch_size: lines decoded at once. beam_width, length_penalty: of a beam search, see `Pipeline.decode`.

    Returns:
        A JSON-able dict: lines, seconds, unknown (tokens outside the source vocabulary), results ([source, result] pairs).

    Raises:
        DataError: for a line that is not UTF-8, with its number. UsageError: for a batch size below 1.
    """
    if batch_size < 1:
        raise UsageError(f"Expected --batch-size of at least 1. Received: {batch_size}")
    sources = text_lines(sys.stdin.buffer if lines is None else lines)

    import keras

    from k3seq.pipeline import Pipeline

    trained, output, log = Pipeline.load(directory), output or sys.stdout, Console(stderr=True)
    start, results, unknown = time.perf_counter(), [], 0
    with Progress(console=log, transient=True, disable=len(sources) <= batch_size) as progress:
        bar = progress.add_task("decoding", total=len(sources))
        for found, strange in trained.batches(sources, batch_size, beam_width=beam_width, length_penalty=length_penalty):
            results += found
            unknown += strange
            output.write("".join(f"{result}\n" for result in found))
            output.flush()
            progress.update(bar, completed=len(results))
    if unknown:
        log.print(f"{unknown} tokens are not in the vocabulary of the source", highlight=False)
    return {
        "backend": keras.backend.backend(),
        "lines": len(sources),
        "seconds": time.perf_counter() - start,
        "unknown": unknown,
        "results": [list(pair) for pair in zip(sources, results, strict=True)],
    }


def text_lines(lines):
    """The lines as text without their ends."""
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(line.decode("utf-8").rstrip("\r\n"))
        except UnicodeDecodeError as error:
            raise DataError(
                f"Expected UTF-8. Received: byte {line[error.start]:#04x} at column {error.start + 1}", "stdin", number
            ) from None
    return found
