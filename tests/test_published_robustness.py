"""ImageNet-A, -R, -C, V2, Sketch and CIFAR-C as published: masks, orders, blocks."""

import json
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import starts
import torch
import toy
from PIL import Image
from published import (
    ByColor,
    plain,
    subject,
    write,
    write_classes,
    write_corrupted,
)

import tutelage
from tutelage.cli import main
from tutelage.errors import DataProblem, UsageError
from tutelage.judging_settings import EvaluateSettings
from tutelage.pipelines.robust import suites_for
from tutelage.robustness import corrupted_arrays, imagenet, scores
from tutelage.robustness.corrupted_arrays import CIFAR_10, CIFAR_100, CorruptedArrays
from tutelage.robustness.corrupted_folders import CorruptedFolders
from tutelage.robustness.published_corruptions import PublishedCorruptions
from tutelage.robustness.published_images import PublishedImages
from tutelage.robustness.suite import Reference

SYNSETS = imagenet.synsets()
OF_A, OF_R = (imagenet.classes_of(release) for release in "ar")
NUMBERS_A = [SYNSETS.index(name) for name in OF_A]
OUTSIDE = [number for number in range(1000) if number not in NUMBERS_A]


def finished(suite, one, advance=lambda done: None):
    """All cases, and the summary's parts."""
    suite.check(one)
    found = {}
    for case in suite.cases(one):
        found[case.key] = suite.run(case, one, found, advance)
    return found


def summary_of(suite, one, reference=None):
    return suite.summary(one, finished(suite, one), reference)


def everyone(classes=SYNSETS, order=None, favored=(), numbers=(), **more):
    """A model of ImageNet's classes, with clean images of those numbers."""
    order = list(range(1000)) if order is None else order
    labels = [order.index(number) for number in numbers] or [0]
    return subject(ByColor(order, favored), classes, list(numbers) or [order[0]], labels, **more)


def test_the_masks_are_those_of_the_releases():
    assert len(OF_A) == len(OF_R) == 200
    assert len(set(OF_A) & set(OF_R)) == 86
    assert NUMBERS_A[:10] == [6, 11, 13, 15, 17, 22, 23, 27, 30, 37]
    assert list(OF_A) == sorted(OF_A)
    assert len(SYNSETS) == 1000


def test_classes_outside_of_the_release_can_take_nothing(tmp_path):
    """Each image is of its class's color, and a thousand times surer of one that is not asked."""
    root = write_classes(tmp_path, {OF_A[k]: [NUMBERS_A[k]] for k in (0, 1, 57, 199)})
    model = everyone(favored=OUTSIDE, numbers=[NUMBERS_A[3], NUMBERS_A[5], OUTSIDE[0]])
    summary = summary_of(PublishedImages("a", str(root)), model)
    assert summary.numbers["accuracy"] == 1
    assert summary.numbers["clean_accuracy"] == 1  # of the two images whose classes it has
    assert "of the same classes 100.0 % (34.2 % to 100.0 %, 2 images)" in summary.lines[1]
    assert summary.numbers["rms_calibration_error"] == pytest.approx(0, abs=1e-4)
    assert any("limited to the 200 classes" in note and "1,000" in note for note in summary.notes)
    assert any("4 of the release's 200 classes" in note for note in summary.notes)


def test_all_200_classes_stay_possible_where_the_folder_has_few_of_them(tmp_path):
    """The images look like a class of the release that the folder lacks."""
    root = write_classes(tmp_path, {OF_A[0]: [NUMBERS_A[9]] * 3, OF_A[1]: [NUMBERS_A[9]] * 3})
    summary = summary_of(PublishedImages("a", str(root)), everyone())
    assert summary.numbers["accuracy"] == 0
    assert any("BELOW chance, which is 1 of 200 classes" in note for note in summary.notes)
    assert any("ResNet-50 got wrong" in note for note in summary.notes)


def test_another_release_is_told_by_its_classes(tmp_path):
    root = write_classes(tmp_path, {name: [0] for name in OF_R[:5]})
    with pytest.raises(UsageError, match="classes that ImageNet-A has not"):
        PublishedImages("a", str(root)).check(everyone())
    PublishedImages("r", str(root)).check(everyone())


