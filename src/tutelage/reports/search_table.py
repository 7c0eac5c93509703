"""The columns of a search's tables, on the terminal and on the page."""

from tutelage.reports.cells import amount, milliseconds
from tutelage.reports.search_answer import Content, accuracy_of
from tutelage.values import percent


def result_cells(result: Content, *, reward: bool, latency: bool) -> list[str]:
    """A result's numbers as tables show them, as named by `heads`."""
    right = accuracy_of(result)
    low, high = right.interval
    cells = [percent(right.value), f"{100 * low:.1f} to {100 * high:.1f}"]
    cells += [f"{result['reward']:.3f}"] if reward else []
    cells += [milliseconds(result["step_seconds"]), f"{result['relative_time']:.2f}"]
    cells.append(amount(result["parameters"]).strip())
    if latency:
        cells.append("-" if result["latency"] is None else milliseconds(result["latency"]))
    return cells


def heads(*, reward: bool, latency: bool) -> list[str]:
    """Names of the columns."""
    return [
        "accuracy", "95 % interval", *(["reward"] if reward else []), "ms/step", "times",
        "weights", *(["ms/image"] if latency else []),
    ]  # fmt: skip


def with_latency(content: Content) -> bool:
    """Whether the time to answer was taken."""
    return any(
        result["latency"] is not None for one in content["trials"] for result in one["results"]
    )
