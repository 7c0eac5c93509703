"""The journal of a search, and what it says is next."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.searching.journal import Journal, Span
from tutelage.searching.reward import reward
from tutelage.searching.rungs import (
    Close,
    Job,
    Plan,
    entrants,
    next_step,
    seconds_left,
    standing,
    worked,
)
from tutelage.searching.trials import Cost, Result, Weights

EVEN = Weights(time=0.0, params=0.0)


def result(right: int, seconds: float = 1.0) -> dict[str, object]:
    cost = Cost(parameters=10, step_seconds=0.1, relative_time=1.0, relative_parameters=1.0)
    return asdict(Result(right=right, total=100, cost=cost, seconds=seconds, waited=0.0))


def plan(trials: int | None = 9, **more: object) -> Plan:
    return Plan(trials=trials, steps=(10, 30, 90), keep=3, weights=EVEN, **more)


def play(journal: Journal, how: Plan, right, *, most: int = 1000) -> list[Job]:
    """A whole search by one process, in which trial n gets right(n, rung) images."""
    done = []
    for _ in range(most):
        history = journal.read()
        step = next_step(history, how, now=0.0)
        if step == "suggest":
            journal.note(
                "suggested", genes=[len(history.trials)], network=f"net{len(history.trials)}",
                same_as=None,
            )  # fmt: skip
        elif isinstance(step, Close):
            journal.note("closed", rung=step.rung)
        elif isinstance(step, Job):
            journal.note("begun", trial=step.trial, rung=step.rung)
            journal.note(
                "finished", trial=step.trial, rung=step.rung,
                result=result(right(step.trial, step.rung)),
            )  # fmt: skip
            done.append(step)
        else:
            return done
    raise AssertionError("it doesn't end")


def test_the_reward_is_that_of_the_paper():
    assert reward(0.8, 1, 1) == pytest.approx(0.8)
    assert reward(0.8, 2, 1) == pytest.approx(0.8 * 0.952638, rel=1e-6)
    assert reward(0.8, 1, 2) == pytest.approx(0.772750, abs=2e-6)
    assert reward(0.8, 0.5, 1) / 0.8 == pytest.approx(1.0497, rel=1e-4)


@given(st.lists(st.tuples(*[st.floats(0.1, 1)] * 3), min_size=2), st.floats(0.1, 10))
def test_normalizers_do_not_change_who_is_better(networks, factor):
    plainly = [reward(*one) for one in networks]
    scaled = [reward(a, s * factor, p / factor) for a, s, p in networks]
    ratio = scaled[0] / plainly[0]
    assert scaled == pytest.approx([one * ratio for one in plainly])


def test_a_third_goes_on_and_is_trained_three_times_longer(tmp_path):
    journal = Journal(tmp_path / "trials.jsonl")
    jobs = play(journal, plan(), lambda trial, rung: 50 + trial)
    assert [job.rung for job in jobs] == [0] * 9 + [1] * 3 + [2]
    assert [job.trial for job in jobs[9:]] == [8, 7, 6, 8]
    history = journal.read()
    assert [len(entrants(history, plan(), rung)) for rung in range(3)] == [9, 3, 1]
    assert standing(history, plan(), 2)[0].network == "net8"


def test_a_rung_asks_its_own_results_and_not_those_before(tmp_path):
    journal = Journal(tmp_path / "trials.jsonl")
    jobs = play(journal, plan(), lambda trial, rung: 50 + (trial if rung == 0 else -trial))
    assert [job.trial for job in jobs[9:]] == [8, 7, 6, 6]


@given(st.integers(0, 40), st.integers(0, 200))
@settings(deadline=None, max_examples=40)
def test_a_search_cut_anywhere_in_its_journal_goes_on_as_if_it_had_not(tmp_path_factory, line, cut):
    folder = tmp_path_factory.mktemp("search")
    whole, part = Journal(folder / "whole.jsonl"), Journal(folder / "part.jsonl")
    right = lambda trial, rung: (trial * 37 + rung * 11) % 90  # noqa: E731
    jobs = play(whole, plan(), right)
    text = whole.path.read_bytes().splitlines(keepends=True)
    part.path.write_bytes(b"".join(text[:line]) + (text[line][:cut] if line < len(text) else b""))
    play(part, plan(), right)
    after = part.read()
    assert [(one.network, one.results) for one in after.trials] == [
        (one.network, one.results) for one in whole.read().trials
    ]
    assert len(jobs) == 13


def test_of_equal_rewards_the_faster_step_stands_first(tmp_path):
    journal = Journal(tmp_path / "trials.jsonl")
    for number, time in enumerate((2.0, 1.0, 3.0)):
        journal.note("suggested", genes=[number], network=f"net{number}", same_as=None)
        one = result(50)
        one["cost"] |= {"relative_time": time}
        journal.note("finished", trial=number, rung=0, result=one)
    assert [one.number for one in standing(journal.read(), plan(), 0)] == [1, 0, 2]


def test_infeasible_networks_are_replaced_by_others_and_reach_no_rung(tmp_path):
    journal = Journal(tmp_path / "trials.jsonl")
    how = plan(trials=3)
    for number in range(4):
        assert next_step(journal.read(), how, now=0) == "suggest"
        journal.note("suggested", genes=[number], network=f"net{number}", same_as=None)
        assert next_step(journal.read(), how, now=0) == Job(number, 0)
        if number == 1:
            journal.note("infeasible", trial=1, rung=0, reason="out of memory")
        else:
            journal.note("finished", trial=number, rung=0, result=result(number))
    assert next_step(journal.read(), how, now=0) == Job(3, 1)
    journal.note("infeasible", trial=3, rung=1, reason="the loss became nan")
    assert next_step(journal.read(), how, now=0) == Job(2, 1)  # the next best takes its place


def test_a_network_that_fails_in_the_last_rung_opens_no_rung_before(tmp_path):
    journal = Journal(tmp_path / "trials.jsonl")
    for number in range(9):
        journal.note("suggested", genes=[number], network=f"net{number}", same_as=None)
        journal.note("finished", trial=number, rung=0, result=result(number))
    for number in (8, 7, 6):
        assert next_step(journal.read(), plan(), now=0) == Job(number, 1)
        journal.note("finished", trial=number, rung=1, result=result(number))
    journal.note("infeasible", trial=8, rung=2, reason="the loss became nan")
    assert next_step(journal.read(), plan(), now=0) == Job(7, 2)
    assert [one.number for one in entrants(journal.read(), plan(), 1)] == [8, 7, 6]


def test_too_many_infeasible_networks_end_the_first_rung(tmp_path):
    journal = Journal(tmp_path / "trials.jsonl")
    how, steps = plan(trials=2), 0
    while next_step(journal.read(), how, now=0) == "suggest":
        journal.note("suggested", genes=[steps], network=f"net{steps}", same_as=None)
        journal.note("infeasible", trial=steps, rung=0, reason="too slow")
        steps += 1
    assert steps == 40
    assert next_step(journal.read(), how, now=0) == "done"


def test_duplicates_are_no_trials_of_their_own(tmp_path):
    journal = Journal(tmp_path / "trials.jsonl")
    how = plan(trials=2)
    journal.note("suggested", genes=[0], network="a", same_as=None)
    journal.note("suggested", genes=[1], network="a", same_as=0)
    journal.note("finished", trial=0, rung=0, result=result(5))
    assert next_step(journal.read(), how, now=0) == "suggest"
    journal.note("suggested", genes=[2], network="b", same_as=None)
    journal.note("finished", trial=2, rung=0, result=result(4))
    assert next_step(journal.read(), how, now=0) == Job(0, 1)


def test_a_rung_waits_for_what_other_processes_are_at(tmp_path):
    journal = Journal(tmp_path / "trials.jsonl")
    how = plan(trials=2)
    for number in range(2):
        journal.note("suggested", genes=[number], network=f"net{number}", same_as=None)
    assert next_step(journal.read(), how, now=0, busy={0}) == Job(1, 0)
    journal.note("finished", trial=1, rung=0, result=result(5))
    assert next_step(journal.read(), how, now=0, busy={0}) == "wait"
    assert next_step(journal.read(), how, now=0) == Job(0, 0)  # the other one was killed


def test_each_rung_has_its_share_of_the_time_and_the_best_come_first(tmp_path):
    journal, now = Journal(tmp_path / "trials.jsonl"), 0.0
    how, jobs = plan(trials=None, seconds=90.0), []
    while (step := next_step(journal.read(), how, now=now)) != "done":
        count = len(journal.read().trials)
        if step == "suggest":
            journal.note("suggested", genes=[count], network=f"net{count}", same_as=None)
        elif isinstance(step, Close):
            journal.note("closed", rung=step.rung)
        else:
            took = [2.0, 8.0, 14.0][step.rung]  # later rungs are slower than thrice the first
            lines = [
                {"event": "begun", "trial": step.trial, "rung": step.rung, "time": now},
                {"event": "finished", "trial": step.trial, "rung": step.rung, "time": now + took,
                 "result": result(50 + step.trial, took)},
            ]  # fmt: skip
            with journal.path.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
            now += took
            jobs.append(step)
    counts = [sum(job.rung == rung for job in jobs) for rung in range(3)]
    assert counts == [15, 3, 1]  # 30 s of 2; 30 of 8, which five might; one of three
    assert [job.trial for job in jobs[15:18]] == [14, 13, 12]
    assert now <= 90


def test_a_search_by_time_ends_where_no_network_can_be_used(tmp_path):
    journal, now = Journal(tmp_path / "trials.jsonl"), 0.0
    how = plan(trials=None, seconds=90.0)
    while (step := next_step(journal.read(), how, now=now)) == "suggest":
        number = len(journal.read().trials)
        journal.note("suggested", genes=[number], network=f"net{number}", same_as=None)
        with journal.path.open("a") as file:
            for event, time in (("begun", now), ("infeasible", now + 10)):
                line = {"event": event, "trial": number, "rung": 0, "time": time, "reason": "slow"}
                file.write(json.dumps(line) + "\n")
        now += 10
    assert step == Close(0)
    assert now == 100
    journal.note("closed", rung=0)
    assert next_step(journal.read(), how, now=now) == "done"


def test_a_first_rung_that_took_all_the_time_leads_on_with_what_it_has(tmp_path):
    journal = Journal(tmp_path / "trials.jsonl")
    journal.note("suggested", genes=[0], network="a", same_as=None)
    lines = [
        {"event": "begun", "trial": 0, "rung": 0, "time": 0},
        {"event": "finished", "trial": 0, "rung": 0, "time": 100, "result": result(5, 100.0)},
    ]
    with journal.path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    how = plan(trials=None, seconds=90.0)
    assert next_step(journal.read(), how, now=100) == Close(0)
    journal.note("closed", rung=0)
    assert next_step(journal.read(), how, now=100) == Job(0, 1)


def test_time_counts_once_where_processes_work_side_by_side():
    spans = (Span(0, 0, 10, 20), Span(1, 0, 15, 30), Span(2, 0, 50), Span(3, 0, 60))
    assert worked(spans, 70, busy=()) == 20
    assert worked(spans, 70, busy={2}) == 40
    assert worked(spans, 70, busy=(), until=18) == 8


def test_a_trial_that_is_worked_on_again_has_not_been_worked_on_in_between():
    spans = (Span(0, 0, 10, 20), Span(0, 1, 1000), Span(0, 1, 5000))  # killed, then gone on with
    assert worked(spans, 5010, busy={0}) == 20


def test_the_time_left_goes_by_steps(tmp_path):
    journal = Journal(tmp_path / "trials.jsonl")
    assert seconds_left(journal.read(), plan(), now=0) == float("inf")
    journal.note("suggested", genes=[0], network="a", same_as=None)
    journal.note("finished", trial=0, rung=0, result=result(5, seconds=20.0))  # 2 s a step
    assert seconds_left(journal.read(), plan(), now=0) == 2 * (8 * 10 + 3 * 30 + 1 * 90)


def test_half_a_line_of_a_killed_process_is_no_line(tmp_path):
    journal = Journal(tmp_path / "trials.jsonl")
    journal.note("suggested", genes=[0], network="a", same_as=None)
    with journal.path.open("ab") as file:
        file.write(b'{"event": "finished", "trial": 0, "ru')
    assert journal.read().trials[0].results == ()
    journal.note("finished", trial=0, rung=0, result=result(7))
    assert journal.read().trials[0].results[0].right == 7


WRITER = """
import sys
from pathlib import Path
from tutelage.searching.journal import Journal
journal = Journal(Path(sys.argv[1]))
while True:
    with journal.locked():
        count = len(journal.read().trials)
        journal.write("suggested", genes=[count], network=f"net{count}", same_as=None)
"""


def test_several_processes_write_one_journal_and_may_be_killed(tmp_path):
    file = tmp_path / "trials.jsonl"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(file)], env=os.environ)
        for _ in range(3)
    ]
    journal = Journal(file)
    for writer in writers:
        before = len(journal.read().trials)
        while len(journal.read().trials) < before + 10:
            assert all(one.poll() in (None, -signal.SIGKILL) for one in writers)
        writer.kill()
        writer.wait()
    trials = journal.read().trials
    assert [one.network for one in trials] == [f"net{number}" for number in range(len(trials))]