def test_the_gap_is_to_clean_images_of_the_same_classes(tmp_path):
    own = [SYNSETS.index(name) for name in OF_R]
    root = write_classes(tmp_path, {OF_R[k]: [own[k], own[k], 999] for k in range(4)})
    clean = [own[0], own[1], *[n for n in range(50) if n not in own]]
    summary = summary_of(PublishedImages("r", str(root)), everyone(numbers=clean))
    assert summary.numbers["accuracy"] == pytest.approx(2 / 3)
    assert summary.numbers["gap"] == pytest.approx(1 / 3)
    without = summary_of(PublishedImages("r", str(root)), everyone(numbers=clean[2:]))
    assert "gap" not in without.numbers
    assert without.numbers["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("names", ["synsets", "numbers", "sorted numbers", "names"])
def test_v2s_folders_are_numbers_and_not_words(names, tmp_path):
    """As words 10 comes before 2; a model that sorted its folders so is right, too."""
    root = write_classes(tmp_path, {str(number): [number] for number in range(12)})
    order, classes = list(range(1000)), SYNSETS
    if names == "numbers":
        classes = [str(number) for number in range(1000)]
    elif names == "sorted numbers":
        order = sorted(range(1000), key=str)
        classes = [str(number) for number in order]
    elif names == "names":
        classes = imagenet._descriptions()[0]
    summary = summary_of(PublishedImages("v2", str(root)), everyone(classes, order))
    assert summary.numbers["accuracy"] == 1
    assert any("12 of the release's 1,000 classes" in note for note in summary.notes)


def test_v2s_folders_may_be_synsets():
    assert imagenet.are_numbers([str(n) for n in range(1000)])
    assert not imagenet.are_numbers([str(n) for n in range(1001)])
    assert not imagenet.are_numbers(["1", "01"])
    assert not imagenet.are_numbers(["1", "²"])


@pytest.mark.parametrize("detailed", [0, 1])
def test_sketchs_synsets_are_found_under_timms_names(detailed, tmp_path):
    """Of which two are crane: the bird 134, the machine 517."""
    shown = [0, 134, 517, 999]
    root = write_classes(tmp_path, {SYNSETS[number]: [number] for number in shown})
    model = everyone(imagenet._descriptions()[detailed])
    summary = summary_of(PublishedImages("sketch", str(root)), model)
    assert summary.numbers["accuracy"] == 1
    assert "4 images" in summary.lines[0]


def test_synsets_are_found_under_numbers_as_a_folder_sorts_them(tmp_path):
    root = write_classes(tmp_path, {SYNSETS[number]: [number] for number in (2, 10, 100, 999)})
    order = sorted(range(1000), key=str)
    model = everyone([str(number) for number in order], order)
    summary = summary_of(PublishedImages("sketch", str(root)), model)
    assert summary.numbers["accuracy"] == 1


def test_a_model_of_some_synsets_is_judged_on_those(tmp_path):
    """Its order is another than the folder's; images of unknown classes are left out."""
    classes = [OF_R[5], OF_R[2], SYNSETS[0], OF_R[3]]
    order = [SYNSETS.index(name) for name in classes]
    shown = {name: [SYNSETS.index(name)] * 2 for name in (OF_R[1], OF_R[2], OF_R[3], OF_R[5])}
    root = write_classes(tmp_path, shown)
    summary = summary_of(PublishedImages("r", str(root)), everyone(classes, order))
    assert summary.numbers["accuracy"] == 1
    assert "(6 images" not in summary.lines[0]
    assert "6 images" in summary.lines[0]
    assert any("1 of its 4 classes are none of the model's" in note for note in summary.notes)
    assert any("limited to the 3 classes" in note and "model's 4" in note for note in summary.notes)


def test_own_class_names_are_matched_by_name(tmp_path):
    root = write_classes(tmp_path, {"dog": [2, 2], "ant": [0, 1], "cat": [1, 1]})
    model = subject(ByColor([1, 2, 3, 0]), ["cat", "dog", "emu", "ant"], [1, 2], [0, 1])
    summary = summary_of(PublishedImages("sketch", str(root)), model)
    assert summary.numbers["accuracy"] == pytest.approx(5 / 6)


def test_a_wrong_order_of_classes_is_said_loudly(tmp_path):
    root = write_classes(tmp_path, {SYNSETS[n]: [n] * 3 for n in range(0, 20)})
    suite = PublishedImages("sketch", str(root))
    pairs = everyone(order=[number ^ 1 for number in range(1000)])
    shifted = everyone(order=[*range(1, 1000), 0])  # but for the first color all are wrong
    for wrong, words in ((pairs, "BELOW"), (shifted, "NOT ABOVE")):
        notes = summary_of(suite, wrong).notes
        expected = f"{words} chance, which is 1 of 20 classes: is the class mapping wrong?"
        assert notes[0] == expected
    assert "chance" not in " ".join(summary_of(suite, everyone()).notes)


def test_the_same_images_by_another_model_are_a_relative_error(tmp_path):
    root = write_classes(tmp_path, {SYNSETS[n]: [n, n, n, 5] for n in range(4)})
    suite = PublishedImages("sketch", str(root))
    one = everyone()
    own = finished(suite, one)
    worse = finished(suite, everyone(favored=[0]))
    summary = suite.summary(one, own, Reference("first", one.clean, worse))
    assert summary.numbers["relative_error"] == pytest.approx(100 * 3 / 12)
    assert "error relative to first: 25.0 %, -56.2 points" in summary.lines[-1]


def test_an_unreadable_image_is_left_out_and_many_stop(tmp_path):
    root = write_classes(tmp_path, {SYNSETS[n]: [n] * 60 for n in range(2)})
    (root / SYNSETS[0] / "7.JPEG").write_bytes(b"\xff\xd8\xff")
    suite = PublishedImages("sketch", str(root))
    summary = summary_of(suite, everyone())
    assert "accuracy 100.0 % (" in summary.lines[0]
    assert "119 images" in summary.lines[0]
    assert "1 images can't be read and are left out" in summary.notes
    (root / SYNSETS[1] / "0.JPEG").write_bytes(b"")
    with pytest.raises(DataProblem, match=r"2 of 120 images .*first is .*7\.JPEG"):
        summary_of(PublishedImages("sketch", str(root)), everyone())


def test_fewer_images_are_drawn_evenly_from_the_classes(tmp_path):
    root = write_classes(tmp_path, {SYNSETS[n]: [n] * (2 + 4 * n) for n in range(3)})
    suite = PublishedImages("sketch", str(root), 7, 3)
    model = everyone()
    rows, labels = suite._chosen(suite._match(model))
    assert sorted(labels.bincount().tolist()) == [2, 2, 3]
    assert suite.num_images(suite.cases(model)[-1], model) == 7
    again = PublishedImages("sketch", str(root), 7, 3)
    assert torch.equal(rows, again._chosen(again._match(model))[0])
    other = PublishedImages("sketch", str(root), 7, 4)
    assert not torch.equal(rows, other._chosen(other._match(model))[0])
    notes = summary_of(suite, model).notes
    assert "7 of its 18 images, drawn evenly from the classes" in notes


def test_settings_tell_images_apart_by_address_names_and_sizes(tmp_path):
    root = write_classes(tmp_path / "one", {SYNSETS[n]: [n] * 2 for n in range(3)})
    before = PublishedImages("sketch", str(root)).settings
    assert PublishedImages("sketch", str(root)).settings == before
    with (root / SYNSETS[0] / "0.JPEG").open("ab") as file:
        file.write(b"more")
    changed = PublishedImages("sketch", str(root)).settings
    assert changed != before
    shutil.copytree(root, tmp_path / "two")
    assert PublishedImages("sketch", str(tmp_path / "two")).settings != changed


# ImageNet-C

GROUPED = {
    "gaussian_noise": "noise/gaussian_noise", "zoom_blur": "blur/zoom_blur", "fog": "weather/fog",
    "contrast": "digital/contrast", "spatter": "extra/spatter",
}  # fmt: skip
FLAT = {name: name for name in GROUPED}
FIVE = {SYNSETS[number]: number for number in (3, 1, 4, 10, 100)}


def harder(corruption, severity, number):
    """Of five classes so many look like another: severity - 1, but for contrast 5 - severity."""
    wrong = 5 - severity if corruption == "contrast" else severity - 1
    place = list(FIVE.values()).index(number)
    return list(FIVE.values())[(place + 1) % 5] if place < wrong else number


@pytest.fixture(scope="module")
def imagenet_c(tmp_path_factory):
    return write_corrupted(tmp_path_factory.mktemp("c"), GROUPED, FIVE, harder)


def test_imagenet_cs_severities_and_corruptions_are_told_apart(imagenet_c):
    suite = PublishedCorruptions("imagenet-c", CorruptedFolders(str(imagenet_c)))
    summary = summary_of(suite, everyone(numbers=[3, 1, 0]))
    falling, rising = (1.0, 0.8, 0.6, 0.4, 0.2, 0.6), (0.2, 0.4, 0.6, 0.8, 1.0, 0.6)
    rows = {row[0]: row[1:] for row in summary.rows}
    assert list(rows)[:5] == ["gaussian noise", "zoom blur", "fog", "contrast", "spatter"]
    for name in ("gaussian noise", "zoom blur", "fog", "spatter"):
        assert rows[name] == pytest.approx(falling)
    assert rows["contrast"] == pytest.approx(rising)
    mean = [(3 * one + other) / 4 for one, other in zip(falling, rising, strict=True)]
    assert rows["mean"] == pytest.approx(mean)  # spatter is not among those to test on
    assert summary.numbers["mean_error"] == pytest.approx(0.4)
    assert "mCE" not in summary.numbers
    assert summary.numbers["clean_error"] == 0
    assert summary.lines[0].endswith("2 images)")
    assert any("no mean of all 15 corruptions: 55 cases are not there" in n for n in summary.notes)
    assert any("limited to the 5 classes" in note for note in summary.notes)


def test_tiny_imagenet_cs_folders_have_no_groups(imagenet_c, tmp_path):
    flat = write_corrupted(tmp_path, FLAT, FIVE, harder)
    both = [
        summary_of(PublishedCorruptions("imagenet-c", CorruptedFolders(str(root))), everyone())
        for root in (imagenet_c, flat)
    ]
    assert both[0].rows == both[1].rows


@pytest.mark.parametrize("size", [16, 24])
def test_the_released_images_are_shown_as_they_are_and_only_resized_for_another_size(
    size, tmp_path
):
    """With a canvas for photos, from which the center is cut, a colored border would be lost."""
    image = plain(0)
    image[:2] = image[-2:] = image[:, :2] = image[:, -2:] = 255
    for name in ("a", "b"):
        path = tmp_path / "fog" / "1" / name / "x.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(image).save(path)
    shown = []

    class Seen(ByColor):
        def forward(self, images):
            shown.append(images)
            return super().forward(images)

    model = subject(Seen([0, 1]), ["a", "b"], [0], [0], size=size, canvas=20 * size // 16)
    shown.clear()
    suite = PublishedCorruptions("imagenet-c", CorruptedFolders(str(tmp_path)))
    summary = summary_of(suite, model)
    (images,) = shown
    assert images.shape == (2, 3, size, size)
    assert (images[:, :, 0] > 0.9).all()  # the border is there
    if size == 16:
        expected = torch.from_numpy(image).permute(2, 0, 1) / 255
        assert torch.equal(images[0], expected)
        assert not any("resized" in note for note in summary.notes)
    else:
        assert any("of 16 px are resized to the model's 24" in note for note in summary.notes)


def test_mce_of_the_whole_release_by_known_errors():
    """One image a class; of each case as many are of the next class as AlexNet gets wrong."""
    wrong = {
        (n, s + 1): round(1000 * e) for n, es in scores.ALEXNET.items() for s, e in enumerate(es)
    }
    every = np.stack([plain(number, 8) for number in range(1000)])

    class Whole(CorruptedFolders):
        labels, complete, side = torch.arange(1000), torch.ones(1000) > 0, 224
        classes, marks = SYNSETS, {}
        title = "whole"

        def cases(self):
            return tuple(wrong)

        def mark(self, at, rows):
            return ""

        def load(self, at, canvas, device, bad):
            def load(rows):
                shown = torch.where(rows < wrong[at], (rows + 1) % 1000, rows)
                return torch.from_numpy(every[shown]).permute(0, 3, 1, 2)

            return load

    model = everyone(numbers=list(range(1000)), size=8)
    model = replace(model, batch=250)
    suite = PublishedCorruptions("imagenet-c", Whole("x"))
    found = finished(suite, model)
    summary = suite.summary(model, found, None)
    assert summary.numbers["mCE"] == pytest.approx(100, abs=0.02)
    assert "rCE" in summary.numbers
    assert "mCE 100.0 %, of AlexNet's errors" in " ".join(summary.lines)
    assert summary.columns[-1] == "CE"
    assert not any("no mean of all 15" in note for note in summary.notes)
    same = {key.replace("imagenet-c", "cifar-c"): columns for key, columns in found.items()}
    cifar = PublishedCorruptions("cifar-c", Whole("x")).summary(model, same, None)
    assert "mCE" not in cifar.numbers
    few = PublishedCorruptions("imagenet-c", Whole("x"), most=900)  # and so 900 classes
    some = summary_of(few, model)
    assert "mCE" not in some.numbers
    assert "CE" not in some.columns
    assert cifar.numbers["mean_error"] == pytest.approx(0.789, abs=1e-3)


def test_a_case_that_lacks_many_images_is_refused_and_one_that_lacks_few_is_said(tmp_path):
    classes = {f"{number:03d}": number for number in range(120)}
    root = write_corrupted(tmp_path, {"fog": "fog"}, classes, lambda c, s, number: number, 8)
    model = subject(ByColor(range(120)), list(classes), [0], [0], size=8)
    suite = PublishedCorruptions("imagenet-c", CorruptedFolders(str(root)))
    (root / "fog" / "3" / "007" / "val.JPEG").rename(root / "fog" / "3" / "007" / "val.JPEG.part")
    (root / "fog" / "3" / "007").rename(tmp_path / "gone")
    summary = summary_of(suite, model)
    assert "1 images are not there in all cases, and are left out" in summary.notes
    assert summary.numbers["mean_error"] == 0
    assert "119 images" in summary.lines[-1]
    for name in ("008", "009"):
        shutil.rmtree(root / "fog" / "3" / name)
    with pytest.raises(DataProblem, match=r"3 of 120 images of .*fog/3 are in other cases"):
        PublishedCorruptions("imagenet-c", CorruptedFolders(str(root))).check(model)


# CIFAR-10-C


def write_cifar(root, numbers, shown, names=("snow", "gaussian_noise", "saturate")):
    """Arrays of severities after each other; `shown(name, severity, row)` is a color's number."""
    root.mkdir(exist_ok=True)
    for name in names:
        blocks = [
            plain(shown(name, severity, row), 32)
            for severity in range(1, 6) for row in range(len(numbers))
        ]  # fmt: skip
        np.save(root / f"{name}.npy", np.stack(blocks))
    np.save(root / "labels.npy", np.tile(np.array(numbers, np.uint8), 5))
    return root


TEN = [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]


def hidden(name, severity, row):
    """At each severity two more images look like the wrong class; saturate hides none."""
    wrong = 0 if name == "saturate" else 2 * (severity - 1)
    return (TEN[row] + 1) % 10 if row < wrong else TEN[row]


@pytest.mark.parametrize("names", ["same", "shuffled", "by other words", "numbers", "other"])
def test_cifars_blocks_are_severities_and_its_classes_are_found(names, tmp_path):
    root = write_cifar(tmp_path / "c", TEN, hidden)
    order, classes = list(range(10)), list(CIFAR_10)
    if names in ("shuffled", "by other words"):
        order = [9, 3, 0, 1, 5, 4, 7, 8, 6, 2]
        classes = [CIFAR_10[number].capitalize() for number in order]
    if names == "by other words":
        classes[2:4] = ["plane", "car"]
    if names == "numbers":
        order = [9, 3, 0, 1, 5, 4, 7, 8, 6, 2]
        classes = [str(number) for number in order]
    if names == "other":
        classes = [f"class-{number}" for number in range(10)]
    model = subject(ByColor(order), classes, [order[0]], [0], size=32)
    summary = summary_of(PublishedCorruptions("cifar-c", CorruptedArrays(str(root))), model)
    rows = {row[0]: row[1:] for row in summary.rows}
    for name in ("gaussian noise", "snow"):
        assert rows[name] == pytest.approx((1, 0.8, 0.6, 0.4, 0.2, 0.6))
    assert rows["saturate"] == pytest.approx((1,) * 6)
    assert summary.numbers["mean_error"] == pytest.approx(0.4)
    assert summary.title.startswith("CIFAR-10-C as published")
    by_number = any("no class of the model is called" in note for note in summary.notes)
    assert by_number == (names in ("numbers", "other"))


def test_cifars_arrays_are_mapped_and_not_read(tmp_path):
    root = write_cifar(tmp_path / "c", TEN, hidden, ("fog",))
    found = corrupted_arrays._images(root / "fog.npy")
    assert isinstance(found, np.memmap)


def test_cifar_100_is_told_by_its_labels(tmp_path):
    numbers = [0, 99, 50, 23]
    root = write_cifar(tmp_path / "c", numbers, lambda name, s, row: numbers[row])
    order = list(range(100))[::-1]
    model = subject(ByColor(order), [CIFAR_100[k] for k in order], [99], [0], size=32)
    suite = PublishedCorruptions("cifar-c", CorruptedArrays(str(root)))
    summary = summary_of(suite, model)
    assert summary.numbers["mean_error"] == 0
    assert summary.title.startswith("CIFAR-100-C")
    with pytest.raises(UsageError, match="fewer than two"):
        suite.check(subject(ByColor(range(10)), [f"c{k}" for k in range(10)], [0], [0], size=32))


def test_cifars_chosen_images_are_the_same_at_each_severity(tmp_path):
    numbers = [row % 10 for row in range(40)]
    root = write_cifar(
        tmp_path / "c", numbers, lambda name, s, row: numbers[row] if row < 20 else 99
    )
    model = subject(ByColor([*range(10), 99]), [*CIFAR_10, "none"], [0], [0], size=32)
    suite = PublishedCorruptions("cifar-c", CorruptedArrays(str(root)), 20)
    summary = summary_of(suite, model)
    assert len(set(summary.rows[0][1:6])) == 1
    assert suite.num_images(suite.cases(model)[-1], model) == 20
    assert any("20 of its 40 images, drawn evenly" in note for note in summary.notes)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda root: (root / "labels.npy").unlink(), "no labels.npy: expected gaussian_noise.npy"),
        (lambda root: [f.unlink() for f in root.glob("[gs]*.npy")], "holds labels.npy and no corr"),
        (lambda root: np.save(root / "labels.npy", np.zeros(7, int)), "7 labels for arrays of 50"),
        (lambda root: np.save(root / "labels.npy", np.arange(50) % 3), "not the same ones at each"),
        (lambda root: np.save(root / "snow.npy", np.zeros((50, 32, 3), np.uint8)), r"\(50, 32, 3"),
        (lambda root: np.save(root / "snow.npy", np.zeros((45, 32, 32, 3), np.uint8)), "45, 50"),
        (lambda root: (root / "snow.npy").write_bytes(b"x"), "snow.npy can't be read as an array"),
        (lambda root: cut(root / "snow.npy"), "snow.npy can't be read as an array"),
    ],
)  # fmt: skip
def test_arrays_that_are_not_as_published_are_refused(harm, words, tmp_path):
    root = write_cifar(tmp_path / "c", TEN, hidden)
    harm(root)
    suite = PublishedCorruptions("cifar-c", CorruptedArrays(str(root)))
    with pytest.raises((UsageError, DataProblem), match=words):
        suite.check(subject(ByColor(range(10)), CIFAR_10, [0], [0], size=32))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("c={root}/imagenet-cc", "no folder .*imagenet-cc; did you mean imagenet-c?"),
        ("c={root}/imagenet-c/noise/gaussian_noise", "holds 1, 2, 3, 4, 5 and no corruption"),
        ("c={root}/typo", "did you mean gaussian_noise or .*expected FOLDER/gaussian_noise/1"),
        ("cifar-c={root}/none", "there is no folder"),
        ("a={root}/none", "there is no folder or file"),
    ],
)
def test_a_wrong_folder_is_refused_before_anything_else(given, words, imagenet_c, tmp_path):
    (tmp_path / "imagenet-c").symlink_to(imagenet_c)
    (tmp_path / "typo" / "gausian_noise" / "1").mkdir(parents=True)
    robust = given.format(root=tmp_path)
    settings = EvaluateSettings(run=tmp_path, data="x", robust=robust)
    with pytest.raises(UsageError, match=words):
        suites_for(settings, None)


