"""`Pipeline`: a trained model with its tokenizers. It is saved in a run directory, which any backend can load.

model.keras      weights and architecture (safe mode)
source.json      source tokenizer
target.json      target tokenizer
run.json         longest result, training history, SHA-256 of the files above
losses.png       the history as a picture, where `k3seq train` drew it
"""

import contextlib
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from k3seq.data import runs, tokenizers
from k3seq.data.batches import Examples, encode_pairs, source_batches
from k3seq.decode import LengthPenalty, beam_search, greedy
from k3seq.errors import DataError, UsageError
from k3seq.models import registry
from k3seq.typing import Json

# Tokens of a line for a model without a limit of its own. The state of one line grows with them.
MAX_SOURCE_TOKENS = 10_000


class Pipeline:
    """A trained model with its tokenizers: text in, text out.

    Args:
        model: a `Seq2Seq`.
        source_tokenizer, target_tokenizer: of `k3seq.data.tokenizers`.
        max_steps: longest result in tokens.
        history: how the model was trained, a dict of JSON values.

    Raises:
        UsageError: max_steps is below 1, or a tokenizer has more ids than the model.
    """

    def __init__(
        self,
        model: Any,
        source_tokenizer: tokenizers.Tokenizer,
        target_tokenizer: tokenizers.Tokenizer,
        max_steps: int,
        history: dict[str, Json] | None = None,
    ):
        if type(max_steps) is not int or max_steps < 1:
            raise UsageError(f"Expected max_steps of at least 1. Received: {max_steps!r}")
        for side, tokenizer in (("source", source_tokenizer), ("target", target_tokenizer)):
            size = getattr(model, f"{side}_vocabulary_size", None)
            if size is not None and tokenizer.vocabulary_size > size:
                received = f"{tokenizer.vocabulary_size} ids"
                raise UsageError(f"Expected a {side} tokenizer of at most {size} ids, like the model. Received: {received}")
        self.model, self.source_tokenizer, self.target_tokenizer = model, source_tokenizer, target_tokenizer
        self.max_steps, self.history = max_steps, history or {}

    def decode(
        self,
        lines: Iterable[str],
        batch_size: int = 64,
        on_batch: Callable[[int], None] | None = None,
        *,
        beam_width: int = 1,
        length_penalty: float = 0.0,
        max_source_tokens: int | None = None,
    ) -> list[str]:
        """The best result for each line, in order. An empty line gives an empty result.

        Args:
            lines: list of str.
            batch_size: lines decoded at once; fewer at once where lines are long.
            on_batch: called with the number of lines done so far.
            beam_width: number of hypotheses that beam search keeps; 1 is greedy decoding.
            length_penalty: exponent of `k3seq.decode.LengthPenalty` in beam search.
            max_source_tokens: maximum number of tokens of a line. Memory grows with it. None: the model's limit, or 10,000 for
                a model without one.

        Raises:
            UsageError: lines is not a list of str; a line has more tokens than allowed, with its number; beam_width is below 1
                or above the target vocabulary size; length_penalty is not finite, or is given for greedy decoding.
        """
        results = []
        batches = self.batches(
            lines, batch_size, beam_width=beam_width, length_penalty=length_penalty, max_source_tokens=max_source_tokens
        )
        for found, _ in batches:
            results += found
            if on_batch:
                on_batch(len(results))
        return results

    def batches(
        self,
        lines: Iterable[str],
        batch_size: int = 64,
        *,
        beam_width: int = 1,
        length_penalty: float = 0.0,
        max_source_tokens: int | None = None,
    ) -> Iterator[tuple[list[str], int]]:
        """Decodes as `decode` does, batch by batch. Arguments and errors are those of `decode`.

        Yields:
            (results of the next lines, how many tokens outside the source vocabulary have been read since the last yield).
        """
        if length_penalty and (beam_width == 1 or not math.isfinite(length_penalty)):
            received = f"length_penalty={length_penalty}, beam_width={beam_width}"
            raise UsageError(f"Expected a finite length_penalty, and beam_width above 1 with it. Received: {received}")
        limit = self.model.source_limit
        widths = None if limit is None else [*range(8, limit, 8), limit]
        most = MAX_SOURCE_TOKENS if max_source_tokens is None and limit is None else max_source_tokens
        lines = list(tokenizers.check_texts(lines, "lines"))
        return self._batches(
            lines, source_batches(lines, self.source_tokenizer, batch_size, widths, most), beam_width, length_penalty
        )

    def _batches(self, lines, batches, beam_width, length_penalty):
        """What `batches` yields. Batches of long lines are not in the order of the lines."""
        done, waiting, unknown = 0, {}, 0
        for x, positions in batches:
            tokens, lengths = self._search(x, beam_width, length_penalty)
            for row, position in enumerate(positions):
                filled = lines[position].strip()
                waiting[position] = self.target_tokenizer.decode(tokens[row, : lengths[row]].tolist()) if filled else ""
            unknown += _unknown(x)
            found = []
            while done in waiting:
                found.append(waiting.pop(done))
                done += 1
            if found:
                yield found, unknown
                unknown = 0

    def encode_pairs(self, pairs: Iterable[tuple[str, str]], on_error: str = "raise") -> Examples:
        """The ids of text pairs that the model can take, for `k3seq.data.Batches`.

        Args:
            pairs: (source, target) str, for example from `k3seq.data.read_pairs`.
            on_error: "raise", or "skip" to leave out and count a pair that is too long or has a side without tokens.

        Raises:
            DataError: such a pair, with its file and line where `read_pairs` has read it. UsageError: bad on_error.
        """
        target_limit = self.model.target_limit
        limits = self.model.source_limit, None if target_limit is None else target_limit - 1  # a step for START or END
        return encode_pairs(pairs, self.source_tokenizer, self.target_tokenizer, *limits, on_error=on_error)

    def _search(self, x, beam_width, length_penalty):
        """(tokens, lengths) of the best result of each row."""
        options: Any = dict(max_steps=self.max_steps, start=tokenizers.START, end=tokenizers.END)
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
        import_tensorflow_quietly()
        with runs.replace_run(directory, self._record()) as folder:
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
        source, target = (tokenizers.load(parts[name]) for name in (runs.SOURCE, runs.TARGET))
        model = load_model(parts[runs.MODEL])
        try:
            return cls(model, source, target, record.pop("max_steps", None), record)
        except UsageError as error:
            raise DataError(str(error), parts[runs.MODEL].with_name(runs.RECORD)) from error


