import os
from pathlib import Path

import pytest
from images import write_classes, write_picture, write_pool

from tutelage.data.find import open_source
from tutelage.data.issues import write_issues
from tutelage.data.parts import labeled_images, list_parts, pool_images
from tutelage.data.sources.folder import Folder, images_below
from tutelage.errors import UsageError


def labeled_folder(root, part):
    return labeled_images(Folder(str(root)), part)


def pool_folder(root):
    return pool_images(Folder(str(root)))


def kinds(issues, severity=None):
    return [issue.kind for issue in issues if severity in (None, issue.severity)]


def test_classes_are_the_sorted_folders_and_images_lie_at_any_depth(tmp_path):
    write_classes(tmp_path, {"dog": 2, "cat": 1})
    write_picture(tmp_path / "cat" / "young" / "small" / "a.png", 50)
    images, issues = labeled_folder(tmp_path, "labeled")
    assert issues == []
    assert images.classes == ("cat", "dog")
    assert images.names == ("cat/0002.png", "cat/young/small/a.png", "dog/0000.png", "dog/0001.png")
    assert images.labels == (0, 0, 1, 1)
    assert images.counts() == [2, 2]
    assert all(Path(place).is_file() for place in images.places)


def test_rows_that_are_kept_keep_their_labels(tmp_path):
    images, _ = labeled_folder(write_classes(tmp_path, {"a": 2, "b": 2}), "labeled")
    kept = images.keep([3, 0])
    assert kept.names == ("b/0003.png", "a/0000.png")
    assert kept.label_tensor().tolist() == [1, 0]
    assert kept.classes == images.classes


@pytest.mark.parametrize("name", ["a.JPG", "b.Png", "c.jpeg", "d.TIFF", "e.webp"])
def test_suffixes_count_in_any_case(tmp_path, name):
    (tmp_path / name).touch()
    assert [path.name for path in images_below(tmp_path)] == [name]


def test_files_that_are_no_images_and_hidden_files_are_passed_over(tmp_path):
    write_classes(tmp_path, {"cat": 1, "dog": 1})
    for name in ("notes.txt", "labels.csv", "no_suffix", ".hidden.png", "._0000.png", "Thumbs.db"):
        (tmp_path / "cat" / name).write_text("x")
    (tmp_path / "README.md").write_text("x")
    images, issues = labeled_folder(tmp_path, "labeled")
    assert images.names == ("cat/0000.png", "dog/0001.png")
    assert [(issue.severity, issue.kind) for issue in issues] == [("note", "other files")]
    assert "4 files" in issues[0].detail


def test_a_name_that_no_table_can_hold_is_dropped_and_shown(tmp_path):
    write_classes(tmp_path, {"cat": 2, "dog": 1})
    raw = os.fsencode(tmp_path / "cat" / "0000.png")
    os.rename(raw, raw.replace(b"0000", b"caf\xe9"))
    images, issues = labeled_folder(tmp_path, "labeled")
    assert images.names == ("cat/0001.png", "dog/0002.png")
    assert [(issue.severity, issue.kind) for issue in issues] == [("dropped", "file name")]
    assert issues[0].path.endswith("caf\\udce9.png")


def test_a_class_folder_whose_name_no_table_can_hold_is_fatal_and_shown(tmp_path):
    write_classes(tmp_path, {"cat": 1, "dog": 1, "eel": 1})
    os.rename(tmp_path / "eel", os.fsencode(tmp_path) + b"/caf\xe9")
    images, issues = labeled_folder(tmp_path, "labeled")
    assert images.classes == ("cat", "dog")
    assert kinds(issues, "fatal") == ["file name"]
    write_issues(tmp_path / "issues.csv", issues)
    assert "caf\\udce9: the name is not UTF-8" in (tmp_path / "issues.csv").read_text()
    pool, issues = pool_folder(tmp_path)
    assert len(pool) == 2
    assert kinds(issues, "dropped") == ["file name"]
    assert not kinds(issues, "fatal")


def test_an_address_that_no_table_can_hold_is_refused(tmp_path):
    write_classes(tmp_path / "data", {"cat": 1, "dog": 1})
    address = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.rename(tmp_path / "data", address)
    with pytest.raises(UsageError, match=r"caf\\udce9: the name is not UTF-8"):
        open_source(address)


