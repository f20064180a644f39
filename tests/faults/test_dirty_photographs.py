"""Photographs that are not what their name says: skipped, counted and named, or stored as the picture they show."""

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kaleido_fast.data.batches.dali import SquareDecoder
from kaleido_fast.data.batches.jpeg_batch import JpegBatch
from kaleido_fast.data.shards.split import Split

SIDE, BLOCK = 64, 16  # pictures of 4 x 4 plain blocks
COLOURS = np.random.default_rng(3).integers(0, 256, (4, 4, 4), dtype=np.uint8)


def blocks(channels: int) -> np.ndarray:
    """(64, 64, channels) uint8 of plain blocks."""
    return COLOURS[:, :, :channels].repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)


RGB = blocks(3)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def jpeg(**options: object) -> bytes:
    return encoded(Image.fromarray(RGB), "JPEG", **({"quality": 98, "subsampling": 0} | options))


def png(width: int, height: int, depth: int, colour: int, rows: Iterator[bytes]) -> bytes:
    """A PNG written by hand: depths that Pillow does not write, sizes that would fill the memory."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(b"\0" + row) for row in rows) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = b"".join(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
                      for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + chunks


def sixteen_bits(channels: int) -> tuple[bytes, np.ndarray]:
    """A 16-bit PNG and the picture it shows in 8 bits."""
    high = blocks(channels)
    wide = high.astype(np.uint16) * 256 + 77
    data = png(SIDE, SIDE, 16, {1: 0, 3: 2}[channels], (row.astype(">u2").tobytes() for row in wide))
    return data, high.repeat(4 - channels, axis=2)[:, :, :3] if channels == 1 else high


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[:, :, None] / 255
    return rgb * share + 255 * (1 - share)


def claims(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    data = bytearray(jpeg())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def frames(form: str, **options: object) -> bytes:
    return encoded(Image.fromarray(RGB), form, save_all=True, append_images=[Image.fromarray(255 - RGB)], **options)


def upright(orientation: int) -> tuple[bytes, np.ndarray]:
    """A JPEG with an EXIF orientation, and how a viewer shows it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = {2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.swapaxes(0, 1), 6: np.rot90(RGB, -1),
             7: RGB[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(RGB)}[orientation]
    return jpeg(exif=exif), shown


def palette(transparent: bool) -> tuple[bytes, np.ndarray]:
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4).repeat(BLOCK, 0).repeat(BLOCK, 1), "P")
    image.putpalette(COLOURS[:, :, :3].tobytes())
    shown = RGB.astype(float)
    if transparent:
        shown[:BLOCK, :BLOCK] = 255  # the first colour is clear
    return encoded(image, "PNG", **({"transparency": 0} if transparent else {})), shown


def cmyk() -> tuple[bytes, np.ndarray]:
    ink = blocks(4).astype(float)
    data = encoded(Image.frombytes("CMYK", (SIDE, SIDE), blocks(4).tobytes()), "JPEG", quality=98, subsampling=0)
    return data, (255 - ink[:, :, :3]) * (255 - ink[:, :, 3:]) / 255


GREY = RGB[:, :, :1].repeat(3, axis=2)
ACCEPTED: dict[str, Callable[[], tuple[bytes, np.ndarray]]] = {
    "jpeg": lambda: (jpeg(), RGB),
    "progressive jpeg": lambda: (jpeg(progressive=True), RGB),
    "grey jpeg": lambda: (encoded(Image.fromarray(RGB[:, :, 0]), "JPEG", quality=98), GREY),
    "cmyk jpeg": cmyk,
    "a phone's two-picture jpeg": lambda: (frames("MPO", quality=98, subsampling=0), RGB),
    "png": lambda: (encoded(Image.fromarray(RGB), "PNG"), RGB),
    "palette": lambda: palette(False),
    "palette with a clear colour": lambda: palette(True),
    "alpha": lambda: (encoded(Image.fromarray(blocks(4)), "PNG"), on_white(RGB, blocks(4)[:, :, 3])),
    "grey and alpha": lambda: (encoded(Image.fromarray(blocks(2), "LA"), "PNG"), on_white(GREY, blocks(2)[:, :, 1])),
    "1 bit": lambda: (encoded(Image.fromarray(RGB[:, :, 0] > 127), "PNG"), (GREY > 127) * 255),
    "16-bit grey png": lambda: sixteen_bits(1),
    "16-bit rgb png": lambda: sixteen_bits(3),
    "webp": lambda: (encoded(Image.fromarray(RGB), "WEBP", lossless=True), RGB),
    "still gif": lambda: (encoded(Image.fromarray(RGB).quantize(16), "GIF"), RGB),
    "bmp": lambda: (encoded(Image.fromarray(RGB), "BMP"), RGB),
    "tiff": lambda: (encoded(Image.fromarray(RGB), "TIFF"), RGB),
    **{f"exif orientation {number}": lambda number=number: upright(number) for number in range(2, 9)},
}

