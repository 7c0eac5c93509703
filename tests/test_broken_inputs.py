"""A folder of broken files of every kind through `check` and `train`: each said, none lost."""

import csv
import io
import os
import socket
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import toy
from images import picture, write_picture
from PIL import Image

from tutelage.cli import main
from tutelage.data.decode import SUFFIXES

GOOD_EACH = 1300  # a class: so that the broken ones are less than 1 %


def encoded(kind, seed=0, side=32, **options):
    file = io.BytesIO()
    soft(seed, side).save(file, kind, **options)
    return file.getvalue()


def soft(seed, side=32):
    """A smooth random image, as photos are."""
    return picture(10_000 + seed, 4).resize((side, side), Image.Resampling.BICUBIC)


def bomb():
    """A PNG of 20,000 x 20,000 pixels in a few bytes."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(20_001)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def flipped(byte):
    """A PNG with one byte that is wrong."""
    data = bytearray(encoded("PNG", 1))
    data[byte] ^= 255
    return bytes(data)


def nan_tiff():
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(file, "TIFF")
    return file.getvalue()


def listen(path):
    """A socket, made by its bare name, as its path has a limit of 107 letters."""
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(before)


UNREADABLE = {  # name -> bytes, or what makes it, and a word of the message
    "jpeg header.jpg": (encoded("JPEG")[:10], "Truncated"),
    "jpeg middle.jpg": (encoded("JPEG", side=64)[:900], "truncated"),
    "png header.png": (encoded("PNG")[:12], "damaged"),
    "png middle.png": (encoded("PNG")[:900], "truncated"),
    "gif middle.gif": (encoded("GIF", side=64)[:1500], "truncated"),
    "webp middle.webp": (encoded("WEBP", side=64)[:150], "decoder"),
    "tiff middle.tif": (encoded("TIFF")[:500], "truncated"),
    "bmp middle.bmp": (encoded("BMP")[:500], "truncated"),
    "nothing.jpg": (b"", "0 bytes"),
    "text.jpg": (b"hello, this is no image", "text"),
    "page.jpg": (b"<!DOCTYPE html><title>404 Not Found</title>", "<!DOCTYPE html>"),
    "archive.png": (b"PK\x03\x04" + bytes(50), "no image format"),
    "zeros.png": (bytes(1000), "no image format"),
    "checksum.png": (flipped(30), "damaged"),
    "pixels.png": (flipped(80), "broken data"),
    "bomb.png": (bomb(), "20,000 x 20,000 pixels|exceeds limit"),
    "nan.tif": (nan_tiff(), "nan"),
    "gone.png": (lambda path: path.symlink_to("nowhere.png"), "No such file"),
    "loop.png": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "pipe.jpg": (os.mkfifo, "a pipe or a device"),
    "device.jpg": (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
    "socket.jpg": (listen, "No such device"),
    "forbidden.jpg": (lambda path: path.symlink_to("/proc/self/mem"), "error|denied"),
}
ODD = {  # name -> bytes, and the kind of its note, if any: these are good to train on
    "wrong suffix.jpg": (encoded("PNG", 20), None),
    "animated.gif": (encoded("GIF", 21, save_all=True, append_images=[soft(22)]), "animated"),
    "corrupt exif.jpg": (encoded("JPEG", 23, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"), None),
    "Größe 猫 🐈.png": (encoded("PNG", 24), None),
    "two\nlines.png": (encoded("PNG", 25), None),
    'comma, "quote".png': (encoded("PNG", 26), None),
    "<script>alert(1)<.png": (encoded("PNG", 27), None),
    "=1+1.png": (encoded("PNG", 28), None),
    "-flag.png": (encoded("PNG", 29), None),
    "[red]markup[.png": (encoded("PNG", 30), None),
    "%s{0}.png": (encoded("PNG", 31), None),
    "UPPER.PNG": (encoded("PNG", 32), None),
}


def write_odd_modes(folder):
    """Files in modes that have to be turned into RGB; name -> kind of its note."""
    soft(40).convert("CMYK").save(folder / "cmyk.jpg")
    gray = np.asarray(soft(41).convert("L")).astype(np.uint16)
    Image.fromarray(gray * 257).save(folder / "sixteen.png")
    soft(42).convert("L").point(lambda v: 255 * (v > 128)).convert("1").save(folder / "one bit.png")
    soft(43).convert("P").save(folder / "palette.png", transparency=0)
    turned = Image.Exif()
    turned[0x0112] = 6
    soft(44).resize((24, 32)).save(folder / "turned.jpg", exif=turned)
    Image.new("RGB", (1, 1), "red").save(folder / "dot.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (5000, 1, 3), np.uint8)).save(
        folder / "line.png"
    )
    Image.new("RGB", (32, 32), "green").save(folder / "green.png")
    return {
        "cmyk.jpg": "color mode", "sixteen.png": "color mode", "one bit.png": "gray among color",
        "palette.png": None, "turned.jpg": None, "dot.png": "very small", "line.png": "very long",
        "green.png": "one color",
    }  # fmt: skip


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """labeled/, test/ and pool/ with all that is above among good images; names -> notes."""
    root = tmp_path_factory.mktemp("broken")
    cat, seed = root / "labeled" / "cat", 0
    for name in ("cat", "dog"):
        for _ in range(GOOD_EACH):
            write_picture(root / "labeled" / name / f"{seed}.png", seed)
            seed += 1
        for i in range(3):
            write_picture(root / "test" / name / f"{i}.png", 5000 + seed + i)
    for name, (made, _) in UNREADABLE.items():
        made(cat / name) if callable(made) else (cat / name).write_bytes(made)
    for name, (data, _) in ODD.items():
        (cat / name).write_bytes(data)
    notes = {name: note for name, (_, note) in ODD.items()} | write_odd_modes(cat)
    (cat / "deep" / "a.jpg").mkdir(parents=True)  # a folder named like an image
    write_picture(cat / "deep" / "a.jpg" / "inside.png", 6000)
    (cat / "empty folder.jpg").mkdir()
    (cat / ".hidden.jpg").write_bytes(b"mac")
    (cat / "Thumbs.db").write_bytes(b"windows")
    with open(os.fsencode(cat) + b"/latin \xe9.png", "wb") as file:
        file.write(encoded("PNG", 50))
    for name in ("cat", "dog"):
        soft(51).save(root / "labeled" / name / "both.png")
    write_picture(root / "labeled" / "dog" / "leak.bmp", 5000 + GOOD_EACH)
    soft(52).save(root / "labeled" / "dog" / "large.png")
    soft(52, 64).save(root / "labeled" / "dog" / "larger.jpg", quality=90)
    (root / "pool").mkdir()
    for i in range(20):
        write_picture(root / "pool" / f"{i}.png", 7000 + i)
    write_picture(root / "pool" / "leak.tif", 5000 + GOOD_EACH)
    return root, notes


def as_words(settings):
    pairs = ((f"--{key.replace('_', '-')}", str(value)) for key, value in settings.items())
    return [word for pair in pairs for word in pair]


def read_issues(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def all_labeled(root):
    """Every file that is meant as an image, as a person would count them."""
    found = set()
    for folder, _, files in os.walk(os.fsencode(root / "labeled")):
        for name in files:
            text = os.fsdecode(os.path.join(folder, name))
            if Path(text).suffix.lower() in SUFFIXES and not os.fsdecode(name).startswith("."):
                found.add(text)
    return found


DROPPED = {
    "both.png": ("two classes", "cat and dog"),
    "leak.bmp": ("also in test", "same pixels"),
    "latin \\udce9.png": ("file name", "not UTF-8"),
}


def look_over(issues, notes, root):
    """Each broken file has its message, and no other is left out."""
    dropped = [row for row in issues if row["severity"] == "dropped" and row["part"] == "labeled"]
    for row in dropped:
        name = Path(row["path"]).name
        if name in UNREADABLE:
            kind = "missing file" if name == "gone.png" else "unreadable"
            assert row["kind"] == kind
            words = UNREADABLE[name][1].split("|")
            assert any(word in row["detail"] for word in words), row
            assert "0x7" not in row["detail"], "an address in memory helps nobody"
        else:
            kind, word = DROPPED[name]
            assert row["kind"] == kind
            assert word in row["detail"]
    names = Counter(Path(row["path"]).name for row in dropped)
    assert names == Counter([*UNREADABLE, *DROPPED, "both.png"])
    noted = {(Path(row["path"]).name, row["kind"]) for row in issues if row["severity"] == "note"}
    for name, note in notes.items():
        if note is not None:
            assert (name, note) in noted
    assert ("larger.jpg", "near duplicate") in noted
    assert ("cat", "other files") in noted, "Thumbs.db"
    (leak,) = [row for row in issues if row["part"] == "pool" and row["severity"] == "dropped"]
    assert (leak["kind"], Path(leak["path"]).name) == ("also in test", "leak.tif")
    assert not [row for row in issues if row["severity"] == "fatal"]


def test_check_says_each_of_them_and_the_manifest_holds_exactly_the_others(
    broken, tmp_path, capsys
):
    root, notes = broken
    flags = ["--data", str(root / "labeled"), "--test", str(root / "test")]
    flags += ["--unlabeled", str(root / "pool"), "--out", str(tmp_path)]
    assert main(["check", *flags, "--page", "--fix", "manifest"]) == 0
    issues = read_issues(tmp_path / "issues.csv")
    look_over(issues, notes, root)
    out, err = capsys.readouterr()
    assert "unreadable" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "ready to train" in err
    with (tmp_path / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    good = {row["path"] for row in rows if row["split"] == "train"}
    bad = {row["path"] for row in issues if row["severity"] == "dropped"}
    everything = {path.encode("utf-8", "backslashreplace").decode() for path in all_labeled(root)}
    assert not good & bad
    assert good | {path for path in bad if "/labeled/" in path} == everything
    page = (tmp_path / "check.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "larger.jpg" in page
    assert page.count("data:image/") >= 2


def test_train_uses_the_good_ones_and_nothing_else(broken, tmp_path, capsys):
    root, notes = broken
    run = tmp_path / "run"
    flags = toy.train_settings(root, run, img_size=32)
    assert main(["train", *as_words(flags)]) == 0
    issues = read_issues(run / "data" / "issues.csv")
    issues += [{"severity": "dropped", "part": "pool", "kind": "also in test",
                "path": "leak.tif"}]  # fmt: skip  # train has no pool
    look_over(issues, notes, root)
    table = pq.read_table(run / "data" / "manifest.parquet").to_pydict()
    used = [path for part, path in zip(table["part"], table["path"], strict=True)
            if part == "labeled"]  # fmt: skip
    left_out = {*UNREADABLE, "both.png", "leak.bmp", "latin \udce9.png"}
    wanted = {path for path in all_labeled(root) if Path(path).name not in left_out}
    assert {str(root / "labeled" / path) for path in used} == wanted
    assert len(used) == len(set(used))
    assert "dropped: labeled: unreadable" in capsys.readouterr().err


def test_where_too_many_are_broken_both_stop_with_3_and_the_manifest_helps(tmp_path, capsys):
    root = toy.write_toy(tmp_path / "toy")
    for name in ("nothing.jpg", "page.jpg", "gone.png"):
        made = UNREADABLE[name][0]
        path = root / "labeled" / "dot" / name
        made(path) if callable(made) else path.write_bytes(made)
    out = tmp_path / "out"
    flags = ["--data", str(root / "labeled"), "--out", str(out), "--fix", "manifest"]
    assert main(["check", *flags]) == 3
    said, err = capsys.readouterr()
    assert "many unreadable" in said
    assert "3 of 19 images can't be read" in err
    assert "manifest.csv" in err
    rows = read_issues(out / "issues.csv")
    assert rows[0]["severity"] == "fatal"
    assert {Path(row["path"]).name for row in rows if row["severity"] == "dropped"} == {
        "nothing.jpg", "page.jpg", "gone.png"
    }  # fmt: skip
    assert len((out / "manifest.csv").read_text().splitlines()) == 17
    run = tmp_path / "run"
    assert main(["train", *as_words(toy.train_settings(root, run))]) == 3
    assert "3 of 19 images can't be read" in capsys.readouterr().err


LAYOUTS = {  # how the folder is broken, and the kind and a word that say so
    "colliding": ({"labeled/Dot/a.png": 1}, "case", "differ in case only"),
    "empty class": ({"labeled/eel/": 0}, "empty class", "eel has no images"),
    "unknown class": ({"test/dots/a.png": 1}, "unknown class", "did you mean dot?"),
}


@pytest.mark.parametrize("how", LAYOUTS)
def test_a_broken_layout_stops_both_with_3(how, tmp_path, capsys):
    files, kind, words = LAYOUTS[how]
    root = toy.write_toy(tmp_path / "toy")
    for name, seed in files.items():
        if name.endswith("/"):
            (root / name).mkdir()
        else:
            write_picture(root / name, seed)
    folders = ["--data", str(root / "labeled"), "--test", str(root / "test")]
    out = tmp_path / "out"
    assert main(["check", *folders, "--out", str(out), "--page", "--fix", "manifest"]) == 3
    rows = read_issues(out / "issues.csv")
    assert [row["kind"] for row in rows if row["severity"] == "fatal"] == [kind]
    assert words in rows[0]["detail"]
    assert words in capsys.readouterr().err
    assert not (out / "manifest.csv").exists()
    run = tmp_path / "run"
    assert main(["train", *as_words(toy.train_settings(root, run))]) == 3
    assert words in capsys.readouterr().err


def test_class_names_that_a_slip_has_made_two_of_are_noted(tmp_path):
    root = toy.write_toy(tmp_path / "toy")
    for i, name in enumerate(("dot ", "squares", "horizonal")):
        write_picture(root / "labeled" / name / "a.png", i)
    assert main(["check", "--data", str(root / "labeled"), "--out", str(tmp_path)]) == 0
    rows = read_issues(tmp_path / "issues.csv")
    alike = [row["detail"] for row in rows if row["kind"] == "class names alike"]
    pairs = (("'dot'", "'dot '"), ("'square'", "'squares'"), ("'horizonal'", "'horizontal'"))
    assert len(alike) == 3
    for detail, names in zip(sorted(alike), sorted(pairs), strict=True):
        assert all(name in detail for name in names)


def test_split_folders_are_understood_and_said(tmp_path):
    root = toy.write_toy(tmp_path / "toy")
    (root / "labeled").rename(root / "train")
    (root / "pool").rename(tmp_path / "pool")
    assert main(["check", "--data", str(root), "--out", str(tmp_path)]) == 0
    rows = read_issues(tmp_path / "issues.csv")
    assert any(row["kind"] == "splits" and "16 labeled, 24 test" in row["detail"] for row in rows)
