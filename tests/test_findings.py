import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import picture, write_classes, write_picture, write_pool
from PIL import Image
from rich.console import Console

from tutelage.cli import main
from tutelage.data.check import Survey, survey
from tutelage.data.class_names import same_word
from tutelage.data.cleaned import write_cleaned
from tutelage.data.facts import Facts, Part
from tutelage.data.issues import Issue
from tutelage.data.source import Images, Listing
from tutelage.data.sources.folder import Folder
from tutelage.data.sources.huggingface import HuggingFace
from tutelage.data.split import split
from tutelage.errors import UsageError
from tutelage.pipelines.check_data import report_on
from tutelage.progress import Screen
from tutelage.reports import check_table
from tutelage.reports.check_page import write_check_page


class Grouped(Folder):
    """A folder whose images of equal last digit are a group."""

    def listing(self, part):
        found = super().listing(part)
        groups = tuple(name.split(".")[0][-1] for name in found.names)
        return replace(found, groups=groups)


def found(result, severity="note"):
    return sorted({(i.part, i.kind) for i in result.issues if i.severity == severity})


def soft(seed, side=32):
    return picture(seed, 4).resize((side, side), Image.Resampling.BICUBIC)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def part_of(labels, contents, groups=None):
    classes = tuple(f"class {i}" for i in range(max(labels) + 1))
    images = Images(Folder("root"), tuple(f"{i}.png" for i in range(len(labels))), tuple(labels),
                    classes, groups)  # fmt: skip
    return Part(images, [Facts(str(content), 8, 8) for content in contents])


@settings(max_examples=40)
@given(st.data())
def test_a_split_never_parts_a_group_or_copies_and_names_the_classes_that_it_can_not_serve(data):
    size = data.draw(st.integers(2, 60))
    numbers = st.lists(st.integers(0, 2), min_size=size, max_size=size)
    labels = data.draw(numbers)
    contents = data.draw(st.lists(st.integers(0, 40), min_size=size, max_size=size))
    groups = data.draw(st.lists(st.sampled_from(["", "a", "b", "c", "d"]), min_size=size,
                                max_size=size))  # fmt: skip
    part = part_of(labels, contents, tuple(groups))
    train, val, issues = split(part, data.draw(st.floats(0.05, 0.8)), seed=0)
    assert sorted(train + val) == list(range(size))
    for key in ([f"content {c}" for c in contents], groups):
        sides = [{key[row] for row in rows} - {""} for rows in (train, val)]
        assert not sides[0] & sides[1]
    served = [{labels[row] for row in rows} for rows in (train, val)]
    lacking = {i for i in range(len(part.images.classes)) if not all(i in side for side in served)}
    named = {int(re.search(r"class (\d)", issue.detail)[1]) for issue in issues}
    assert named == lacking
    assert all(issue.severity == "fatal" for issue in issues)


def test_a_split_of_groups_takes_about_the_share_asked_for():
    groups = tuple(f"patient {i // 5}" for i in range(200))
    train, val, issues = split(part_of([0] * 100 + [1] * 100, range(200), groups), 0.2, seed=3)
    assert issues == []
    assert len(val) == 40
    assert len(train) == 160


def test_groups_that_are_judged_on_leave_labels_and_pool(tmp_path):
    write_classes(tmp_path / "labeled", {"cat": 10, "dog": 10})  # groups 0 to 9, twice
    write_classes(tmp_path / "test", {"cat": 1, "dog": 1}, first=103)  # groups 3 and 4
    write_pool(tmp_path / "pool", 10, first=200)
    given = {name: Grouped(str(tmp_path / name)) for name in ("labeled", "test", "pool")}
    result = survey("labeled", test="test", pool="pool", given=given)
    assert found(result, "dropped") == [
        ("labeled", "group also in test"), ("pool", "group also in test")
    ]  # fmt: skip
    for name, count in (("labeled", 16), ("pool", 8)):
        images = result.parts[name].images
        assert len(images) == count
        assert not {"3", "4"} & set(images.groups)