NO_IMAGE, BROKEN = "not a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF image", "truncated or damaged image"
LARGE, SMALL = "more than 100,000,000 pixels", "a side of less than 16 pixels"
SKIPPED: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero bytes": (lambda: b"", "empty file"),
    "text": (lambda: b"hello, I am a text\n" * 50, NO_IMAGE),
    "web page": (lambda: b"<!doctype html><title>404</title>", NO_IMAGE),
    "postscript": (lambda: encoded(Image.fromarray(RGB), "EPS"), NO_IMAGE),  # Pillow would start a program for it
    "truncated jpeg": (lambda: jpeg()[:-300], BROKEN),
    "jpeg of a header": (lambda: jpeg()[:200], BROKEN),
    "two bytes of a jpeg": (lambda: b"\xff\xd8", NO_IMAGE),
    "truncated png": (lambda: encoded(Image.fromarray(RGB), "PNG")[:-40], BROKEN),
    "animated gif": (lambda: frames("GIF"), "animated image"),
    "animated png": (lambda: frames("PNG"), "animated image"),
    "animated webp": (lambda: frames("WEBP"), "animated image"),
    "1 x 1": (lambda: encoded(Image.new("RGB", (1, 1)), "JPEG"), SMALL),
    "300 x 1": (lambda: encoded(Image.new("RGB", (300, 1)), "PNG"), SMALL),
    "0 x 64": (lambda: claims(0, 64), NO_IMAGE),
    "header of 20,000 x 20,000": (lambda: claims(20_000, 20_000), LARGE),
    "20,000 x 20,000 on a small disk": (lambda: png(20_000, 20_000, 1, 0, (bytes(2500) for _ in range(20_000))), LARGE),
}


def _shown(split: Split, sample: int) -> np.ndarray:
    """(64, 64, 3): the whole stored picture as DALI decodes it."""
    zero, whole = np.zeros((1, 2), np.int32), np.full((1, 2), SIDE, np.int32)
    batch = JpegBatch([split.read(sample)], zero, whole, np.zeros((1, 3), np.uint8))
    decoder = SquareDecoder(lambda _: (None, batch), 1, SIDE, torch.device("cpu"), threads=1, prefetch=1)
    _, squares, broken = next(iter(decoder))
    assert not broken
    return squares[0].numpy()


def test_accepted_pictures_are_stored_as_they_look(catalogue: Path, prepare, tmp_path: Path) -> None:
    expected = {}
    for number, (name, make) in enumerate(ACCEPTED.items()):
        data, expected[f"odd{number}"] = make()
        (catalogue / "images" / f"odd{number}.jpg").write_bytes(data)
        with (catalogue / "styles.csv").open("a") as stream:
            stream.write(f"odd{number},Cat0,Kind0,{name},text,{'validation' if number % 2 else 'test'}\n")
    answer = prepare()
    assert answer.code == 0 and "skipped: none" in answer.out
    seen = set()
    for name in ("validation", "test"):
        split = Split.open(tmp_path / "shards", name)
        for sample in range(split.num_samples):
            record = split.record(sample)
            if record["id"] in expected:
                seen.add(record["id"])
                off = np.abs(_shown(split, sample) - expected[record["id"]].astype(float))
                centres = off.reshape(4, BLOCK, 4, BLOCK, 3)[:, 5:11, :, 5:11]  # away from the blocks' edges, where JPEG rings
                assert centres.max() <= 5, (record["text"], centres.max())
    assert seen == set(expected)


@pytest.mark.parametrize("kind", SKIPPED)
def test_unusable_pictures_are_skipped_counted_and_named(catalogue: Path, prepare, kaleido, tmp_path: Path, kind: str) -> None:
    make, reason = SKIPPED[kind]
    (catalogue / "images" / "p7.jpg").write_bytes(make())
    refused = prepare()
    assert refused.code == 2
    limit = "1 of 15 products or photographs cannot be used, more than the limit of 1.0% (--max-skipped)"
    assert f"{limit}: 1 x {reason}" in refused.err
    assert "(row 9: p7.jpg)" in refused.err
    answer = prepare("--max-skipped", 0.1)
    assert answer.code == 0 and f"skipped: 1 x {reason}" in answer.out
    assert Split.open(tmp_path / "shards", "train").num_products == 11
    assert kaleido("data", "check", tmp_path / "shards").code == 0


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "broken link"])
def test_no_file_is_no_photograph(catalogue: Path, prepare, kind: str) -> None:
    file = catalogue / "images" / "p7.jpg"
    file.unlink()
    {"missing": lambda: None, "folder": file.mkdir, "pipe": lambda: os.mkfifo(file),
     "broken link": lambda: file.symlink_to("nowhere.jpg")}[kind]()
    refused = prepare()
    assert refused.code == 2 and "1 x no photograph (row 9: id p7)" in refused.err
    assert "skipped: 1 x no photograph" in prepare("--max-skipped", 0.1).out


def test_a_second_photograph_may_be_broken(catalogue: Path, prepare, tmp_path: Path) -> None:
    (catalogue / "images" / "p7_1.jpg").write_bytes(b"no picture")
    answer = prepare("--max-skipped", 0.1)
    assert answer.code == 0 and f"skipped: 1 x {NO_IMAGE}" in answer.out
    assert Split.open(tmp_path / "shards", "train").num_products == 12


def test_a_large_picture_is_shrunk(catalogue: Path, prepare, tmp_path: Path) -> None:
    (catalogue / "images" / "p7.jpg").write_bytes(png(2_400, 2_400, 1, 0, (b"\xff" * 300 for _ in range(2_400))))
    assert prepare("--max-side", 256).code == 0
    split = Split.open(tmp_path / "shards", "train")
    sample = next(sample for sample in range(split.num_samples) if split.record(sample)["id"] == "p7")
    assert Image.open(io.BytesIO(split.read(sample))).size == (256, 256)
