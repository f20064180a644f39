"""BLEU-4, ROUGE-L and CIDEr of captions, each with one reference (SPEC 11). The one door to pycocoevalcap.

METEOR and the PTB tokenizer run on Java; without it words are split plainly and METEOR is absent.
"""

import contextlib
import importlib.util
import os
import re
import shutil
from collections.abc import Sequence
from typing import Any

PLAIN = re.compile(r"[^\W_]+")


def require_scores() -> None:
    """Refuse without the package (ValueError says how to install it)."""
    if importlib.util.find_spec("pycocoevalcap") is None:
        raise ValueError("captions are scored by the package pycocoevalcap, which is not installed; "
                         "`pip install -e '.[captioning]'`")


def caption_scores(captions: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """Scores as fractions (CIDEr by its own scale), and what split the words.

    Args:
        captions: at least one; references: one of each, none empty.
    Raises:
        ValueError: the package is not installed.
    """
    require_scores()
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    java = shutil.which("java") is not None
    answered, right = (_split(texts, java) for texts in (captions, references))
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # it prints its own progress
        bleu = Bleu(4).compute_score(right, answered, verbose=0)[0][3]
        rouge, cider = (float(scorer().compute_score(right, answered)[0]) for scorer in (Rouge, Cider))
        scores = {"bleu_4": float(bleu), "rouge_l": rouge, "cider": cider}
        if java:
            from pycocoevalcap.meteor.meteor import Meteor

            scores["meteor"] = float(Meteor().compute_score(right, answered)[0])
    return scores | {"tokenizer": "PTB" if java else "plain (letters and digits; no Java, so no METEOR)"}


def _split(texts: Sequence[str], java: bool) -> dict[int, list[str]]:
    if java:
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

        given = {number: [{"caption": text}] for number, text in enumerate(texts)}
        split: dict[int, list[str]] = PTBTokenizer().tokenize(given)
        return split
    return {number: [" ".join(PLAIN.findall(text.lower()))] for number, text in enumerate(texts)}
