"""The train-test resolution fix: a last, short fine-tuning at a larger image size.

Objects look larger in random crops than in the center crops that a model is asked with, so that a
network answers best above its training size, all the more once it has been fine-tuned there.

classifier: Touvron et al. 2019, Fixing the train-test resolution discrepancy (arXiv 1906.06423),
section 4. The paper fine-tunes the classifier and the last batch norm before the pooling. Its
public code puts the whole network in eval mode but for that norm, and freezes all weights but the
classifier's: the norm's statistics move, its scale and shift don't. This is done here, with the
code's SGD, rate (8 lr B / 512 with lr = 0.001) and weight decay, on images as a model is asked with
them. Deviations: the rate follows a cosine instead of steps of a tenth, the steps are a share of a
round's, and the weights' average is kept as everywhere. Networks without batch norm learn the
classifier alone.

shallow-frozen: Xie et al. 2020 (arXiv 1911.04252), section 3.1: labeled images without
augmentation, shallow layers frozen. Here these are the first half of timm's groups of layers, with
their batch-norm statistics, and the rate is that of the other fine-tunings, as the paper names
neither.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace

from tutelage.catalog import make
from tutelage.core import Dice, Stage, fold
from tutelage.errors import UsageError
from tutelage.networks.build import Net, build, check_net, has_fixed_size
from tutelage.networks.freeze import Freeze, groups_of
from tutelage.pipelines.prepare import Prepared
from tutelage.pipelines.rounds import Round, compare_on_val, share_of
from tutelage.pipelines.selftrain_rounds import FINE_TUNE_RATE
from tutelage.recipes.make import resolved_optim
from tutelage.run import Run
from tutelage.settings import Optim, above
from tutelage.training_settings import Common

FIX_RATE = 8e-3 / 512  # of the public code, for each image of a batch
FIX_DECAY = 1e-4


def with_fix(rounds: Sequence[Round], settings: Common, prepared: Prepared) -> tuple[Round, ...]:
    """The rounds, and behind them the fine-tuning at a larger size where it is wanted.

    Raises UsageError where the size is not above the training's, or the network's is fixed.
    """
    if settings.fix_size is None:
        return tuple(rounds)
    last, number = rounds[-1], len(rounds)
    above("--fix-size", settings.fix_size, prepared.size, "the size of the training")
    assert settings.steps != "auto", "plan first"
    steps = share_of(settings.steps, settings.fix_share)
    recipe = replace(
        last.recipe,
        net=_larger(last.recipe.net, settings.fix_size),
        method=make("supervised", (), {"labeled_view": "plain", "smoothing": 0.0}),
        stages=(Stage(steps=steps, size=settings.fix_size, magnitude=0.0),),
        optim=_optim(settings, resolved_optim(settings, last.recipe.net.name)),
        noise=replace(last.recipe.noise, repeats=1),
        ratio=0,
        seed=fold(settings.seed, Dice.ROUND, number),
        teacher="",
        init="",
        wise=1.0,
        freeze=_freeze(settings, last.recipe.net),
    )
    return (*rounds, Round(f"{number:02d}-fix", recipe, start=last.name, fixes=True))


def _larger(net: Net, size: int) -> Net:
    """The network for larger images, with the first layers as they were."""
    if has_fixed_size(net.name):
        raise UsageError(
            f"{net.name} is made for one image size: leave out --fix-size, or train a "
            "convolutional network, such as resnet18"
        )
    larger = replace(net, img_size=size, stem_size=net.stem_size or net.img_size, two_heads=False)
    check_net(larger)
    return larger


def _optim(settings: Common, usual: Optim) -> Optim:
    """How the fix learns: as the public code of its paper, or as other fine-tunings."""
    if settings.fix == "classifier":
        return replace(
            usual, name="sgd", lr=FIX_RATE * settings.batch_size * usual.accumulate,
            momentum=0.9, weight_decay=FIX_DECAY, schedule="cosine", warmup=0.0, clip=None,
            scale="none", scale_base=Optim().scale_base, lr_end=0.0, milestones=Optim().milestones,
        )  # fmt: skip
    assert usual.lr != "auto", "resolved"
    return replace(usual, lr=FINE_TUNE_RATE * usual.lr, warmup=0.0)


def _freeze(settings: Common, net: Net) -> Freeze:
    """What stays as it was."""
    if settings.fix == "classifier":
        return Freeze(part="body-but-last-norm")
    groups = len(groups_of(build(net))) // 2
    return Freeze(part="stem", groups=groups, norms=settings.keeps_norms)


def decided(rounds: Sequence[Round], run: Run, prepared: Prepared) -> tuple[Round, ...]:
    """The rounds with the model's last: the fix, unless validation images speak against it.

    It is kept where it is right on at least as many of them, and where there are none.
    """
    *others, fix = rounds
    if not fix.fixes:
        return tuple(rounds)
    if not run.is_done("fix"):
        with run.stage("fix") as notes:
            notes |= _decision(others[-1], fix, run, prepared)
    if run.notes("fix")["kept"]:
        return tuple(rounds)
    return (*others[:-1], fix, others[-1])


def _decision(before: Round, fix: Round, run: Run, prepared: Prepared) -> dict[str, object]:
    """Whether the fix is kept, and why."""
    size = fix.recipe.net.img_size
    if "val" not in prepared.parts:
        return {
            "kept": True,
            "sentence": f"the fix at {size} px is kept; there are no validation images to judge it",
        }
    paired = compare_on_val(before, fix, run, prepared)
    kept = paired.gained >= paired.lost
    return asdict(paired) | {
        "kept": kept,
        "sentence": (
            f"the fix at {size} px is {'kept' if kept else f'not kept, {before.name} is'}: "
            f"{100 * paired.difference:+.1f} points on {paired.total:,} validation images "
            f"({paired.gained:,} gained, {paired.lost:,} lost)"
        ),
    }
