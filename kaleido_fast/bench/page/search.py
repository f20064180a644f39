"""Sections of bench.md about search."""

import json
from pathlib import Path

from kaleido_fast.bench.page.words import MISSING


def queries_text(path: Path) -> str:
    """What benchmarks/search_queries.py judged."""
    if not path.exists():
        return f"{MISSING} `python benchmarks/search_queries.py` judges an index of a real catalogue; it needs no GPU."
    figures = json.loads(path.read_text(encoding="utf-8"))
    k = figures["k"]
    lines = [f"| compared with | right among the first {k} | in random order | right ones among them | the pictured one |",
             "| --- | --- | --- | --- | --- |"]
    for against, result in figures["against"].items():
        lines.append(f"| {against} | {result['share']:.0%} | {result['by_chance']:.0%} | {result['precision']:.0%} | "
                     f"{result['pictured']:.0%} |")
    reranked = f", the first {figures['rerank']} ranked again by matching" if figures["rerank"] else ""
    number = len(next(iter(figures["against"].values()))["queries"])
    return (f"{number} queries in a shopper's words against {figures['products']:,} products of the test split{reranked}; the "
            f"model has the fingerprint {figures['model'][:16]}…. How it is judged: docs/search.md.\n\n" + "\n".join(lines))


def speed_text(path: Path) -> str:
    """What benchmarks/search_speed.py timed."""
    if not path.exists():
        return f"{MISSING} `python benchmarks/search_speed.py` times queries; it needs no GPU."
    figures = json.loads(path.read_text(encoding="utf-8"))
    lines = ["| products | search | compared | p50, ms | p95, ms | memory, MiB | on disk, MiB | recall |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for products, index in figures["indexes"].items():
        for way in ("exact", "approximate"):
            timed = index.get(way)
            if timed is None:
                continue
            recall = " / ".join(f"{value:.1%}" for value in timed.get("recall", {}).values()) or "1"
            for compared, taken in timed["queries_ms"].items():
                lines.append(f"| {int(products):,} | {way} | {compared} | {taken['p50']:.0f} | {taken['p95']:.0f} | "
                             f"{timed['memory_mib']:,.0f} | {index['disk_mib']:,.0f} | {recall} |")
    return (f"{figures['numbers']} numbers an embedding, drawn; threads: {figures['threads']}, cores: {figures['cores']}, of a "
            "machine that others used too. A time holds the embedding of the query by a very small model.\n\n"
            + "\n".join(lines))
