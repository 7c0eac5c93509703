"""From a verb's settings to the Recipe of one training."""

from dataclasses import replace

from tutelage.core import Dice, Stage, fold
from tutelage.errors import UsageError
from tutelage.methods.method import Method
from tutelage.networks import names
from tutelage.networks.build import (
    Net,
    check_net,
    has_batch_norm,
    has_fixed_size,
    has_token,
    takes,
)
from tutelage.networks.freeze import Freeze
from tutelage.networks.squeeze_excite import SE, Gate, sites_of
from tutelage.optimizers import check_optimizer
from tutelage.progressive import stages_of
from tutelage.recipe import Recipe
from tutelage.settings import Auto, Noise, Optim
from tutelage.training_settings import Common

DROPOUT, DROP_PATH = 0.1, 0.05  # docs/results.md: 59.4 % with them, 57.1 % without


def check_model(model: str, settings: Common) -> None:
    """Raises UsageError for a network or optimizer that timm doesn't know, and for a network that
    can't take the image size, noise or squeeze-and-excitation that is asked."""
    names.check_name(model)
    check_optimizer(settings.optim.name)
    if settings.se is not None:
        sites_of(model, settings.se_where)
    if settings.img_size != "auto":
        check_net(_net(settings, settings.img_size, model=model, num_classes=2))


def se_of(settings: Common) -> SE | None:
    """The squeeze-and-excitation that is asked; the gate is the paper's, but for given weights."""
    if settings.se is None:
        return None
    usual: Gate = "sigmoid" if settings.begins_as is None else "twice"
    gate = usual if settings.se_gate == "auto" else settings.se_gate
    return SE(reduction=settings.se, where=settings.se_where, gate=gate)


def resolved_optim(settings: Common, model: str) -> Optim:
    """The settings' optimizer without 'auto', as suits that network; weights that were learned
    before get a smaller rate."""
    learned = settings.begins_as is not None
    return settings.optim.resolved(batch_norm=has_batch_norm(model), pretrained=learned)


def recipe_of(
    settings: Common, *, model: str, method: Method, num_classes: int, ratio: int = 0,
    number: int = 0,
) -> Recipe:  # fmt: skip
    """The recipe of round `number`; each round has random numbers of its own.

    Image size and steps are resolved, and so is the precision, or it is fp32. Raises UsageError
    for a network that can't take the settings.
    """
    noise, how = settings.noise, settings.progressive
    assert settings.img_size != "auto", "look at the images first"
    assert settings.steps != "auto", "plan first"
    net = _net(settings, settings.img_size, model=model, num_classes=num_classes)
    net = replace(net, two_heads=method.two_heads and has_token(model))
    check_net(net)
    _check_mixing(method, noise)
    last = Stage(
        steps=settings.steps, size=settings.img_size, magnitude=noise.magnitude,
        cutout=noise.cutout, mixup=noise.mixup, cutmix=noise.cutmix,
        dropout=net.dropout if how.stages > 1 else None,
        drop_path=net.drop_path if how.start_drop < 1 else None,
        drop_block=net.drop_block if how.start_drop < 1 else None,
    )  # fmt: skip
    stages = stages_of(last, how, batch=settings.batch_size)
    _check_sizes(net, stages)
    return Recipe(
        net=net,
        method=method,
        stages=stages,
        optim=resolved_optim(settings, model),
        noise=noise,
        batch=settings.batch_size,
        ratio=ratio,
        seed=fold(settings.seed, Dice.ROUND, number),
        precision="fp32" if settings.precision == "auto" else settings.precision,
        compile=settings.compile,
        freeze=Freeze(norms=settings.keeps_norms),
        spread=settings.spread,
    )


def _net(settings: Common, size: int, *, model: str, num_classes: int) -> Net:
    """The network that is asked, for images of that size in pixels."""
    noise = settings.noise
    return Net(
        name=model,
        num_classes=num_classes,
        img_size=size,
        small_stem=settings.stem == "auto",
        dropout=_rate(noise.dropout, DROPOUT, model, "drop_rate"),
        drop_path=_rate(noise.drop_path, DROP_PATH, model, "drop_path_rate"),
        drop_block=noise.drop_block,
        se=se_of(settings),
        many_sizes=settings.progressive.stages > 1 and has_fixed_size(model),
    )


def _rate(given: float | Auto, usual: float, model: str, option: str) -> float:
    """The rate as given, or the usual one where the network can take it."""
    if given != "auto":
        return given
    return usual if takes(model, option) else 0.0


def _check_mixing(method: Method, noise: Noise) -> None:
    """Raises UsageError where images would be mixed twice."""
    if (noise.mixup or noise.cutmix) and "mixup" in vars(method):
        raise UsageError(
            "--noise.mixup and --noise.cutmix mix images that this method mixes itself: set its "
            "own with --options mixup=…"
        )


def _check_sizes(net: Net, stages: tuple[Stage, ...]) -> None:
    """Raises UsageError where the network can't take the image size of a stage."""
    for size in {stage.size for stage in stages} - {net.img_size}:
        check_net(net, at=size)
