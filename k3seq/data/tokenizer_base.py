"""The base class of tokenizers: the four special ids, encoding, decoding, saving, and the checks of arguments."""

import abc
import json
import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self

from k3seq.data.files import replacing
from k3seq.errors import UsageError
from k3seq.typing import Json, NDArray

PAD, START, END, UNKNOWN = range(4)
SPECIAL = 4
FORMAT = "k3seq-tokenizer-1"


class Tokenizer(abc.ABC):
    """The base class of all kinds of tokenizers.

    Attributes:
        kind: the name of the kind.
        vocabulary_size: number of ids.
    """

    kind: ClassVar[str]
    vocabulary_size: int

    @classmethod
    @abc.abstractmethod
    def fit(cls, texts: Iterable[str], vocabulary_size: int | None = None) -> Self:
        """A tokenizer for `texts` with at most `vocabulary_size` ids."""

    @abc.abstractmethod
    def cut(self, text: str) -> list[str]:
        """The symbols of a text, in order. Raises UsageError unless it is a str."""

    def encode(self, text: str, start: bool = False, end: bool = False) -> list[int]:
        """The ids of a text; symbols that are not in the vocabulary become UNKNOWN.

        Args:
            text: str.
            start: put START before them.
            end: put END after them.

        Raises:
            UsageError: text is not a str.
        """
        return [START] * start + self._encode(text) + [END] * end

    def decode(self, ids: Sequence[int] | NDArray[Any]) -> str:
        """The text of ids up to the first END; PAD and START are left out.

        Args:
            ids: ints, or a 1-D integer array.

        Raises:
            UsageError: an id before the first END is not an integer in the vocabulary.
        """
        kept = []
        for index in _integers(ids):
            if not 0 <= index < self.vocabulary_size:
                raise UsageError(f"Expected ids in 0..{self.vocabulary_size - 1}. Received: {index}")
            if index == END:
                break
            if index not in (PAD, START):
                kept.append(index)
        return self._decode(kept)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the tokenizer as JSON, which `load` reads. Raises OSError when that fails, leaving what was there before."""
        text = json.dumps({"format": FORMAT, "kind": self.kind, **self._content()}, ensure_ascii=False)
        with replacing(path) as temporary:
            temporary.write_bytes(text.encode("utf-8", "backslashreplace") + b"\n")  # a lone surrogate becomes a JSON escape

    @abc.abstractmethod
    def _encode(self, text: str) -> list[int]:
        """The ids of a text."""

    @abc.abstractmethod
    def _decode(self, ids: list[int]) -> str:
        """The text of ids, all of them in the vocabulary and none of them PAD, START or END."""

    @abc.abstractmethod
    def _content(self) -> dict[str, Json]:
        """What `save` writes."""

    @classmethod
    @abc.abstractmethod
    def _from_content(cls, content: dict[str, Json]) -> Self:
        """The tokenizer that `save` wrote."""


def check_size(vocabulary_size: int | None) -> None:
    """Raises UsageError where no symbol fits beside the special ids."""
    if vocabulary_size is not None and vocabulary_size <= SPECIAL:
        raise UsageError(f"Expected vocabulary_size of at least {SPECIAL + 1}. Received: vocabulary_size={vocabulary_size}")


def check_text(text: str) -> str:
    """Returns the text. Raises UsageError unless it is a str."""
    if not isinstance(text, str):
        raise UsageError(f"Expected text to be a str. Received: {text!r:.40} of type {type(text).__name__}")
    return text


def check_texts(texts: Iterable[str], name: str = "texts") -> Iterator[str]:
    """Returns the texts one by one. Raises UsageError unless they are an iterable of str, and not one str."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise UsageError(f"Expected {name} to be a list of str. Received: {texts!r:.40} of type {type(texts).__name__}")
    return map(check_text, texts)


def _integers(ids):
    try:
        if not isinstance(ids, (str, bytes)):
            yield from map(operator.index, ids)
            return
    except TypeError:
        pass
    raise UsageError(f"Expected ids to be integers. Received: {ids!r:.40} of type {type(ids).__name__}")
