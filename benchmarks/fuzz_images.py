"""Damaged images, tars and arrays: valid ones to begin with, and how they are read."""

import gzip
import io
import json
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tutelage.data.decode import decode
from tutelage.data.examine import _examined
from tutelage.data.packed import GZIP
from tutelage.data.source import Source
from tutelage.data.sources.arrays import Arrays
from tutelage.data.sources.webdataset import WebDataset
from tutelage.errors import TutelageError
from tutelage.robustness.asking import Unreadable
from tutelage.robustness.corrupted_arrays import CorruptedArrays

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "TGA", "AVIF", "ICO")
ARRAYS = ("gaussian_noise.npy", "labels.npy")  # of CIFAR-10-C


def pixels(seed: int, side: int = 24) -> Image.Image:
    """A smooth image of many colors."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The image as a file of that kind."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def image_seeds(folder: Path) -> list[bytes]:
    """One image a format, and modes, compressions and animations that decoders treat apart."""
    one, other = pixels(0), pixels(1)
    turned = Image.Exif()
    turned[0x0112] = 6
    seeds = [encoded(one, kind) for kind in FORMATS]
    seeds += [encoded(one.convert(mode), "PNG") for mode in ("P", "LA", "RGBA", "1", "I;16")]
    seeds += [encoded(one.convert(mode), "TIFF") for mode in ("F", "I", "CMYK", "I;16")]
    seeds += [encoded(one, "TIFF", compression=how)
              for how in ("jpeg", "tiff_lzw", "tiff_adobe_deflate", "packbits")]  # fmt: skip
    seeds += [encoded(one, kind, save_all=True, append_images=[other])
              for kind in ("GIF", "PNG", "WEBP", "TIFF")]  # fmt: skip
    seeds += [
        encoded(one, "JPEG", progressive=True), encoded(one.convert("CMYK"), "JPEG"),
        encoded(one.convert("L"), "JPEG"), encoded(one, "JPEG", exif=turned.tobytes()),
        encoded(one, "PNG", exif=turned.tobytes()), encoded(one.convert("P"), "BMP"),
    ]  # fmt: skip
    return seeds


def png_sums(data: bytes) -> bytes:
    """A PNG's chunks with the checksums that they should have."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = zlib.crc32(out[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(out)


def tar_sums(data: bytes) -> bytes:
    """A tar's headers with the checksums that they should have."""
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 155] = b"%06o\0" % sum(out[at : at + 512])
    return bytes(out)


def read_image(data: bytes, folder: Path) -> bool:
    """As `check` and as training read it: what `check` passes must be decoded."""
    try:
        _examined(data)
    except MemoryError:
        raise
    except Exception:  # decoders raise OSError, SyntaxError, ValueError, …
        return False
    for canvas in (8, 256):
        assert decode(data, canvas).shape == (canvas, canvas, 3)
    return True


def is_read(reader: Callable[[], object]) -> bool:
    """Whether the reader takes its input, and doesn't refuse it by an error of ours."""
    try:
        reader()
    except TutelageError:
        return False
    return True


def read_source(source: Source) -> bool:
    """Its listing as labels and as a pool, and the first images."""
    try:
        for part in ("labeled", "pool"):
            names = source.listing(part).names
    except (TutelageError, FileNotFoundError):
        return False
    for name in names[:3]:
        try:
            source.where(name)
            source.stamp(name)
            source.read(name)
        except (OSError, TutelageError):
            continue
    return True


def _tar(members: dict[str, bytes], form: int, *, links: bool = False) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
        for kind, name in ((tarfile.SYMTYPE, "s.png"), (tarfile.LNKTYPE, "h.png")) if links else ():
            about = tarfile.TarInfo(name)
            about.type, about.linkname = kind, "1.png"
            tar.addfile(about)
    return file.getvalue()


