"""Tokenizers: text to ids and back. Ids 0 to 3 are the same in all of them: padding, start, end, unknown."""

import base64
import collections
import io
import itertools
import json
import re

from k3seq.data.files import replacing
from k3seq.errors import DataError, UsageError, require_extra

PAD, START, END, UNKNOWN = range(4)
_SPECIAL = 4
_FORMAT = "k3seq-tokenizer-1"


class Tokenizer:
    """What all kinds of tokenizers share. Each has `fit(texts, vocabulary_size=None)`, and `cut(text)`: its symbols as str."""

    kind: str
    vocabulary_size: int

    def encode(self, text, start=False, end=False):
        """The ids of `text`, a list of int; symbols not in the vocabulary become UNKNOWN.

        Args:
            text: str.
            start: put START before them.
            end: put END after them.
        """
        return [START] * start + self._encode(text) + [END] * end

    def decode(self, ids):
        """The text of `ids` (ints, or a 1-D integer array) up to the first END; PAD and START are left out.

        Raises:
            UsageError: an id before the first END is not in the vocabulary.
        """
        kept = []
        for index in map(int, ids):
            if not 0 <= index < self.vocabulary_size:
                raise UsageError(f"Expected ids in 0..{self.vocabulary_size - 1}. Received: {index}")
            if index == END:
                break
            if index not in (PAD, START):
                kept.append(index)
        return self._decode(kept)

    def save(self, path):
        """Writes the tokenizer as JSON, which `load` reads. Raises OSError when that fails, leaving what was there before."""
        text = json.dumps({"format": _FORMAT, "kind": self.kind, **self._content()}, ensure_ascii=False)
        with replacing(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    def _encode(self, text) -> list[int]:
        raise NotImplementedError

    def _decode(self, ids) -> str:
        raise NotImplementedError

    def _content(self) -> dict:
        raise NotImplementedError


class SymbolTokenizer(Tokenizer):
    """A tokenizer with a list of symbols; a kind says how text is cut into them and joined again.

    Args:
        symbols: what ids 4, 5, ... stand for.

    Raises:
        UsageError: a symbol is not a non-empty string, or stands twice.
    """

    unknown: str

    def __init__(self, symbols):
        self.symbols = list(symbols)
        if not all(isinstance(symbol, str) and symbol for symbol in self.symbols):
            raise UsageError("Expected symbols to be strings that are not empty. Received: others among them")
        self._ids = {symbol: index for index, symbol in enumerate(self.symbols, _SPECIAL)}
        if len(self._ids) < len(self.symbols):
            twice = collections.Counter(self.symbols).most_common(1)[0][0]
            raise UsageError(f"Expected every symbol once. Received: {twice!r} more than once")
        self.vocabulary_size = len(self.symbols) + _SPECIAL

    @classmethod
    def fit(cls, texts, vocabulary_size=None):
        """A tokenizer for `texts`: the most frequent symbols, by falling frequency and then by code points.

        Args:
            texts: iterable of str.
            vocabulary_size: the most ids to use, the four special ones included; None keeps every symbol.

        Raises:
            UsageError: vocabulary_size is below 5. DataError: the texts hold no symbol.
        """
        _check_size(vocabulary_size)
        counts = collections.Counter(symbol for text in texts for symbol in cls.cut(text))
        if not counts:
            raise DataError("Expected texts with at least one symbol. Received: none")
        ordered = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
        return cls(ordered if vocabulary_size is None else ordered[: vocabulary_size - _SPECIAL])

    @staticmethod
    def cut(text) -> list[str]:
        """The symbols of `text`, in order."""
        raise NotImplementedError

    @staticmethod
    def join(symbols) -> str:
        """The text of `symbols`."""
        raise NotImplementedError

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
        return self.join(self.unknown if index == UNKNOWN else self.symbols[index - _SPECIAL] for index in ids)


class CharTokenizer(SymbolTokenizer):
    """Every Unicode code point is a symbol. Decoding gives the text back; unknown symbols become U+FFFD."""

    kind, unknown = "char", "\ufffd"

    @staticmethod
    def cut(text):
        return list(text)

    @staticmethod
    def join(symbols):
        return "".join(symbols)


class SpaceTokenizer(SymbolTokenizer):
    """Symbols stand apart by white space (`AH B AW T`). Decoding puts one space between them."""

    kind, unknown = "space", "<unk>"

    @staticmethod
    def cut(text):
        return text.split()

    @staticmethod
    def join(symbols):
        return " ".join(symbols)


class WordTokenizer(SpaceTokenizer):
    """Runs of letters, digits and underscores are symbols, and so is every other character but white space.

    Decoding puts one space between all symbols: `It's.` comes back as `It ' s .`
    """

    kind = "word"

    @staticmethod
    def cut(text):
        return re.findall(r"\w+|[^\w\s]", text)


class SubwordTokenizer(Tokenizer):
    """Pieces of words by SentencePiece's unigram model (Kudo, arXiv 1804.10959). Decoding gives the text back.

    Args:
        model: the bytes of a SentencePiece model whose ids 0 to 3 are padding, start, end, unknown.

    Raises:
        UsageError: the bytes are not such a model.
    """

    kind = "subword"

    def __init__(self, model):
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
    def fit(cls, texts, vocabulary_size=None):
        """A tokenizer of at most `vocabulary_size` pieces (8000 if None), fewer where the texts do not give as many.

        Every character of the texts is a piece, so that none of them becomes unknown.

        Args:
            texts: iterable of str; it is read once and not kept in Python.
            vocabulary_size: the most ids to use, the four special ones included.

        Raises:
            UsageError: vocabulary_size is below 5, or too small for the characters. DataError: the texts hold no symbol.
        """
        with require_extra("data"):
            import sentencepiece

        _check_size(vocabulary_size)
        written = (text for text in texts if text.strip())
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
                max_sentence_length=1 << 20,
                num_threads=1,  # one order of summing, one model
                minloglevel=2,
                pad_id=PAD,
                bos_id=START,
                eos_id=END,
                unk_id=UNKNOWN,
            )
        except RuntimeError as error:
            reason = str(error).split("] ")[-1].strip()
            raise UsageError(
                f"Expected a vocabulary_size that fits the texts. Received: {vocabulary_size}: {reason}"
            ) from error
        return cls(model.getvalue())

    def cut(self, text) -> list[str]:
        """The pieces of `text`, in order."""
        return self._pieces.encode(text, out_type=str)

    def _encode(self, text):
        return self._pieces.encode(text)

    def _decode(self, ids):
        return self._pieces.decode(ids)

    def _content(self):
        return {"model": base64.b64encode(self.model).decode("ascii")}

    @classmethod
    def _from_content(cls, content):
        return cls(base64.b64decode(content["model"], validate=True))


KINDS = {cls.kind: cls for cls in (CharTokenizer, SpaceTokenizer, WordTokenizer, SubwordTokenizer)}


def of_kind(kind):
    """The class of tokenizers with that name. Raises UsageError, naming the choices, where there is none."""
    if kind not in KINDS:
        raise UsageError(f"Expected one of {', '.join(KINDS)}. Received: tokens={kind!r}")
    return KINDS[kind]


def _check_size(vocabulary_size):
    if vocabulary_size is not None and vocabulary_size <= _SPECIAL:
        raise UsageError(f"Expected vocabulary_size of at least {_SPECIAL + 1}. Received: vocabulary_size={vocabulary_size}")


def load(path):
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
    if not isinstance(content, dict) or content.get("format") != _FORMAT or content.get("kind") not in [*KINDS]:
        raise DataError(f"Expected format {_FORMAT} and a kind of {', '.join(KINDS)}. Received: another file", path)
    try:
        return KINDS[content["kind"]]._from_content(content)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"Expected a whole {content['kind']} tokenizer. Received: {str(error).strip()}", path) from error
