"""WordPiece, lower-cased, through the `tokenizers` library (SPEC 4); training that gives the same vocabulary each time.

Accents go, as BERT has it. In scripts other than Latin, Greek and Cyrillic they are no accents but part of the letter (Thai,
Japanese, Hindi): a vocabulary that is trained on such texts keeps them, and tells by its words that it does.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Encoding, Regex, Tokenizer as Engine
from tokenizers.models import WordPiece
from tokenizers.normalizers import NFC, NFD, BertNormalizer, Normalizer, Replace, Sequence as Normalizers
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordPieceTrainer

from kaleido_fast.data.shards.manifest import ROWS_MULTIPLE, Vocabulary

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NO_WORD = "[id {}]"  # a line of a vocabulary of ids alone
ACCENTS = r"(?<=[\p{Latin}\p{Greek}\p{Cyrillic}])\p{Mn}+"  # in NFD


class Tokenizer:
    """Token ids of a text, without special ones."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.ids_alone = bool(self.words) and self.words[-1] == NO_WORD.format(len(self.words) - 1)
        ids = {word: index for index, word in enumerate(self.words)}
        self._engine = _engine(ids, _keeps_marks(self.words))

    @classmethod
    def from_vocab(cls, path: Path) -> "Tokenizer":
        """Read a vocab.txt, one word a line.

        Raises:
            ValueError: the file cannot be read, repeats a word or lacks a special token.
        """
        try:
            words = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # other line ends are letters here
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: cannot be read as a vocabulary: {error}") from None
        check_words(words, str(path))
        return cls(words)

    def encode(self, text: str) -> list[int]:
        """Ids of all tokens, not cut."""
        return self._encoded(text).ids

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and each token's half-open character range in `text`."""
        encoded = self._encoded(text)
        return encoded.ids, encoded.offsets

    def _encoded(self, text: str) -> Encoding:
        if self.ids_alone:
            raise ValueError("vocab.txt holds ids without their words (feature files were prepared without a vocabulary), so "
                             "no text can be tokenised; put the vocab.txt that the files were made with in its place")
        return self._engine.encode(text)

    def write_json(self, file: Path) -> None:
        """The tokenizer with [CLS] and [SEP] around a text, for programs that read the library's own format."""
        engine = Engine.from_str(self._engine.to_str())
        ends = [(word, self.words.index(word)) for word in ("[CLS]", "[SEP]")]
        engine.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
        engine.save(str(file))

    def vocabulary(self) -> Vocabulary:
        """What readers of the vocabulary need to know."""
        ids = {word: index for index, word in enumerate(self.words)}
        first, last = ordinary_range(self.words)
        size = len(self.words)
        return Vocabulary(
            size=size, padded_size=-(-size // ROWS_MULTIPLE) * ROWS_MULTIPLE,
            pad_id=ids["[PAD]"], unk_id=ids["[UNK]"], cls_id=ids["[CLS]"], sep_id=ids["[SEP]"], mask_id=ids["[MASK]"],
            ordinary_first=first, ordinary_last=last, fingerprint=hashlib.sha256(self.text().encode()).hexdigest(),
        )

    def text(self) -> str:
        """The vocabulary as vocab.txt holds it."""
        return "".join(word + "\n" for word in self.words)


def check_words(words: Sequence[str], where: str) -> None:
    """Refuse a vocabulary without the special tokens, with a word twice, or with ordinary ids in several pieces."""
    missing = [token for token in SPECIAL if token not in words]
    if missing:
        raise ValueError(f"{where}: not a BERT vocabulary, {', '.join(missing)} missing")
    if len(set(words)) != len(words):
        twice = sorted({word for word in words if list(words).count(word) > 1})[:3] if len(words) < 10_000 else "some"
        raise ValueError(f"{where}: words occur twice ({twice}); each line must be a different word")
    ordinary_range(words)


def ordinary_range(words: Sequence[str]) -> tuple[int, int]:
    """First and last id of the ordinary words: all but the special ones and [unused*] (SPEC 4).

    Raises:
        ValueError: there are none, or they do not lie together.
    """
    ordinary = [i for i, word in enumerate(words) if word not in SPECIAL and not word.startswith("[unused")]
    if not ordinary or ordinary[-1] - ordinary[0] + 1 != len(ordinary):
        raise ValueError("vocabulary: its ordinary words must lie together, without special or [unused*] words between; "
                         "move those to the front")
    return ordinary[0], ordinary[-1]


def bert_ids() -> list[str]:
    """BERT's uncased numbering, 30,522 ids, where the words themselves are not known."""
    words = [NO_WORD.format(index) for index in range(30522)]
    unused = (index for index in range(999) if index and not 100 <= index <= 103)
    for number, index in enumerate(unused):
        words[index] = f"[unused{number}]"
    words[0], words[100:104] = "[PAD]", ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return words


def train_vocabulary(texts: Iterable[str], size: int) -> list[str]:
    """A WordPiece vocabulary of at most `size` words, the same for the same texts in any order.

    The library numbers the letters in hash order, which decides ties between merges; given as first tokens they have
    fixed numbers.
    """
    texts = list(texts)
    keeping = _normalizer(keeps_marks=True)
    engine = _engine({}, keeps_marks=any(_has_mark(keeping.normalize_str(text)) for text in texts if not text.isascii()))
    letters, inner = _letters(engine, texts)
    first = list(SPECIAL) + sorted(letters) + [f"##{letter}" for letter in sorted(inner)]
    trainer = WordPieceTrainer(
        vocab_size=max(size, len(first)), special_tokens=first, limit_alphabet=len(letters) + len(inner) + 1000,
        continuing_subword_prefix="##", show_progress=False,
    )
    engine.train_from_iterator(texts, trainer)
    ids = engine.get_vocab()
    return sorted(ids, key=ids.__getitem__)


def _engine(ids: dict[str, int], keeps_marks: bool) -> Engine:
    engine = Engine(WordPiece(ids, unk_token="[UNK]", continuing_subword_prefix="##"))
    engine.normalizer = _normalizer(keeps_marks)
    engine.pre_tokenizer = BertPreTokenizer()
    return engine


def _normalizer(keeps_marks: bool) -> Normalizer:
    if not keeps_marks:
        return BertNormalizer(lowercase=True)
    return Normalizers([BertNormalizer(lowercase=True, strip_accents=False), NFD(), Replace(Regex(ACCENTS), ""), NFC()])


def _keeps_marks(words: Sequence[str]) -> bool:
    """Whether a vocabulary was trained here (a BERT's begins otherwise) on texts whose marks were kept."""
    return tuple(words[: len(SPECIAL)]) == SPECIAL and any(_has_mark(word) for word in words if not word.isascii())


def _has_mark(text: str) -> bool:
    return any(unicodedata.category(letter) == "Mn" for letter in unicodedata.normalize("NFD", text))


def _letters(engine: Engine, texts: Iterable[str]) -> tuple[set[str], set[str]]:
    """Letters that occur, and those that occur inside a word."""
    letters: set[str] = set()
    inner: set[str] = set()
    for text in texts:
        for word, _ in engine.pre_tokenizer.pre_tokenize_str(engine.normalizer.normalize_str(text)):
            letters.update(word)
            inner.update(word[1:])
    return letters, inner
