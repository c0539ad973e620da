"""Tokenizers: text to ids and back. Ids 0 to 3 are the same in all of them: padding, start, end, unknown."""

import abc
import collections
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import ClassVar, Self

from k3seq.data.subwords import SubwordTokenizer
from k3seq.data.tokenizer_base import END, FORMAT, PAD, SPECIAL, START, UNKNOWN, Tokenizer, check_size, check_text, check_texts
from k3seq.errors import DataError, UsageError

__all__ = [
    "END",
    "KINDS",
    "PAD",
    "START",
    "UNKNOWN",
    "CharTokenizer",
    "SpaceTokenizer",
    "SubwordTokenizer",
    "SymbolTokenizer",
    "Tokenizer",
    "WordTokenizer",
    "check_texts",
    "load",
    "of_kind",
]

_JOINERS = "\u200c\u200d"


class SymbolTokenizer(Tokenizer):
    """A tokenizer with a list of symbols. A subclass defines how a text is cut into symbols and how they are joined.

    Args:
        symbols: the symbols of ids 4, 5, ...

    Raises:
        UsageError: a symbol is not a non-empty str, or occurs twice.
    """

    unknown: ClassVar[str]

    def __init__(self, symbols: Iterable[str]):
        if not isinstance(symbols, Iterable) or isinstance(symbols, Mapping):
            raise UsageError(f"Expected symbols to be a list of str. Received: symbols={symbols!r}")
        self.symbols = list(symbols)
        if not all(isinstance(symbol, str) and symbol for symbol in self.symbols):
            raise UsageError("Expected symbols to be strings that are not empty. Received: others among them")
        self._ids = {symbol: index for index, symbol in enumerate(self.symbols, SPECIAL)}
        if len(self._ids) < len(self.symbols):
            twice = collections.Counter(self.symbols).most_common(1)[0][0]
            raise UsageError(f"Expected every symbol once. Received: {twice!r} more than once")
        self.vocabulary_size = len(self.symbols) + SPECIAL

    @classmethod
    def fit(cls, texts: Iterable[str], vocabulary_size: int | None = None) -> Self:
        """A tokenizer for `texts`: the most frequent symbols, by falling frequency and then by code points.

        Args:
            texts: iterable of str.
            vocabulary_size: maximum number of ids, the four special ones included; None keeps every symbol.

        Raises:
            UsageError: vocabulary_size is below 5, or texts is not an iterable of str. DataError: the texts hold no symbol.
        """
        check_size(vocabulary_size)
        counts = collections.Counter(symbol for text in check_texts(texts) for symbol in cls.cut(text))
        if not counts:
            raise DataError("Expected texts with at least one symbol. Received: none")
        ordered = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
        return cls(ordered if vocabulary_size is None else ordered[: vocabulary_size - SPECIAL])

    @staticmethod
    @abc.abstractmethod
    def cut(text: str) -> list[str]:  # pyright: ignore[reportIncompatibleMethodOverride]  # a symbol needs no vocabulary
        """The symbols of a text, in order. Raises UsageError unless it is a str."""

    @staticmethod
    @abc.abstractmethod
    def join(symbols: Iterable[str]) -> str:
        """The text of symbols."""

    @classmethod
    def _from_content(cls, content):
        if not isinstance(content["symbols"], list):
            raise UsageError("Expected a list of symbols. Received: something else")
        return cls(content["symbols"])

    def _content(self):
        return {"symbols": self.symbols}

    def _encode(self, text):
        return [self._ids.get(symbol, UNKNOWN) for symbol in self.cut(text)]

    def _decode(self, ids):
        return self.join(self.unknown if index == UNKNOWN else self.symbols[index - SPECIAL] for index in ids)


class CharTokenizer(SymbolTokenizer):
    """Every Unicode code point is a symbol. Decoding gives the text back; an unknown symbol becomes U+FFFD."""

    kind, unknown = "char", "\ufffd"

    @staticmethod
    def cut(text: str) -> list[str]:
        return list(check_text(text))

    @staticmethod
    def join(symbols: Iterable[str]) -> str:
        return "".join(symbols)


class SpaceTokenizer(SymbolTokenizer):
    """White space separates the symbols (`AH B AW T`). Decoding puts one space between them."""

    kind, unknown = "space", "<unk>"

    @staticmethod
    def cut(text: str) -> list[str]:
        return check_text(text).split()

    @staticmethod
    def join(symbols: Iterable[str]) -> str:
        return " ".join(symbols)


class WordTokenizer(SpaceTokenizer):
    """A symbol is a word (letters, digits, underscores) or one other character that is not white space.

    Combining marks (Unicode categories Mn, Mc, Me) belong to the symbol before them, and the joiners U+200C and U+200D to the
    word before them: a Hindi or Persian word is one symbol. Decoding puts one space between all symbols: `It's.` comes back
    as `It ' s .`
    """

    kind = "word"

    @staticmethod
    def cut(text: str) -> list[str]:
        if check_text(text).isascii():
            return re.findall(r"\w+|[^\w\s]", text)
        symbols, after_word = [], None  # None: at the start or after white space
        for piece in re.findall(r"\w+|\s+|.", text, re.DOTALL):
            if piece.isspace():
                after_word = None
            elif (after_word is not None and _is_mark(piece)) or (after_word and (piece in _JOINERS or _is_word(piece))):
                symbols[-1] += piece
            else:
                symbols.append(piece)
                after_word = _is_word(piece)
        return symbols


def _is_mark(text):
    return unicodedata.category(text[0])[0] == "M"


def _is_word(text):
    return text[0].isalnum() or text[0] == "_"


KINDS = {cls.kind: cls for cls in (CharTokenizer, SpaceTokenizer, WordTokenizer, SubwordTokenizer)}


def of_kind(kind: str) -> type[Tokenizer]:
    """The class of tokenizers with that name. Raises UsageError, which lists the names, where there is none."""
    if kind not in KINDS:
        raise UsageError(f"Expected one of {', '.join(KINDS)}. Received: tokens={kind!r}")
    return KINDS[kind]


def load(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer that `save` wrote to `path`.

    Raises:
        DataError: the file is missing, is not a saved tokenizer, or is damaged.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise DataError(f"Expected a tokenizer. Received: {error.strerror}", path) from error
    except ValueError as error:
        raise DataError(f"Expected a tokenizer as JSON. Received: {error}", path) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("kind") not in [*KINDS]:
        raise DataError(f"Expected format {FORMAT} and a kind of {', '.join(KINDS)}. Received: another file", path)
    try:
        return KINDS[content["kind"]]._from_content(content)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"Expected a whole {content['kind']} tokenizer. Received: {str(error).strip()}", path) from error
