"""Retrieval's row: image to text (ITR) and text to image (TIR), 1 in 101, by the pre-trained matching head (SPEC 9).

Of a model with contrast the same candidates are ranked by cosine and by both, too. `both` is what is shown first; where
matching ranks fewer queries (`eval.matching_queries`), the cosine is.
"""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from kaleido_fast.data.shards.split import Split
from kaleido_fast.tasks.candidates import Draw
from kaleido_fast.tasks.heldout import HeldOut, SplitRole
from kaleido_fast.tasks.measure import Examples, Measure, Measured, Numbers
from kaleido_fast.tasks.products import Products
from kaleido_fast.tasks.rankings import RANKINGS, Ranking, rank_candidates, shown_first
from kaleido_fast.tasks.report_parts import Answer, Card, Example, Heading, Picture, Section, Table, percent
from kaleido_fast.tasks.retrieval import Retrieval, draw_retrieval, photographs_of, retrieval_report, sum_of_recalls
from kaleido_fast.tasks.retrieval_examples import collect_examples
from kaleido_fast.tasks.settings import EvalSettings
from kaleido_fast.tasks.slices import candidates_of, check_slices, slice_parts, slice_values, sliced

TEMPERATURE = "itc_temperature"
SLICES = "slices"
DIRECTIONS = {"itr": "image to text (ITR)", "tir": "text to image (TIR)"}
TEXT_SHOWN = 180  # letters of a product's text


def _draws(products: Products, settings: EvalSettings) -> list[Draw]:
    return draw_retrieval(products, num_queries=settings.queries, num_draws=settings.draws, seed=settings.seed)


def _samples(role: SplitRole, products: Products, settings: EvalSettings) -> np.ndarray:
    """Photographs of all queries and candidates."""
    return photographs_of(products, _draws(products, settings) if role == "measured" else [])


def _measure(heldout: HeldOut) -> Measured:
    split, settings = heldout.split("measured"), heldout.settings
    check_slices(split.split, settings.slices)
    # Heads that the run's settings do not train say nothing.
    contrast = heldout.model.contrast if heldout.config.train.contrasts else None
    results = rank_candidates(split.products, _draws(split.products, settings), split.encoder, settings.batch_pairs,
                              contrast=contrast is not None, matching_queries=settings.matching_queries)
    numbers: dict[str, Any] = {} if contrast is None else {TEMPERATURE: 1 / contrast.scale().item()}
    for name, result in results.items():
        suffix, itr, tir = RANKINGS[name].suffix, retrieval_report(result.itr), retrieval_report(result.tir)
        numbers |= {f"itr{suffix}": itr, f"tir{suffix}": tir, f"sum_r{suffix}": sum_of_recalls(itr, tir)}
    shown = shown_first({name: len(result.itr[0].draw.queries) for name, result in results.items()})[-1]
    if settings.slices:
        values = slice_values(split.split, split.products, settings.slices, candidates_of(results[shown]))
        numbers[SLICES] = sliced(results[shown], values)
    examples, pictures = collect_examples(
        results[shown], split.products, split.split, lambda samples: split.batches(samples, photographs=True),
        settings.examples)
    if contrast is not None:
        examples = {direction: [example | {"ranking": shown} for example in some] for direction, some in examples.items()}
    return Measured(numbers, examples, pictures, _per_query(results, split.split))


def _per_query(results: Mapping[str, Retrieval], split: Split) -> list[dict[str, Any]]:
    """A line for each query, direction and draw: the rank of its right candidate by each ranking that ranked it."""
    ids, lines = split.products["id"], []
    for direction in DIRECTIONS:
        for draw, of_rankings in enumerate(zip(*(getattr(result, direction) for result in results.values()), strict=True)):
            ranks = {name: dict(zip(one.draw.queries.tolist(), one.ranks.tolist(), strict=True))
                     for name, one in zip(results, of_rankings, strict=True)}
            shown = max((one.draw for one in of_rankings), key=lambda one: len(one.queries))
            lines += [{"direction": direction, "draw": draw, "id": ids[query].decode(),
                       "candidates": int(shown.present[row].sum()),
                       "ranks": {name: of[query] for name, of in ranks.items() if query in of}}
                      for row, query in enumerate(shown.queries.tolist())]
    return lines


def _rankings(numbers: Numbers) -> list[Ranking]:
    """Those that an eval.json has, the one that is shown first at the end."""
    queries = {name: numbers[f"itr{one.suffix}"]["queries"] for name, one in RANKINGS.items() if f"itr{one.suffix}" in numbers}
    return [RANKINGS[name] for name in shown_first(queries)]


def _headline(numbers: Numbers) -> str:
    *others, shown = _rankings(numbers)
    itr = numbers["itr" + shown.suffix]
    recalls = ", ".join(
        f"{key.upper()} R@1 {percent(numbers[key + shown.suffix]['R@1'])} R@10 {percent(numbers[key + shown.suffix]['R@10'])}"
        for key in DIRECTIONS)
    if others:
        alone = ", ".join(f"{_of_how_many(ranking, numbers, itr)} "
                          f"{' / '.join(percent(numbers[key + ranking.suffix]['R@1']) for key in DIRECTIONS)}"
                          for ranking in others)
        recalls += f" by {shown.title}, R@1 by {alone}"
    return (f"{recalls} (1 in {itr['candidates']}, {itr['queries']} queries x {itr['draws']}; chance R@1 "
            f"{_chance('R@1', itr)} R@10 {_chance('R@10', itr)})")


