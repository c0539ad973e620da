"""Subword tokenizer: pieces of words that SentencePiece learns."""

import base64
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Self

from k3seq.data.tokenizer_base import END, PAD, START, UNKNOWN, Tokenizer, check_size, check_text, check_texts
from k3seq.errors import DataError, UsageError, require_extra

# SentencePiece uses these six characters itself, or drops them: a noncharacter of Unicode stands for each. Where a text holds
# such a noncharacter, _ESCAPE and a letter stand for it.
_ESCAPE = "\ufdd6"
_ESCAPES = dict(zip("\u2581\u2585\x1f\0\n\r", "\ufdd0\ufdd1\ufdd2\ufdd3\ufdd4\ufdd5", strict=True))
_ESCAPES |= {character: _ESCAPE + letter for character, letter in zip([*_ESCAPES.values(), _ESCAPE], "abcdefg", strict=True)}
_ORIGINALS = {escaped: original for original, escaped in _ESCAPES.items()}
_RESERVED = re.compile(f"[{''.join(_ESCAPES)}\ud800-\udfff]")
_ESCAPED = re.compile("[\ufdd0-\ufdd5]|\ufdd6[a-g]")
_PART = 20_000  # characters that SentencePiece learns from at once, at most 4 bytes each; it skips longer texts


class SubwordTokenizer(Tokenizer):
    """Pieces of words by SentencePiece's unigram model (Kudo, arXiv 1804.10959).

    Decoding gives the text back, `<unk>`, `<s>`, U+2581 and NUL included. A character that is in no piece becomes ` \u2047 `.

    Args:
        model: the bytes of a SentencePiece model whose ids 0 to 3 are padding, start, end, unknown.

    Raises:
        UsageError: the bytes are not such a model.
    """

    kind = "subword"

    def __init__(self, model: bytes):
        with require_extra("data"):
            import sentencepiece

        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UsageError("Expected the bytes of a SentencePiece model. Received: others") from error
        found = [self._pieces.pad_id(), self._pieces.bos_id(), self._pieces.eos_id(), self._pieces.unk_id()]
        if found != [PAD, START, END, UNKNOWN]:
            raise UsageError(f"Expected padding, start, end, unknown to be 0, 1, 2, 3. Received: {found}")
        self.model = model
        self.vocabulary_size = self._pieces.get_piece_size()

    @classmethod
    def fit(cls, texts: Iterable[str], vocabulary_size: int | None = None) -> Self:
        """A tokenizer of at most `vocabulary_size` pieces (8000 if None), fewer where the texts do not give as many.

        Every character of the texts is a piece, so that none of them becomes unknown.

        Args:
            texts: iterable of str; it is read once and not kept in Python.
            vocabulary_size: maximum number of ids, the four special ones included.

        Raises:
            UsageError: vocabulary_size is below 5 or too small for the characters, or texts is not an iterable of str.
            DataError: the texts hold no symbol.
        """
        with require_extra("data"):
            import sentencepiece

        check_size(vocabulary_size)
        written = (_escaped(part) for text in check_texts(texts) for part in _parts(text) if part.strip())
        first = next(written, None)
        if first is None:
            raise DataError("Expected texts with at least one symbol. Received: none")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=itertools.chain([first], written),
                model_writer=model,
                vocab_size=8000 if vocabulary_size is None else vocabulary_size,
                hard_vocab_limit=False,
                character_coverage=1.0,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                max_sentence_length=4 * _PART,
                num_threads=1,  # sums in one order, and so the same model every time
                minloglevel=2,
                pad_id=PAD,
                bos_id=START,
                eos_id=END,
                unk_id=UNKNOWN,
                # No text contains these pieces, which matters because SentencePiece learns nothing from them.
                pad_piece=f"{_ESCAPE}pad",
                bos_piece=f"{_ESCAPE}bos",
                eos_piece=f"{_ESCAPE}eos",
                unk_piece=f"{_ESCAPE}unk",
            )
        except RuntimeError as error:
            reason = str(error).split("] ")[-1].strip()
            raise UsageError(
                f"Expected a vocabulary_size that fits the texts. Received: {vocabulary_size}: {reason}"
            ) from error
        return cls(model.getvalue())

    def cut(self, text: str) -> list[str]:
        """The pieces of a text, in order; U+2581 stands for a space."""
        return self._pieces.encode(_escaped(text), out_type=str)

    def _encode(self, text):
        return self._pieces.encode(_escaped(text))

    def _decode(self, ids):
        return _ESCAPED.sub(lambda found: _ORIGINALS[found[0]], self._pieces.decode(ids))

    def _content(self):
        return {"model": base64.b64encode(self.model).decode("ascii")}

    @classmethod
    def _from_content(cls, content):
        return cls(base64.b64decode(content["model"], validate=True))


def _parts(text: str) -> Iterator[str]:
    return (text[start : start + _PART] for start in range(0, len(text), _PART))


def _escaped(text: str) -> str:
    return _RESERVED.sub(_escape, check_text(text))


def _escape(found: re.Match[str]) -> str:
    if found[0] not in _ESCAPES:
        raise UsageError(f"Expected text without lone surrogates. Received: {found[0]!r} at position {found.start()}")
    return _ESCAPES[found[0]]
