"""Texts of word pieces."""

from collections.abc import Iterable, Sequence

CONTINUES = "##"  # what a piece begins with that goes on with the word before


def as_text(ids: Iterable[int], words: Sequence[str]) -> str:
    """The words that pieces make, a blank between.

    Args:
        words: the vocabulary's, by id.
    """
    text = ""
    for number in ids:
        piece = words[number]
        text += piece.removeprefix(CONTINUES) if piece.startswith(CONTINUES) else f" {piece}"
    return text.strip()
