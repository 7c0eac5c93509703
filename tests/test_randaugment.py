"""What is drawn, how often, and how strong: RandAugment, TrivialAugment, AutoAugment."""

import math

import pytest
import torch
from images import smooth_batch
from timm.data import auto_augment as timm
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, TrivialAugmentWide

from tutelage.data.autoaugment import POLICIES, autoaugment, pairs
from tutelage.data.magnitudes import EVEN, TF, TIMM
from tutelage.data.operations import IDENTITY, NAMES, apply, as_bytes
from tutelage.data.randaugment import SCALES, randaugment
from tutelage.data.trivialaugment import trivialaugment, wide

TIMM_NAMES = {
    "AutoContrast": "autocontrast", "Equalize": "equalize", "Invert": "invert", "Rotate": "rotate",
    "Posterize": "posterize", "Solarize": "solarize", "SolarizeAdd": "solarize_add",
    "Color": "color", "Contrast": "contrast", "Brightness": "brightness",
    "Sharpness": "sharpness", "ShearX": "shear_x", "ShearY": "shear_y",
    "TranslateXRel": "translate_x", "TranslateYRel": "translate_y", "TranslateX": "translate_x",
    "TranslateY": "translate_y", "Identity": "identity",
}  # fmt: skip
POLICIES_AS_FUNCTIONS = {
    **{
        f"randaugment-{scale}": lambda images, dice, scale=scale: randaugment(
            images, dice, magnitude=9, scale=scale, op_prob=0.9, magnitude_std=0.5
        )
        for scale in SCALES
    },
    **{
        f"autoaugment-{policy}": lambda images, dice, policy=policy: autoaugment(
            images, dice, policy=policy
        )
        for policy in POLICIES
    },
    "trivialaugment": trivialaugment,
}


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def amount(rules, name, magnitude, sign=1.0):
    level = torch.tensor([magnitude], dtype=torch.float64) / 10
    return rules[name](level, torch.tensor([sign])).item()


@pytest.mark.parametrize(
    ("magnitude", "expected"),
    [  # of the reference code; 224 pixels for its 100 and 40 of shift and half a square
        (10, {"rotate": 30, "shear_x": 0.3, "translate_x": 100 / 224, "brightness": 1.9,
              "posterize": 4, "solarize": 256, "solarize_add": 110, "cutout": 80 / 224}),
        (27, {"rotate": 81, "shear_y": 0.81, "translate_y": 270 / 224, "sharpness": 4.96,
              "posterize": 10, "solarize": 691, "solarize_add": 297, "cutout": 216 / 224}),
    ],
)  # fmt: skip
def test_the_tf_scale_has_noisy_students_published_amounts(magnitude, expected):
    assert len(TF) == 16
    for name, value in expected.items():
        assert amount(TF, name, magnitude) == pytest.approx(value), name
    assert amount(TF, "rotate", magnitude, -1.0) == pytest.approx(-expected["rotate"])


@pytest.mark.parametrize("magnitude", [0, 1, 3, 5, 7, 9, 10, 2.5, 9.99])
def test_the_timm_scale_is_timms_increasing_one(magnitude):
    assert [TIMM_NAMES[n.removesuffix("Increasing")] for n in timm._RAND_INCREASING_TRANSFORMS] == [
        *TIMM
    ]
    for name in timm._RAND_INCREASING_TRANSFORMS:
        rule = timm.LEVEL_TO_ARG[name]
        if rule is None:
            continue
        possible = {rule(magnitude, {}) for _ in range(64)}
        possible = {one[0] if isinstance(one, tuple) else one for one in possible}
        ours = {amount(TIMM, TIMM_NAMES[name.removesuffix("Increasing")], magnitude, sign)
                for sign in (-1.0, 1.0)}  # fmt: skip
        assert sorted(ours) == pytest.approx(sorted(possible)), name


def test_magnitudes_above_ten_are_clamped_but_on_the_tf_scale():
    images = as_bytes(smooth_batch(5, batch=64))
    for scale in SCALES:
        strongest, beyond = (
            randaugment(images, dice(), magnitude=magnitude, scale=scale) for magnitude in (10, 27)
        )
        assert torch.equal(strongest, beyond) == (scale != "tf")


