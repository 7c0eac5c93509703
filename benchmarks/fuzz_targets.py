"""What benchmarks/fuzz.py feeds: for each target valid inputs to begin with, and what reads them.

A reader gets bytes and a folder of its own. It returns whether they were read; where not, it has
met one of our own errors, or for an image what decoders raise and `check` records. Anything else
that it raises is a finding.
"""

import io
import json
import pickle
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save

from tutelage import checkpoint
from tutelage.data import label_parts
from tutelage.data.decode import decode
from tutelage.data.examine import _examined
from tutelage.data.source import Source
from tutelage.data.sources.arrays import Arrays
from tutelage.data.sources.parquet_images import ParquetImages
from tutelage.data.sources.table import Table
from tutelage.data.sources.webdataset import WebDataset
from tutelage.deploy.model_folder import Model, load_model, save_model
from tutelage.deploy.teacher_sources import read_weights
from tutelage.errors import TutelageError
from tutelage.jobs import SelftrainSettings
from tutelage.networks.build import Net, build
from tutelage.values import digest, from_plain, load_yaml

Reader = Callable[[bytes, Path], bool]
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "TGA", "AVIF", "ICO")
NET = Net(name="test_resnet", num_classes=3, img_size=32, small_stem=True)


@dataclass(frozen=True)
class Target:
    """One kind of input."""

    share: float  # of all inputs
    seeds: Callable[[Path], Sequence[bytes]]  # valid inputs, made with a scratch folder
    read: Reader
    words: tuple[bytes, ...] = ()  # that are put into inputs now and then
    text: bool = False  # changes put letters in most places
    mend: Callable[[bytes], bytes] = bytes  # checksums made right again, so that more is read


def _pixels(seed: int, side: int = 24) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _image_seeds(folder: Path) -> list[bytes]:
    """One image a format, and modes, compressions and animations that decoders treat apart."""
    one, other = _pixels(0), _pixels(1)
    turned = Image.Exif()
    turned[0x0112] = 6
    seeds = [_encoded(one, kind) for kind in FORMATS]
    seeds += [_encoded(one.convert(mode), "PNG") for mode in ("P", "LA", "RGBA", "1", "I;16")]
    seeds += [_encoded(one.convert(mode), "TIFF") for mode in ("F", "I", "CMYK", "I;16")]
    seeds += [_encoded(one, "TIFF", compression=how)
              for how in ("jpeg", "tiff_lzw", "tiff_adobe_deflate", "packbits")]  # fmt: skip
    seeds += [_encoded(one, kind, save_all=True, append_images=[other])
              for kind in ("GIF", "PNG", "WEBP", "TIFF")]  # fmt: skip
    seeds += [
        _encoded(one, "JPEG", progressive=True), _encoded(one.convert("CMYK"), "JPEG"),
        _encoded(one.convert("L"), "JPEG"), _encoded(one, "JPEG", exif=turned.tobytes()),
        _encoded(one, "PNG", exif=turned.tobytes()), _encoded(one.convert("P"), "BMP"),
    ]  # fmt: skip
    return seeds


def _png_sums(data: bytes) -> bytes:
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


def _tar_sums(data: bytes) -> bytes:
    """A tar's headers with the checksums that they should have."""
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 155] = b"%06o\0" % sum(out[at : at + 512])
    return bytes(out)


def _read_image(data: bytes, folder: Path) -> bool:
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


def _read_source(source: Source) -> bool:
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


def _csv_seeds(folder: Path) -> list[bytes]:
    rows = 'path,label,split,group\na/1.png,cat,train,g\n"b,2.png",dog,test,\n../x.png,cat,,h\n'
    texts = [rows, rows.replace(",", "\t"), rows.replace(",", ";"), "file;class\na.jpg;1\nb.jpg;2"]
    return [
        *(text.encode() for text in texts), rows.encode("utf-16"), b"\xef\xbb\xbf" + rows.encode(),
        "path,label\nGr\u00f6\u00dfe.png,\u732b\n".encode(),
    ]  # fmt: skip


def _read_csv(data: bytes, folder: Path) -> bool:
    file = folder / "table.csv"
    file.write_bytes(data)
    return _read_source(Table(str(file)))


def _parquet(table: pa.Table, **options: object) -> bytes:
    file = pa.BufferOutputStream()
    pq.write_table(table, file, **options)
    return file.getvalue().to_pybytes()


def _parquet_seeds(folder: Path) -> list[bytes]:
    """Tables of paths, and of images as bytes and as Hugging Face writes them."""
    png = _encoded(_pixels(0, 8), "PNG")
    about = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}, "image": {"_type": "Image"}}
    noted = {"huggingface": json.dumps({"info": {"features": about}})}
    nested = pa.array([{"bytes": png, "path": "a.png"}, {"bytes": None, "path": "b.png"}])
    tables = [
        pa.table({"image": [png, png], "label": ["cat", "dog"], "split": ["train", "test"]}),
        pa.table({"image": nested, "label": [0, 1]}).replace_schema_metadata(noted),
        pa.table({"path": ["a.png", "b.png"], "label": ["cat", "dog"], "group": ["g", None]}),
        pa.table({"path": ["a.png", "b.png"] * 50, "label": [1.0, 2.0] * 50}),
    ]
    return [_parquet(table, compression=how) for table in tables for how in ("none", "snappy")]


def _read_parquet(data: bytes, folder: Path) -> bool:
    file = folder / "images.parquet"
    file.write_bytes(data)
    source: Source = (
        ParquetImages(str(file)) if ParquetImages.claims(str(file)) else Table(str(file))
    )
    return _read_source(source)


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


