"""The ratios of the benchmarks, and their page."""

import json

import pytest
from benchmarks import bench, paired
from benchmarks.bench_page import goal_missed, mean_ratio, page, place, table, why_unreliable
from benchmarks.paired import Case, measured


class Quiet:
    """A machine that does nothing else."""

    cores = (0, 1)

    def others(self) -> float:
        return 0.0


def row(**more):
    its = {
        "group": "views", "what": "strong <views>", "peer": "timm", "unit": "ms", "goal": None,
        "ours": 2.0, "theirs": 4.0, "ratio": 0.5, "low": 0.49, "high": 0.51, "turns": 9,
        "seconds": 1.0, "others": 0.0, "reliable": True,
    }  # fmt: skip
    return its | more


def test_a_ratio_is_taken_within_each_turn(monkeypatch):
    monkeypatch.setattr(paired, "Load", Quiet)
    drift = iter([9, 1, 2, 3, 4, 5])  # the first turn warms up
    peer = iter([9, 2, 4, 6, 8, 10])
    case = Case(
        what="a", peer="b", unit="s", turns=5, ours=lambda: next(drift), theirs=lambda: next(peer)
    )
    found = measured(case)
    assert (found["ours"], found["theirs"]) == (3, 6)
    assert [found[name] for name in ("low", "ratio", "high")] == [0.5, 0.5, 0.5]
    assert found["reliable"]


def test_the_sides_take_turns_at_being_first(monkeypatch):
    monkeypatch.setattr(paired, "Load", Quiet)
    order = []
    sides = [lambda name=name: order.append(name) or 1.0 for name in ("ours", "theirs")]
    measured(Case(what="a", peer="b", unit="s", turns=2, ours=sides[0], theirs=sides[1]))
    assert order[2:] == ["ours", "theirs", "theirs", "ours"]


def test_turns_that_differ_and_other_work_make_a_row_unreliable(monkeypatch):
    monkeypatch.setattr(paired, "Load", Quiet)
    costs = iter([1, 1, 2, 1, 3, 1])
    case = Case(what="a", peer="b", unit="s", turns=5, ours=lambda: next(costs), theirs=lambda: 1.0)
    assert not measured(case)["reliable"]
    assert why_unreliable(row(low=0.4, high=0.6)) == "its turns differ much"
    assert why_unreliable(row(others=0.5)) == "other work kept 50% of the cores busy"
    assert why_unreliable(row()) == ""


def test_a_goal_is_missed_above_it():
    assert goal_missed(row(ratio=1.04, goal=1.03))
    assert not goal_missed(row(ratio=1.02, goal=1.03))
    assert not goal_missed(row(ratio=9.0))


def test_the_mean_of_a_group_is_geometric():
    assert mean_ratio([row(ratio=ratio) for ratio in (0.25, 4, 1, 0.5, 2)]) == pytest.approx(1)
    assert mean_ratio([row()] * 2) is None
    assert mean_ratio([*[row()] * 5, row(peer="torchvision")]) is None


def test_the_page_names_each_row_and_escapes_it():
    machine = {"processor": "P", "cores": 2, "system": "S", "python": "3", "packages": {}}
    about = {"commit": "abc", "time": "now", "machine": machine}
    rows = [row(), row(low=0.4, high=0.7, goal=0.3)]
    text = page(about, rows)
    assert "strong &lt;views&gt;" in text
    assert text.count("unreliable: its turns differ much") == 1
    assert "above its goal of 0.3" in text
    assert place(1) == 90 and place(1e9) == 180 and place(1e-9) == 0  # noqa: PT018


def test_the_table_marks_what_is_not_reliable():
    _, _, first, second = table([row(), row(reliable=False)]).splitlines()
    assert first.startswith("| views | strong <views>, ms | timm | 2 | 4 | 0.500 | 0.490 to 0.510")
    assert "0.500 ? |" in second


@pytest.mark.slow
def test_a_group_is_measured_in_a_process_of_its_own(tmp_path, monkeypatch, capsys):
    words = ["bench", "--only", "the same", "--turns", "2", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    bench.main()
    result = json.loads((tmp_path / "bench.json").read_text())
    assert [one["peer"] for one in result["rows"]] == ["itself", "itself"]
    assert result["about"]["machine"]["cores"] >= 1
    assert "processor time" in (tmp_path / "bench.html").read_text()
    assert "matrix products, wall time: " in capsys.readouterr().out
