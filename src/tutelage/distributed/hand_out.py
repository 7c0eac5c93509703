"""Work in pieces, handed out to all processes of a command as they are done with earlier ones.

The leader has the pieces and gets everything back. The others ask, and it answers: so it knows
where each of them is, and whatever ends the work early, an error of one or Ctrl-C, ends it for all
after the batch that they are at, with every process where the leader's next word finds it.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from queue import Queue
from typing import Any, TypeAlias, TypeVar

from tutelage.distributed.board import from_words, in_words
from tutelage.distributed.collectives import world
from tutelage.distributed.words import Crew, crew, is_loss

T = TypeVar("T")
Say: TypeAlias = Callable[[Any], None]  # a word to the leader
Work: TypeAlias = Callable[..., None]  # takes pieces, Say and what is shared


class _StoppedError(Exception):
    """The leader wants no more."""


def handed_out(work: Work, pieces: Iterable[Any], *shared: Any) -> Generator[Any]:
    """What work(its pieces, say, *shared) says in all processes, in the order in which it arrives.

    The work is one of a module's own; the pieces, the words and what is shared are pickled. In the
    leader it is done by a thread beside this one. Raises the first error of any process.
    """
    its = crew()
    its.busy = True
    its.tell((_help, (work, shared)))
    desk = _Desk(its, pieces)
    doing = [threading.Thread(target=desk.work, args=(work, shared), daemon=True)]
    for other in range(1, world()):
        doing.append(threading.Thread(target=desk.answer, args=(other,), daemon=True))
    for thread in doing:
        thread.start()
    try:
        yield from desk.words(len(doing))
    finally:
        desk.stopped.set()
        for thread in doing:
            thread.join()
        its.busy = desk.lost


class _Desk:
    """The leader's side: gives pieces, and takes words, from a thread for each process."""

    def __init__(self, its: Crew, pieces: Iterable[Any]) -> None:
        """Lay out the pieces."""
        self.crew, self.pieces = its, iter(pieces)
        self.lock, self.stopped = threading.Lock(), threading.Event()
        self.heard: Queue[tuple[str, Any]] = Queue()
        self.lost = False  # whether a process is gone

    def words(self, working: int) -> Iterator[Any]:
        """What is said until so many processes are done; raises the first error."""
        while working:
            kind, content = self.heard.get()
            if kind == "say":
                yield content
                continue
            if content is not None:
                raise content
            working -= 1

    def piece(self) -> Any:
        """The next one; None where there are no more."""
        with self.lock:
            return None if self.stopped.is_set() else next(self.pieces, None)

    def say(self, word: Any) -> None:
        """A word of the leader's own work."""
        self.heard.put(("say", word))
        if self.stopped.is_set():
            raise _StoppedError

    def work(self, work: Work, shared: tuple[Any, ...]) -> None:
        """The leader's own share."""
        self.heard.put(("over", _done(work, iter(self.piece, None), self.say, shared)))

    def answer(self, other: int) -> None:
        """One of the others, until it is done."""
        try:
            while True:
                kind, content = self.crew.receive(other)
                if kind == "piece":
                    self.crew.send(self.piece(), other)
                    continue
                if kind == "say":
                    self.crew.send(self.stopped.is_set(), other)
                if kind == "over":
                    self.heard.put((kind, None if content is None else from_words(content)))
                    return
                self.heard.put((kind, content))
        except Exception as error:
            self.lost = True
            self.heard.put(("over", error))


def _help(work: Work, shared: tuple[Any, ...], own: None) -> None:
    """The side of the others, each in its main thread; raises what says that the leader is gone."""
    its = crew()

    def piece() -> Any:
        its.send(("piece", None), 0)
        return its.receive(0)

    def say(word: Any) -> None:
        its.send(("say", word), 0)
        if its.receive(0):
            raise _StoppedError

    error = _done(work, iter(piece, None), say, shared)
    if error is not None and is_loss(error):
        raise error
    its.send(("over", None if error is None else in_words(error)), 0)


def _done(work: Work, pieces: Iterator[Any], say: Say, shared: tuple[Any, ...]) -> Exception | None:
    """Do a process's share; returns what went wrong."""
    try:
        work(pieces, say, *shared)
    except _StoppedError:
        return None
    except Exception as error:
        return error
    return None