def tar_seeds(folder: Path) -> list[bytes]:
    """Each format of tar, with links, and with names that need more than a header."""
    png = encoded(pixels(0, 8), "PNG")
    members = {"1.png": png, "1.cls": b"0", "2.png": png, "2.json": b'{"label": "dog"}'}
    long = {"x" * 150 + ".png": png, "d/" + "\u00f6" * 60 + ".png": png, "../../3.png": png}
    forms = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    return [_tar(members, form, links=True) for form in forms] + [
        _tar(long, form) for form in forms[1:]
    ]


def read_tar(data: bytes, folder: Path) -> bool:
    """As a shard."""
    file = folder / "shard.tar"
    file.write_bytes(data)
    return read_source(WebDataset(str(file)))


def names_seeds(folder: Path) -> list[bytes]:
    """Class names beside shards: as `datasets` writes them, as timm does, and one a line."""
    info = {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}
    return [json.dumps(info).encode(), b'{"label_names": ["cat", "dog"]}', b"cat\ndog\n"]


def read_names(data: bytes, folder: Path) -> bool:
    """A folder with a tar, and these names as either kind of file."""
    if not (folder / "a-0.tar").exists():
        png = encoded(pixels(0, 8), "PNG")
        said = {"1.png": png, "1.cls": b"0", "2.png": png, "2.json": b'{"label": "dog"}'}
        (folder / "a-0.tar").write_bytes(_tar(said, tarfile.USTAR_FORMAT))
    read = False
    for name in ("dataset_info.json", "classes.txt"):
        (folder / name).write_bytes(data)
        read = read_source(WebDataset(str(folder))) or read
        (folder / name).unlink()
    return read


def array_seeds(folder: Path) -> list[bytes]:
    """An npz, CIFAR's batches as pickles and binaries, and MNIST's idx, gzipped too."""
    file = io.BytesIO()
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    np.savez_compressed(file, images=images, labels=np.arange(4), classes=np.array(list("abcd")))
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}
    idx = bytes((0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 3)) + bytes(range(18))
    return [
        file.getvalue(), *(pickle.dumps(batch, protocol=n) for n in (2, 4, 5)), bytes(2 * 3073),
        idx, gzip.compress(idx, mtime=0),
    ]  # fmt: skip


def read_arrays(data: bytes, folder: Path) -> bool:
    """As the kind of file that it begins like."""
    if data.startswith(b"PK"):
        file = folder / "images.npz"
        file.write_bytes(data)
        return read_source(Arrays(str(file)))
    if data.startswith(GZIP):
        name = "train-images-idx3-ubyte.gz"
    elif data.startswith(b"\0\0\x08"):
        name = "train-images-idx3-ubyte"
    else:
        name = "test_batch.bin" if data.startswith(b"\0") else "test_batch"
    own = folder / name.replace(".", "-")
    own.mkdir(exist_ok=True)
    (own / name).write_bytes(data)
    labels = own / "train-labels-idx1-ubyte"
    labels.write_bytes(bytes((0, 0, 8, 1, 0, 0, 0, 2, 0, 1)))
    return read_source(Arrays(str(own)))


def published_seeds(folder: Path) -> list[bytes]:
    """The two kinds of arrays of CIFAR-10-C: images, and labels."""
    found = []
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    for array in (images, np.tile([0, 1], 5)):
        file = io.BytesIO()
        np.save(file, array)
        found.append(file.getvalue())
    return found


def read_published(data: bytes, folder: Path) -> bool:
    """A folder of CIFAR-10-C whose images, and then whose labels are these."""
    whole, read = dict(zip(ARRAYS, published_seeds(folder), strict=True)), False
    for damaged in ARRAYS:
        for name in ARRAYS:
            (folder / name).write_bytes(data if name == damaged else whole[name])
        try:
            release = CorruptedArrays(str(folder))
            count, at = len(release.labels), release.cases()[-1]
            load = release.load(at, 8, torch.device("cpu"), Unreadable(8))
            load(torch.arange(min(count, 3)))
            read = True
        except TutelageError:
            continue
    return read
