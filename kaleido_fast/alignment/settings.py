"""Settings of the attention-based alignment generator (SPEC 5)."""

from dataclasses import dataclass
from typing import Literal, Protocol

from kaleido_fast.training.settings import StepConfig

# Words that name nothing to be seen. Words without a letter are stop words in any case.
STOP_WORDS = (
    "a", "all", "an", "and", "any", "are", "as", "at", "be", "by", "can", "comes", "designed", "each", "every", "everyone",
    "for", "from", "has", "have", "in", "into", "is", "it", "its", "kids", "made", "men", "of", "on", "one", "or", "our",
    "that", "the", "these", "this", "to", "too", "two", "unisex", "up", "with", "women", "you", "your",
)


@dataclass(frozen=True, slots=True)
class AlignSettings:
    """The captioner, its training, and how attention becomes masks."""

    captioner: str = ""  # folder of a trained captioner; without it one is trained, in run.out
    mode: Literal["generated", "forced"] = "generated"  # attention of a generated caption, or over the sample's own text
    name: str = ""  # of the alignment files; aag-MODE without it
    replace: bool = False  # whether an alignment of that name may be made anew
    network: Literal["small", "patch_encoder"] = "small"  # trained with the captioner, or model.patch_encoder's, frozen
    channels: int = 64  # C of the small network
    embedding: int = 64  # of a word
    hidden: int = 128  # of the LSTM
    attention: int = 32  # width of the products that score a place
    dropout: float = 0.1
    place_dropout: float = 0.3  # places that a word cannot see, in training: attention spreads over all that say the same
    coverage: float = 0.01  # weight of the doubly stochastic regulariser; 1 in the paper sends words to the background
    look_cost: float = 0.05  # of a word that looks, in nats
    steps: int = 0  # exactly one of steps and minutes is positive where a captioner is trained
    minutes: float = 0.0
    micro_batch: int = 32  # samples a worker holds at once in training, a multiple of 16; and a batch of generation
    learning_rate: float = 4e-3
    warmup_steps: int = 50
    checkpoint_every: int = 250  # steps of the captioner's training, from which the same command goes on
    beam: int = 3
    region_share: float = 0.45  # of a map's maximum: from there on a pixel is in its region
    smoothing: float = 0.12  # sigma of the Gaussian over a map, in sides of the square
    covered_share: float = 0.5  # of a patch that must lie in the region
    most_covered: float = 0.5  # of the square: a region of more aligns nothing
    stop_words: tuple[str, ...] = STOP_WORDS

    @property
    def alignment_name(self) -> str:
        return self.name or f"aag-{self.mode}"


class AlignConfig(StepConfig, Protocol):
    """The sections that the captioner and its alignments are made from."""

    @property
    def align(self) -> AlignSettings: ...
