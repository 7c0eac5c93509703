"""From a space's name to the space."""

from tutelage.search_settings import READY, SearchSettings
from tutelage.searching.ready import ready_space
from tutelage.searching.space import Space
from tutelage.searching.stages import StageSpace


def space_of(settings: SearchSettings) -> Space:
    """What is searched; raises UsageError where nothing is of that name."""
    if settings.ready:
        pretrained = settings.begins_as is not None
        return ready_space(settings.space.removeprefix(READY), pretrained=pretrained)
    return StageSpace(base=settings.base)
