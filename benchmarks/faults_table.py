"""The outcome of the fault campaign as a table, and where its kills fell."""

import signal
from collections import Counter
from collections.abc import Sequence

from benchmarks.journal import Row

HEAD = (
    "verb", "runs", "kills", "SIGKILL", "of them at chosen moments", "SIGTERM", "SIGINT", "starts",
    "stopped badly", "runs lost", "wrong results", "seconds",
)  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Markdown: a row a verb and one for all; then the stages in which kills fell."""
    verbs = list(dict.fromkeys(row["verb"] for row in rows))
    lines = ["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
    groups = [(verb, [row for row in rows if row["verb"] == verb]) for verb in verbs]
    for name, its in [*groups, ("all", list(rows))]:
        lines.append("| " + " | ".join([name, *(f"{n:,}" for n in _counts(its))]) + " |")
    for name, its in groups:
        kills = [row for row in its if row["kind"] == "kill" and row["killed"]]
        stages = Counter(row["stage"] or "no stage" for row in kills)
        files = Counter(row["file"] for row in kills if row["file"])
        lines.append(f"\n{name}: " + ", ".join(f"{k} {n}" for k, n in stages.most_common()))
        lines.append("files: " + ", ".join(f"{k} {n}" for k, n in files.most_common()))
    return "\n".join(lines)


def _counts(rows: Sequence[Row]) -> list[int]:
    """The numbers of a line."""
    kills = [row for row in rows if row["kind"] == "kill"]
    runs = [row for row in rows if row["kind"] == "run"]
    done = [row for row in kills if row["killed"]]
    by = Counter(row["signal"] for row in done)
    return [
        len(runs), len(done), by[signal.SIGKILL], sum(bool(row["moment"]) for row in done),
        by[signal.SIGTERM], by[signal.SIGINT], sum(row["starts"] for row in runs),
        sum(bool(row["fault"]) for row in kills), sum(row["lost"] for row in runs),
        sum(bool(row["wrong"]) for row in runs), round(sum(row["seconds"] for row in runs)),
    ]  # fmt: skip
