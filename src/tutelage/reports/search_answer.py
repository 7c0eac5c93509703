"""What a search found, in rows and sentences: content of search.json in, words out.

All that is said is said of these validation images: the networks were chosen on them, so that the
best one's accuracy there is too high by the luck that made it the best.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from tutelage.errors import UsageError
from tutelage.evaluation.intervals import Accuracy
from tutelage.evaluation.paired import Paired
from tutelage.evaluation.pairs import Pair
from tutelage.networks.efficientnet import Architecture
from tutelage.networks.published import architecture_of
from tutelage.progress import MUCH, duration
from tutelage.reports.cells import amount, milliseconds, short

Content: TypeAlias = Mapping[str, Any]  # of search.json, or a part of it

LONG = 32  # signs of a name above which a number stands for it
LEAST = 8  # signs below which a shortened name says nothing
UNUSABLE = "can't be used"
MOST_LISTED = 10  # names in a sentence
OWN = "efficientnet+"  # how names that say all stages begin


def best_of(content: Content) -> Content:
    """The trial that won."""
    found: Content = {one["number"]: one for one in content["trials"]}[content["best"]]
    return found


def finalists(content: Content) -> list[Content]:
    """Trials that have been through as many rungs as the best, and can be used; the best first."""
    reached = len(best_of(content)["results"])
    last = [one for one in content["trials"] if len(one["results"]) == reached]
    feasible = [one for one in last if not one["infeasible"]]
    return sorted(
        feasible, key=lambda one: (one["number"] != content["best"], -one["results"][-1]["reward"])
    )


def accuracy_of(result: Content) -> Accuracy:
    """Right answers on the validation images."""
    return Accuracy(result["right"], result["total"])


def called(trial: Content) -> str:
    """A name for sentences: the network's, or the trial's number where that is long."""
    name = str(trial["network"])
    return f"#{trial['number']}" if name.startswith(OWN) or len(name) > LONG else short(name, LONG)


def label(trial: Content, limit: int) -> str:
    """Number and network in so many signs; the number alone where the stages have no room."""
    number, name = f"#{trial['number']}", compact(trial["network"])
    room = limit - len(number) - 1
    if room < LEAST or (len(name) > room and name != trial["network"]):
        return number
    return f"{number} {short(name, room)}"


def compact(name: str) -> str:
    """A network's name; where it is made of stages, F2 and M3 for Fused-MBConv and MBConv of 2 and
    3 layers."""
    arch = architecture(name) if name.startswith(OWN) else None
    if arch is None:
        return name
    return " ".join(
        f"{'F' if one.operation == 'fused' else 'M'}{one.layers}" for one in arch.stages
    )


def architecture(name: str) -> Architecture | None:
    """The EfficientNet of that name; None for other networks, and names that can't be read."""
    try:
        return architecture_of(name)
    except UsageError:
        return None


def reference_of(content: Content) -> str:
    """The network that times are told relative to, in a few words."""
    name = str(content["reference"])
    return "the base" if name.startswith(OWN) or len(name) > LONG else name


def limit_of(content: Content) -> str:
    """The time that a network may take to answer, in milliseconds."""
    return f"{1000 * content['latency_limit']:g} ms"


def by_reward(content: Content) -> bool:
    """Whether anything but accuracy counts."""
    return any(content["weights"].values())


def headline(content: Content) -> str:
    """Which network is the best, and by what."""
    name = called(best_of(content))
    trained = num_trained(content)
    if trained == 1:
        return f"{name} is the only network that could be trained"
    of = f"{trained} networks"
    if content["latency_limit"] is not None:
        of += f" that answer within {limit_of(content)}"
    if by_reward(content):
        return f"{name} has the highest reward of {of}"
    chance = any(pair.outcome != "better" for pair in rivals(content))
    return f"{name} has the most right answers of {of}{', which may be chance' if chance else ''}"


def num_trained(content: Content) -> int:
    """Networks that have at least one result."""
    return sum(bool(one["results"]) for one in content["trials"])


def outcome(content: Content) -> str:
    """help: shown to be more accurate than all others at the end; open: not so; none: no others."""
    found = rivals(content)
    if not found:
        return "none"
    return "help" if all(pair.outcome == "better" for pair in found) else "open"


def rivals(content: Content) -> list[Pair]:
    """The best against each other network of the last rung, as seen from the best."""
    names = {one["network"]: called(one) for one in content["trials"] if one["same_as"] is None}
    best = best_of(content)["network"]
    found = []
    for plain in content["pairs"]:
        paired = Paired(
            **{key: plain[key] for key in ("total", "gained", "lost", "low", "high", "p_value")}
        )
        pair = Pair(
            first=plain["first"], second=plain["second"], paired=paired, p_holm=plain["p_holm"],
            num_pairs=len(content["pairs"]),
        )  # fmt: skip
        pair = pair.turned() if pair.first == best else pair
        first, second = (names.get(name, short(name, LONG)) for name in (pair.first, pair.second))
        found.append(replace(pair, first=first, second=second))
    return found


def sentences(content: Content) -> list[str]:
    """What to know of the best network, the most important first."""
    return [*_accuracy(content), *_rivals(content), *_cost(content), *_waiting(content)]