def test_near_images_are_told_within_a_class_across_classes_and_to_what_is_judged_on(tmp_path):
    for i in range(30):
        save(soft(i), tmp_path / "labeled" / "cat" / f"{i}.png")
        save(soft(100 + i), tmp_path / "labeled" / "dog" / f"{i}.png")
        save(soft(200 + i), tmp_path / "pool" / f"{i}.png")
    for i in range(5):
        for k, name in enumerate(("cat", "dog")):
            save(soft(300 + 10 * k + i), tmp_path / "test" / name / f"{i}.png")
            save(soft(400 + 10 * k + i), tmp_path / "val" / name / f"{i}.png")
    again = {"quality": 85}
    save(soft(3, 48), tmp_path / "labeled" / "cat" / "again.jpg", **again)
    save(soft(4, 48), tmp_path / "labeled" / "dog" / "wrong.jpg", **again)
    save(soft(300, 48), tmp_path / "labeled" / "cat" / "seen.jpg", **again)
    save(soft(311, 48), tmp_path / "pool" / "seen.jpg", **again)
    save(soft(301, 48), tmp_path / "val" / "cat" / "seen.jpg", **again)
    save(soft(400, 48), tmp_path / "pool" / "seen too.jpg", **again)
    parts = {name: str(tmp_path / name) for name in ("val", "test", "pool")}
    result = survey(str(tmp_path / "labeled"), **parts)
    assert found(result, "fatal") == found(result, "dropped") == []
    kinds = ("near duplicate", "may be mislabeled", "looks like test", "looks like val")
    noted = {(i.part, i.kind, i.path.rpartition("/")[2]): i.detail for i in result.issues
             if i.kind in kinds}  # fmt: skip
    assert set(noted) == {
        ("labeled", "near duplicate", "again.jpg"),
        ("labeled", "may be mislabeled", "wrong.jpg"),
        ("labeled", "looks like test", "seen.jpg"),
        ("pool", "looks like test", "seen.jpg"),
        ("val", "looks like test", "seen.jpg"),
        ("pool", "looks like val", "seen too.jpg"),
    }
    assert "cat/4.png (cat; this one: dog)" in noted["labeled", "may be mislabeled", "wrong.jpg"]
    assert "test/dog/1.png" in noted["pool", "looks like test", "seen.jpg"]
    page = write_check_page(tmp_path / "check.html", result).read_text()
    assert page.count("data:image/") == 12
    write_check_page(tmp_path / "again.html", result)
    assert (tmp_path / "again.html").read_text() == page


def test_copies_are_told_and_do_no_harm(folders):
    write_picture(folders / "labeled" / "cat" / "again.bmp", 0)
    write_picture(folders / "pool" / "labeled.png", 1)
    write_picture(folders / "pool" / "again.bmp", 200)
    result = survey(folders / "labeled", pool=folders / "pool")
    assert found(result) == [("labeled", "copies"), ("pool", "also labeled"), ("pool", "copies")]
    assert found(result, "dropped") == []


def test_few_images_and_uneven_classes_are_told_with_numbers(tmp_path):
    data = write_classes(tmp_path, {"cat": 45, "dog": 4, "eel": 5})
    result = survey(data)
    details = {issue.kind: issue.detail for issue in result.issues}
    assert set(details) == {"tiny class", "imbalance"}
    assert "'dog' has only 4 usable images" in details["tiny class"]
    assert "'cat' has 45 images and 'dog' 4, 11 times fewer" in details["imbalance"]


def test_odd_sizes_and_colors_are_told(tmp_path):
    data = write_classes(tmp_path / "d", {"cat": 20, "dog": 20}, side=40)
    save(picture(900, 9), data / "cat" / "small.png")
    save(Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 200, 3), np.uint8)),
         data / "cat" / "long.png")  # fmt: skip
    save(picture(901, 40).convert("L"), data / "cat" / "gray.png")
    save(picture(902, 40).convert("L").convert("RGB"), data / "cat" / "gray too.png")
    save(Image.new("RGB", (40, 40), "blue"), data / "cat" / "blue.png")
    save(picture(903, 40).convert("CMYK"), data / "cat" / "print.tif")
    result = survey(str(data))
    odd = sorted((issue.kind, issue.path.rpartition("/")[2]) for issue in result.issues)
    assert odd == [
        ("color mode", "print.tif"), ("gray among color", "gray too.png"),
        ("gray among color", "gray.png"), ("one color", "blue.png"), ("very long", "long.png"),
        ("very small", "small.png"),
    ]  # fmt: skip