@pytest.mark.parametrize("name", sorted(set(EVEN) - {"autocontrast", "equalize"}))
def test_even_magnitude_zero_changes_nothing(name):
    images = as_bytes(smooth_batch(5))
    value = torch.full((1, 4), amount(EVEN, name, 0))
    assert torch.equal(apply(images, torch.full((1, 4), NAMES.index(name)), value), images)


def test_the_wide_space_is_torchvisions():
    theirs = TrivialAugmentWide()._augmentation_space(31)
    level = torch.arange(31, dtype=torch.float64) / 30
    ours = wide(40, 64)
    assert {TIMM_NAMES[name] for name in theirs} == set(ours)
    for name, (amounts, signed) in theirs.items():
        plain = TIMM_NAMES[name]
        if amounts.ndim == 0:
            continue
        for sign in (1.0, -1.0):
            expected = amounts * sign if signed else amounts
            if plain in ("brightness", "color", "contrast", "sharpness"):
                expected = 1 + expected
            if plain.startswith("translate"):
                expected = expected / (64 if plain.endswith("x") else 40)  # pixels to shares
            found = ours[plain](level, torch.tensor(sign)).float()
            assert torch.allclose(found, expected.float(), atol=1e-5), name


def test_the_pairs_are_those_of_the_libraries_with_operations_that_exist():
    assert pairs("v0")[0] == (("equalize", 0.8, 0.1), ("shear_y", 0.8, 0.4))
    assert pairs("v0")[15] == (("rotate", 1.0, 0.7), ("translate_y", 0.8, 0.9))
    assert pairs("cifar10")[1] == (("rotate", 0.7, 2 / 9), ("translate_x", 0.3, 1.0))
    for policy in POLICIES:
        assert len(pairs(policy)) == 25
        assert {name for pair in pairs(policy) for name, _, _ in pair} <= set(NAMES)


def known_results(policy, images):
    """All that a policy of pairs can make of one image, with the chance of each."""
    rows, chances = [], []
    space = AutoAugment(AutoAugmentPolicy(policy))._augmentation_space(10, images.shape[-2:])
    names = {plain: name for name, plain in TIMM_NAMES.items() if name in space}
    for pair in pairs(policy):
        for kept in ((0, 0), (0, 1), (1, 0), (1, 1)):
            for signs in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
                chance, choice, amounts = 1 / 25 / 4, [], []
                for (name, prob, level), keep, sign in zip(pair, kept, signs, strict=True):
                    chance *= prob if keep else 1 - prob
                    values, signed = space[names[name]]
                    value = values[round(level * 9)].item() if values.ndim else 0.0
                    value *= sign if signed else 1
                    if name in ("brightness", "color", "contrast", "sharpness"):
                        value += 1
                    if name.startswith("translate"):
                        value /= images.shape[-1]
                    choice.append([NAMES.index(name) if keep else IDENTITY])
                    amounts.append([value])
                rows.append(apply(images, torch.tensor(choice), torch.tensor(amounts)))
                chances.append(chance)
    return torch.cat(rows), torch.tensor(chances)


def test_autoaugment_draws_its_pairs_with_their_probabilities():
    image = as_bytes(smooth_batch(9, batch=1, side=8))
    known, chances = known_results("cifar10", image)
    count = 6000
    out = autoaugment(image.expand(count, -1, -1, -1), dice(1), policy="cifar10")
    codes = {}
    for row, chance in zip(known, chances.tolist(), strict=True):
        key = row.numpy().tobytes()
        codes[key] = codes.get(key, 0.0) + chance
    drawn = [row.numpy().tobytes() for row in out]
    assert sum(codes.values()) == pytest.approx(1)
    missed = sum(key not in codes for key in drawn)
    assert missed / count < 0.04  # amounts from float32 and float64 round apart now and then
    for key, chance in codes.items():
        spread = 5 * math.sqrt(count * chance) + 1 + missed
        assert abs(drawn.count(key) - count * chance) < spread


