"""Settings of the attention-based alignment generator (SPEC 5)."""

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from kaleido_fast.kernels.plan_rules import GROUP
from kaleido_fast.settings import ALIGNMENT, CAPTIONER, AtLeast, Between, Decides, MultipleOf, OnDisk, Unit
from kaleido_fast.training.settings import MEASURED_STEPS, StepConfig

Mode = Literal["generated", "forced"]
# Words that name nothing to be seen. Words without a letter are stop words in any case.
STOP_WORDS = (
    "a", "all", "an", "and", "any", "are", "as", "at", "be", "by", "can", "comes", "designed", "each", "every", "everyone",
    "for", "from", "has", "have", "in", "into", "is", "it", "its", "kids", "made", "men", "of", "on", "one", "or", "our",
    "that", "the", "these", "this", "to", "too", "two", "unisex", "up", "with", "women", "you", "your",
)


@dataclass(frozen=True, slots=True)
class AlignSettings:
    """The captioner, its training, and how attention becomes masks."""

    captioner: Annotated[str, OnDisk(), "folder of a trained captioner; one is trained, in `run.out`, where it is empty"] = ""
    mode: Annotated[Mode, Decides(ALIGNMENT), "whose attention is read: of a caption that is "
                    "generated, or over the sample's own text"] = "generated"
    name: Annotated[str, "name of the alignment files; aag-MODE where it is empty"] = ""
    replace: Annotated[bool, "whether an alignment of that name may be made anew"] = False
    network: Annotated[Literal["small", "patch_encoder"], Decides(CAPTIONER), "what the captioner looks at a picture with: a "
                       "small network that is trained with it, or `model.patch_encoder`, frozen"] = "small"
    channels: Annotated[int, Between(2, 4096), Decides(CAPTIONER), "C, width of the small network"] = 64
    embedding: Annotated[int, Between(1, 2**16), Decides(CAPTIONER), "width of the captioner's word vectors"] = 64
    hidden: Annotated[int, Between(1, 2**16), Decides(CAPTIONER), "width of the captioner's LSTM"] = 128
    attention: Annotated[int, Between(1, 2**16), Decides(CAPTIONER), "width of the products that score a place"] = 32
    dropout: Annotated[float, Between(0, 0.99), Decides(CAPTIONER), "share of values dropped in the captioner's "
                       "training"] = 0.1
    place_dropout: Annotated[float, Between(0, 0.99), Decides(CAPTIONER), "share of places that a word cannot see in "
                             "training, so that attention spreads over all that say the same"] = 0.3
    coverage: Annotated[float, Between(0, 10**6), Decides(CAPTIONER), "weight of the doubly stochastic regulariser; 1 in the "
                        "paper sends words to the background"] = 0.01
    look_cost: Annotated[float, Between(0, 100), Unit("nats"), Decides(CAPTIONER), "what it costs a word to look"] = 0.05
    steps: Annotated[int, AtLeast(0), Unit("steps"), Decides(CAPTIONER), "length of the captioner's training; one of steps and "
                     "minutes is given where one is trained"] = 0
    minutes: Annotated[float, Between(0, 10**7), Unit("minutes"), Decides(CAPTIONER), "length of the captioner's training "
                       "on the clock, in place of steps"] = 0.0
    micro_batch: Annotated[int, Between(GROUP, 2**16), MultipleOf(GROUP), Unit("samples"), Decides(CAPTIONER), "samples that a "
                           "worker holds at once, in training and when texts are generated"] = 32
    learning_rate: Annotated[float, Between(0, 1), Decides(CAPTIONER), "highest learning rate of the captioner"] = 4e-3
    warmup_steps: Annotated[int, AtLeast(0), Unit("steps"), Decides(CAPTIONER), "steps in which the captioner's learning "
                            "rate rises"] = 50
    checkpoint_every: Annotated[int, AtLeast(1), Unit("steps"), "steps between two checkpoints of the captioner, from which "
                                "the same command goes on"] = 250
    beam: Annotated[int, Between(1, 1000), Decides(ALIGNMENT), "captions kept while one is generated"] = 3
    region_share: Annotated[float, Between(0, 1), Decides(ALIGNMENT), "share of a map's maximum from which on a pixel is in "
                            "its region"] = 0.45
    smoothing: Annotated[float, Between(0, 1), Decides(ALIGNMENT), "standard deviation of the Gaussian that widens a map, in "
                         "sides of the picture"] = 0.12
    covered_share: Annotated[float, Between(1e-6, 1), Decides(ALIGNMENT), "share of a patch that must lie in the region"] = 0.5
    most_covered: Annotated[float, Between(0, 1), Decides(ALIGNMENT), "share of the picture past which a region aligns "
                            "nothing"] = 0.5
    stop_words: Annotated[tuple[str, ...], Decides(ALIGNMENT), "words that name nothing to be seen"] = STOP_WORDS

    def check(self) -> None:
        """Refuse values that do not go together (ValueError, naming the keys)."""
        if self.steps and self.minutes:
            raise ValueError(f"give one of align.steps, align.minutes, found align.steps={self.steps} and align.minutes="
                             f"{self.minutes:g}; set the other to 0")
        if self.minutes and self.warmup_steps < MEASURED_STEPS:
            raise ValueError(f"align.minutes needs align.warmup_steps >= {MEASURED_STEPS}, found {self.warmup_steps}: the "
                             f"schedule is known only after {MEASURED_STEPS} steps")

    @property
    def alignment_name(self) -> str:
        return self.name or f"aag-{self.mode}"


class AlignConfig(StepConfig, Protocol):
    """The sections that the captioner and its alignments are made from."""

    @property
    def align(self) -> AlignSettings: ...