def _tar_seeds(folder: Path) -> list[bytes]:
    png = _encoded(_pixels(0, 8), "PNG")
    members = {"1.png": png, "1.cls": b"0", "2.png": png, "2.json": b'{"label": "dog"}'}
    long = {"x" * 150 + ".png": png, "d/" + "\u00f6" * 60 + ".png": png, "../../3.png": png}
    forms = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    return [_tar(members, form, links=True) for form in forms] + [
        _tar(long, form) for form in forms[1:]
    ]


def _read_tar(data: bytes, folder: Path) -> bool:
    file = folder / "shard.tar"
    file.write_bytes(data)
    return _read_source(WebDataset(str(file)))


def _yaml_seeds(folder: Path) -> list[bytes]:
    ready = Path(checkpoint.__file__).with_name("recipes")
    some = "data: a\nunlabeled: b\nmodel: resnet18\nout: c\nsteps: 10\noptim:\n  lr: 1e-3\n"
    return [path.read_bytes() for path in sorted(ready.glob("*.yaml"))] + [some.encode()]


def _read_yaml(data: bytes, folder: Path) -> bool:
    file = folder / "settings.yaml"
    file.write_bytes(data)
    try:
        digest(from_plain(SelftrainSettings, load_yaml(file)))
    except TutelageError:
        return False
    return True


def _label_seeds(folder: Path) -> list[bytes]:
    probs = torch.full((4, 3), 1 / 3).half()
    part = label_parts.LabelPart(
        0, ("a", "b", "c", "d"), torch.tensor([[0, 1, 2]] * 4, dtype=torch.int32), probs,
        torch.rand(4), torch.rand(4), label_parts.About("t", ("x", "y", "z"), "s.tar"),
    )  # fmt: skip
    return [label_parts.encoded(part).to_pybytes()]


def _read_labels(data: bytes, folder: Path) -> bool:
    file = label_parts.part_path(folder, 0)
    file.write_bytes(data)
    try:
        label_parts.read_about(file)
        label_parts.read_columns(file, ["id", "label", "confidence", "energy"])
        label_parts.read_part(file)
    except TutelageError:
        return False
    return True


def _checkpoint_seeds(folder: Path) -> list[bytes]:
    file = folder / "last.pt"
    small = torch.nn.Linear(3, 2).state_dict()
    torch.save({"recipe": "r", "step": 3, "state": {"student": small}}, file)
    first = file.read_bytes()
    torch.save(small, file)
    return [first, file.read_bytes()]


def _read_weights_as(name: str) -> Reader:
    """How a weights file of that name is read."""

    def read(data: bytes, folder: Path) -> bool:
        (folder / name).write_bytes(data)
        try:
            read_weights(folder / name)
        except TutelageError:
            return False
        return True

    return read


def _safetensors_seeds(folder: Path) -> list[bytes]:
    return [save(torch.nn.Linear(3, 2).state_dict()), save(build(NET).state_dict())]


def _model_seeds(folder: Path) -> list[bytes]:
    model = Model(build(NET), NET, ("a", "b", "c"), 36)
    save_model(folder, model, "card")
    return [(folder / "config.json").read_bytes()]


def _read_model(data: bytes, folder: Path) -> bool:
    """A model folder whose config.json is damaged."""
    if not (folder / "model.safetensors").exists():
        _model_seeds(folder)
    (folder / "config.json").write_bytes(data)
    try:
        load_model(folder)
    except TutelageError:
        return False
    return True


def _array_seeds(folder: Path) -> list[bytes]:
    file = io.BytesIO()
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    np.savez_compressed(file, images=images, labels=np.arange(4), classes=np.array(list("abcd")))
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}
    return [file.getvalue(), *(pickle.dumps(batch, protocol=n) for n in (2, 4, 5))]


def _read_arrays(data: bytes, folder: Path) -> bool:
    if data.startswith(b"PK"):
        file = folder / "images.npz"
        file.write_bytes(data)
        return _read_source(Arrays(str(file)))
    (folder / "cifar").mkdir(exist_ok=True)
    (folder / "cifar" / "test_batch").write_bytes(data)
    return _read_source(Arrays(str(folder / "cifar")))


TARGETS = {
    "images": Target(
        0.40, _image_seeds, _read_image, (b"\xff\xff\xff\x7f", b"\0\0\0\0"), mend=_png_sums
    ),
    "tables": Target(
        0.16, _csv_seeds, _read_csv, (b'"', b"\0", b"\n", b",", b"s3://", b"\xff"), text=True
    ),
    "tars": Target(
        0.12, _tar_seeds, _read_tar, (b"../", b"\0" * 512, b"9" * 5000), mend=_tar_sums
    ),
    "yaml": Target(
        0.10, _yaml_seeds, _read_yaml,
        (b"&a [*a]", b"!!python/object/apply:os.system [x]", b"[" * 3000, b"? ", b"2001-99-99",
         b"1e999", b"9" * 5000, b"!!int ''", b"!!timestamp x", b"!!float x", b"!!bool x", b"\xff"),
        text=True,
    ),
    "parquet": Target(0.08, _parquet_seeds, _read_parquet),
    "labels": Target(0.04, _label_seeds, _read_labels),
    "arrays": Target(0.04, _array_seeds, _read_arrays),
    "checkpoints": Target(0.02, _checkpoint_seeds, _read_weights_as("weights.pt")),
    "safetensors": Target(0.02, _safetensors_seeds, _read_weights_as("model.safetensors")),
    "models": Target(
        0.02, _model_seeds, _read_model,
        (b"null", b"1e999", b"-1", b"9" * 12, b"[" * 3000, b'"x"', b"{}", b"[]"),
        text=True,
    ),
}  # fmt: skip