def _accuracy(content: Content) -> list[str]:
    """How good it is, on which images, and why that is too good."""
    result, steps = best_of(content)["results"][-1], _steps(content)
    found = [f"accuracy {accuracy_of(result)} on the validation images, after {steps:,} steps"]
    if num_trained(content) > 1:
        blind = "; there are no test images to say by how much" if content["test"] is None else ""
        found.append(f"it was chosen on these very images, so that this number is too good{blind}")
    if content["test"] is not None:
        test = Accuracy(content["test"]["right"], content["test"]["total"])
        found.append(f"on the test images, asked once and of it alone: {test}")
    return found


def _steps(content: Content) -> int:
    """Training steps of the last rung that any network has been through."""
    reached = len(best_of(content)["results"])
    return int(content["rungs"][reached - 1]["steps"])


def _rivals(content: Content) -> list[str]:
    """Which others are behind, which are not shown to be, and which are ahead."""
    others = len(finalists(content)) - 1
    if not others:
        left = "the others were left out after fewer steps, where they were behind on these images"
        return [left] if num_trained(content) > 1 else []
    pairs = rivals(content)
    if not pairs:
        return [f"the other {counted(others, 'network')} of the last rung were not compared"]
    found = []
    for kind, words in (
        ("worse", "shown to be more accurate, and {} for it"),
        ("open", "not shown to be less accurate"),
        ("better", "shown to be less accurate"),
    ):
        names = [pair.first for pair in pairs if pair.outcome == kind]
        if names:
            pay = "pays" if len(names) == 1 else "pay"
            be = "is" if len(names) == 1 else "are"
            found.append(f"{listed(names)} {be} {words.format(pay)}")
    return found


def listed(names: Sequence[str]) -> str:
    """As in 'a, b and c'; of many the first and how many more."""
    if len(names) > MOST_LISTED:
        names = [*names[: MOST_LISTED - 2], f"{len(names) - MOST_LISTED + 2:,} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def counted(number: int, noun: str) -> str:
    """As in '1 network' or '1,200 networks'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _cost(content: Content) -> list[str]:
    """What a step, an answer and its weights cost."""
    result = best_of(content)["results"][-1]
    reference = reference_of(content)
    found = [
        f"a training step takes {milliseconds(result['step_seconds'])} ms, "
        f"{result['relative_time']:.2f} times that of {reference}",
        f"{amount(result['parameters']).strip()} weights, {result['relative_parameters']:.2f} "
        f"times those of {reference}",
    ]
    if result["latency"] is not None:
        line = f"{milliseconds(result['latency'])} ms to answer one image"
        if content["latency_limit"] is not None:
            over = result["latency"] > content["latency_limit"]
            line += f", {'above' if over else 'within'} the limit of {limit_of(content)}"
        found.append(line)
    return found


def _waiting(content: Content) -> list[str]:
    """Whether time was lost that step times don't show."""
    waited = [one["results"][-1]["waited"] for one in finalists(content)]
    if max(waited) <= MUCH:
        return []
    return [
        f"trainings waited for images up to {max(waited):.0%} of their time: steps are timed with "
        "images at hand, and a network's real training may be no faster"
    ]


def tried(content: Content) -> list[str]:
    """How many networks, how far they came, and how long it took."""
    trials = content["trials"]
    again = sum(one["same_as"] is not None for one in trials)
    bad = sum(bool(one["infeasible"]) for one in trials)
    words = [f"{counted(len(trials) - again, 'network')} tried, chosen by {content['sampler']}"]
    words += [f"{again:,} suggested again and not trained twice"] if again else []
    words += [f"{bad:,} {UNUSABLE}"] if bad else []
    rungs = ", ".join(f"{one['done']:,} of {one['steps']:,} steps" for one in content["rungs"])
    threads = counted(content["threads"], "thread")
    where = f"{content['device']} ({short(content['processor'], 40)}), {threads}"
    return [", ".join(words), f"trainings: {rungs}", f"{duration(content['seconds'])} on {where}"]


def reasons(content: Content) -> list[tuple[str, list[int]]]:
    """Why networks can't be used, each kind of reason with its trials; the most frequent first.

    What stands before a reason's colon is its kind, as in 'too slow: an answer takes 9 ms'.
    """
    kinds: dict[str, dict[int, str]] = {}
    for one in content["trials"]:
        if one["infeasible"]:
            text = " ".join(one["infeasible"].split())
            kinds.setdefault(text.partition(": ")[0], {})[one["number"]] = text
    found = []
    for texts in kinds.values():
        first, *others = dict.fromkeys(texts.values())
        found.append((f"{first}, and the like" if others else first, list(texts)))
    return sorted(found, key=lambda item: (-len(item[1]), item[1]))


def commands(content: Content) -> list[tuple[str, str]]:
    """For the best network and those scaled from it, what trains it for real: a command, but where
    images were given from Python, which no command can read."""
    found = []
    for key, path in content["recipes"].items():
        file = shlex.quote(str(path))
        command = f"tutelage train --config {file} --out NEW"
        if content["from_python"]:
            command = f"tutelage.train(...) with the same images and what {file} says"
        found.append((key if key == "best" else key.upper(), command))
    return found