def test_folders_beside_train_and_test_are_no_classes_and_those_no_pool(tmp_path):
    for split, first in (("train", 0), ("test", 10)):
        write_classes(tmp_path / split, {"cat": 2, "dog": 2}, first=first)
    write_pool(tmp_path / "unlabeled", 3, first=20)
    _, issues = labeled_folder(tmp_path, "labeled")
    assert kinds(issues, "fatal") == ["unknown split"]
    assert "beside them unlabeled" in next(i.detail for i in issues if i.severity == "fatal")
    pool, _ = pool_folder(tmp_path)
    assert {name.split("/")[0] for name in pool.names} == {"train", "unlabeled"}


def test_a_class_may_be_named_train(tmp_path):
    images, issues = labeled_folder(write_classes(tmp_path, {"bus": 1, "train": 1}), "labeled")
    assert images.classes == ("bus", "train")
    assert issues == []


@pytest.mark.parametrize("hidden", [".git", ".ipynb_checkpoints", "__MACOSX"])
def test_hidden_folders_are_noted_and_ignored(tmp_path, hidden):
    write_classes(tmp_path, {"cat": 1, "dog": 1, hidden: 1, f"cat/{hidden}": 1})
    images, issues = labeled_folder(tmp_path, "labeled")
    assert images.classes == ("cat", "dog")
    assert len(images) == 2
    assert [(issue.severity, issue.kind) for issue in issues] == [("note", "hidden folder")]
    assert hidden in issues[0].detail
    pool, issues = pool_folder(tmp_path)
    assert len(pool) == 2
    assert kinds(issues) == ["hidden folder"]


def test_an_empty_class_folder_is_fatal_and_named(tmp_path):
    write_classes(tmp_path, {"cat": 1, "dog": 1, "eel": 0})
    (tmp_path / "eel" / "notes.txt").write_text("x")
    _, issues = labeled_folder(tmp_path, "labeled")
    assert kinds(issues, "fatal") == ["empty class"]
    assert issues[0].path == str(tmp_path / "eel")


def test_class_names_that_differ_in_case_only_are_fatal(tmp_path):
    write_classes(tmp_path, {"Cat": 1, "cat": 1, "dog": 1})
    _, issues = labeled_folder(tmp_path, "labeled")
    assert kinds(issues, "fatal") == ["case"]
    assert "'Cat' and 'cat'" in issues[0].detail


def test_one_class_is_fatal_for_labels_and_fine_for_a_test(tmp_path):
    write_classes(tmp_path, {"cat": 2})
    assert kinds(labeled_folder(tmp_path, "labeled")[1], "fatal") == ["one class"]
    assert kinds(labeled_folder(tmp_path, "test")[1], "fatal") == []


def test_no_class_folders_are_fatal(tmp_path):
    write_pool(tmp_path, 2, first=0)
    assert kinds(labeled_folder(tmp_path, "labeled")[1], "fatal") == ["no classes"]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("train", "valid", "test"), {"labeled": 2, "val": 2, "test": 2}),
        (("Training", "Dev"), {"labeled": 2, "val": 2}),
        (("train",), {"labeled": 2}),
    ],
)
def test_folders_named_as_splits_are_the_parts_and_it_is_said(tmp_path, folders, expected):
    for number, name in enumerate(folders):
        write_classes(tmp_path / name, {"cat": 1, "dog": 1}, first=10 * number)
    parts, issues = list_parts(tmp_path)
    assert {name: len(part) for name, part in parts.items()} == expected
    assert all(part.classes == ("cat", "dog") for part in parts.values())
    assert kinds(issues) == ["splits"]
    assert all(f"2 {name}" in issues[0].detail for name in expected)


def test_a_split_that_is_also_given_by_its_flag_is_not_used(tmp_path):
    for number, name in enumerate(("train", "test")):
        write_classes(tmp_path / "data" / name, {"cat": 1, "dog": 1}, first=10 * number)
    other = write_classes(tmp_path / "other", {"cat": 3, "dog": 3}, first=50)
    parts, issues = list_parts(tmp_path / "data", test=other)
    assert len(parts["test"]) == 6
    assert "split not used" in kinds(issues)


def test_splits_without_one_to_train_on_are_fatal(tmp_path):
    write_classes(tmp_path / "test", {"cat": 1, "dog": 1})
    assert kinds(list_parts(tmp_path)[1], "fatal") == ["no such split"]


