"""The host's text draw against a slow version of SPEC 6, one sample at a time."""

import numpy as np
import pytest

from kaleido_fast.data.batches.itm import TextDraw
from kaleido_fast.data.catalogue.formats.csv_catalogue import CsvCatalogue
from kaleido_fast.data.catalogue.prepare import PrepareOptions, prepare
from kaleido_fast.data.settings import DataSettings
from kaleido_fast.data.shards.split import Split

M0, M1, W0, W1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85


def _philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, ...]:
    """Philox-4x32-10 in Python integers."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        high0, low0 = divmod(M0 * c0, 1 << 32)
        high1, low1 = divmod(M1 * c2, 1 << 32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + W0) & 0xFFFFFFFF, (k1 + W1) & 0xFFFFFFFF
    return c0, c1, c2, c3


def test_philox_known_answer() -> None:
    assert _philox((0, 0), (0, 0, 0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)


def _slow(
    split: Split, sample: int, epoch: int, settings: DataSettings, seed: int, negatives: list[list[int]] | None = None
) -> int:
    row = split.rows(np.array([sample]))[0]
    own, key = int(row["product"]), int(row["key"])
    words = _philox((seed & 0xFFFFFFFF, seed >> 32), (1, epoch * 16 + 3, key & 0xFFFFFFFF, key >> 32))
    if not words[0] >> 31:
        return own
    hard = settings.itm_negatives == "subcategory" or (
        epoch >= settings.itm_hard_from and words[2] < settings.itm_hard_share * 2**32)
    if settings.itm_negatives == "mined":
        hard = epoch == 2**28 - 1 or (negatives is not None and hard)
    if hard and negatives is not None and negatives[own]:
        return negatives[own][words[1] * len(negatives[own]) >> 32]

    def text(product: int) -> list[int]:
        r = split.rows(split.products["first_sample"][[product]])[0]
        return r["tokens"][: r["num_tokens"]].tolist()[: settings.max_tokens - 2]

    pools = [[p for p in range(split.num_products) if p != own]]
    if hard:
        kind = split.products["subcategory"][own]
        pools.insert(0, [p for p in pools[0] if split.products["subcategory"][p] == kind])
    for pool in pools:
        for step in range(len(pool)):
            product = pool[((words[1] * len(pool) >> 32) + step) % len(pool)]
            if text(product) != text(own):
                return product
    return own


@pytest.fixture
def split(make_catalogue, tmp_path) -> Split:
    folder = make_catalogue(70)
    file = folder / "styles.csv"
    file.write_text("\n".join(  # every fourth text is one of a few: equal texts are passed over
        ",".join(line.split(",")[:3]) + ",same,same" if n % 4 == 0 and n else line
        for n, line in enumerate(file.read_text().splitlines())) + "\n")
    prepare(PrepareOptions(CsvCatalogue(file, folder / "images"), tmp_path / "s", vocab_size=200, processes=1))
    return Split.open(tmp_path / "s", "train")


@pytest.mark.parametrize(
    "settings",
    [
        DataSettings(), DataSettings(itm_negatives="subcategory"), DataSettings(itm_hard_share=0.5, itm_hard_from=1),
        DataSettings(max_tokens=4),
    ],
    ids=["random", "subcategory", "mixed", "cut"],
)
def test_equals_the_slow_version(split: Split, settings: DataSettings) -> None:
    seed, samples = 2**40 + 5, np.arange(split.num_samples)
    draw = TextDraw(split, settings, seed)
    mismatched = 0
    for epoch in (0, 1, 2**28 - 1):
        products, match, mined = draw.products(split.rows(samples), np.full(len(samples), epoch))
        assert not mined.any()
        expected = [_slow(split, int(sample), epoch, settings, seed) for sample in samples]
        assert products.tolist() == expected
        assert (match == (products == split.rows(samples)["product"])).all()
        mismatched += (~match).sum()
    assert 0.3 < mismatched / (3 * len(samples)) < 0.7


MINED = DataSettings(itm_negatives="mined", itm_hard_share=0.5, itm_hard_from=1)


def test_mined_negatives_are_drawn_where_the_draw_is_hard(split: Split) -> None:
    """Lists of 0 to 3 products; an empty one counts as `subcategory`."""
    seed, samples = 7, np.arange(split.num_samples)
    rows = split.rows(samples)
    lists = [[(product + 1 + k) % split.num_products for k in range(product % 4)] for product in range(split.num_products)]
    table = np.array([row + [-1] * (3 - len(row)) for row in lists], np.int32)
    draw = TextDraw(split, MINED, seed, table)
    shares = []
    for epoch in (0, 1, 5):
        products, match, mined = draw.products(rows, np.full(len(samples), epoch))
        assert products.tolist() == [_slow(split, int(sample), epoch, MINED, seed, lists) for sample in samples]
        assert not (mined & match).any()
        assert all(product in lists[own] for product, own in zip(products[mined], rows["product"][mined], strict=True))
        shares.append(mined.sum() / (~match).sum())
    assert shares[0] == 0 and 0.2 < shares[1] < 0.6 and 0.2 < shares[2] < 0.6  # a fourth of the lists is empty


def test_before_the_first_mining_all_are_random_and_validation_draws_as_subcategory(split: Split) -> None:
    rows = split.rows(np.arange(split.num_samples))
    draw = TextDraw(split, MINED, 7)
    subcategory = DataSettings(itm_negatives="subcategory")
    for epoch, as_settings in ((0, DataSettings()), (5, DataSettings()), (2**28 - 1, subcategory)):
        epochs = np.full(len(rows), epoch)
        expected = TextDraw(split, as_settings, 7).products(rows, epochs)
        assert draw.products(rows, epochs).products.tolist() == expected.products.tolist()
