"""Which network to try next: at random, by evolution, or by Optuna's samplers.

A suggestion is a function of what is known and of the seed alone, so that a search that was killed
goes on as if nothing had been.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from tutelage.searching.space import Genes, Space
from tutelage.searching.trials import Seen


class Sampler(ABC):
    """Suggests."""

    @abstractmethod
    def suggest(self, space: Space, history: Sequence[Seen], *, seed: int) -> Genes:
        """The next choice, after all earlier suggestions in order; it may be one of them again."""
