"""The space of ready networks: those of timm and of papers whose names match a pattern.

There is one thing to choose, the name, and nothing is known of how the choices are alike.
"""

import fnmatch
from dataclasses import dataclass

import timm

from tutelage.errors import UsageError
from tutelage.networks import names
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


def ready_space(pattern: str, *, pretrained: bool) -> ReadySpace:
    """The networks of `--space timm:PATTERN`: names and patterns with * and ?, between commas.

    With `pretrained` those that have weights: of a network with several tags the default one, but
    where the pattern has a tag, as in resnet18.*. Raises UsageError where a name or pattern matches
    nothing.
    """
    found: dict[str, None] = {}  # in order, none twice
    for part in (one.strip() for one in pattern.split(",")):
        found |= dict.fromkeys(_matching(part, pretrained))
    return ReadySpace(tuple(found))


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
        found = names.listed(part)
        if not found and _tagged(part):
            if not pretrained:  # new networks with any of these names are the same
                raise UsageError(f"{part!r} names pre-trained weights: give --pretrained")
            found = _tagged(part)
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
