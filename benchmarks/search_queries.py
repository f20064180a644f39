"""Fifty queries in a shopper's words against the test split of Fashion Product Images, judged by the catalogue's columns.

    kaleido-fast index MODEL --shards shards/ --splits test --out index/
    python benchmarks/search_queries.py --index index/ --catalog fashion-catalog/styles.csv

writes benchmarks/results/search-queries.json. search_queries.jsonl holds a query a line. Each began with the picture of a
product that was drawn at random (colour, kind, and for whom where the picture shows it); its wording was finished after the
pictured product's articleType, baseColour and gender had been seen, so it is no blind guess at them. Titles, the texts that
are searched, were not looked at. `columns` says what the words ask for: the values of articleType, baseColour and gender that
fit them. A product is right where all of them hold, or where it is the
pictured one, which the catalogue may have put under another colour. Counted are queries with a right product among the first k;
beside it what products in a random order would reach, and queries that find the very product.
"""

import argparse
import csv
import json
import math
from pathlib import Path
from typing import Any

from kaleido_fast.bench.environment import describe_environment
from kaleido_fast.files import replace_text
from kaleido_fast.search.index import KaleidoIndex
from kaleido_fast.search.result import AGAINST

HERE = Path(__file__).resolve().parent
QUERIES, RESULTS = HERE / "search_queries.jsonl", HERE / "results" / "search-queries.json"


def judge(index: KaleidoIndex, rows: dict[str, dict[str, str]], queries: list[dict[str, Any]], k: int, **how: Any) -> dict:
    """What the queries find.

    Args:
        rows: the catalogue's columns by product id, of all products of the index.
        how: as `KaleidoIndex.search` takes it.
    """
    judged = []
    for query in queries:
        right = {name for name, row in rows.items()
                 if name == query["pictured"] or all(row[column] in values for column, values in query["columns"].items())}
        hits = [hit.id for hit in index.search(query["query"], k=len(index), **how)]
        places = [place for place, name in enumerate(hits, 1) if name in right]
        judged.append({
            "query": query["query"], "right": len(right), "first_right": places[0],
            "right_among_first": sum(place <= k for place in places), "pictured_at": hits.index(query["pictured"]) + 1,
            "by_chance": chance(len(rows), len(right), k)})
    count = len(judged)
    return {
        "share": sum(one["first_right"] <= k for one in judged) / count,
        "by_chance": sum(one["by_chance"] for one in judged) / count,
        "precision": sum(one["right_among_first"] for one in judged) / (k * count),
        "pictured": sum(one["pictured_at"] <= k for one in judged) / count, "queries": judged}


def chance(products: int, right: int, k: int) -> float:
    """That one of `right` products stands among the first k of a random order."""
    return 1 - math.comb(products - right, k) / math.comb(products, k)


def columns_of(index: KaleidoIndex, catalogue: Path) -> dict[str, dict[str, str]]:
    """The catalogue's row of each product of the index, by id.

    Raises:
        ValueError: a product that the catalogue does not have.
    """
    with catalogue.open(encoding="utf-8", newline="") as stream:
        rows = {row["id"]: row for row in csv.DictReader(stream)}
    ids = [name.decode() for name in index.table["id"].tolist()]
    missing = [name for name in ids if name not in rows]
    if missing:
        raise ValueError(f"{catalogue}: no row of product {missing[0]} of the index; give the catalogue that it was made of")
    return {name: rows[name] for name in ids}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--catalog", type=Path, required=True)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--rerank", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    index = KaleidoIndex.open(options.index)
    rows = columns_of(index, options.catalog)
    queries = [json.loads(line) for line in QUERIES.read_text(encoding="utf-8").splitlines()]
    if unknown := [query["pictured"] for query in queries if query["pictured"] not in rows]:
        raise SystemExit(f"{options.index}: no product {unknown[0]}; index the test split of the catalogue")
    results = {against: judge(index, rows, queries, options.k, against=against, rerank=options.rerank) for against in AGAINST}
    for against, result in results.items():
        print(f"against {against}: right among the first {options.k} of {len(index):,} for {result['share']:.0%} of "
              f"{len(queries)} queries (random order {result['by_chance']:.0%}); right products among them "
              f"{result['precision']:.0%}; the pictured product itself {result['pictured']:.0%}")
    figures = describe_environment(index.encoder.device) | {
        "model": index.header.model, "products": len(index), "k": options.k, "rerank": options.rerank, "against": results}
    replace_text(options.out, json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
