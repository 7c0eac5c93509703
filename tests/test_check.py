import threading
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from images import listed, picture, pixels, write_classes, write_picture, write_pool
from PIL import Image

from tutelage.cli import main
from tutelage.data import examine as examining
from tutelage.data.check import survey
from tutelage.data.examine import examine
from tutelage.data.facts import Facts, Part
from tutelage.data.issues import Issue, stop_if_fatal, write_issues
from tutelage.data.source import Images
from tutelage.data.sources.folder import Folder
from tutelage.data.split import split
from tutelage.data.surveys import common_side
from tutelage.errors import DataProblem, UsageError


def found(issues, severity):
    return [(issue.part, issue.kind) for issue in issues if issue.severity == severity]


def counts(result):
    return {name: len(part.images) for name, part in result.parts.items()}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_good_folders_pass_without_a_word(folders):
    result = survey(folders / "labeled", test=folders / "test", pool=folders / "pool")
    assert result.issues == []
    assert counts(result) == {"labeled": 12, "test": 6, "pool": 8}
    for part in result.parts.values():
        assert len(part.facts) == len(part.images)
        assert {(fact.width, fact.height) for fact in part.facts} == {(8, 8)}


def test_progress_hears_of_every_image_once(folders):
    heard = Counter()

    def advance(name, total):
        heard[f"{name} of {total}"] = 0
        return lambda done: heard.update({f"{name} of {total}": done})

    survey(folders / "labeled", test=folders / "test", pool=folders / "pool", advance=advance)
    assert heard == {"labeled of 12": 12, "test of 6": 6, "pool of 8": 8}


def test_all_that_is_to_be_read_is_known_before_the_first_image(folders):
    told = []

    def advance(name, total):
        told.append(total)
        return lambda done: told.append("read")

    survey(folders / "labeled", test=folders / "test", pool=folders / "pool", advance=advance)
    assert told[:4] == [12, 6, 8, "read"]


def damage(path: Path, how: str) -> None:
    if how == "truncated":
        truncate(path)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("<html>404</html>")
    else:
        path.unlink()
        path.symlink_to(path.parent / "gone.png")


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "dangling"])
def test_one_unreadable_image_in_a_hundred_is_dropped_and_two_are_fatal(tmp_path, how):
    data = write_classes(tmp_path / "labeled", {"cat": 5, "dog": 5})
    pool = write_pool(tmp_path / "pool", 100, first=1000)
    damage(pool / "1003.png", how)
    kind = "missing file" if how == "dangling" else "unreadable"
    result = survey(data, pool=pool)
    assert [(i.severity, i.kind, i.part) for i in result.issues] == [("dropped", kind, "pool")]
    assert result.issues[0].path == str(pool / "1003.png")
    assert result.issues[0].detail
    assert len(result.parts["pool"].images) == 99
    assert "1003.png" not in result.parts["pool"].images.names
    damage(pool / "1050.png", how)
    result = survey(data, pool=pool)
    assert found(result.issues, "fatal") == [("pool", "many unreadable")]
    assert len(found(result.issues, "dropped")) == 2
    fatal = next(issue for issue in result.issues if issue.severity == "fatal")
    assert "2 of 100 images" in fatal.detail
    assert str(pool / "1003.png") in fatal.detail


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif", ".bmp", ".gif"])
def test_truncated_files_of_every_format_are_found(tmp_path, suffix):
    path = write_picture(tmp_path / f"a{suffix}", 0, side=32)
    assert examine(listed([path]))[0].problem == ""
    truncate(path)
    assert examine(listed([path]))[0].problem != ""


def test_a_class_of_the_test_that_is_not_trained_is_fatal_with_the_nearest_name(folders):
    write_classes(folders / "test", {"dogs": 1}, first=300)
    result = survey(folders / "labeled", test=folders / "test")
    assert found(result.issues, "fatal") == [("test", "unknown class")]
    assert "'dogs'" in result.issues[0].detail
    assert "did you mean dog?" in result.issues[0].detail


def test_a_class_without_test_images_is_noted_and_numbers_stay_those_of_the_labels(folders):
    write_classes(folders / "labeled", {"ape": 5}, first=300)
    result = survey(folders / "labeled", test=folders / "test")
    assert found(result.issues, "note") == [("test", "class not judged")]
    test = result.parts["test"].images
    assert test.classes == ("ape", "cat", "dog")
    names = [test.classes[label] for label in test.labels]
    assert names == [Path(name).parent.name for name in test.names]


def test_layout_problems_stop_before_any_image_is_read(folders):
    (folders / "labeled" / "eel").mkdir()
    result = survey(folders / "labeled", test=folders / "test", pool=folders / "pool")
    assert found(result.issues, "fatal") == [("labeled", "empty class")]
    assert all(part.facts == [] for part in result.parts.values())


