"""How long networks take: warmed up, in turns so that drift meets all alike, and waited for.

A turn's first passes are not timed, as caches are cold after the one before. Raw times are kept;
what they come to is in rows.py.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tutelage.errors import TutelageError, out_of_memory
from tutelage.speed.machine import Load
from tutelage.speed.runners import Runner

Tick = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How thoroughly to time."""

    warmup: int = 10  # passes
    warmup_seconds: float = 1.0
    passes: int = 50  # timed, at least
    seconds: float = 2.0  # of timed passes, at least
    turn_passes: int = 10  # timed in one turn, at least
    turn_seconds: float = 0.2
    most_seconds: float = 60.0  # of timed passes, where passes are slow; then fewer are enough
    search_passes: int = 5  # for each batch that is tried
    search_seconds: float = 0.3
    gain: float = 0.03  # of images a second, below which no larger batch is tried
    most_batch: int = 4096


@dataclass(frozen=True)
class Timed:
    """Raw times of one model at one batch, or why there are none."""

    batch: int  # images
    seconds: tuple[float, ...] = ()  # of each timed pass
    load: float = 0.0  # cores that other processes used meanwhile
    peak_bytes: int | None = None
    failure: str = ""


@dataclass(frozen=True)
class Searched:
    """The batch beyond which hardly more images a second are answered, and what was tried."""

    batch: int  # 0 where not even one image fits
    tried: tuple[tuple[int, float], ...]  # batch, images a second
    stopped: str  # why no larger batch was tried


def time_in_turns(
    runners: Mapping[str, Runner], batches: Mapping[str, int], protocol: Protocol,
    *, tick: Tick = time.perf_counter,
) -> dict[str, Timed]:  # fmt: skip
    """Raw times of all models, in turns. A model that fails stays out, with the reason."""
    found: dict[str, Timed] = {}
    times: dict[str, list[float]] = {}
    peaks: dict[str, int | None] = {}
    load = Load()
    for name, runner in runners.items():
        try:
            peaks[name] = _warmed_up(runner, batches[name], protocol, tick)
            times[name] = []
        except Exception as error:
            found[name] = Timed(batches[name], failure=reason(error))
    waiting = list(times)
    while waiting:
        for name in list(waiting):
            try:
                _turn(runners[name], times[name], protocol, tick)
            except Exception as error:
                found[name] = Timed(batches[name], failure=reason(error))
                waiting.remove(name)
                continue
            if _enough(times[name], protocol):
                waiting.remove(name)
    others = load.others()
    for name, seconds in times.items():
        if name not in found:
            found[name] = Timed(batches[name], tuple(seconds), others, peaks[name])
    return {name: found[name] for name in runners}


def _warmed_up(runner: Runner, batch: int, protocol: Protocol, tick: Tick) -> int | None:
    """Load and run until nothing is new any more; the memory of the first pass."""
    runner.load(batch)
    _pass(runner, tick)
    peak = runner.peak_bytes()
    begun, done = tick(), 1
    while done < protocol.warmup or tick() - begun < protocol.warmup_seconds:
        _pass(runner, tick)
        done += 1
    return peak


def _turn(runner: Runner, times: list[float], protocol: Protocol, tick: Tick) -> None:
    """Some more times of one model."""
    _pass(runner, tick)  # brings weights and images back into the caches
    begun, before = tick(), len(times)
    while (
        len(times) - before < protocol.turn_passes and not _slow(times, protocol)
    ) or tick() - begun < protocol.turn_seconds:
        times.append(_pass(runner, tick))


def _pass(runner: Runner, tick: Tick) -> float:
    """Seconds of one pass, with nothing under way before and after."""
    runner.wait()
    begun = tick()
    runner.run()
    runner.wait()
    return tick() - begun


def _enough(times: list[float], protocol: Protocol) -> bool:
    """Whether a model needs no other turn."""
    spent = sum(times)
    return (len(times) >= protocol.passes and spent >= protocol.seconds) or _slow(times, protocol)


def _slow(times: list[float], protocol: Protocol) -> bool:
    """Whether the times have cost as much as they may."""
    return sum(times) >= protocol.most_seconds


def best_batch(
    runner: Runner, protocol: Protocol, *, fits: Callable[[int], bool] = lambda batch: True,
    tick: Tick = time.perf_counter,
) -> Searched:  # fmt: skip
    """Batches 1, 2, 4, … until one gives less than 3 % more images a second, or doesn't fit.

    `fits` says whether a batch may be tried at all. Raises what the model raises, but for memory.
    """
    tried: list[tuple[int, float]] = []
    batch, best, stopped = 1, 0, ""
    while not stopped:
        if not fits(batch):
            stopped = f"batch {batch} was not tried: it may not fit into memory"
            break
        try:
            rate = _rate(runner, batch, protocol, tick)
        except Exception as error:
            if not out_of_memory(error):
                raise
            stopped = f"batch {batch} is out of memory"
            break
        if tried and rate < (1 + protocol.gain) * tried[-1][1]:
            stopped = f"batch {batch} gave less than {100 * protocol.gain:.0f} % more"
        else:
            best = batch
            if batch >= protocol.most_batch:
                stopped = f"batch {batch} is the largest that is tried"
        tried.append((batch, rate))
        batch *= 2
    return Searched(best, tuple(tried), stopped)


def _rate(runner: Runner, batch: int, protocol: Protocol, tick: Tick) -> float:
    """Images a second, quickly: by the fastest of a few passes, which other loads touch least."""
    runner.load(batch)
    _pass(runner, tick)
    times: list[float] = []
    while len(times) < protocol.search_passes or (
        sum(times) < protocol.search_seconds and len(times) < 10 * protocol.search_passes
    ):
        times.append(_pass(runner, tick))
    return batch / max(min(times), 1e-9)


def reason(error: Exception) -> str:
    """Why a model has no times, in one line."""
    if out_of_memory(error):
        return "out of memory"
    if isinstance(error, TutelageError):
        return str(error)
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}"[:200]
