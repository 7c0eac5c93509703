"""A search for the terminal: a line for each trial while it runs, and the answer at its end."""

from collections.abc import Sequence
from textwrap import wrap

from tutelage.progress import duration
from tutelage.reports.cells import amount, milliseconds, short, table
from tutelage.reports.search_answer import (
    UNUSABLE,
    Content,
    accuracy_of,
    best_of,
    by_reward,
    commands,
    finalists,
    headline,
    label,
    listed,
    reasons,
    reference_of,
    sentences,
    tried,
)
from tutelage.reports.search_table import heads, result_cells, with_latency
from tutelage.values import percent

WIDTH = 80  # signs of a line
NAME = 20  # signs of number and network in the line of a trial
MOST_ROWS = 20  # of the table
MOST_REASONS = 5
MOST_SIGNS = 200  # of a reason


def trial_line(trial: Content) -> str:
    """What a trial has come to: its last result, why it has none, or whose results it shares."""
    number = f"#{trial['number']}"
    if trial["same_as"] is not None:
        return f"{number}  the same network as #{trial['same_as']}: not trained again"
    if trial["infeasible"]:
        return f"{label(trial, NAME)}  {UNUSABLE}: {_reason(trial['infeasible'])}"
    if not trial["results"]:
        return f"{label(trial, NAME)}  not trained yet"
    result = trial["results"][-1]
    right, latency = accuracy_of(result).value, result["latency"]
    parts = [percent(right), f"{milliseconds(result['step_seconds'])} ms/step"]
    if latency is None:
        parts.append(f"{amount(result['parameters']).strip()} weights")
    else:
        parts.append(f"{milliseconds(latency)} ms/image")
    parts += [f"reward {result['reward']:.3f}"] if result["reward"] != right else []
    return f"{label(trial, NAME)}  {', '.join(parts)}  {duration(result['seconds'])}"


def answer_lines(content: Content) -> list[str]:
    """The answer, what it rests on, and what to do next; 80 signs wide but for names and paths."""
    network = best_of(content)["network"]
    lines = wrap(headline(content), WIDTH)
    if network not in lines[0]:
        lines.append(f"  {short(network, 1000)}")
    for sentence in sentences(content):
        lines += _item(sentence)
    lines += ["", *_table(content), ""]
    for sentence in tried(content):
        lines += _item(sentence)
    lines += _infeasible(content)
    for name, command in commands(content):
        lines.append(f"train the best network: {command}" if name == "best" else
                     f"scaled from it, size {name}: {command}")  # fmt: skip
    return lines


def _item(sentence: str) -> list[str]:
    """A sentence in lines."""
    return wrap(sentence, WIDTH, initial_indent="- ", subsequent_indent="  ")


def _table(content: Content) -> list[str]:
    """The networks of the last rung; those on the front are marked."""
    shown = finalists(content)
    reward, latency = by_reward(content), with_latency(content)
    rows: list[Sequence[str]] = [heads(reward=reward, latency=latency)]
    rows += [
        result_cells(one["results"][-1], reward=reward, latency=latency)
        for one in shown[:MOST_ROWS]
    ]
    right = table([["", *cells] for cells in rows])
    room = WIDTH - max(map(len, right)) - 2
    names = [""]
    for one in shown[:MOST_ROWS]:
        names.append(f"{'*' if one['number'] in content['front'] else ' '} {label(one, room)}")
    lines = table([[name, *cells] for name, cells in zip(names, rows, strict=True)])
    cost = "answers as fast" if content["latency_limit"] is not None else "has as fast a step"
    times = f"times: a step over that of {reference_of(content)}"
    if len(shown) == 1:
        return [*lines, times]
    lines += wrap(f"*: no other {cost} and is as accurate; {times}", WIDTH)
    if len(shown) > MOST_ROWS:
        lines.append(f"{len(shown) - MOST_ROWS:,} more on the page")
    return lines


def _infeasible(content: Content) -> list[str]:
    """Why networks could not be used, each reason once."""
    found = reasons(content)
    lines = []
    for reason, trials in found[:MOST_REASONS]:
        numbers = listed([f"#{number}" for number in trials])
        lines += _item(f"{numbers} {UNUSABLE}: {_reason(reason)}")
    if len(found) > MOST_REASONS:
        lines.append(f"- {len(found) - MOST_REASONS:,} more reasons on the page")
    return lines


def _reason(text: str) -> str:
    """A reason in one line."""
    return short(" ".join(text.split()), MOST_SIGNS)
