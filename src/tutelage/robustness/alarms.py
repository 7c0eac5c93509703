"""Signs that an attack failed for want of gradients, and not because the network is robust.

Paper: Athalye et al. 2018, Obfuscated gradients give a false sense of security (arXiv 1802.00420),
section 3.1; Carlini et al. 2019, On evaluating adversarial robustness (arXiv 1902.06705), section
5. The thresholds are ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from tutelage.robustness.suite import Columns
from tutelage.values import percent

FEW = 0.02  # share of all images below which a difference is not worth a word
MANY_ZEROS = 0.25  # share of the values of an image's gradient
LEFT = 0.1  # accuracy that a network without defense does not keep under a large epsilon
NOT_RAISED = 0.1  # share of the attacked images
MARGIN = 0.25  # of what cross-entropy broke; near the boundary margins are a little better anyway


@dataclass(frozen=True, kw_only=True)
class Tried:
    """An attack of one size on all images."""

    said: str  # such as 'epsilon 4'
    clean: Tensor  # (N,) bool: right without attack
    columns: Columns
    one_step: bool  # FGSM: it overshoots, so its curve need not fall
    smallest: bool  # of the sizes above 0
    telling: bool  # whether so large that no network without defense has right answers left

    @property
    def right(self) -> Tensor:
        """(N,) bool: right under attack."""
        return self.columns["right"].bool()

    @property
    def attacked(self) -> Tensor:
        """(N,) bool: attacked, as not broken before."""
        return ~self.columns["loss_before"].isnan()

    def count(self, where: Tensor) -> int:
        """Images of a mask (N,), or 0 where those are too few to mean anything."""
        found = int(where.sum())
        return found if found >= max(2, FEW * len(where)) else 0


def alarms(tried: Sequence[Tried]) -> tuple[str, ...]:
    """Each alarm at the size where it is loudest: what was seen, what it means, what to do."""
    found = []
    for alarm in ALARMS:
        heard = [told for told in map(alarm, tried) if told is not None]
        if heard:
            found.append(max(heard)[1])
    return tuple(found)


Heard = tuple[float, str] | None  # how loud, and the words


def _zero_gradient(one: Tried) -> Heard:
    """Sign(0) leaves a pixel as it is."""
    share = one.columns["zero_gradient"]
    count = one.count(one.attacked & (share >= MANY_ZEROS))
    if not count:
        return None
    whole = int((share == 1).sum())
    return count, (
        f"gradient masking: at {one.said} the gradient of {count:,} of {int(one.attacked.sum()):,} "
        f"attacked images is exactly 0 in a quarter of its values or more ({whole:,}: everywhere): "
        "the loss is saturated, or a layer rounds or cuts off, so cross-entropy can't be "
        "followed; trust the margin losses' result (pgd), and check with --robust autoattack, "
        "which also attacks without gradients"
    )


def _margin(one: Tried) -> Heard:
    """A vanishing cross-entropy does not vanish for the difference of logits."""
    by_margin = one.columns["broken_by_margin"].bool()
    count = one.count(by_margin)
    if count <= MARGIN * int((one.attacked & ~one.right & ~by_margin).sum()):
        return None
    return count, (
        f"gradient masking: at {one.said} the margin losses broke {count:,} images that "
        "cross-entropy had not: its gradients vanish on sure answers; the numbers here count both, "
        "those of fgsm do not and look too good"
    )


def _single_step(one: Tried) -> Heard:
    """One step should not find what many have not."""
    if one.one_step:
        return None
    count = one.count(one.right & ~one.columns["step_right"].bool())
    if not count:
        return None
    return count, (
        f"gradient masking: at {one.said} a single step broke {count:,} images that all of "
        "PGD's steps had not: the loss is rough or flat near the images; raise --attack-steps and "
        "--restarts, and check with --robust autoattack"
    )


def _left(one: Tried) -> Heard:
    """Any network without defense is broken by a large epsilon."""
    share = float(one.right.double().mean())
    if one.one_step or not one.telling or share <= LEFT:
        return None
    return share, (
        f"{percent(share)} are still right at {one.said}, where a network that was not trained "
        "against attacks has next to nothing left: the attack may be failing; raise --attack-steps "
        "and --restarts, and check with --robust autoattack"
    )


def _not_raised(one: Tried) -> Heard:
    """An attack that works raises the loss of every image; a long single step may overshoot."""
    if one.one_step and not one.smallest:
        return None
    before, after = one.columns["loss_before"], one.columns["loss_after"]
    count = one.count(one.attacked & (after <= before))
    if count <= NOT_RAISED * int(one.attacked.sum()):
        return None
    return count, (
        f"gradient masking: at {one.said} the attack did not raise the loss of {count:,} of "
        f"{int(one.attacked.sum()):,} attacked images: the gradient does not point uphill; the "
        "network may round, cut off or answer at random; check with --robust autoattack"
    )


def _noise(one: Tried) -> Heard:
    """The gradient's direction should be worth far more than a random one."""
    by_noise = one.count(one.clean & ~one.columns["noise_right"].bool())
    by_attack = int((one.clean & ~one.right).sum())
    if not by_noise or by_noise < by_attack:
        return None
    return by_noise, (
        f"gradient masking: at {one.said} random noise of the same size broke {by_noise:,} images "
        f"and the attack {by_attack:,}: the gradient tells it nothing; check with --robust "
        "autoattack, which also attacks without gradients"
    )


def _restarts(one: Tried) -> Heard:
    """Where the start decides, more starts would break more."""
    count = one.count(one.columns["broken_by_restart"].bool())
    if not count:
        return None
    return count, (
        f"at {one.said} the second start and those after it broke {count:,} images that the first "
        "had not: the result is not settled; raise --attack-steps and --restarts"
    )


ALARMS: tuple[Callable[[Tried], Heard], ...] = (
    _zero_gradient, _margin, _single_step, _left, _not_raised, _noise, _restarts,
)  # fmt: skip
