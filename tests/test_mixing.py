import pytest
import torch

from tutelage.mixing import Mix, cutmix, mixup, mixup_or_cutmix

NO_BOX = torch.zeros(1, 4, dtype=torch.int64)
BLENDED = Mix(torch.tensor([0.3]), NO_BOX, 16)
PASTED = Mix(torch.ones(1), torch.tensor([[0, 8, 0, 8]]), 16)


def draw_images(count=6, side=16):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def draw_targets(count=6, classes=4):
    return torch.rand(count, classes, generator=torch.Generator().manual_seed(1)).softmax(-1)


def constant(count=6, side=16):
    """Image i has the value i everywhere."""
    return torch.arange(count).float()[:, None, None, None].expand(-1, 3, side, side)


def pastes(mix):
    return bool((mix.boxes[:, 1] > mix.boxes[:, 0]).any())


def draws(make, number=300):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [make() for _ in range(number)]


def test_mixup_is_the_papers_equation_for_images_and_targets():
    images, targets, mix = draw_images(), draw_targets(), BLENDED
    for i in range(6):
        before = (i - 1) % 6
        expected = 0.3 * images[i] + 0.7 * images[before]
        assert torch.allclose(mix.images(images)[i], expected, atol=1e-6)
        expected = 0.3 * targets[i] + 0.7 * targets[before]
        assert torch.allclose(mix.targets(targets)[i], expected, atol=1e-6)


@pytest.mark.parametrize("size", [1, 7, 16])
@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_cutmixs_share_is_exactly_the_share_of_own_pixels(size, alpha):
    images = constant(side=size)
    for mix in draws(lambda: cutmix(size, alpha), 50):
        mixed = mix.images(images)
        own = (mixed == images).float().mean((1, 2, 3))
        assert torch.allclose(own, mix.share.expand(6))
        assert ((mixed == images) | (mixed == images.roll(1, 0))).all()


def test_mixed_targets_are_probabilities_and_linear():
    for mix in draws(lambda: mixup_or_cutmix(16, mixup_alpha=0.8, cutmix_alpha=1.0), 50):
        mixed = mix.targets(draw_targets())
        assert torch.allclose(mixed.sum(-1), torch.ones(6))
        assert (mixed >= 0).all()
        assert torch.allclose(mix.targets(2 * draw_targets()), 2 * mixed)


def test_images_stay_in_range_and_the_batch_is_left_alone():
    images = draw_images()
    copy = images.clone()
    for mix in draws(lambda: mixup_or_cutmix(16, mixup_alpha=0.8, cutmix_alpha=1.0), 50):
        mixed = mix.images(images)
        assert mixed.shape == images.shape
        assert 0 <= mixed.min() <= mixed.max() <= 1
    assert torch.equal(images, copy)


def test_alpha_one_is_uniform():
    shares = torch.tensor([float(mix.share) for mix in draws(lambda: mixup(1.0), 2000)])
    expected = torch.linspace(0, 1, 2000)
    assert (shares.sort().values - expected).abs().max() < 0.04


def test_a_small_alpha_hardly_mixes():
    shares = torch.tensor([float(mix.share) for mix in draws(lambda: mixup(0.05))])
    assert torch.minimum(shares, 1 - shares).mean() < 0.05


def test_alpha_zero_and_probability_zero_mix_nothing():
    images, targets = draw_images(), draw_targets()
    off = [
        mixup(0.0),
        cutmix(16, 0.0),
        mixup_or_cutmix(16, mixup_alpha=0.0, cutmix_alpha=0.0),
        mixup_or_cutmix(16, mixup_alpha=0.8, cutmix_alpha=1.0, prob=0.0),
    ]
    for mix in off:
        assert torch.equal(mix.images(images), images)
        assert torch.equal(mix.targets(targets), targets)


def test_the_switch_chooses_between_the_two():
    def boxes(**more):
        mixes = draws(lambda: mixup_or_cutmix(16, mixup_alpha=0.8, cutmix_alpha=1.0, **more))
        return sum(pastes(mix) for mix in mixes) / len(mixes)

    assert boxes(switch=1.0) > 0.95  # now and then the box is less than a pixel
    assert boxes(switch=0.0) == 0
    assert abs(boxes() - 0.5) < 0.1


def test_where_one_is_off_the_other_is_always_taken():
    alone = draws(lambda: mixup_or_cutmix(16, mixup_alpha=0.8, cutmix_alpha=0.0), 20)
    assert all(not pastes(mix) and 0 < mix.share < 1 for mix in alone)
    alone = draws(lambda: mixup_or_cutmix(16, mixup_alpha=0.0, cutmix_alpha=1.0), 20)
    assert all((mix.blend == 1).all() for mix in alone)
    assert sum(map(pastes, alone)) > 15


@pytest.mark.parametrize("mix", [BLENDED, PASTED])
def test_a_batch_held_twice_is_mixed_as_held_once(mix):
    images, targets = draw_images(5), draw_targets(5)
    assert torch.equal(mix.images(images.repeat(2, 1, 1, 1)), mix.images(images).repeat(2, 1, 1, 1))
    assert torch.equal(mix.targets(targets.repeat(2, 1)), mix.targets(targets).repeat(2, 1))


def test_an_empty_stream_stays_empty():
    for mix in (BLENDED, PASTED):
        assert mix.images(draw_images(0)).shape == (0, 3, 16, 16)


def test_the_draw_follows_from_the_generator_and_leaves_torchs_own_alone():
    def one(seed, count):
        before = torch.get_rng_state()
        made = mixup_or_cutmix(
            16, mixup_alpha=0.8, cutmix_alpha=1.0, count=count,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        assert torch.equal(torch.get_rng_state(), before)
        return made

    for count in (1, 6):
        assert torch.equal(one(3, count).share, one(3, count).share)
        assert not torch.equal(one(3, count).share, one(4, count).share)


def test_each_image_may_have_its_own_draw():
    images, targets = constant(), torch.eye(6)
    mix = draws(
        lambda: mixup_or_cutmix(16, mixup_alpha=1.0, cutmix_alpha=1.0, prob=0.8, count=6), 30
    )
    shares = torch.stack([one.share for one in mix])
    assert shares.shape == (30, 6)
    assert (shares.std(1) > 0.05).all()
    for one in mix:
        expected = one.share[:, None] * targets + (1 - one.share)[:, None] * targets.roll(1, 0)
        assert torch.allclose(one.targets(targets), expected)
        partner = (torch.arange(6).float() - 1) % 6
        own = one.share * torch.arange(6).float() + (1 - one.share) * partner
        assert torch.allclose(one.images(images).mean((1, 2, 3)), own.expand(3, 6)[0], atol=1e-5)


def test_one_draw_for_all_is_the_same_draw_for_each():
    images = draw_images()
    for single in (BLENDED, PASTED):
        each = Mix(single.blend.expand(6), single.boxes.expand(6, 4), 16)
        assert torch.equal(each.images(images), single.images(images))
        assert torch.equal(each.targets(draw_targets()), single.targets(draw_targets()))
