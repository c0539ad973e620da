"""`Pipeline`: a trained model with its tokenizers. It is saved in a run directory, which any backend can load.

model.keras      weights and architecture (safe mode)
source.json      source tokenizer
target.json      target tokenizer
run.json         longest result, training history, SHA-256 of the files above
losses.png       the history as a picture, where `k3seq train` drew it
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from k3seq.data import runs, tokenizers
from k3seq.data.batches import source_batches
from k3seq.decode import LengthPenalty, beam_search, greedy
from k3seq.errors import DataError
from k3seq.models import registry
from k3seq.typing import Json


class Pipeline:
    """A trained model with its tokenizers: text in, text out.

    Args:
        model: a `Seq2Seq`.
        source_tokenizer, target_tokenizer: of `k3seq.data.tokenizers`.
        max_steps: longest result in tokens.
        history: how the model was trained, a dict of JSON values.
    """

    def __init__(
        self,
        model: Any,
        source_tokenizer: tokenizers.Tokenizer,
        target_tokenizer: tokenizers.Tokenizer,
        max_steps: int,
        history: dict[str, Json] | None = None,
    ):
        self.model, self.source_tokenizer, self.target_tokenizer = model, source_tokenizer, target_tokenizer
        self.max_steps, self.history = max_steps, history or {}

    def decode(
        self,
        lines: Sequence[str],
        batch_size: int = 64,
        on_batch: Callable[[int], None] | None = None,
        *,
        beam_width: int = 1,
        length_penalty: float = 0.0,
    ) -> list[str]:
        """The best result for each line, in order. An empty line gives an empty result.

        Args:
            lines: a list of str.
            batch_size: lines decoded at once.
            on_batch: called with the number of lines done so far.
            beam_width: number of hypotheses that beam search keeps; 1 is greedy decoding.
            length_penalty: exponent of beam search's `k3seq.decode.LengthPenalty`.

        Raises:
            UsageError: a line has more tokens than the model takes, with its number; or beam_width is below 1 or above the
                target vocabulary size.
        """
        results = []
        for found, _ in self.batches(lines, batch_size, beam_width=beam_width, length_penalty=length_penalty):
            results += found
            if on_batch:
                on_batch(len(results))
        return results

    def batches(
        self, lines: Sequence[str], batch_size: int = 64, *, beam_width: int = 1, length_penalty: float = 0.0
    ) -> Iterator[tuple[list[str], int]]:
        """Decodes as `decode` does, batch by batch.

        Yields:
            (results of the next lines, how many of their tokens are not in the source vocabulary).
        """
        limit, done = self.model.source_limit, 0
        widths = None if limit is None else [*range(8, limit, 8), limit]
        for x, rows in source_batches(lines, self.source_tokenizer, batch_size, widths):
            tokens, lengths = self._search(x, beam_width, length_penalty)
            ids = [tokens[row, : lengths[row]].tolist() for row in range(rows)]
            filled = [line.strip() for line in lines[done : done + rows]]
            found = [self.target_tokenizer.decode(i) if line else "" for i, line in zip(ids, filled, strict=True)]
            yield found, _unknown(x)
            done += rows

    def _search(self, x, beam_width, length_penalty):
        """(tokens, lengths) of the best result of each row."""
        options = dict(max_steps=self.max_steps, start=tokenizers.START, end=tokenizers.END)
        if beam_width == 1:
            return greedy(self.model, x, **options)[:2]
        penalties = [LengthPenalty(length_penalty)] if length_penalty else []
        found = beam_search(self.model, x, beam_width, n_best=1, processors=penalties, **options)
        return found.tokens[:, 0], found.lengths[:, 0]

    def save(self, directory: str | Path) -> None:
        """Saves the whole run. It replaces a run in the directory at once: a killed process leaves the old or the new one.

        Raises:
            DataError: the directory or a file in it cannot be written. A run that was there stays.
        """
        with runs.replace_run(directory, self._record()) as folder, quiet_tensorflow():
            self.source_tokenizer.save(folder / runs.SOURCE)
            self.target_tokenizer.save(folder / runs.TARGET)
            self.model.save(folder / runs.MODEL)

    def save_history(self, directory: str | Path) -> None:
        """Saves `run.json` alone; the model stays that of the last `save`.

        Raises:
            UsageError: the directory holds no run. DataError: the file cannot be written.
        """
        runs.write_record(directory, self._record())

    def _record(self):
        return {"max_steps": self.max_steps, **self.history}

    @classmethod
    def load(cls, directory: str | Path) -> "Pipeline":
        """Reads a run that any backend saved.

        Raises:
            UsageError: the directory holds no run. DataError: a file of it is missing, damaged, or not the one that was saved.
        """
        return runs.read_run(directory, cls._load)

    @classmethod
    def _load(cls, record, parts):
        max_steps = record.pop("max_steps", None)
        if type(max_steps) is not int or max_steps < 1:
            raise DataError(
                f"Expected max_steps of at least 1. Received: {max_steps!r}", parts[runs.MODEL].with_name(runs.RECORD)
            )
        source, target = (tokenizers.load(parts[name]) for name in (runs.SOURCE, runs.TARGET))
        return cls(load_model(parts[runs.MODEL]), source, target, max_steps, record)


def load_model(path: str | Path) -> Any:
    """A k3seq model from a `.keras` file, in Keras' safe mode.

    Raises:
        DataError: the file is missing, damaged, or no Keras model.
    """
    import keras

    registry.load_all()
    if not Path(path).is_file():
        raise DataError("Expected a .keras file. Received: no such file", path)
    try:
        with quiet_tensorflow():
            return keras.saving.load_model(path)
    except Exception as error:  # Keras raises a dozen kinds for a broken archive; the user needs one line.
        raise DataError(f"Expected a Keras model that can be read. Received: {_first_line(error)}", path) from error


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Hides TensorFlow's start-up messages: Keras imports it to save or load a model, on every backend."""
    name = "TF_CPP_MIN_LOG_LEVEL"
    if "tensorflow" in sys.modules or name in os.environ:
        yield
        return
    os.environ[name] = "3"
    try:
        yield
    finally:
        del os.environ[name]


def _first_line(error):
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _unknown(x):
    inside = np.arange(x["source"].shape[1]) < x["source_lengths"][:, None]
    return int(np.sum((x["source"] == tokenizers.UNKNOWN) & inside))
