"""A run directory: the trained model, its tokenizers and its history, enough to decode on any backend.

model.keras      weights and architecture (safe mode)
source.json      tokenizer of the source
target.json      tokenizer of the target
run.json         how it was trained, and what every epoch gave
losses.png       the same as a picture
"""

import json
from pathlib import Path

import numpy as np

from k3seq.data import tokenizers
from k3seq.data.batches import source_batches
from k3seq.data.files import replacing
from k3seq.decode import LengthPenalty, beam_search, greedy
from k3seq.errors import DataError, UsageError
from k3seq.models import registry


class Pipeline:
    """A model with its tokenizers.

    Args:
        model: a `Seq2Seq`. source, target: tokenizers. max_steps: longest result in tokens.
        history: JSON-able dict of how it was trained.
    """

    def __init__(self, model, source, target, max_steps, history=None):
        self.model, self.source, self.target = model, source, target
        self.max_steps, self.history = max_steps, history or {}

    def decode(self, lines, batch_size=64, on_batch=None, *, beam_width=1, length_penalty=0.0):
        """The best result for each line, in order; an empty line gives an empty result.

        Args:
            lines: strings. batch_size: lines decoded at once. on_batch: called with the lines done so far.
            beam_width: beams; 1 is greedy. length_penalty: of a beam search, see `k3seq.decode.LengthPenalty`.

        Raises:
            UsageError: a line has more tokens than the model takes, with its number; or the width is below 1 or over the
                vocabulary.
        """
        results = []
        for found, _ in self.batches(lines, batch_size, beam_width=beam_width, length_penalty=length_penalty):
            results += found
            if on_batch:
                on_batch(len(results))
        return results

    def batches(self, lines, batch_size=64, *, beam_width=1, length_penalty=0.0):
        """As `decode`, batch by batch.

        Yields:
            (results of the next lines, how many of their tokens are outside the source's vocabulary).
        """
        limit, done = self.model.source_limit, 0
        widths = None if limit is None else [*range(8, limit, 8), limit]
        for x, rows in source_batches(lines, self.source, batch_size, widths):
            tokens, lengths = self._search(x, beam_width, length_penalty)
            ids = [tokens[row, : lengths[row]].tolist() for row in range(rows)]
            filled = [line.strip() for line in lines[done : done + rows]]
            yield [self.target.decode(i) if line else "" for i, line in zip(ids, filled, strict=True)], _unknown(x)
            done += rows

    def _search(self, x, beam_width, length_penalty):
        """(tokens, lengths) of the best result of each row."""
        options = dict(max_steps=self.max_steps, start=tokenizers.START, end=tokenizers.END)
        if beam_width == 1:
            return greedy(self.model, x, **options)[:2]
        penalties = [LengthPenalty(length_penalty)] if length_penalty else []
        found = beam_search(self.model, x, beam_width, n_best=1, processors=penalties, **options)
        return found.tokens[:, 0], found.lengths[:, 0]

    def save(self, directory):
        """Writes the run; every file is complete under its name or not there under it."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.source.save(directory / "source.json")
        self.target.save(directory / "target.json")
        with replacing(directory / "model.keras") as temporary:
            self.model.save(temporary)
        self.save_history(directory)

    def save_history(self, directory):
        """Writes `run.json` alone."""
        content = {"format": 1, "max_steps": self.max_steps, **self.history}
        with replacing(Path(directory) / "run.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory):
        """Reads a run that any backend wrote.

        Raises:
            UsageError: when there is no run in the directory. DataError: when a file of it is missing or broken.
        """
        directory = Path(directory)
        if not (directory / "run.json").is_file():
            raise UsageError(f"Expected a directory that k3seq train wrote. Received: {directory}, without run.json")
        try:
            history = json.loads((directory / "run.json").read_text(encoding="utf-8"))
            max_steps = history.pop("max_steps")
        except (ValueError, KeyError) as error:
            raise DataError(f"Expected the JSON of a run. Received: {error}", directory / "run.json") from error
        source, target = (tokenizers.load(directory / f"{side}.json") for side in ("source", "target"))
        return cls(load_model(directory / "model.keras"), source, target, max_steps, history)


def load_model(path):
    """A k3seq model from a `.keras` file, in Keras' safe mode.

    Raises:
        DataError: when the file is missing, truncated or no Keras model.
    """
    import keras

    registry.load_all()
    if not Path(path).is_file():
        raise DataError("Expected a .keras file. Received: no such file", path)
    try:
        return keras.saving.load_model(path)
    except Exception as error:  # Keras raises a dozen kinds for a broken archive; the user needs one line.
        raise DataError(f"Expected a Keras model that can be read. Received: {_first_line(error)}", path) from error


def _first_line(error):
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _unknown(x):
    inside = np.arange(x["source"].shape[1]) < x["source_lengths"][:, None]
    return int(np.sum((x["source"] == tokenizers.UNKNOWN) & inside))