def test_mixed_sizes_are_told_once(tmp_path):
    data = write_classes(tmp_path / "d", {"cat": 20}, side=10)
    write_classes(tmp_path / "d", {"dog": 20}, first=100, side=100)
    assert ("labeled", "mixed sizes") in found(survey(str(data)))


@pytest.mark.parametrize(
    ("one", "other"),
    [("cat", "cat "), ("cat", "Cats"), ("wolf_spider", "Wolf Spider"), ("fly", "flies"),
     ("box", "boxes"), ("caf\u00e9 cup", "cafe\u0301 cup"), ("airplane", "airplan"),
     ("airplane", "airplame"), ("airplane", "airlpane"), ("\uff43at", "cat")],
)  # fmt: skip
def test_slips_in_class_names_are_found(one, other):
    ((first, second, _),) = same_word((one, "something else", other))
    assert (first, second) == (one, other)


@pytest.mark.parametrize(
    "names",
    [("cat", "bat", "car"), ("n01440764", "n01443537", "n01440765"), ("1", "-1", "10", "1.0"),
     ("class 1", "class 11", "class 2"), ("grass", "glass"), ("Cat", "cat"), ("_", "-", " "),
     ("airplane", "automobile", "bird", "deer", "frog", "horse", "ship", "truck")],
)  # fmt: skip
def test_different_words_are_left_in_peace(names):
    assert list(same_word(names)) == []


def issue(severity, kind, part, path="a/b/c.png"):
    return Issue(severity, kind, part, path, "detail")


def test_the_table_fits_into_80_columns_with_the_worst_first_and_no_color_in_a_file():
    issues = [issue("note", "gray among color", "pool")] * 12_345
    issues += [issue("note", "[b]near", "labeled", "x/[red]\n" + "long " * 30)] * 3
    issues += [
        issue("dropped", "group also in test", "labeled"),
        issue("fatal", "case", "val"),
        issue("fatal", "case", "test"),
    ]
    out = io.StringIO()
    check_table.show(issues, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert len(lines) == 5
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[1:]] == ["fatal", "dropped", "note", "note"]
    assert "12,345" in lines[3]
    assert "[b]near" in lines[4]
    assert "detail" in lines[4], "what is no image is told by its words"
    assert "\x1b" not in out.getvalue()


def test_the_page_escapes_all_and_stands_alone(tmp_path):
    evil = "<script>alert('x')</script>"
    data = tmp_path / "data"
    for i in range(12):
        save(soft(i), data / evil.replace("/", "_") / f"{i}.png")
        save(soft(50 + i), data / "<b>dog" / f"{i}.png")
    save(soft(3, 48), data / "<b>dog" / "<img src=x>.jpg")
    (data / "<b>dog" / "<i>.jpg").write_text("<html>")
    page = write_check_page(tmp_path / "check.html", survey(str(data))).read_text()
    assert "<script" not in page
    for tag in ("<b>dog", "<img src=x>", "<i>"):
        assert tag not in page
    assert "&lt;img src=x&gt;" in page
    assert page.count("<svg") == 2
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)


def test_the_manifest_has_each_content_once_and_absolute_paths(folders, tmp_path, monkeypatch):
    write_picture(folders / "labeled" / "cat" / "again.bmp", 0)
    write_picture(folders / "pool" / "again.bmp", 200)
    write_picture(folders / "pool" / "leak.png", 100)
    monkeypatch.chdir(folders)
    before = {path: path.read_bytes() for path in folders.rglob("*.*")}
    result = survey("labeled", test="test", pool="pool")
    manifest, pool = write_cleaned(tmp_path / "out", result.parts)
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "split"]
    assert len([row for row in rows if row["split"] == "train"]) == 12
    assert len([row for row in rows if row["split"] == "test"]) == 6
    assert all(row["path"].startswith(str(folders)) for row in rows)
    assert all(f"/{row['label']}/" in row["path"] for row in rows)
    assert len(pool.read_text().splitlines()) == 9
    assert {path: path.read_bytes() for path in before} == before


