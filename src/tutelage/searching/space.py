"""What a search chooses from: dimensions with options, and the network that a choice names."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

Genes: TypeAlias = tuple[int, ...]  # for each dimension the place of the option that is taken


@dataclass(frozen=True)
class Dimension:
    """One thing to be chosen."""

    name: str
    options: tuple[str | int | float, ...]
    ordered: bool = False  # whether options that stand side by side are alike


class Space(ABC):
    """All networks that a search may meet."""

    @property
    @abstractmethod
    def dimensions(self) -> tuple[Dimension, ...]:
        """What is to be chosen."""

    @abstractmethod
    def network(self, genes: Genes) -> str:
        """The network's name, as `train --model` takes it; several choices may mean the same."""

    @property
    @abstractmethod
    def reference(self) -> str:
        """The network whose step every other one's time is divided by."""

    @property
    def size(self) -> int:
        """How many choices there are."""
        return math.prod(len(one.options) for one in self.dimensions)

    def all_genes(self) -> Iterator[Genes]:
        """Every choice, in order."""
        yield from product(*(range(len(one.options)) for one in self.dimensions))