def _cards(numbers: Numbers) -> list[Card]:
    *others, shown = _rankings(numbers)
    ranked_by = f"by {shown.title}; " if others else ""
    return [
        Card(f"R@1, {name}", percent(one["R@1"]),
             f"{ranked_by}R@10 {percent(one['R@10'])}; chance {_chance('R@1', one)}, 1 in {one['candidates']}")
        for one, name in ((numbers[key + shown.suffix], name) for key, name in DIRECTIONS.items())
    ]


def _section(numbers: Numbers) -> Section:
    rankings = _rankings(numbers)
    itr = numbers["itr" + rankings[-1].suffix]
    recalls = [name for name in itr if name.startswith("R@")]
    rows = [[name + (f", by {_of_how_many(ranking, numbers, itr)}" if len(rankings) > 1 else ""),
             *(_with_spread(numbers[key + ranking.suffix], recall) for recall in recalls)]
            for key, name in DIRECTIONS.items() for ranking in reversed(rankings)]
    rows.append(["chance", *(_chance(recall, itr) for recall in recalls)])
    protocol = (
        f"{itr['queries']} queries, each ranked among {itr['candidates']} candidates (the right one "
        "included): products, one photograph each, of the sub-category, then the category, then the split; "
        f"{itr['draws']} draw(s); "
        f"ties count against the model. {_ranked_by(numbers, rankings)}SumR (R@1, R@5 "
        f"and R@10 of both directions): {', '.join(_sum_r(numbers, one, rankings) for one in reversed(rankings))} of 600."
    )
    slices = numbers.get(SLICES, {})
    if slices and len(rankings) > 1:
        protocol += f" The slices are ranked by {rankings[-1].title}."
    return Section("Retrieval", protocol, [Table(["", *recalls], rows), *slice_parts(slices)])


def _of_how_many(ranking: Ranking, numbers: Numbers, shown: dict[str, Any]) -> str:
    """What it ranks by, and how many queries where they are fewer than those of what is shown first."""
    queries = numbers["itr" + ranking.suffix]["queries"]
    return ranking.title + ("" if queries == shown["queries"] else f" of {queries} queries")


def _ranked_by(numbers: Numbers, rankings: list[Ranking]) -> str:
    if len(rankings) == 1:
        return "Ranked by the image-text matching head. "
    return ("Ranked by the image-text matching head (ITM: the logit of a match over that of a mismatch), by the "
            "cosine of the embeddings of photograph and text, each alone (ITC), and by both (ITM + cosine / temperature, "
            f"{numbers[TEMPERATURE]:.3f}). ")


def _sum_r(numbers: Numbers, ranking: Ranking, rankings: list[Ranking]) -> str:
    ranked_by = f" by {ranking.title}" if len(rankings) > 1 else ""
    return f"{numbers['sum_r' + ranking.suffix]:.1f}{ranked_by}"


def _with_spread(direction: dict[str, Any], recall: str) -> str:
    spread = direction.get("spread")
    return percent(direction[recall]) + (f" ± {100 * spread[recall]:.1f}" if spread else "")


def _chance(recall: str, direction: dict[str, Any]) -> str:
    """Recall at k, "R@k", of a score that knows nothing."""
    return percent(min(int(recall.removeprefix("R@")) / direction["candidates"], 1.0))


def _examples(examples: Examples) -> Section | None:
    """The gallery: a query of each kind, its best candidates, and where the right one came."""
    if not any(examples.get(key) for key in DIRECTIONS):
        return None
    pictures = {key: base64.b64decode(data) for key, data in examples["pictures"].items()}

    def photograph(product: dict[str, Any]) -> Picture:
        return Picture(pictures[product["picture"]], "jpeg", f"product {product['id']}")

    first = next(example for key in DIRECTIONS for example in examples[key])
    scores = f"scores by {RANKINGS[first['ranking']].title}" if "ranking" in first else "scores"
    note = (f"The first queries of the first draw, unpicked. The right answer is green, words that it does not have are red; "
            f"numbers are {scores}.")
    return Section("What it finds", note, [
        Heading("A text is given, photographs are found"),
        *(_example(example, _text, photograph) for example in examples["tir"]),
        Heading("A photograph is given, texts are found"),
        *(_example(example, photograph, _text) for example in examples["itr"]),
    ])


def _example(example: dict[str, Any], given: Any, answer: Any) -> Example:
    """`given` and `answer` make of a product what is shown of it: its photograph, or its text."""
    return Example(
        given(example["query"]), f"right answer at rank {example['rank']} of {example['candidates']}",
        [Answer(answer(product), product["right"], product["score"], product.get("rank")) for product in example["top"]])


def _text(product: dict[str, Any]) -> str:
    text = " ".join(product["text"].split())
    return text if len(text) <= TEXT_SHOWN else f"{text[: TEXT_SHOWN - 2].rstrip()} …"  # many scripts have no spaces


RETRIEVAL = Measure(
    keys=("itr", "tir", "sum_r"), measure=_measure, headline=_headline, section=_section, samples=_samples, cards=_cards,
    examples=_examples,
    further=(TEMPERATURE, SLICES, *(f"{key}{ranking.suffix}" for ranking in RANKINGS.values() if ranking.suffix
                            for key in (*DIRECTIONS, "sum_r"))))
