"""Settings of captions (SPEC 11); what decoding needs of them is kept with the weights."""

from dataclasses import dataclass
from typing import Annotated, Literal

from kaleido_fast.settings import Between, MayChange, Unit

Objective = Literal["masked", "next"]
Style = Literal["by_word", "at_once"]


@dataclass(frozen=True, slots=True)
class CaptionSettings:
    """How captions are learned and written."""

    objective: Annotated[Objective, "what training predicts; `masked`: masked words from the words before them; `next`: each "
                         "word from those before it"] = "masked"
    masked: Annotated[float, Between(0, 1), "share of a text's words and its [SEP] that are masked"] = 0.7
    label_smoothing: Annotated[float, Between(0, 0.99), "share of the target that is spread over the whole "
                               "vocabulary"] = 0.1
    beam: Annotated[int, Between(1, 64), MayChange(), "captions of a photograph that are kept while one is written; 1: the "
                    "likeliest word each time"] = 3
    length_penalty: Annotated[float, Between(0, 4), MayChange(), "power of the length, [SEP] counted, by which a caption's log "
                              "probability is divided"] = 0.6
    max_tokens: Annotated[int, Between(1, 510), MayChange(), Unit("tokens"), "most word pieces of a caption"] = 40
    style: Annotated[Style, MayChange(), "`by_word`: a word at a time; `at_once`: all words in one pass, as the authors "
                     "have it, for comparison"] = "by_word"