def test_problems_of_all_parts_are_told_at_once(tmp_path):
    data = write_classes(tmp_path / "labeled", {"cat": 1, "Cat": 1, "eel": 0})
    test = write_classes(tmp_path / "test", {"dgo": 1}, first=50)
    (tmp_path / "pool").mkdir()
    result = survey(data, test=test, pool=tmp_path / "pool")
    assert set(found(result.issues, "fatal")) == {
        ("labeled", "case"),
        ("labeled", "empty class"),
        ("test", "unknown class"),
        ("pool", "empty pool"),
    }


def test_a_missing_pool_is_answered_with_the_nearest_name(folders):
    with pytest.raises(UsageError, match=r"did you mean pool\?"):
        survey(folders / "labeled", pool=folders / "pol")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_pool_images_that_are_test_images_are_removed_whatever_their_file(folders, suffix):
    options = {"lossless": True} if suffix == ".webp" else {}
    picture(101).save(folders / "pool" / f"other name{suffix}", **options)
    result = survey(folders / "labeled", test=folders / "test", pool=folders / "pool")
    assert counts(result) == {"labeled": 12, "test": 6, "pool": 8}
    assert found(result.issues, "dropped") == [("pool", "also in test")]
    assert result.issues[0].path == str(folders / "pool" / f"other name{suffix}")


def test_labeled_images_that_are_test_images_are_removed_from_the_labels(folders):
    write_picture(folders / "labeled" / "cat" / "x.png", 102)
    result = survey(folders / "labeled", test=folders / "test")
    assert counts(result) == {"labeled": 12, "test": 6}
    assert found(result.issues, "dropped") == [("labeled", "also in test")]
    part = result.parts["labeled"]
    assert "cat/x.png" not in part.images.names
    assert part.images.counts() == [6, 6]
    assert len(part.facts) == 12


def test_validation_images_are_taken_out_of_labels_and_pool(folders):
    val = write_classes(folders / "val", {"cat": 2, "dog": 2}, first=400)
    write_picture(folders / "labeled" / "dog" / "x.png", 403)
    write_picture(folders / "pool" / "x.png", 400)
    result = survey(folders / "labeled", val=val, test=folders / "test", pool=folders / "pool")
    assert counts(result) == {"labeled": 12, "val": 4, "test": 6, "pool": 8}
    assert found(result.issues, "dropped") == [("labeled", "also in val"), ("pool", "also in val")]


def test_validation_images_that_are_test_images_are_removed_so_that_nothing_is_chosen_on_them(
    folders,
):
    val = write_classes(folders / "val", {"cat": 2, "dog": 2}, first=400)
    write_picture(val / "dog" / "x.png", 103)
    result = survey(folders / "labeled", val=val, test=folders / "test")
    assert counts(result) == {"labeled": 12, "val": 4, "test": 6}
    assert found(result.issues, "dropped") == [("val", "also in test")]


def test_a_class_that_loses_all_its_images_is_fatal(folders):
    write_classes(folders / "labeled", {"eel": 1}, first=100)  # a test image
    result = survey(folders / "labeled", test=folders / "test")
    assert ("labeled", "also in test") in found(result.issues, "dropped")
    assert found(result.issues, "fatal") == [("labeled", "no images left")]
    assert "eel" in result.issues[-1].path


def test_a_class_whose_only_image_is_unreadable_is_fatal(tmp_path):
    data = write_classes(tmp_path, {"cat": 120, "dog": 1})
    truncate(data / "dog" / "0120.png")
    result = survey(data)
    assert found(result.issues, "fatal") == [("labeled", "no images left")]


def test_a_pool_of_nothing_but_test_images_is_fatal(folders):
    pool = write_pool(folders / "twins", 3, first=100)
    result = survey(folders / "labeled", test=folders / "test", pool=pool)
    assert len(found(result.issues, "dropped")) == 3
    assert len(result.parts["pool"].images) == 0
    assert found(result.issues, "fatal") == [("pool", "no images left")]


def test_equal_pixels_are_one_image_and_another_shape_is_another(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "b.bmp", "c.png", "d.png")]
    for path, array in zip(
        paths, [pixels(0), pixels(0), pixels(1), pixels(0).reshape(4, 16, 3)], strict=True
    ):
        Image.fromarray(array).save(path)
    a, b, c, d = (fact.content for fact in examine(listed(paths)))
    assert a == b
    assert len({a, c, d}) == 3


def test_what_a_decoder_warns_of_does_not_change_the_filters_of_the_process(monkeypatch, tmp_path):
    paths = [write_picture(tmp_path / name, 0) for name in ("a.png", "b.png")]
    meet = threading.Barrier(2, timeout=10)
    turn = threading.Event()

    def read(raw):  # two threads come together, and one leaves before the other
        first = meet.wait() == 0
        warnings.warn("corrupt EXIF", UserWarning, stacklevel=1)
        if first:
            turn.wait(timeout=1)
        else:
            turn.set()
        return picture(0)

    monkeypatch.setattr(examining, "to_rgb", read)
    monkeypatch.setattr(examining, "AT_ONCE", 1)
    for _ in range(5):
        meet.reset()
        turn.clear()
        before = list(warnings.filters)
        facts = examine(listed(paths))
        assert [fact.problem for fact in facts] == ["", ""]
        assert warnings.filters == before