def test_test_images_stay_out_of_a_pool_with_splits(tmp_path):
    for number, name in enumerate(("train", "test")):
        write_classes(tmp_path / name, {"cat": 1, "dog": 1}, first=10 * number)
    images, issues = pool_folder(tmp_path)
    assert [name.split("/")[0] for name in images.names] == ["train", "train"]
    assert kinds(issues) == ["splits"]


def test_a_class_called_test_among_others_is_a_class(tmp_path):
    write_classes(tmp_path, {"cat": 1, "test": 1})
    images, issues = labeled_folder(tmp_path, "labeled")
    assert images.classes == ("cat", "test")
    assert issues == []


def test_images_beside_the_class_folders_are_noted(tmp_path):
    write_classes(tmp_path, {"cat": 1, "dog": 1})
    write_pool(tmp_path, 3, first=10)
    images, issues = labeled_folder(tmp_path, "labeled")
    assert len(images) == 2
    assert kinds(issues) == ["loose images"]
    assert issues[0].detail.startswith("3 images")


@pytest.mark.parametrize("source", [lambda root: labeled_folder(root, "labeled"), pool_folder])
def test_a_missing_folder_is_answered_with_the_nearest_name(tmp_path, source):
    (tmp_path / "labeled").mkdir()
    with pytest.raises(UsageError, match=r"there is no folder .*labelled; did you mean labeled\?"):
        source(tmp_path / "labelled")
    with pytest.raises(UsageError, match="there is no folder"):
        source(tmp_path / "nowhere" / "at" / "all")


def test_a_file_where_a_folder_should_be_is_said(tmp_path):
    path = write_picture(tmp_path / "a.png", 0)
    with pytest.raises(UsageError, match="is a file: give a folder"):
        pool_folder(path)


def test_a_pool_is_every_image_at_any_depth_without_labels(tmp_path):
    write_pool(tmp_path, 2, first=0)
    write_classes(tmp_path / "deep", {"cat": 1})
    images, issues = pool_folder(tmp_path)
    assert images.names == ("0000.png", "0001.png", "deep/cat/0000.png")
    assert images.labels is None
    assert issues == []


def test_a_pool_without_images_is_fatal(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    _, issues = pool_folder(tmp_path)
    assert kinds(issues, "fatal") == ["empty pool"]


def test_names_with_spaces_accents_and_brackets_are_kept(tmp_path):
    name = "Grüner Baum [1] (Kopie).png"
    write_picture(tmp_path / "ä b" / name, 0)
    write_picture(tmp_path / "c" / "x.png", 1)
    images, issues = labeled_folder(tmp_path, "labeled")
    assert issues == []
    assert f"ä b/{name}" in images.names
    assert all(Path(place).is_file() for place in images.places)


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    write_classes(tmp_path / "real", {"cat": 1, "dog": 1})
    elsewhere = write_pool(tmp_path / "elsewhere", 2, first=10)
    cat = tmp_path / "real" / "cat"
    (cat / "more").symlink_to(elsewhere, target_is_directory=True)
    (cat / "again").symlink_to(cat, target_is_directory=True)
    (elsewhere / "back").symlink_to(cat, target_is_directory=True)
    images, _ = labeled_folder(tmp_path / "real", "labeled")
    assert images.counts() == [3, 1]


def test_a_link_up_to_the_root_brings_no_other_classs_images(tmp_path):
    write_classes(tmp_path / "data", {"cat": 1, "dog": 2})
    (tmp_path / "data" / "cat" / "up").symlink_to(tmp_path / "data", target_is_directory=True)
    (tmp_path / "data" / "dog" / "top").symlink_to(tmp_path, target_is_directory=True)
    images, _ = labeled_folder(tmp_path / "data", "labeled")
    assert images.names == ("cat/0000.png", "dog/0001.png", "dog/0002.png")


def test_a_root_given_as_a_link_or_relative_is_read(tmp_path, monkeypatch):
    write_classes(tmp_path / "real", {"cat": 1, "dog": 1})
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path / "link", Path("link"), Path("real"), Path("real") / ".." / "real"):
        images, issues = labeled_folder(root, "labeled")
        assert images.counts() == [1, 1]
        assert issues == []
    assert len(pool_folder(Path("."))[0]) == 2


def test_a_file_that_is_a_dangling_link_is_listed_for_the_check_to_report(tmp_path):
    write_classes(tmp_path, {"cat": 1, "dog": 1})
    os.symlink(tmp_path / "gone.png", tmp_path / "cat" / "link.png")
    images, _ = labeled_folder(tmp_path, "labeled")
    assert "cat/link.png" in images.names
