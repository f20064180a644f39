"""Full-set retrieval's row: every product of the split is a candidate (SPEC 11). Measured where `eval.full_set` asks for it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kaleido_fast.tasks.candidates import draw_queries
from kaleido_fast.tasks.full_set.ranks import FullSetRanks, full_set_ranks
from kaleido_fast.tasks.heldout import HeldOut, SplitRole
from kaleido_fast.tasks.measure import Measure, Measured, Numbers
from kaleido_fast.tasks.metrics import mean_reciprocal_rank, recall_at
from kaleido_fast.tasks.products import Products
from kaleido_fast.tasks.rankings import RANKINGS
from kaleido_fast.tasks.report_parts import Card, Section, Table, percent
from kaleido_fast.tasks.settings import EvalSettings

RECALLS = (1, 5, 10)
DIRECTIONS = {"itr": "image to text", "tir": "text to image"}


def _drawn(products: Products, settings: EvalSettings) -> tuple[np.ndarray, np.ndarray]:
    """Photographs and queries, those of retrieval's first draw where as many are asked."""
    random = np.random.Generator(np.random.PCG64([settings.seed, 0]))
    return draw_queries(random, products.num_photos, settings.full_set_queries or len(products))


def _samples(role: SplitRole, products: Products, settings: EvalSettings) -> np.ndarray:
    """One photograph of each product."""
    if role != "measured":
        return np.empty(0, np.int64)
    return products.samples(np.arange(len(products)), _drawn(products, settings)[0])


def _measure(heldout: HeldOut) -> Measured:
    """Raises ValueError where no two products have different texts."""
    split, settings = heldout.split("measured"), heldout.settings
    products, ids = split.products, split.split.products["id"]
    if len(products.first_of_text) < 2:
        raise ValueError(f"{split.split.folder}: eval.full_set needs two products with different texts, split "
                         f"'{split.split.name}' has {len(products)} products of one text; prepare a larger catalogue")
    photos, queries = _drawn(products, settings)
    contrast = heldout.model.contrast is not None and heldout.config.train.contrasts
    result = full_set_ranks(products, photos, queries, split.encoder, rerank=settings.rerank,
                            batch_pairs=settings.batch_pairs, contrast=contrast)
    numbers = full_set_report(result, len(products), settings.rerank if contrast else 0)
    return Measured({"full_set": numbers}, per_sample=[
        {"direction": side, "id": ids[query].decode(), "candidates": int(result.candidates[row]),
         "ranks": {name: int(of_ranking[side][row]) for name, of_ranking in result.ranks.items()}}
        for side in DIRECTIONS for row, query in enumerate(queries.tolist())])


def full_set_report(result: FullSetRanks, num_products: int, rerank: int) -> dict[str, Any]:
    """eval.json's entry: figures by ranking, the one that is shown last, and what was compared."""
    rankings: dict[str, Any] = {}
    for name, of_ranking in result.ranks.items():
        sides = {side: {f"R@{k}": recall_at(ranks, k) for k in RECALLS} | {"MRR": mean_reciprocal_rank(ranks)}
                 for side, ranks in of_ranking.items()}
        recalls = [sides[side][f"R@{k}"] for side in DIRECTIONS for k in RECALLS]
        rankings[name] = sides | {"mean_recall": float(np.mean(recalls))}
    return {
        "rankings": rankings, "queries": len(result.queries), "products": num_products,
        "candidates": int(result.candidates.min()), "left_out": int((num_products - result.candidates).sum()),
        "rerank": rerank, "pairs": result.pairs, "pairs_per_s": result.pairs / result.seconds if result.pairs else None,
    }


def _shown(numbers: Numbers) -> tuple[str, Mapping[str, Any]]:
    """Title and figures of the ranking that is shown first."""
    name, figures = list(numbers["full_set"]["rankings"].items())[-1]
    return RANKINGS[name].title, figures


def _headline(numbers: Numbers) -> str:
    title, figures = _shown(numbers)
    recalls = ", ".join(f"{side.upper()} R@1 {percent(figures[side]['R@1'])} R@10 {percent(figures[side]['R@10'])}"
                        for side in DIRECTIONS)
    return (f"full set {recalls}, mean of six recalls {percent(figures['mean_recall'])} by {title} (1 in "
            f"{numbers['full_set']['products']:,}, {numbers['full_set']['queries']:,} queries)")


def _cards(numbers: Numbers) -> list[Card]:
    title, figures = _shown(numbers)
    return [Card("mean of six recalls, full set", percent(figures["mean_recall"]),
                 f"by {title}; R@1, R@5, R@10 both ways among all {numbers['full_set']['products']:,} products")]


def _section(numbers: Numbers) -> Section:
    full = numbers["full_set"]
    rows = [[f"{way}, by {RANKINGS[name].title}", *(percent(figures[side][f"R@{k}"]) for k in RECALLS),
             f"{figures[side]['MRR']:.3f}", percent(figures["mean_recall"])]
            for side, way in DIRECTIONS.items() for name, figures in reversed(full["rankings"].items())]
    rows.append(["chance", *(percent(min(k / full["candidates"], 1.0)) for k in RECALLS), "", ""])
    again = (f" The first {full['rerank']:,} by cosine are ranked again by matching and cosine; below, the order by cosine "
             "stays.") if full["rerank"] else ""
    rate = f" {full['pairs']:,} pairs were scored by matching, {full['pairs_per_s']:,.0f} a second." if full["pairs"] else ""
    note = (f"{full['queries']:,} queries, each ranked among all {full['products']:,} products of the split, one photograph "
            f"each; those with the query's own text are left out ({full['left_out']:,} in all). Ties count against the model."
            f"{again}{rate}")
    return Section("Full-set retrieval", note, [
        Table(["", *(f"R@{k}" for k in RECALLS), "MRR", "mean of the six recalls"], rows)])


FULL_SET = Measure(
    keys=("full_set",), measure=_measure, headline=_headline, section=_section, samples=_samples, cards=_cards,
    asked=lambda settings: settings.full_set)