def test_classes_that_are_none_of_the_models_are_refused(tmp_path):
    root = write_classes(tmp_path / "imagenet-a", {OF_A[0]: [0], OF_A[1]: [0]})
    model = subject(ByColor([0, 1]), ["cat", "dog"], [0], [0])
    with pytest.raises(UsageError, match=r"n01498041, n01531178.*cat, dog.*expected 200 folders"):
        PublishedImages("a", str(root)).check(model)
    with pytest.raises(UsageError, match="classes imagenet-a, of which"):
        PublishedImages("a", str(tmp_path)).check(model)


# Start to end


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run, its test images, and corrupted ones of the same classes."""
    root = toy.write_toy(tmp_path_factory.mktemp("toy"), labeled=6)
    tutelage.train(**toy.train_settings(root, root / "run"))
    for corruption in ("fog", "snow"):
        for severity in range(1, 6):
            shutil.copytree(root / "test", root / "c" / corruption / str(severity))
    return root


def evaluate(root, run, *more):
    flags = ["evaluate", str(run), "--data", str(root / "test"), "--robust", f"c={root / 'c'}"]
    return [*flags, "--device", "cpu", *more]


KILLER = """
import os, signal, sys
from tutelage.evaluation.kept import Kept
real, seen = Kept.write_case, []
def write_case(self, suite, key, columns):
    seen.append(key)
    if len(seen) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, suite, key, columns)