def part_of(class_counts):
    labels = tuple(label for label, count in enumerate(class_counts) for _ in range(count))
    names = tuple(f"{i}.png" for i in range(len(labels)))
    classes = tuple(f"class {i}" for i in range(len(class_counts)))
    facts = [Facts(str(i), 8, 8) for i in range(len(labels))]
    return Part(Images(Folder("root"), names, labels, classes), facts)


def test_a_split_takes_that_share_of_every_class():
    train, val, issues = split(part_of([10, 20, 5, 2]), 0.2, seed=0)
    labels = part_of([10, 20, 5, 2]).images.label_tensor()
    assert issues == []
    assert torch.bincount(labels[val]).tolist() == [2, 4, 1, 1]
    assert torch.bincount(labels[train]).tolist() == [8, 16, 4, 1]


@settings(max_examples=40)
@given(
    st.lists(st.integers(2, 30), min_size=1, max_size=5), st.floats(0.01, 0.9), st.integers(0, 99)
)
def test_a_split_uses_each_row_once_and_leaves_no_class_without(class_counts, fraction, seed):
    part = part_of(class_counts)
    train, val, _ = split(part, fraction, seed=seed)
    assert sorted(train + val) == list(range(sum(class_counts)))
    assert train == sorted(train)
    assert val == sorted(val)
    labels = part.images.label_tensor()
    for rows in (train, val):
        assert len(labels[rows].unique()) == len(class_counts)
    for label, count in enumerate(class_counts):
        assert abs((labels[val] == label).sum().item() - fraction * count) <= 1
    assert (train, val, []) == split(part, fraction, seed=seed)


def test_another_seed_splits_otherwise():
    part = part_of([20, 20])
    assert split(part, 0.25, seed=0)[1] != split(part, 0.25, seed=1)[1]


def test_a_class_with_fewer_labels_than_the_split_needs_is_fatal():
    _, _, issues = split(part_of([5, 1, 5]), 0.2, seed=0)
    assert [(issue.severity, issue.kind) for issue in issues] == [("fatal", "too few labels")]
    assert "'class 1' has 1 usable image, and" in issues[0].detail


def test_the_common_side_is_the_median_of_the_shorter_sides():
    facts = [Facts("", 100, 40), Facts("", 30, 300), Facts("", 1000, 900)]
    assert common_side(facts) == 40
    with pytest.raises(UsageError):
        common_side([])


def test_fatal_issues_stop_with_all_of_them_in_a_file_the_fatal_first(tmp_path):
    issues = [
        Issue("note", "hidden folder", "pool", "p", "ignored"),
        Issue("fatal", "case", "labeled", "q", 'class "a", "A"'),
    ]
    with pytest.raises(DataProblem, match="1 problem with the data") as caught:
        stop_if_fatal(issues, tmp_path)
    assert 'labeled: class "a", "A"' in str(caught.value)
    lines = (tmp_path / "issues.csv").read_text().splitlines()
    assert lines[0] == "severity,kind,part,path,detail"
    assert lines[1] == 'fatal,case,labeled,q,"class ""a"", ""A"""'
    assert lines[2].startswith("note,")


def test_many_fatal_issues_are_cut_short_on_screen_and_none_are_no_reason_to_stop(tmp_path):
    issues = [Issue("fatal", "x", "test", str(i), f"detail {i}") for i in range(13)]
    with pytest.raises(DataProblem, match="and 3 more"):
        stop_if_fatal(issues, tmp_path)
    stop_if_fatal([Issue("dropped", "x", "pool", "p", "d")], tmp_path / "not made")
    assert not (tmp_path / "not made").exists()
    write_issues(tmp_path / "none.csv", [])
    assert (tmp_path / "none.csv").read_text() == "severity,kind,part,path,detail\n"


def test_a_folder_that_can_not_be_made_is_said_before_images_are_read(folders, capsys, monkeypatch):
    monkeypatch.setattr("tutelage.pipelines.check_data.look", None)
    taken = folders / "labeled" / "cat" / "0000.png"
    assert main(["check", "--data", str(folders / "labeled"), "--out", str(taken / "found")]) == 2
    assert f"can't make the folder {taken}" in capsys.readouterr().err


def test_a_pool_of_test_images_alone_is_said_to_be_one(folders):
    rows = "".join(f"{path},test\n" for path in (folders / "pool").iterdir())
    (folders / "pool.csv").write_text(f"path,split\n{rows}")
    found = survey(folders / "labeled", pool=folders / "pool.csv").issues
    told = [issue.detail for issue in found if issue.severity == "fatal"]
    assert len(told) == 1
    assert "no images but those of validation or test splits" in told[0]
