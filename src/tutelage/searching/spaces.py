"""From a space's name to the space."""

from tutelage.search_settings import READY, SearchSettings
from tutelage.searching.ready import ready_space
from tutelage.searching.space import Space
from tutelage.searching.stages import StageSpace


def space_of(settings: SearchSettings, *, img_size: int) -> Space:
    """What is searched with such images; raises UsageError where nothing is of that name."""
    if settings.ready:
        return ready_space(
            settings.space.removeprefix(READY), pretrained=settings.pretrained, img_size=img_size
        )
    return StageSpace(base=settings.base)
