"""Embeddings of a split's products by the weights of the moment, shared out over the workers (SPEC 10 'Mined negatives')."""

import numpy as np
import torch

from kaleido_fast.data.batches.loader import evaluation_batches
from kaleido_fast.data.batches.own_texts import readings
from kaleido_fast.data.batches.source import BatchSource
from kaleido_fast.data.batches.upload import Upload
from kaleido_fast.data.shards.split import Split
from kaleido_fast.data.shards.token_rows import token_rows
from kaleido_fast.model.contrast import Embeddings, scale_of
from kaleido_fast.progress_bar import ProgressBar
from kaleido_fast.training.engine import Engine
from kaleido_fast.training.mining.lists import EmbeddedProducts
from kaleido_fast.training.mining.single_sequences import SingleSequences
from kaleido_fast.training.settings import StepConfig
from kaleido_fast.training.workers.group import Workers


@torch.no_grad()
def embed_products(engine: Engine, source: BatchSource, config: StepConfig, workers: Workers) -> EmbeddedProducts:
    """All products of the source's split: the lowest photograph that can be read, and the text. All workers call it.

    The engine: in the precision of training, and where weights are sharded all workers run the same number of forwards.
    """
    step = engine.module
    share = _Share(engine, source, config, workers)
    step.eval()
    try:
        share.embed()
    finally:
        step.train()
    scale = float(scale_of(engine.weights(step.model.contrast)["log_scale"]))
    return share.gathered(scale)


class _Share:
    """One worker's products, a consecutive part; ranks of -1 fill it up to whole batches, as many on every worker."""

    def __init__(self, engine: Engine, source: BatchSource, config: StepConfig, workers: Workers) -> None:
        self._engine, self._source, self._config, self._workers = engine, source, config, workers
        self._upload, split, batch = Upload(workers.device), source.split, config.train.micro_batch
        size = -(-split.num_products // (workers.count * batch)) * batch
        ranks = workers.rank * size + np.arange(size)
        self._ranks = np.where(ranks < split.num_products, ranks, -1)
        self._tokens, self._lengths, self._has_text = _texts(split, self._ranks, config.data.max_tokens)
        self._photographs, self._texts = (np.zeros((size, config.model.itc_dim), np.float32) for _ in range(2))
        self._keys, self._has_photograph = np.zeros(size, np.int64), np.zeros(size, bool)

    def embed(self) -> None:
        """Texts and first photographs; then the second ones of products whose first cannot be read, and so on."""
        places, photograph = np.arange(len(self._ranks)), 0
        shown = self._workers.is_first
        with ProgressBar(len(places), "mining", "product", shown=shown) as bar:
            while len(places):
                self._embed(places, photograph, bar)
                photograph += 1
                places = self._left(photograph)

    def gathered(self, scale: float) -> EmbeddedProducts:
        """All workers' products."""
        def everywhere(values: np.ndarray) -> np.ndarray:
            return self._workers.gathered(values)[: self._source.split.num_products]

        return EmbeddedProducts(
            torch.from_numpy(everywhere(self._photographs)), torch.from_numpy(everywhere(self._texts)), scale,
            everywhere(self._keys), everywhere(readings(self._tokens)), everywhere(self._has_photograph),
            everywhere(self._has_text))

    def _left(self, photograph: int) -> np.ndarray:
        """Places of products that have not been embedded and have a photograph of this number, -1 behind them up to whole
        batches; of one length on all workers."""
        products, size = self._source.split.products, self._config.train.micro_batch
        left = np.flatnonzero(~self._has_photograph & (self._ranks >= 0) & (products["num_samples"][self._ranks] > photograph))
        most = max(self._workers.from_all(len(left)))
        places = np.full(-(-most // size) * size, -1, np.int64)
        places[: len(left)] = left
        return places

    def _embed(self, places: np.ndarray, photograph: int, bar: ProgressBar) -> None:
        """Embed the products at `places`, whole batches, by their photograph of this number."""
        config, split = self._config, self._source.split
        size, vocabulary = config.train.micro_batch, split.manifest.vocabulary
        is_product = (places >= 0) & (self._ranks[places] >= 0)
        samples = np.where(is_product, split.products["first_sample"][self._ranks[places]] + photograph, -1)
        batches = evaluation_batches(self._source, samples, config.data, seed=config.train.seed, micro_batch=size,
                                     device=self._workers.device, draw_text=False)
        for start, batch in zip(range(0, len(places), size), batches, strict=True):
            part = places[start : start + size]
            lengths = self._lengths[part]
            on_device = self._upload({"tokens": self._tokens[part], "lengths": lengths})
            embeddings: Embeddings = self._engine(SingleSequences(
                batch, on_device["tokens"], on_device["lengths"], lengths.tolist(), (vocabulary.cls_id, vocabulary.sep_id)))
            photographs, texts = (side.float().cpu().numpy() for side in embeddings)
            text, readable = is_product[start : start + size], batch.host.present
            self._texts[part[text]] = texts[text]
            self._photographs[part[readable]] = photographs[readable]
            self._keys[part[readable]] = batch.keys.cpu().numpy()[readable]
            self._has_photograph[part[readable]] = True
            if not photograph:
                bar.update(size)


def _texts(split: Split, ranks: np.ndarray, max_tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, T) int32 token rows, (n,) int32 lengths of the products `ranks`, and (n,) bool which of them can be used."""
    rows = split.rows(split.products["first_sample"][np.maximum(ranks, 0)])
    usable = split.plausible(rows) & (ranks >= 0)
    rows[~usable] = np.zeros(1, rows.dtype)
    return *token_rows(rows["tokens"], rows["num_tokens"], split.manifest.vocabulary, max_tokens), usable
