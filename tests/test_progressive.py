"""Stages that grow: the published tables, exact partitions, a training that goes through them."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from images import pixels
from timm.layers import DropPath

from tutelage.core import Dice, Stage
from tutelage.data.loader import Batches
from tutelage.data.pixels import InMemory
from tutelage.data.pool import StoredTargets
from tutelage.data.sets import LabeledSet, PoolSet, positions
from tutelage.data.views import VIEWS
from tutelage.errors import UsageError
from tutelage.loop import fit
from tutelage.methods.supervised import Supervised
from tutelage.networks.build import Net
from tutelage.progressive import stages_of, table
from tutelage.recipe import Recipe
from tutelage.settings import Noise, Optim, Progressive


def stages(rule, size, magnitude, *, share, mixup=0.0, dropout=0.3, steps=400, start=128):
    last = Stage(
        steps=steps, size=size, magnitude=magnitude, mixup=mixup, cutmix=mixup, dropout=dropout
    )
    how = Progressive(stages=4, rule=rule, start_size=start, start_noise=share)
    return stages_of(last, how, batch=64)


def close(found, expected):
    assert list(found) == pytest.approx(expected, abs=1e-4)


def test_the_papers_table_for_efficientnetv2_s():
    made = stages("paper", 300, 9, share=5 / 15)
    assert [stage.size for stage in made] == [128, 185, 242, 300]
    close([stage.magnitude for stage in made], [3, 5, 7, 9])  # 5, 8.33, 11.67, 15 times 9 / 15
    close([stage.dropout for stage in made], [0.1, 0.16667, 0.23333, 0.3])


def test_the_published_codes_table_differs():
    small = stages("release", 300, 10, share=0.5, dropout=0.2)
    assert [stage.size for stage in small] == [171, 214, 257, 300]
    close([stage.magnitude for stage in small], [5, 6.66667, 8.33333, 10])
    assert {stage.dropout for stage in small} == {0.2}
    medium = stages("release", 384, 9, share=5 / 15, mixup=0.2)
    assert [stage.size for stage in medium] == [192, 256, 320, 384]
    close([stage.mixup for stage in medium], [0, 0.06667, 0.13333, 0.2])
    close([stage.cutmix for stage in medium], [0, 0.06667, 0.13333, 0.2])


@pytest.mark.parametrize(
    ("rule", "size", "saved"),
    [
        ("release", 300, 0.642),
        ("release", 384, 0.597),
        ("paper", 300, 0.554),
        ("paper", 380, 0.508),
    ],
)
def test_the_mean_area_is_the_known_share_of_the_last(rule, size, saved):
    areas = [(stage.size / size) ** 2 for stage in stages(rule, size, 10, share=0.5)]
    assert sum(areas) / 4 == pytest.approx(saved, abs=3e-3)


def test_one_stage_is_the_target_itself():
    last = Stage(steps=7, size=33, magnitude=4, mixup=0.2, dropout=0.1)
    assert stages_of(last, Progressive(), batch=64) == (last,)


@given(st.integers(2, 9), st.integers(9, 500), st.sampled_from(["paper", "release"]))
def test_steps_are_shared_out_exactly_and_the_last_stage_is_the_target(count, steps, rule):
    last = Stage(steps=steps, size=64, magnitude=7, cutout=0.5, mixup=0.4, cutmix=1, dropout=0.3)
    made = stages_of(last, Progressive(stages=count, rule=rule), batch=16)
    assert sum(stage.steps for stage in made) == steps
    assert max(s.steps for s in made) - min(s.steps for s in made) <= 1
    assert replace(made[-1], steps=steps) == last
    for one, next_one in pairwise(made):
        assert one.size <= next_one.size
        assert one.magnitude < next_one.magnitude
        assert one.mixup < next_one.mixup


def test_constant_noise_is_one_setting_each():
    how = Progressive(stages=3, start_noise=1, start_mixing=1, start_size=16)
    last = Stage(steps=30, size=32, magnitude=5, mixup=0.2, cutmix=1.0, dropout=0.1)
    for stage in stages_of(last, how, batch=64):
        assert replace(stage, size=32, steps=30, crop=None) == last


def test_batches_that_change_see_as_many_images_in_each_stage():
    how = Progressive(stages=3, start_size=16, batches=(128, 64, 32))
    made = stages_of(Stage(steps=300, size=32, magnitude=5), how, batch=64)
    assert [stage.steps for stage in made] == [50, 100, 200]
    assert len({stage.steps * stage.batch for stage in made}) == 1


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"stages": 0}, "at least 1"),
        ({"stages": 3, "batches": (8, 8)}, "a number for each of 3 stages, got 2"),
        ({"stages": 2, "start_size": 40}, "above the last image size"),
        ({"stages": 20}, "too few"),
        ({"start_noise": 1.5}, "0 to 1"),
        (
            {"stages": 1, "rule": "release"},
            "--progressive.rule is for --progressive.stages 2 or more",
        ),
        ({"stages": 2, "multiple": 64}, "multiple 64 is above the image size, 32"),
    ],
)
def test_what_makes_no_stages_is_said(how, words):
    with pytest.raises(UsageError, match=words):
        stages_of(Stage(steps=10, size=32, magnitude=5), Progressive(**how), batch=8)


def recipe(*, steps=12, lr=0.05, scale="none", net=None, **how):
    last = Stage(steps=steps, size=16, magnitude=4, mixup=0.3, dropout=0.2)
    return Recipe(
        net=net or Net(name="test_resnet", num_classes=3, img_size=16, small_stem=True),
        method=Supervised(),
        stages=stages_of(last, Progressive(**how), batch=4),
        optim=Optim(name="sgd", lr=lr, weight_decay=1e-3, scale=scale),
        noise=Noise(),
        batch=4,
    )


def in_memory(count, first=0):
    return InMemory(torch.from_numpy(np.stack([pixels(first + i) for i in range(count)])))


def batches(made, **changes):
    images = LabeledSet(in_memory(7), torch.arange(7) % 3, 3)
    options = {"noise": made.noise, "batch": made.batch, "ratio": 0, "seed": 0} | changes
    pool = options.pop("pool", None)
    views = (made.method.labeled_view, ("strong",) if pool else ())
    return Batches(images, pool, stages=made.stages, views=views, **options)


def test_the_rate_and_the_clock_go_on_across_stages():
    whole, parts = recipe(), recipe(stages=3)
    assert [parts.clock(step) for step in range(12)] == [whole.clock(step) for step in range(12)]


def test_with_other_batches_the_clock_counts_images_and_the_rate_follows():
    made = recipe(stages=3, batches=(8, 4, 2), scale="linear", steps=12)
    clocks = [made.clock(step) for step in range(made.steps)]
    assert [clock.rate for clock in clocks] == [2.0] * 2 + [1.0] * 4 + [0.5] * 8
    fractions = [clock.fraction for clock in clocks]
    assert fractions[0] == 0
    assert fractions[2] == pytest.approx(1 / 3)
    assert fractions[6] == pytest.approx(2 / 3)
    assert fractions == sorted(fractions)
    assert fractions[-1] < 1
    root = recipe(stages=3, batches=(8, 4, 2), scale="sqrt")
    assert root.clock(0).rate == pytest.approx(2**0.5)


def test_every_image_comes_once_an_epoch_though_batches_change():
    made = recipe(stages=3, batches=(7, 4, 2), steps=21)
    drawn = batches(made)
    sizes = [len(drawn.at(step).labeled.images) for step in range(made.steps)]
    assert sizes == [7] * 4 + [4] * 7 + [2] * 14
    assert [drawn.seen(step) for step in range(made.steps)] == [
        sum(sizes[:step]) for step in range(made.steps)
    ]


def test_mixed_batches_mix_images_and_targets_by_the_same_share():
    made = recipe(steps=4)
    targets = StoredTargets(torch.arange(6)[:, None] % 3, torch.ones(6, 1), 3)
    pool = PoolSet(in_memory(6, 20), torch.arange(6), torch.ones(6, dtype=torch.int64), targets)
    plain = replace(made, stages=(Stage(steps=4, size=16, magnitude=4),))
    mixed, alone = (batches(one, pool=pool, ratio=2) for one in (made, plain))
    for step in range(4):
        one, other = mixed.at(step), alone.at(step)
        for images, targets, before, said in (
            (one.labeled.images, one.labeled.targets, other.labeled.images, other.labeled.targets),
            (one.pool().views["strong"], one.pool().targets,
             other.pool().views["strong"], other.pool().targets),
        ):  # fmt: skip
            share = ((images - before.roll(1, 0)) / (before - before.roll(1, 0))).nanmedian()
            expected = torch.lerp(said.roll(1, 0), said, share)
            assert torch.allclose(targets, expected, atol=1e-3)


def test_repeated_images_come_in_views_of_their_own_and_not_next_to_each_other():
    made = replace(recipe(), stages=(Stage(steps=7, size=16, magnitude=4),))
    drawn = batches(made, noise=Noise(repeats=3), batch=6)
    parts = [drawn.at(step).labeled for step in range(7)]
    classes = torch.cat([part.targets.argmax(-1).view(3, 2).T for part in parts])
    assert (classes == classes[:, :1]).all()
    assert torch.bincount(classes[:7, 0]).tolist() == [3, 2, 2]  # an epoch, at a third of the pace
    assert not torch.equal(parts[0].images[0], parts[0].images[2])
    rows = positions(0, 30, 10, seed=0, use=Dice.LABELED_ORDER, repeats=3)
    assert torch.bincount(rows).tolist() == [3] * 10
    assert (rows != rows.roll(1)).all()  # who is mixed with whom


def test_a_training_through_stages_stopped_inside_one_ends_with_the_same_weights(
    tmp_path, monkeypatch
):
    made = recipe(stages=3, start_size=8, batches=(8, 4, 2), steps=18)
    whole = fit(made, batches(made), tmp_path / "whole", device=torch.device("cpu"))
    sizes, stop = [], made.stages[0].steps + 3
    step = Supervised.step

    def stopping(self, state, batch, clock):
        if len(sizes) == stop:
            sizes.append(0)
            raise KeyboardInterrupt
        sizes.append(batch.labeled.images.shape[-1])
        return step(self, state, batch, clock)

    monkeypatch.setattr(Supervised, "step", stopping)
    monkeypatch.setattr("tutelage.loop.SAVE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(made, batches(made), tmp_path / "parts", device=torch.device("cpu"))
    again = fit(made, batches(made), tmp_path / "parts", device=torch.device("cpu"))
    assert sizes[: stop + 2] == [8] * made.stages[0].steps + [12] * 3 + [0, 12]
    for (name, one), other in zip(
        whole.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("view", ["plain", "weak"])
@pytest.mark.parametrize(("canvas", "last", "crop"), [(32, 32, "pad"), (110, 96, "resized")])
def test_an_earlier_stage_shows_the_same_part_in_fewer_pixels(view, canvas, last, crop):
    ramp = torch.linspace(0, 255, canvas).round().to(torch.uint8).expand(2, 3, canvas, canvas)
    whole = Stage(steps=30, size=last, magnitude=0)
    spans, noise = [], Noise(crop=crop, flip=False, min_area=1.0)
    for stage in stages_of(whole, Progressive(stages=3), batch=8):
        images = VIEWS[view](ramp, torch.Generator().manual_seed(3), stage, noise)
        assert images.shape[-1] == stage.size
        step = (images[:, :, :, -1] - images[:, :, :, 0]).mean() / (stage.size - 1)
        spans.append(float(step * stage.size))
    assert spans[0] == pytest.approx(spans[-1], rel=0.12)
    assert spans[1] == pytest.approx(spans[-1], rel=0.12)


def test_dropout_follows_the_stage(tmp_path, monkeypatch):
    net = Net(name="test_resnet", num_classes=3, img_size=16, small_stem=True, dropout=0.2)
    made = recipe(stages=2, steps=4, net=net, start_noise=0.5)
    seen = []
    step = Supervised.step

    def noting(self, state, batch, clock):
        seen.append(state.student.module.net.drop_rate)
        return step(self, state, batch, clock)

    monkeypatch.setattr(Supervised, "step", noting)
    fit(made, batches(made), tmp_path / "run", device=torch.device("cpu"))
    assert seen == pytest.approx([0.1, 0.1, 0.2, 0.2])


def test_stochastic_depth_grows_where_that_is_asked(tmp_path, monkeypatch):
    last = Stage(steps=4, size=16, magnitude=4, drop_path=0.4)
    how = Progressive(stages=2, start_size=16, start_drop=0.25)
    net = Net(name="test_resnet", num_classes=3, img_size=16, small_stem=True, drop_path=0.4)
    made = replace(recipe(net=net), stages=stages_of(last, how, batch=4))
    seen = []
    step = Supervised.step

    def noting(self, state, batch, clock):
        rates = [m.drop_prob for m in state.student.module.modules() if isinstance(m, DropPath)]
        seen.append(max(rates))
        return step(self, state, batch, clock)

    monkeypatch.setattr(Supervised, "step", noting)
    fit(made, batches(made), tmp_path / "run", device=torch.device("cpu"))
    assert seen == pytest.approx([0.1, 0.1, 0.4, 0.4])


def test_the_table_has_a_line_for_each_stage():
    made = recipe(stages=3, start_size=8, batches=(8, 4, 2))
    lines = table(made.stages, made.batch)
    assert len(lines) == 4
    assert lines[1].split() == ["1", "2", "8", "8", "1.33", "0", "0", "0.0667"]
    assert lines[3].split() == ["3", "8", "16", "2", "4", "0.3", "0", "0.2"]