Kept.write_case = write_case
from tutelage.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_evaluation_goes_on_and_a_second_asks_nothing_again(run, tmp_path, monkeypatch):
    model = run / "run" / "model"
    whole, stopped = (shutil.copytree(model, tmp_path / name) for name in ("whole", "killed"))
    assert main(evaluate(run, whole)) == 0
    (about,) = whole.glob("evaluations/*/evaluation.json")
    expected = json.loads(about.read_text())["robust"][0]
    assert expected["suite"] == "imagenet-c"
    assert starts.run(KILLER, *evaluate(run, stopped)).returncode == -signal.SIGKILL
    kept = {
        path: path.stat().st_mtime_ns for path in stopped.glob("evaluations/*/robust/*/*.parquet")
    }
    assert len(kept) == 3
    ran = []
    real = PublishedCorruptions.run

    def counted(self, case, *more):
        ran.append(case.key)
        return real(self, case, *more)

    monkeypatch.setattr(PublishedCorruptions, "run", counted)
    assert main(evaluate(run, stopped)) == 0
    assert len(ran) == 11 - 3
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    (about,) = stopped.glob("evaluations/*/evaluation.json")
    assert json.loads(about.read_text())["robust"][0] == expected
    ran.clear()
    assert main(evaluate(run, stopped)) == 0
    assert ran == []
    write(run / "c" / "snow" / "2" / toy.CLASSES[0] / "0.png", 0)  # one file is another now
    assert main(evaluate(run, stopped)) == 0
    assert [key.rsplit("-", 1)[0] for key in ran] == ["imagenet-c-snow-2"]


def test_clean_images_in_the_place_of_corrupted_ones_have_the_clean_accuracy(run, tmp_path, capsys):
    """So that they are shown as the model's own preprocessing shows any image."""
    copy = shutil.copytree(run / "run", tmp_path / "run")
    robust = f"sketch={run / 'test'}"
    flags = ["evaluate", str(copy), "--data", str(run / "test"), "--robust", robust]
    assert main([*flags, "--device", "cpu", "--reference", str(run / "run")]) == 0
    (about,) = copy.glob("evaluations/*/evaluation.json")
    found = json.loads(about.read_text())
    numbers = found["robust"][0]["numbers"]
    assert numbers["accuracy"] == numbers["clean_accuracy"]
    assert numbers["accuracy"] == found["accuracy"]["right"] / found["accuracy"]["total"]
    assert numbers["gap"] == 0
    assert "error relative to run: 100.0 %, +0.0 points" in capsys.readouterr().out
