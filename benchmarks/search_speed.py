"""How long a query takes and how much memory an index needs: a million drawn products, and 8,000.

    taskset -c 0,1 env OMP_NUM_THREADS=2 python benchmarks/search_speed.py     # writes benchmarks/results/search-speed.json

A product has one photograph and a text, embeddings of 256 numbers around drawn centres; the model that reads the queries is as
small as a model can be, so that the search itself is timed. Each index is opened in a process of its own; memory is what the
process grew by from before it was opened to behind the queries.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kaleido_fast.bench.environment import describe_environment
from kaleido_fast.data.preprocessing import Preprocessing
from kaleido_fast.data.shards.tokenizer import SPECIAL, Tokenizer
from kaleido_fast.files import replace_text
from kaleido_fast.model.kaleido_bert import KaleidoBertModel
from kaleido_fast.model.pretrained import Pretrained
from kaleido_fast.model.settings import KaleidoSettings, ModelSettings, VocabularySettings
from kaleido_fast.process_memory import resident_bytes
from kaleido_fast.search.approximate import make_approximate
from kaleido_fast.search.encoder import Encoder
from kaleido_fast.search.folder import MODEL, Entry, Header, Source, read_contents
from kaleido_fast.search.index import KaleidoIndex
from kaleido_fast.search.result import Query
from kaleido_fast.search.writer import Writer

RESULTS = Path(__file__).resolve().parent / "results" / "search-speed.json"
SIZE, CENTRES, NOISE = 256, 10_000, 0.06  # numbers an embedding; of a row of length 1 the noise's own length is about 0.7
WORDS = ("red", "blue", "green", "shirt", "dress", "shoes", "men", "women")
QUERIES = tuple(f"{colour} {kind}" for colour in WORDS[:3] for kind in WORDS[3:6])
ROUNDS = 3
AT_ONCE = 4096
WAYS: dict[str, dict[str, Any]] = {
    "photographs": {"against": "photographs"}, "photographs and texts": {"against": "both"},
    "one category in a hundred": {"against": "both", "category": "kind 7"},
}


def small_model() -> Encoder:
    torch.manual_seed(0)
    tokenizer = Tokenizer([*SPECIAL, *WORDS])
    vocabulary = tokenizer.vocabulary()
    model = KaleidoBertModel(
        ModelSettings(hidden=32, layers=1, heads=2, intermediate=64, itc_dim=SIZE), KaleidoSettings(patch_size=12),
        VocabularySettings(vocabulary.size, vocabulary.padded_size, vocabulary.fingerprint), 60)
    return Encoder(Pretrained(model.eval(), tokenizer, Preprocessing(24, 1024)), torch.device("cpu"))


def draw(folder: Path, products: int) -> None:
    """Write an index of drawn products."""
    folder.mkdir()
    encoder, generator = small_model(), np.random.Generator(np.random.PCG64(0))
    encoder.write(folder / MODEL)
    centres = generator.standard_normal((CENTRES, SIZE), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    with Writer(folder, Header(encoder.fingerprint, SIZE, sources=(Source("images", "/drawn"),))) as writer:
        for start in range(0, products, AT_ONCE):
            count = min(AT_ONCE, products - start)
            of = generator.integers(CENTRES, size=count)
            rows = centres[of, None] + NOISE * generator.standard_normal((count, 2, SIZE), dtype=np.float32)
            rows /= np.linalg.norm(rows, axis=2, keepdims=True)
            for number, (photograph, text) in enumerate(rows, start):
                entry = Entry(str(number), "red shirt", f"kind {number % 100}", "", 0, (f"{number}.jpg",))
                writer.add(entry, photograph[None], text)
        writer.commit()


def timed(folder: Path, approximate: bool) -> dict[str, Any]:
    """Seconds to open an index and to answer, and what it holds in memory, in this process."""
    resident_before, started = resident_bytes(), time.perf_counter()
    index = KaleidoIndex.open(folder, approximate=approximate)
    index.search(QUERIES[0])
    figures: dict[str, Any] = {"open_s": time.perf_counter() - started, "queries_ms": {}}
    started = time.perf_counter()
    for query in QUERIES:
        index.embedding(Query(query))
    figures["embedding_ms"] = (time.perf_counter() - started) / len(QUERIES) * 1000
    for name, how in WAYS.items():
        taken = []
        for query in QUERIES * ROUNDS:
            started = time.perf_counter()
            index.search(query, **how)
            taken.append((time.perf_counter() - started) * 1000)
        figures["queries_ms"][name] = {"p50": statistics.median(taken), "p95": statistics.quantiles(taken, n=20)[-1]}
    figures["memory_mib"] = (resident_bytes() - resident_before) / 2**20
    return figures


def in_a_process(folder: Path, approximate: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, "--timed", str(folder), *(["--approximate"] if approximate else [])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def measured(products: int, approximate: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "index"
        draw(folder, products)
        figures: dict[str, Any] = {
            "disk_mib": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20,
            "exact": in_a_process(folder, False)}
        if approximate:
            summary = make_approximate(folder, read_contents(folder))
            figures["approximate"] = in_a_process(folder, True) | {"recall": summary.recall, "made_s": summary.seconds}
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, nargs="+", default=[8000, 1_000_000])
    parser.add_argument("--approximate", action="store_true", help="the approximate index too: some minutes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--timed", type=Path, help="of the processes that this starts")
    options = parser.parse_args()
    if options.timed:
        print(json.dumps(timed(options.timed, options.approximate)))
        return
    figures = describe_environment(torch.device("cpu")) | {
        "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(), "numbers": SIZE,
        "indexes": {str(products): measured(products, options.approximate) for products in options.products}}
    print(json.dumps(figures["indexes"], indent=1))
    replace_text(options.out, json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
