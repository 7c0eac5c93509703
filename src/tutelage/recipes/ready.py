"""The ready recipes as functions: each returns the Recipe of its main training, as a value.

`tutelage VERB --recipe NAME` takes the same settings, from the YAML file of the function's name,
and flags change them. From Python a variant is `dataclasses.replace(usi(10), batch=64)`.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import Any

from tutelage.catalog import make
from tutelage.jobs import DistillSettings, SelftrainSettings, TrainSettings
from tutelage.recipe import Recipe
from tutelage.recipes.make import recipe_of
from tutelage.recipes.read import read_recipe, verb_of
from tutelage.values import from_plain, merged

JOBS = {"train": TrainSettings, "selftrain": SelftrainSettings, "distill": DistillSettings}


def usi(num_classes: int, *, model: str = "resnet50", img_size: int = 224) -> Recipe:
    """One distillation for CNN, mobile net, transformer and MLP-mixer alike.

    Paper: Ridnik et al. 2022, Solving ImageNet: a Unified Scheme for Training any Backbone to Top
    Results (arXiv 2204.03475), and the settings of its public code.
    Cost: 310 epochs of ImageNet, 397 million images, through student and teacher.
    Reached: not measured here at this length.
    Different here: the crop of images up to 64 pixels is a shift by an eighth (`--noise.crop
    resized` for the published one); the average of the weights warms up; one cosine takes all 310
    epochs, where the published one takes 300 and stays at its end for 10; the warm-up begins at 0,
    not at a twentieth of the peak.
    """
    length = {"steps": 387_853, "batch": 1024}  # as published; the YAML file leaves them open
    return replace(_ready("usi", num_classes, model=model, img_size=img_size, more=length), ratio=0)


def noisy_student(
    num_classes: int, *, model: str = "tf_efficientnet_b7", img_size: int = 600
) -> Recipe:
    """Self-training with a noised student as large as its teacher; the Recipe is of one round.

    Paper: Xie et al. 2020, Self-training with Noisy Student improves ImageNet classification
    (arXiv 1911.04252), section 3.1, and the flags of its public code.
    Cost: a round is 350 epochs of the labels with 3 pool images for each, 1.8 billion images of
    ImageNet at 600 pixels: for many accelerators. `--model`, `--img-size`, `--steps` or `--budget`
    for less.
    Reached: not measured here at this length; docs/results.md has self-training at laptop size.
    Different here: selection is by `--select`, whose defaults balance what is kept and not 130,000
    a class; there is no last training at a larger image size (`--fix-size` for it).
    """
    return _ready("noisy_student", num_classes, model=model, img_size=img_size)


def efficientnetv2_progressive(
    num_classes: int, *, model: str = "efficientnetv2_s", img_size: int = 300
) -> Recipe:
    """Image size, RandAugment and dropout grow together in four stages.

    Paper: Tan & Le 2021, EfficientNetV2 (arXiv 2104.00298), sections 4 and 5.1 and table 6, size S;
    optimizer and schedule from its public code. `--progressive.rule release` for that code's sizes.
    Cost: 350 epochs, 448 million images of ImageNet; the mean area is 0.55 of the last one's.
    Reached: not measured here at this length; docs/results.md has progressive against constant size
    on a small subset.
    Different here: weight decay is the optimizer's and no term of the loss; an operation of
    RandAugment is always applied, the public code's with a probability between 0.2 and 0.8.
    """
    return _ready("efficientnetv2_progressive", num_classes, model=model, img_size=img_size)


def fixmatch_cifar(num_classes: int, *, model: str = "resnet18", img_size: int = 32) -> Recipe:
    """FixMatch as published for CIFAR-10.

    Paper: Sohn et al. 2020, FixMatch (arXiv 2001.07685), section 4.1 and table 4.
    Cost: 2^20 steps of 64 labeled images and 448 of the pool in two views, 1.0 billion forward
    passes; `--steps` or `--budget` for less, the schedule follows.
    Reached: not measured here at this length.
    Different here: the network is the user's, `--model wrn-28-2` for the published depth and width;
    RandAugment's magnitude is spread around 5 and not uniform; what is kept is the average of the
    last step, not the median of 20 checkpoints.
    """
    return _ready("fixmatch_cifar", num_classes, model=model, img_size=img_size)


def mpl_cifar(num_classes: int, *, model: str = "resnet18", img_size: int = 32) -> Recipe:
    """Meta Pseudo Labels as published for CIFAR-10 with 4,000 labels; the Recipe is of the joint
    training.

    Paper: Pham et al. 2021, Meta Pseudo Labels (arXiv 2003.10580), and the flags of its code.
    Cost: 300,000 joint steps of 128 labeled images and 896 of the pool for teacher and student,
    after 107,000 of warm-up; `--steps` or `--budget` for less.
    Reached: not measured here at this length; on digits in 400 steps it does not pay
    (docs/results.md).
    Different here: the network is the user's, `--model wrn-28-2` for the published depth and width;
    the feedback is exact; teacher and student share the rate's warm-up, where the published student
    waits 3,000 steps; the average warms up.
    """
    return _ready("mpl_cifar", num_classes, model=model, img_size=img_size)


def digits(num_classes: int = 10, *, model: str = "test_resnet", img_size: int = 16) -> Recipe:
    """The demo: handwritten digits of 8 pixels, shown at 16.

    Paper: Zhang et al. 2021, FlexMatch (arXiv 2110.08263), for the method; the settings are our
    own, chosen on pool images.
    Cost: 500 steps of 96 images, about 100 seconds of one CPU core.
    Reached: 97.9 ± 0.6 % with 50 labels, 5 seeds, where labels alone reach 93.8 ± 1.6 %
    (docs/results.md).
    """
    return _ready("digits", num_classes, model=model, img_size=img_size)


def _ready(
    name: str, num_classes: int, *, model: str, img_size: int,
    more: Mapping[str, Any] | None = None,
) -> Recipe:  # fmt: skip
    """The Recipe of a YAML file's settings."""
    verb = verb_of(name)
    kind = JOBS[verb]
    network = {"student" if verb == "distill" else "model": model, "img_size": img_size}
    given = merged(read_recipe(name, verb), network | dict(more or {}))
    required = {f.name for f in fields(kind) if f.default is f.default_factory is MISSING}
    settings: Any = from_plain(kind, dict.fromkeys(required, ".") | given)
    called = settings.method if isinstance(settings.method, str) else settings.method[0]
    method = make(called, settings.options, {"smoothing": settings.smoothing})
    return recipe_of(
        settings,
        model=model,
        method=method,
        num_classes=num_classes,
        ratio=settings.ratio if method.unlabeled_views else 0,
    )
