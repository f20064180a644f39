"""Words of word pieces."""

from kaleido_fast.alignment.text_words import Word, names_something, words_of

VOCABULARY = ["[PAD]", "[UNK]", "t", "-", "shirt", "##s", "sleev", "##e", "red", "2"]


def test_pieces_are_joined() -> None:
    assert words_of([8, 6, 7, 5, 2, 3, 4], VOCABULARY) == [
        Word("red", 0, 1), Word("sleeves", 1, 4), Word("t", 4, 5), Word("-", 5, 6), Word("shirt", 6, 7)]
    assert words_of([], VOCABULARY) == []


def test_a_piece_without_a_beginning_is_a_word() -> None:
    assert words_of([5, 7, 8], VOCABULARY) == [Word("##se", 0, 2), Word("red", 2, 3)]


def test_what_names_something() -> None:
    assert names_something("red", ("with",)) and names_something("3xl", ())
    assert not any(names_something(word, ("with",)) for word in ("with", "-", "2", "[UNK]", "."))
