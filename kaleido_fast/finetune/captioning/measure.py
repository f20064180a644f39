"""Captions of a split's products, beside their texts, and their scores (SPEC 11). A product is shown by its first photograph;
one without a text has no reference and is counted."""

import base64
import dataclasses
from typing import Any

import numpy as np

from kaleido_fast.data.shards.tokenizer import Tokenizer
from kaleido_fast.finetune.captioning.scores import caption_scores, require_scores
from kaleido_fast.finetune.captioning.text import as_text
from kaleido_fast.model.captioning.captions import CaptionWords, check_length, write_captions
from kaleido_fast.model.captioning.settings import CaptionSettings
from kaleido_fast.tasks.heldout import HeldOut
from kaleido_fast.tasks.measure import Examples, Measure, Measured, Numbers
from kaleido_fast.tasks.report_parts import Answer, Card, Example, Picture, Section, Table
from kaleido_fast.tasks.retrieval_examples import jpeg_pictures

KEY, SHOWN = "captioning", "captioning_examples"
NAMES = {"bleu_4": "BLEU-4", "meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr"}


def _measure(heldout: HeldOut) -> Measured:
    require_scores()
    split, model = heldout.split("measured"), heldout.model
    assert model.finetuned is not None
    kept = model.finetuned.settings
    settings, words = _decoding(heldout, CaptionSettings(**kept["caption"])), CaptionWords(**kept["words"])
    check_length(model, settings)
    vocabulary = Tokenizer.from_vocab(split.split.vocabulary_file).words
    samples, captions = split.products.first_sample, []
    order = np.argsort(samples, kind="stable")
    for batch in split.batches(samples[order]):
        count = int((batch.host.samples >= 0).sum())
        features = batch.clean_features(model, model.kaleido.grids, count)
        captions += write_captions(model, features, words, settings)
    answered = [""] * len(samples)
    for row, ids in zip(order.tolist(), captions, strict=True):
        answered[row] = as_text(ids, vocabulary)
    rows = split.split.rows(samples)
    references = [as_text(row["tokens"][: row["num_tokens"]].tolist(), vocabulary) for row in rows]
    lines = [{"id": split.split.products["id"][row].decode(), "caption": answered[row], "reference": references[row]}
             for row in range(len(samples))]
    scored = [line for line in lines if line["reference"]]
    if not scored:
        raise ValueError(f"captioning: no product of split '{split.split.name}' has a text to hold its caption against; give "
                         "eval.split=NAME with another one")
    scores = caption_scores([line["caption"] for line in scored], [line["reference"] for line in scored])
    numbers: dict[str, Any] = {KEY: scores | {
        "products": len(lines), "without_text": len(lines) - len(scored), "different": len(set(answered)),
        "settings": dataclasses.asdict(settings)}}
    shown = np.linspace(0, len(lines) - 1, min(heldout.settings.examples, len(lines))).astype(int)
    pictures = jpeg_pictures(split.batches(np.sort(samples[shown]), photographs=True))
    examples = [lines[row] | {"picture": str(int(samples[row]))} for row in shown.tolist()]
    return Measured(numbers, {SHOWN: examples}, pictures, lines)


def _decoding(heldout: HeldOut, trained: CaptionSettings) -> CaptionSettings:
    """How captions are written: as the evaluation's config has it, no longer than the trained texts.

    Raises:
        ValueError: another objective than the training's, or a precision that decoding does not have.
    """
    asked, longest = heldout.config.caption, heldout.config.data.max_tokens - 2
    if asked.objective != trained.objective:
        raise ValueError(f"caption.objective={asked.objective}: the captioner was trained with {trained.objective}; leave "
                         "caption.objective out")
    if heldout.settings.precision != "fp32":
        raise ValueError(f"eval.precision={heldout.settings.precision}: captions are written in fp32; give eval.precision=fp32")
    if asked.max_tokens > longest:
        print(f"caption.max_tokens={asked.max_tokens}: captions end at {longest} word pieces, as texts were trained with "
              f"data.max_tokens={longest + 2}; give caption.max_tokens={longest} or less")
        asked = dataclasses.replace(asked, max_tokens=longest)
    return dataclasses.replace(asked, masked=trained.masked, label_smoothing=trained.label_smoothing)


def _headline(numbers: Numbers) -> str:
    of = numbers[KEY]
    return f"captions of {of['products']:,} products: " + ", ".join(
        f"{name} {100 * of[key]:.1f}" for key, name in NAMES.items() if key in of)


def _cards(numbers: Numbers) -> list[Card]:
    of = numbers[KEY]
    return [Card(name, f"{100 * of[key]:.1f}", "x 100; one reference a product") for key, name in NAMES.items() if key in of]


def _section(numbers: Numbers) -> Section:
    of = numbers[KEY]
    settings = of["settings"]
    note = (f"Captions of {of['products']:,} products of split {numbers['split']} from their first photographs, beam "
            f"{settings['beam']}, at most {settings['max_tokens']} word pieces, against the whole text of the shards; words "
            f"split by: {of['tokenizer']}. {of['different']:,} captions differ.")
    if of["without_text"]:
        note += f" {of['without_text']:,} products have no text and are not scored."
    rows = [[name, f"{100 * of[key]:.1f}"] for key, name in NAMES.items() if key in of]
    return Section("Captions", note, [Table(["score", "x 100"], rows)])


def _examples(examples: Examples) -> Section | None:
    parts = []
    for line in examples.get(SHOWN) or ():
        picture = Picture(base64.b64decode(examples["pictures"][line["picture"]]), "jpeg", f"product {line['id']}")
        parts.append(Example(picture, f"its text: {line['reference'] or 'none'}",
                             [Answer(line["caption"] or "(no word)", line["caption"] == line["reference"])]))
    return Section("Captions beside references", "Products spread evenly over the split.", parts) if parts else None


CAPTIONS = Measure(keys=(KEY,), measure=_measure, headline=_headline, section=_section, cards=_cards, examples=_examples)
