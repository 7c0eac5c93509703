"""Perturbation sequences, flips of the answer, and what `--robust p` makes of them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import nn

import tutelage
from tutelage.cli import main
from tutelage.data.operations import as_float
from tutelage.robustness import sequences
from tutelage.robustness.flips import flip_probability, pairs, surest, top5_distance
from tutelage.robustness.perturbed import Perturbed
from tutelage.robustness.scores import mean_share
from tutelage.robustness.sequences import COURSES, NOISES, course, frames, set_for
from tutelage.robustness.suite import Reference, Subject

TEN = (
    "gaussian_noise", "shot_noise", "motion_blur", "zoom_blur", "snow", "brightness",
    "translate", "rotate", "tilt", "scale",
)  # fmt: skip


def photos(side, number=2, seed=0):
    """Smooth colors (N, 3, S, S) uint8."""
    rng = np.random.default_rng(seed)
    rough = gaussian_filter(rng.normal(size=(number, 3, side, side)), (0, 0, 2, 2))
    return torch.from_numpy((np.clip(0.5 + rough / rough.std() / 4, 0, 1) * 255).astype(np.uint8))


def made(images, name, keys=("a", "b"), seed=0):
    return torch.stack(list(frames(images, name, keys=keys, seed=seed)))


@pytest.mark.parametrize(
    ("predicted", "consecutive", "to_first"),
    [
        ("00000", 0, 0), ("01111", 0.25, 1), ("01010", 1, 0.5),
        ("00001", 0.25, 0.25), ("01234", 1, 1),
    ],
)  # fmt: skip
def test_flips_are_those_of_the_paper(predicted, consecutive, to_first):
    answers = torch.tensor([[int(one)] for one in predicted])
    assert flip_probability(answers, with_first=False).tolist() == [consecutive]
    assert flip_probability(answers, with_first=True).tolist() == [to_first]


@pytest.mark.parametrize(
    ("after", "distance"),
    [
        ((0, 1, 2, 3, 4), 0), ((1, 0, 2, 3, 4), 2), ((0, 1, 2, 3, 5), 1), ((5, 1, 2, 3, 4), 5),
        ((4, 3, 2, 1, 0), 12), ((5, 6, 7, 8, 9), 15),
    ],
)  # fmt: skip
def test_top5_distance_of_the_known_answers(after, distance):
    assert top5_distance(torch.arange(5), torch.tensor(after)).item() == distance


@given(st.permutations(range(9)), st.permutations(range(9)), st.permutations(range(9)))
def test_top5_distance_is_the_double_sum_of_the_paper(old, new, names):
    rank = {kind: place for place, kind in enumerate(new, 1)}
    double = 0
    for i in range(1, 6):
        moved = rank[old[i - 1]]
        double += sum(1 <= j - 1 <= 5 for j in range(min(i, moved) + 1, max(i, moved) + 1))
    before, after = torch.tensor(old)[:5], torch.tensor(new)[:5]
    assert top5_distance(before, after).item() == double
    renamed = torch.tensor(names)
    assert top5_distance(renamed[before], renamed[after]).item() == double


def test_the_surest_classes_are_in_order_and_ties_go_to_the_first():
    logits = torch.tensor([[0.1, 3, 2, 2, -1, 5, 0], [0, 0, 0, 0, 0, 0, 0]])
    assert surest(logits).tolist() == [[5, 1, 2, 3, 0], [0, 1, 2, 3, 4]]
    assert surest(logits[:, :3]).tolist() == [[1, 2, 0], [0, 1, 2]]


def test_pairs_are_of_neighbors_or_with_the_first():
    before, after = pairs(torch.arange(4), with_first=False)
    assert (before.tolist(), after.tolist()) == ([0, 1, 2], [1, 2, 3])
    before, after = pairs(torch.arange(4), with_first=True)
    assert (before.tolist(), after.tolist()) == ([0, 0, 0], [1, 2, 3])


def test_the_sequences_are_the_ten_with_their_frames():
    assert tuple(COURSES) == TEN
    large = {"translate": 41}
    small = {"translate": 16, "motion_blur": 21}
    for name in TEN:
        assert course(name, 224).frames == large.get(name, 31)
        assert course(name, 32).frames == small.get(name, 31)
    assert (course("scale", 224).at(0), course("scale", 224).at(30)) == (0.4, 1.15)
    assert (course("motion_blur", 224).at(30), course("motion_blur", 32).at(20)) == (0, 0)
    assert course("snow", 224).at(30) == -30
    assert course("brightness", 32).at(15) == pytest.approx(0)
    assert course("rotate", 224).at(15) == 0
    assert course("tilt", 32).at(30) == 11.25
    assert course("translate", 224).at(40) == 20
    assert (course("translate", 32).at(0), course("translate", 32).at(15)) == (-7, 8)


def test_images_of_other_sizes_have_lengths_in_proportion():
    assert [set_for(size) for size in (16, 32, 64, 96, 224, 384)] == [32, 32, 32, 224, 224, 224]
    assert course("motion_blur", 64).numbers == (12, 3.6)
    assert course("snow", 448).numbers == (28, 8)
    assert (course("translate", 64).at(0), course("translate", 64).step) == (-14, 2)
    assert course("translate", 96).step == 1
    assert course("rotate", 64) == course("rotate", 32)


@pytest.mark.parametrize("name", TEN)
def test_a_sequence_is_the_same_for_each_image_alone(name):
    images = photos(32, 3)
    before = images.clone()
    found = made(images, name, ("a", "b", "c"))
    assert found.shape == (course(name, 32).frames, 3, 3, 32, 32)
    assert found.dtype == torch.uint8
    alone = made(images[1:2], name, ("b",))
    assert (alone[:, 0].int() - found[:, 1].int()).abs().max() <= 1
    assert (alone[:, 0] != found[:, 1]).float().mean() < 1e-3
    assert torch.equal(images, before)
    assert (found[0] != found[-1]).float().mean() > 0.1


@pytest.mark.parametrize("name", TEN)
def test_only_what_is_drawn_depends_on_seed_and_key(name):
    images = photos(32)
    drawn = name in (*NOISES, "snow")
    assert torch.equal(made(images, name), made(images, name, seed=1)) != drawn
    assert torch.equal(made(images, name), made(images, name, keys=("c", "d"))) != drawn


@pytest.mark.parametrize(("name", "frame"), [
    ("gaussian_noise", 0), ("shot_noise", 0), ("zoom_blur", 0), ("brightness", 15),
    ("translate", 7), ("rotate", 15), ("tilt", 15), ("scale", 15),
])  # fmt: skip
def test_one_frame_is_the_image_itself(name, frame):
    images = photos(32)
    apart = (made(images, name)[frame].int() - images.int()).abs()
    assert apart.max() <= (1 if name == "brightness" else 0)


def test_noise_has_the_strength_of_the_table():
    gray = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)
    keys = list("abcd")
    gauss = as_float(made(gray, "gaussian_noise", keys))[1:]
    assert gauss.std().item() == pytest.approx(0.02, rel=0.02)
    shot = as_float(made(gray, "shot_noise", keys))[1:]
    assert shot.var().item() == pytest.approx(128 / 255 / 700, rel=0.03)
    assert not torch.equal(gauss[0], gauss[1])


def test_brightness_rises_by_equal_steps():
    gray = torch.full((1, 3, 8, 8), 128, dtype=torch.uint8)
    levels = made(gray, "brightness", "a")[:, 0, 0, 0, 0].tolist()
    expected = [math.floor(128 + 255 * 0.015 * (i - 15) + 1e-3) for i in range(31)]
    assert levels == expected


def test_zoom_blur_is_the_mean_of_the_zooms_so_far():
    from tutelage.corruptions.zoom import zoomed

    images = photos(32)
    floats = as_float(images)
    mean = torch.stack([zoomed(floats, 1 + 0.004 * i) for i in range(8)]).mean(0)
    found = made(images, "zoom_blur")[7]
    assert (found.float() - (mean * 255).floor()).abs().max() <= 1


def test_shifts_are_by_whole_pixels_and_mirror_at_the_edge():
    images = photos(32)
    found = made(images, "translate")
    to_the_left, to_the_right = found[0], found[-1]  # by 7 and 8 pixels
    assert torch.equal(to_the_left[..., :25], images[..., 7:])
    assert torch.equal(to_the_left[..., 25:], images[..., 25:].flip(-1))
    assert torch.equal(to_the_right[..., 8:], images[..., :-8])
    assert torch.equal(to_the_right[..., :8], images[..., :8].flip(-1))


def test_rotation_is_that_of_pillow_inside_the_image():
    from PIL import Image

    images = photos(32, 1)
    found = made(images, "rotate", "a")
    for frame, degrees in ((0, -15), (30, 15), (20, 5)):
        turned = Image.fromarray(images[0].permute(1, 2, 0).numpy()).rotate(
            degrees, Image.Resampling.BILINEAR
        )
        apart = found[frame, 0].permute(1, 2, 0).numpy().astype(int) - np.asarray(turned)
        assert np.abs(apart[8:-8, 8:-8]).max() <= 1


def test_a_smaller_image_repeats_mirrored_around_itself():
    images = photos(224, 1)
    found = made(images, "scale", "a")
    half = found[4, 0].float()  # at 50 %
    expected = nn.functional.avg_pool2d(images.float(), 2)[0]
    assert (half[:, 56:168, 56:168] - expected).abs().max() <= 1
    assert (half[:, :56, 56:168] - half[:, 56:112, 56:168].flip(1)).abs().max() <= 1


def test_tilt_is_perspective_of_a_turned_plane():
    side = 225
    images = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    images[..., 110:115, 198:203] = 255  # a spot to the right of the middle
    found = made(images, "tilt", "a").float()

    def where(frame):
        weights = found[frame, 0, 0]
        y, x = np.mgrid[:side, :side]
        return (
            float((weights * torch.from_numpy(x)).sum() / weights.sum()) - 112,
            float((weights * torch.from_numpy(y)).sum() / weights.sum()) - 112,
        )

    for frame, degrees in ((0, -15), (30, 15), (15, 0)):
        sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        # pitched about the horizontal axis, then turned about the vertical one
        away = 225 * math.sqrt(2)
        depth = away - 88 * sin
        assert where(frame) == pytest.approx((away * 88 * cos / depth, 0), abs=0.6), cos


def test_snow_keeps_its_flakes_and_turns_the_wind():
    gray = torch.full((1, 3, 64, 64), 90, dtype=torch.uint8)
    found = as_float(made(gray, "snow", "a"))
    neighbors = (found[1:] - found[:-1]).abs().mean()
    ends = (found[-1] - found[0]).abs().mean()
    other = (as_float(made(gray, "snow", "b")) - found).abs().mean()
    assert 0 < neighbors < ends
    assert neighbors < other / 2


class Linear(nn.Module):
    """Seven classes by random weights of the pixels, so that answers hang on small things."""

    def __init__(self, seed=0):
        super().__init__()
        rng = np.random.default_rng(seed)
        weights = torch.from_numpy(rng.normal(size=(3 * 32 * 32, 7))).float()
        self.weights = nn.Parameter(weights, requires_grad=False)

    def forward(self, images):
        return (images.flatten(1) - 0.5) @ self.weights


class Held:
    """Pixels in memory."""

    def __init__(self, images):
        self.images = images

    def at(self, rows):
        return self.images[rows]


def subject(module, number=6, classes=7, side=32):
    images = photos(side, number)
    return Subject(
        module=module, classes=tuple("abcdefghij"[:classes]), size=side, pixels=Held(images),
        labels=torch.zeros(number, dtype=torch.long), names=tuple(map(str, range(number))),
        clean={}, batch=4,
    )  # fmt: skip


def run(judged):
    suite = Perturbed()
    heard = []
    cases = suite.cases(judged)
    found = {case.key: suite.run(case, judged, {}, heard.append) for case in cases}
    assert sum(heard) == len(judged.labels) * sum(case.passes for case in cases)
    return suite, found


def test_the_suite_counts_the_flips_of_each_image():
    judged = subject(Linear(), number=20)
    suite, found = run(judged)
    images = judged.pixels.images
    for name in ("brightness", "gaussian_noise"):
        logits = torch.stack(
            [Linear()(as_float(f)) for f in frames(images, name, keys=judged.names)]
        )
        answers = logits.argmax(-1)
        before = answers[:1] if name == "gaussian_noise" else answers[:-1]
        expected = (answers[1:] != before).double().mean(0)
        columns = found[f"p-{name}"]
        torch.testing.assert_close(columns["flips"].double(), expected)
        assert columns["flips"].sum() > 0
        assert columns["top5"].shape == (20,)
    summary = suite.summary(judged, found, None)
    mean = sum(summary.numbers[f"flips_{name}"] for name in TEN) / 10
    assert summary.numbers["mean_flips"] == pytest.approx(mean)
    assert [row[0] for row in summary.rows] == [*(n.replace("_", " ") for n in TEN), "mean"]
    assert all(len(row) == len(summary.columns) for row in summary.rows)
    assert "mFR" not in str(summary)


def test_a_constant_model_never_flips_and_its_interval_is_not_nothing():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.answer = nn.Parameter(torch.arange(7.0), requires_grad=False)

        def forward(self, images):
            return self.answer.expand(len(images), 7)

    judged = subject(Constant())
    suite, found = run(judged)
    summary = suite.summary(judged, found, None)
    assert summary.numbers["mean_flips"] == summary.numbers["mean_top5"] == 0
    assert "0.0 % (0.0 % to 39.0 %, 6 images)" in summary.lines[0]


def test_few_classes_have_no_top5_distance():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0, -1.0]), requires_grad=False)

        def forward(self, images):
            return (images.mean((1, 2, 3))[:, None] - 0.5) * self.weight

    judged = subject(Two(), classes=2)
    suite, found = run(judged)
    assert {tuple(columns) for columns in found.values()} == {("flips",)}
    summary = suite.summary(judged, found, None)
    assert "mean_top5" not in summary.numbers


def test_a_reference_against_itself_has_the_relative_rate_1():
    judged, another = subject(Linear()), subject(Linear(seed=1))
    suite, found = run(judged)
    _, other = run(another)
    same = suite.summary(judged, found, Reference("same", {}, found))
    assert same.numbers["relative_flips"] == pytest.approx(1)
    assert "+0.0 points" in " ".join(same.lines)
    beside = suite.summary(judged, found, Reference("another", {}, other))
    flips = [
        (float(found[f"p-{name}"]["flips"].mean()), float(other[f"p-{name}"]["flips"].mean()))
        for name in TEN
    ]
    expected = np.mean([mine / theirs for mine, theirs in flips if theirs])
    assert beside.numbers["relative_flips"] == pytest.approx(expected, rel=1e-5)
    absent = [name for name, (_, theirs) in zip(TEN, flips, strict=True) if not theirs]
    assert all(any(name in note for note in beside.notes) for name in absent)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_intervals_hold_the_mean_and_stay_between_0_and_1(shares):
    found = mean_share(torch.tensor(shares, dtype=torch.float64))
    low, high = found.low, found.high
    assert 0 <= low <= np.mean(shares) + 1e-9
    assert np.mean(shares) - 1e-9 <= high <= 1


def test_the_interval_is_near_the_normal_one_for_many_images():
    shares = torch.from_numpy(np.random.default_rng(0).beta(2, 6, 4000))
    found = mean_share(shares)
    half = 1.96 * float(shares.std()) / math.sqrt(4000)
    assert (found.low, found.high) == pytest.approx(
        (float(shares.mean()) - half, float(shares.mean()) + half), abs=half / 20
    )


def test_the_sequences_are_evaluated_from_the_command_line(tmp_path, capsys, monkeypatch):
    short = {
        name: {size: replace(one, frames=4) for size, one in sizes.items()}
        for name, sizes in COURSES.items()
    }
    monkeypatch.setattr(sequences, "COURSES", short)
    images = toy.write_toy(tmp_path, labeled=6, test=3)
    settings = toy.train_settings(images, tmp_path / "run")
    tutelage.train(**settings)
    command = ["evaluate", str(tmp_path / "run"), "--data", str(images / "test"), "--robust", "p"]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "answers that flip from frame to frame" in first
    kept = sorted(tmp_path.glob("run/evaluations/*/robust/*/*.parquet"))
    assert [path.stem for path in kept] == sorted(f"p-{name}" for name in TEN)
    times = [path.stat().st_mtime_ns for path in kept]
    assert main([*command, "--reference", str(tmp_path / "run")]) == 0
    again = capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert "relative flip rate 1.00" in again or "never flips" in again
