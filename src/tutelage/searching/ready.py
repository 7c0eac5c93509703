"""The space of ready networks: those of timm and of papers whose names match a pattern.

There is one thing to choose, the name, and nothing is known of how the choices are alike.
"""

import fnmatch
from dataclasses import dataclass

import timm

from tutelage.errors import UsageError
from tutelage.networks import names
from tutelage.networks.build import Net, check_net, has_fixed_size
from tutelage.networks.pretrained import has_weights
from tutelage.searching.space import Dimension, Genes, Space
from tutelage.values import nearest

# Times are told relative to it: timm's smallest ResNet, of plain convolutions and batch norm, which
# takes images of any size, needs no weights, and whose steps are so short that they cost little
# beside any network that one would choose.
REFERENCE = "test_resnet"


@dataclass(frozen=True)
class ReadySpace(Space):
    """Networks by name."""

    names: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...] = ()  # names that match, and why they can't be used

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The name alone."""
        return (Dimension("network", self.names),)

    def network(self, genes: Genes) -> str:
        """The name that is chosen."""
        return self.names[genes[0]]

    @property
    def reference(self) -> str:
        """A small network, always the same, whichever are asked for."""
        return REFERENCE


def ready_space(pattern: str, *, pretrained: bool, img_size: int) -> ReadySpace:
    """The networks of `--space timm:PATTERN`: names and patterns with * and ?, between commas.

    With `pretrained` those that have weights: of a network with several tags the default one, but
    where the pattern has a tag, as in resnet18.*. Networks that were made for another image size
    and can't be made for `img_size` pixels are left out. Raises UsageError where a name or pattern
    matches nothing, and where no network is left.
    """
    found: dict[str, None] = {}  # in order, none twice
    for part in (one.strip() for one in pattern.split(",")):
        found |= dict.fromkeys(_matching(part, pretrained))
    why = {name: _misfit(name, img_size) for name in found}
    left_out = tuple((name, reason) for name, reason in why.items() if reason)
    if len(left_out) == len(found):
        raise UsageError(f"no network of {pattern!r} can be used: {left_out[0][1]}")
    return ReadySpace(tuple(name for name in found if not why[name]), left_out)


def license_of(name: str) -> str | None:
    """The license of the network's pre-trained weights; None where timm doesn't say.

    It is for the user to look at: nothing is left out for it.
    """
    config = names.config_of(name)
    return config.license if config is not None and config.has_weights else None


def _matching(part: str, pretrained: bool) -> list[str]:
    """The names that one pattern means; raises UsageError where there are none."""
    if not part:
        raise UsageError("write the networks as in --space 'timm:resnet18,efficientnet_b*'")
    if not set("*?[") & set(part):
        names.check_name(part)
        if "." in part and names.own(part) is None and part not in _tagged(part):
            raise UsageError(f"timm has no weights {part!r}{_tags(part)}")
        found = [part]
    else:
        found = names.listed(part) or _tagged(part)
    if not found:
        hint = nearest(part.strip("*?"), names.listed("*"))
        raise UsageError(f"no network matches {part!r}{hint}; `tutelage models` lists them")
    having = [name for name in found if has_weights(name)] if pretrained else found
    if not having:
        raise UsageError(
            f"no network that {part!r} names has pre-trained weights: leave out --pretrained, or "
            "choose of what `tutelage models PATTERN --pretrained` lists"
        )
    return having


def _tagged(pattern: str) -> list[str]:
    """timm's names with tags that match, such as resnet18.a1_in1k."""
    found: list[str] = timm.list_models(pretrained=True)
    return fnmatch.filter(found, pattern)


def _tags(name: str) -> str:
    """The nearest names with tags, for a message."""
    return nearest(name, _tagged(f"{name.split('.')[0]}.*"))


def _misfit(name: str, img_size: int) -> str:
    """Why the network can't take the images, where that is quickly told; else nothing.

    Others that can't are found where they are tried.
    """
    config = names.config_of(name)
    same = config is not None and config.input_size[-1] == img_size
    if same or not has_fixed_size(name):
        return ""
    try:
        check_net(Net(name=name, num_classes=2, img_size=img_size))
    except UsageError as error:
        return str(error)
    return ""