@pytest.mark.parametrize("policy", POLICIES_AS_FUNCTIONS)
def test_equal_generators_give_equal_images_and_others_do_not(policy):
    images = as_bytes(smooth_batch(5, batch=32))
    before = images.clone()
    first, again, other = (POLICIES_AS_FUNCTIONS[policy](images, dice(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, before)
    assert torch.equal(POLICIES_AS_FUNCTIONS[policy](images / 255, dice(1)), first / 255)


@pytest.mark.parametrize("sides", [(1, 1), (2, 1), (2, 2), (3, 9), (16, 8)])
@pytest.mark.parametrize("policy", POLICIES_AS_FUNCTIONS)
def test_policies_take_images_of_any_shape_and_number(policy, sides):
    for count in (0, 1, 40):
        images = torch.randint(256, (count, 3, *sides), dtype=torch.uint8, generator=dice())
        out = POLICIES_AS_FUNCTIONS[policy](images, dice(1))
        assert out.shape == images.shape
        assert out.dtype == torch.uint8
        floats = POLICIES_AS_FUNCTIONS[policy](images / 255, dice(1))
        assert not count or (floats.min() >= 0 and floats.max() <= 1)


@pytest.mark.parametrize("policy", POLICIES_AS_FUNCTIONS)
def test_images_of_a_batch_get_different_operations(policy):
    images = as_bytes(smooth_batch(5, batch=1)).expand(64, -1, -1, -1)
    out = POLICIES_AS_FUNCTIONS[policy](images, dice())
    assert len({image.numpy().tobytes() for image in out}) > 15


@pytest.mark.parametrize(("scale", "rules"), [("even", EVEN), ("timm", TIMM)])
def test_one_operation_is_drawn_as_often_as_another(scale, rules):
    # an image on which each operation has its own result
    image = as_bytes(smooth_batch(2, batch=1, side=16) * 0.7 + 0.05)
    results = {}
    for name in rules:
        for sign in (1.0, -1.0):
            value = torch.tensor([[amount(rules, name, 5, sign)]])
            made = apply(image, torch.tensor([[NAMES.index(name)]]), value)
            results.setdefault(made.numpy().tobytes(), set()).add((name, sign))
    assert len({frozenset(name for name, _ in found) for found in results.values()}) == len(rules)
    count = 200 * len(rules)
    out = randaugment(image.expand(count, -1, -1, -1), dice(3), magnitude=5, num_ops=1, scale=scale)
    drawn = [results[made.numpy().tobytes()] for made in out]
    assert len(drawn) == count
    for name in rules:
        found = [one for one in drawn if name in {n for n, _ in one}]
        assert abs(len(found) - 200) < 5 * math.sqrt(200)
        if len(found[0]) == 1:  # the sign matters: both come equally often
            assert abs(found.count({(name, 1.0)}) - len(found) / 2) < 40


def test_operations_are_skipped_as_often_as_is_said():
    image = as_bytes(smooth_batch(5, batch=1)).expand(3000, -1, -1, -1)
    out = randaugment(image, dice(), magnitude=9, num_ops=1, scale="timm", op_prob=0.25)
    changed = (out != image).flatten(1).any(1).float().mean().item()
    assert changed == pytest.approx(0.25, abs=0.04)


def test_the_magnitude_spreads_normally_about_its_mean():
    image = torch.full((4000, 3, 4, 4), 100, dtype=torch.uint8)
    out = randaugment(image, dice(), magnitude=5, num_ops=1, scale="tf", magnitude_std=1.0)
    brighter = out[(out[:, 0, 0, 0] > 60) & (out[:, 0, 0, 0] != 100) & (out[:, 0, 0, 0] < 154)]
    assert len(brighter.unique()) > 15
    still = randaugment(image, dice(), magnitude=5, num_ops=1, scale="tf")
    assert len(still.unique()) < 12


def test_no_operation_gives_the_images_back():
    images = smooth_batch(6)
    assert torch.equal(randaugment(images, dice(), magnitude=9, num_ops=0), images)