def test_the_manifest_keeps_groups_and_needs_files(tmp_path):
    data = write_classes(tmp_path / "labeled", {"cat": 6, "dog": 6})
    result = survey("x", given={"x": Grouped(str(data))})
    manifest, _ = write_cleaned(tmp_path, result.parts)
    assert manifest.read_text().splitlines()[0] == "path,label,group"
    part = result.parts["labeled"]
    elsewhere = Part(replace(part.images, source=Folder(str(tmp_path / "shard.tar"))), part.facts)
    with pytest.raises(UsageError, match="lies inside a larger file"):
        write_cleaned(tmp_path, {"labeled": elsewhere})


def test_a_second_check_without_findings_leaves_no_old_issues(folders, tmp_path, capsys):
    (folders / "labeled" / "cat" / "bad.png").write_bytes(b"")
    images = Images(Folder("x"), (), (), ("a", "b"))
    (tmp_path / "issues.csv").write_text("severity,kind,part,path,detail\nnote,old,,,\n")
    report_on(Survey({"labeled": Part(images)}, []), tmp_path, Screen(), page=False, fix=False)
    assert "old" not in (tmp_path / "issues.csv").read_text()
    assert "ready to train" in capsys.readouterr().err


def test_a_class_too_small_for_the_validation_part_is_said_with_what_to_give(tmp_path, capsys):
    write_classes(tmp_path / "labeled", {"cat": 6, "dog": 6})
    write_picture(tmp_path / "labeled" / "cow" / "0.png", 90)
    write_picture(tmp_path / "labeled" / "cow" / "copy.bmp", 90)
    write_classes(tmp_path / "val", {"cat": 2, "cow": 2, "dog": 2}, first=100)
    asked = ["check", "--data", str(tmp_path / "labeled"), "--out", str(tmp_path), "--page"]
    assert main(asked) == 0
    out, err = capsys.readouterr()
    assert re.search("note +too few labels", out)
    assert "ready to train with --val, or with --val-fraction 0" in err
    assert "ready to train with --val" in (tmp_path / "check.html").read_text()
    rows = list(csv.DictReader((tmp_path / "issues.csv").read_text().splitlines()))
    (row,) = [row for row in rows if row["kind"] == "too few labels"]
    assert row["severity"] == "note"
    assert "class 'cow' has 1 usable image, and splitting off" in row["detail"]
    assert main([*asked, "--val", str(tmp_path / "val")]) == 0
    out, err = capsys.readouterr()
    assert "too few labels" not in out
    assert err.splitlines()[-1] == "ready to train"


def test_classes_that_groups_tie_together_are_said_to_be_too_small(tmp_path, capsys):
    write_classes(tmp_path, {"cat": 3, "dog": 3})
    kinds = [(path, path.parent.name) for path in tmp_path.rglob("*.png")]
    rows = [f"{path},{kind},{kind} or so" for path, kind in kinds]
    (tmp_path / "data.csv").write_text("\n".join(["path,label,group", *rows]))
    assert main(["check", "--data", str(tmp_path / "data.csv"), "--out", str(tmp_path)]) == 0
    assert "too few labels" in capsys.readouterr().out
    asked = ["train", "--data", str(tmp_path / "data.csv"), "--model", "test_resnet"]
    assert main([*asked, "--out", str(tmp_path / "run"), "--device", "cpu"]) == 3
    assert "splitting off a validation part needs 2" in capsys.readouterr().err


def test_listings_of_grouped_folders_are_what_these_tests_take_them_for(folders):
    listing = Grouped(str(folders / "labeled")).listing("labeled")
    assert isinstance(listing, Listing)
    assert set(listing.groups) == {str(i % 10) for i in range(12)}


def test_groups_of_the_pool_stay_in_its_table(folders):
    rows = [f"{path},farm {i % 2}" for i, path in enumerate(sorted((folders / "pool").iterdir()))]
    (folders / "pool.csv").write_text("path,group\n" + "\n".join(rows))
    result = survey(folders / "labeled", pool=folders / "pool.csv")
    _, pool = write_cleaned(folders / "out", result.parts)
    assert pool.read_text().splitlines() == ["path,group", *rows]


@pytest.mark.parametrize("address", ["s3://bucket/shards", "hf://owner/name"])
def test_images_within_other_files_are_in_no_table_wherever_they_lie(folders, address):
    result = survey(folders / "labeled")
    part = result.parts["labeled"]
    part.images = replace(part.images, source=HuggingFace(address))
    with pytest.raises(UsageError, match="lies inside a larger file"):
        write_cleaned(folders / "out", {"labeled": part})
