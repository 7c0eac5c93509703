"""The table of the comparison with peers, a section for each data set and time."""

import statistics

import torch

from benchmarks.gains import over_images, right_of
from benchmarks.journal import Row
from tutelage.evaluation.intervals import wilson
from tutelage.evaluation.paired import compare

WORDS = {"help": "better", "hurt": "worse", "open": "open"}


def tables(rows: list[Row], references: tuple[str, ...]) -> str:
    """Markdown: every arm, and its difference to each reference on the same images and seeds."""
    groups = list(dict.fromkeys((row["data"], row["minutes"]) for row in rows))
    return "\n\n".join(
        _table([r for r in rows if (r["data"], r["minutes"]) == group], references)
        for group in sorted(groups)
    )


def _table(rows: list[Row], references: tuple[str, ...]) -> str:
    """One data set and time, the best arm first."""
    of = {arm: {r["seed"]: r for r in rows if r["arm"] == arm} for arm in _names(rows)}
    title = f"### {rows[0]['data']}, {rows[0]['minutes']:g} minutes"
    head = ["arm", "accuracy, mean ± sd", "seeds (95 %)", *(f"minus {r}" for r in references),
            "steps", "seconds"]  # fmt: skip
    lines = [title, "", f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for arm in sorted(of, key=lambda name: -_mean(of[name])):
        against = [difference(of[arm], of.get(r, {})) if r != arm else "" for r in references]
        cells = [arm, _accuracy(of[arm]), _seeds(of[arm]), *against, _steps(of[arm]),
                 _seconds(of[arm])]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _names(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["arm"] for row in rows))


def _shares(own: dict[int, Row]) -> list[float]:
    """Accuracy of each seed in percent; of one that had nothing saved at the limit, 0."""
    return [100 * float(right_of(own[seed]).mean()) for seed in sorted(own)]


def _mean(own: dict[int, Row]) -> float:
    return statistics.mean(_shares(own))


def _accuracy(own: dict[int, Row]) -> str:
    values = _shares(own)
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread} %"


def _seeds(own: dict[int, Row]) -> str:
    """Each seed with Wilson's interval."""
    found = []
    for seed in sorted(own):
        right = right_of(own[seed])
        low, high = (100 * end for end in wilson(int(right.sum()), len(right)))
        nothing = ", nothing saved" if own[seed]["nothing"] else ""
        found.append(f"{100 * right.mean():.1f} ({low:.1f} to {high:.1f}{nothing})")
    return ", ".join(found)


def difference(own: dict[int, Row], other: dict[int, Row]) -> str:
    """Mean difference in points with its interval over images, and each seed's paired verdict."""
    seeds = sorted(own.keys() & other.keys())
    if not seeds:
        return ""
    each = sum(right_of(own[s]).astype(float) - right_of(other[s]) for s in seeds) / len(seeds)
    low, high = over_images(each)
    said = [
        WORDS[compare(*(torch.from_numpy(right_of(r[s])) for r in (other, own)), seed=s).outcome]
        for s in seeds
    ]
    counts = ", ".join(f"{said.count(word)} {word}" for word in WORDS.values() if word in said)
    return f"{100 * each.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f}); {counts}"


def _steps(own: dict[int, Row]) -> str:
    counts = [row["steps"] for row in own.values() if row["steps"]]
    return f"{statistics.mean(counts):,.0f}" if counts else ""


def _seconds(own: dict[int, Row]) -> str:
    """Mean wall time; how many were ended by the limit."""
    ended = sum(row["ended"] for row in own.values())
    mean = statistics.mean(row["seconds"] for row in own.values())
    return f"{mean:.0f}" + (f", {ended} ended at the limit" if ended else "")