def load_model(path: str | Path) -> Any:
    """A k3seq model from a `.keras` file, in Keras' safe mode.

    Raises:
        DataError: the file is missing, damaged, or no Keras model.
    """
    import keras

    registry.load_all()
    if not Path(path).is_file():
        raise DataError("Expected a .keras file. Received: no such file", path)
    import_tensorflow_quietly()
    try:
        return keras.saving.load_model(path)
    except Exception as error:  # Keras raises a dozen kinds for a broken archive; the user needs one line.
        raise DataError(f"Expected a Keras model that can be read. Received: {_first_line(error)}", path) from error


def import_tensorflow_quietly() -> None:
    """Lets Keras import TensorFlow with standard error closed.

    Keras imports TensorFlow, where it is installed, to save or load a model on any backend. TensorFlow's start-up messages come
    from C++ and ignore TF_CPP_MIN_LOG_LEVEL.
    """
    if "tensorflow" in sys.modules or importlib.util.find_spec("tensorflow") is None:
        return
    import keras

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # there is no standard error
            kept = os.dup(2)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 2)
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
        keras.saving.serialize_keras_object(np.zeros(1))  # the shortest public call that makes Keras import TensorFlow


def _first_line(error):
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _unknown(x):
    inside = np.arange(x["source"].shape[1]) < x["source_lengths"][:, None]
    return int(np.sum((x["source"] == tokenizers.UNKNOWN) & inside))
