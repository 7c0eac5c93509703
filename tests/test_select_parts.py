"""Selection out of core: equal to brute force and to memory, whatever the parts, rules and ties."""

import json
import os
import signal
import threading
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import starts
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tutelage
from tutelage.cli import main
from tutelage.data.pool import PseudoLabels
from tutelage.errors import DataProblem, RunMismatch, UsageError
from tutelage.labeling.rules import REASONS, bins_of, draws, salt_of
from tutelage.labeling.select import select
from tutelage.labeling.select_parts import select_parts
from tutelage.progress import Screen
from tutelage.run import held
from tutelage.settings import Select

CLASSES = ("ant", "bee", "cat", "dog")
SCREEN = Screen()


def write_labels(folder, parts, *, group=3, teacher="digest", classes=CLASSES):
    """Parts out of rows (id, label, confidence, energy), in row groups of `group`."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"teacher": teacher, "classes": json.dumps(classes), "shard": ""}
    for number, rows in enumerate(parts):
        ids, labels, confidence, energy = zip(*rows, strict=True) if rows else ((),) * 4
        table = pa.table(
            {
                "id": pa.array(ids, pa.int64()), "path": [f"{i}.png" for i in ids],
                "label": pa.array(labels, pa.int32()),
                "confidence": pa.array(confidence, pa.float32()),
                "energy": pa.array(energy, pa.float32()),
                "classes": pa.array([[0, 1]] * len(ids), pa.list_(pa.int32(), 2)),
            }
        )  # fmt: skip
        path = folder / f"part-{number:05d}.parquet"
        pq.write_table(table.replace_schema_metadata(about), path, row_group_size=group)
    return folder


def read_selection(folder):
    """Copies and reason by id."""
    found = {}
    for path in sorted(folder.glob("part-*.parquet")):
        for row in pq.read_table(path).to_pylist():
            found[row["id"]] = (row["copies"], row["reason"])
    return found


def brute(rows, rule, seed=0):
    """The rules as they are written in the docs, one image after another; None: nothing is kept."""
    readable = [row for row in rows if row[1] >= 0]
    order = sorted(readable, key=lambda row: (-row[3], row[0]))
    far = max(0, min(round(rule.ood * len(readable)), len(readable) - 1))
    outside = {row[0] for row in order[len(order) - far :]}
    threshold, ceiling = np.float32(rule.threshold), np.float32(rule.ceiling)
    found, sure = {}, {}
    for number, label, confidence, _ in rows:
        if label < 0:
            found[number] = (0, "unreadable")
        elif number in outside:
            found[number] = (0, "out of distribution")
        elif not confidence > threshold:
            found[number] = (0, "below the threshold")
        elif confidence > ceiling:
            found[number] = (0, "above the ceiling")
        else:
            sure.setdefault(label, []).append((-confidence, number))
    return with_copies(found, sure, rule, seed) if sure else None


def with_copies(found, sure, rule, seed):
    """Copies and reason of all that could be kept as well."""
    total = sum(map(len, sure.values()))
    quota = total // len(sure) if rule.per_class == "auto" else rule.per_class
    for images in sure.values():
        if not rule.balance:
            copies = [1] * len(images)
        elif rule.mode == "exact":
            images.sort()
            copies = [quota // len(images) + (i < quota % len(images)) for i in range(len(images))]
        else:
            copies = by_bins(images, quota, seed)
        for (_, number), times in zip(images, copies, strict=True):
            times = min(times, rule.max_copies)
            found[number] = (times, "kept" if times else "class is full")
    return found


def by_bins(images, quota, seed):
    """Noisy Student's code: down to the bin that fills the class, then a share of each image."""
    bins = [int(bins_of(np.float32(-one))) for one, _ in images]
    lowest = next((b for b in range(100, -1, -1) if sum(x >= b for x in bins) >= quota), 0)
    inside = sum(b >= lowest for b in bins)
    share = Fraction(quota, inside)
    whole = int(share)
    drawn = [int(draws(np.array([number]), salt_of(seed))[0]) for _, number in images]
    return [
        whole + (Fraction(draw, 2**63) < share - whole) if b >= lowest else 0
        for b, draw in zip(bins, drawn, strict=True)
    ]


def in_memory(rows, rule, seed=0):
    ids, labels, confidence, energy = zip(*rows, strict=True)
    table = PseudoLabels(
        tuple(map(str, ids)), torch.tensor(labels)[:, None], torch.tensor(confidence)[:, None],
        CLASSES, "digest", energy=torch.tensor(energy),
    )  # fmt: skip
    made = select(table, rule, seed=seed, ids=torch.tensor(ids))
    return dict(zip(ids, zip(made.copies.tolist(), made.reasons, strict=True), strict=True))


def f32(value):
    return float(np.float32(value))


CONFIDENCE = st.one_of(
    st.sampled_from([0.29, 0.3, 0.31, 0.5, 0.57, 0.99, 1.0]),  # ties, and the edges of bins
    st.floats(0, 1, width=16),
    st.floats(0, 1, width=32),
).map(f32)
ENERGY = st.one_of(st.sampled_from([-0.0, 0.0, 3.0, -2.5]), st.floats(-30, 30, width=32)).map(f32)
ROW = st.tuples(st.sampled_from([-1, 0, 0, 0, 1, 1, 3]), CONFIDENCE, ENERGY)
RULES = st.builds(
    Select,
    threshold=st.sampled_from([0.0, 0.3, 0.5]),
    ceiling=st.sampled_from([0.9, 1.0, 1.0]),
    per_class=st.one_of(st.just("auto"), st.integers(1, 12)),
    max_copies=st.integers(1, 5),
    mode=st.sampled_from(["exact", "histogram"]),
    ood=st.sampled_from([0.0, 0.0, 0.1, 0.5, 0.99]),
) | st.builds(Select, balance=st.just(False), ood=st.sampled_from([0.0, 0.3]))


@st.composite
def pools(draw):
    """Rows with ids that ascend over parts, and the parts, in which rows stand in any order."""
    rows, parts = [], []
    for number, size in enumerate(draw(st.lists(st.integers(0, 9), min_size=1, max_size=5))):
        ids = range(number << 32, (number << 32) + size)
        part = [(i, *draw(ROW)) for i in ids]
        rows += part
        parts.append(draw(st.permutations(part)))
    return rows, parts


@settings(max_examples=60)
@given(
    pool=pools(), rule=RULES, group=st.integers(1, 5), counters=st.sampled_from([4, 16, 1 << 12]),
    collect=st.sampled_from([0, 2, 1 << 20]), seed=st.integers(0, 3),
)  # fmt: skip
def test_any_parts_give_what_brute_force_and_memory_give(
    pool, rule, group, counters, collect, seed, tmp_path_factory
):
    rows, parts = pool
    folder = tmp_path_factory.mktemp("pool")
    labels, out = write_labels(folder / "labels", parts, group=group), folder / "out"
    limits = {"counters": counters, "collect": collect}
    expected = brute(rows, rule, seed)
    if expected is None:
        with pytest.raises(DataProblem):
            select_parts(labels, out, rule, screen=SCREEN, seed=seed, **limits)
        assert not list(out.glob("*.parquet"))
        return
    made = select_parts(labels, out, rule, screen=SCREEN, seed=seed, **limits)
    found = read_selection(out)
    assert found == expected
    assert in_memory(rows, rule, seed) == expected
    reasons = [reason for _, reason in expected.values()]
    assert made.content["reasons"] == {reason: reasons.count(reason) for reason in REASONS}
    assert made.content["entries"] == sum(copies for copies, _ in expected.values())
    assert sum(one["images"] for one in made.content["classes"]) == reasons.count("kept")


def many(count=600, seed=0):
    """Rows of a pool with skewed classes and confidences in half precision, with many ties."""
    random = np.random.default_rng(seed)
    labels = np.minimum(random.geometric(0.5, count) - 1, 3)
    labels[random.random(count) < 0.02] = -1
    confidence = np.where(labels < 0, 0, 1 - random.random(count) ** 4 * 0.9).astype(np.float16)
    energy = random.normal(8, 2, count).astype(np.float32)
    return list(
        zip(range(count), labels.tolist(), confidence.tolist(), energy.tolist(), strict=True)
    )


def parts_of(rows, size=100):
    return [rows[start : start + size] for start in range(0, len(rows), size)]


RULE = Select(per_class=40)


@pytest.fixture
def labels(tmp_path):
    return write_labels(tmp_path / "labels", parts_of(many()), group=40)


def test_a_whole_class_of_one_confidence_is_cut_by_id_in_bounded_memory(tmp_path):
    """All ties: the digits of the confidence tell nothing, those of the id everything."""
    rows = [(i, 0, 1.0, 0.0) for i in range(3000)] + [(3000, 1, 1.0, 0.0)]
    labels = write_labels(tmp_path / "labels", parts_of(rows, 500), group=500)
    rule = Select(per_class=1234)
    select_parts(labels, tmp_path / "out", rule, screen=SCREEN, counters=64, collect=8)
    found = read_selection(tmp_path / "out")
    assert [found[i][0] for i in range(3000)] == [1] * 1234 + [0] * (3000 - 1234)


def test_draws_are_even_and_differ_between_seeds():
    ids = np.arange(20_000)
    one, other = (draws(ids, salt_of(seed)) / 2**63 for seed in (0, 1))
    assert abs(one.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.03
    assert np.bincount((one * 10).astype(int)).min() > 1850


def test_the_histogram_meets_the_count_in_expectation_and_takes_whole_bins(labels, tmp_path):
    rule = Select(mode="histogram", per_class=40)
    totals = []
    for seed in range(20):
        made = select_parts(labels, tmp_path / str(seed), rule, screen=SCREEN, seed=seed)
        totals.append([one["entries"] for one in made.content["classes"]])
        for one in made.content["classes"]:
            assert one["boundary"] is None or (one["boundary"] * 100) % 1 < 1e-6
    assert np.abs(np.mean(totals, 0) - 40).max() < 2
    assert np.std(totals, 0).max() > 0


def test_the_same_command_again_writes_nothing(labels, tmp_path):
    out = tmp_path / "out"
    first = select_parts(labels, out, RULE, screen=SCREEN)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.name != ".lock"}
    assert select_parts(labels, out, RULE, screen=SCREEN) == first
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_parts_are_like_those_of_the_labels(labels, tmp_path):
    out = tmp_path / "out"
    made = select_parts(labels, out, RULE, screen=SCREEN)
    for path in sorted(labels.glob("part-*")):
        table = pq.read_table(out / path.name)
        assert table["id"].to_pylist() == pq.read_table(path)["id"].to_pylist()
        assert [str(field.type) for field in table.schema] == [
            "int64", "int32", "dictionary<values=string, indices=int8, ordered=0>",
        ]  # fmt: skip
    written = json.loads((out / "selection.json").read_text())
    assert written == made.content
    assert written["teacher"] == "digest"
    assert written["classes"][0]["boundary"] > 0.3


KILL = """
import os, signal, sys
from tutelage import files
real, seen = files.whole, 0
import contextlib
@contextlib.contextmanager
def whole(path):
    global seen
    with real(path) as part:
        yield part
        seen += 1
        if seen == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
files.whole = whole
from tutelage.cli import main
sys.exit(main(sys.argv[2:]))
"""


def test_a_killed_selection_goes_on_where_it_was(labels, tmp_path):
    out = tmp_path / "out"
    command = ["select", str(labels), "--out", str(out), "--per-class", "40"]
    killed = starts.run(KILL, 4, *command)
    assert killed.returncode == -signal.SIGKILL
    finished = sorted(out.glob("part-*.parquet"))
    assert 1 <= len(finished) < 6
    assert not (out / "selection.json").exists()
    before = {path: path.stat().st_mtime_ns for path in finished}
    assert main(command) == 0
    assert before == {path: path.stat().st_mtime_ns for path in finished}
    assert read_selection(out) == brute(many(), RULE)
    assert not list(out.glob("*.part"))


def test_a_part_that_was_lost_is_made_again(labels, tmp_path):
    out = tmp_path / "out"
    made = select_parts(labels, out, RULE, screen=SCREEN)
    (out / "part-00002.parquet").unlink()
    assert select_parts(labels, out, RULE, screen=SCREEN) == made
    assert read_selection(out) == brute(many(), RULE)


def test_labels_that_may_lack_their_last_parts_are_pointed_out(labels, tmp_path, capsys):
    command = ["select", str(labels), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert "has no labels.json" in capsys.readouterr().err
    (labels / "labels.json").write_text("{}")
    assert main(command) == 0
    assert "labels.json" not in capsys.readouterr().err


def test_another_rule_or_seed_is_refused_and_moved_aside_on_demand(labels, tmp_path):
    out = tmp_path / "out"
    select_parts(labels, out, RULE, screen=SCREEN)
    with pytest.raises(RunMismatch, match=r"rule\.per_class: 40 -> 41"):
        select_parts(labels, out, Select(per_class=41), screen=SCREEN)
    (out / "selection.json").unlink()  # as if killed
    with pytest.raises(RunMismatch, match="seed: 0 -> 5"):
        select_parts(labels, out, RULE, screen=SCREEN, seed=5)
    select_parts(labels, out, Select(per_class=41), screen=SCREEN, overwrite=True)
    assert len(list(tmp_path.glob("out.old-*/part-*.parquet"))) == 6
    assert read_selection(out) == brute(many(), Select(per_class=41))


def test_labels_that_changed_are_noticed(labels, tmp_path):
    out = tmp_path / "out"
    select_parts(labels, out, RULE, screen=SCREEN)
    rows = many()
    number, label, _, energy = next(r for r in rows if r[1] == 0 and r[2] > 0.99)
    rows[number] = (number, label, 0.0, energy)
    write_labels(labels, parts_of(rows), group=40)
    with pytest.raises(RunMismatch, match="other labels"):
        select_parts(labels, out, RULE, screen=SCREEN)


def test_two_processes_never_write_one_selection(labels, tmp_path):
    out = tmp_path / "out"
    with held(out), pytest.raises(RunMismatch, match="another process"):
        select_parts(labels, out, RULE, screen=SCREEN)


def test_a_folder_of_something_else_is_left_alone(labels, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"thesis\.txt"):
            select_parts(labels, tmp_path / "mine", RULE, screen=SCREEN, overwrite=overwrite)
        with pytest.raises(UsageError, match="no part of a selection"):
            select_parts(labels, labels, RULE, screen=SCREEN, overwrite=overwrite)


def test_no_labels_or_missing_parts_are_said(labels, tmp_path, capsys):
    assert main(["select", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "tutelage label" in capsys.readouterr().err
    (labels / "part-00002.parquet").unlink()
    assert main(["select", str(labels), "--out", str(tmp_path / "out")]) == 3
    assert "no part-00002.parquet" in capsys.readouterr().err


def test_damaged_parts_and_wrong_labels_are_named(labels, tmp_path):
    path = labels / "part-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataProblem, match=r"part-00001\.parquet is damaged"):
        select_parts(labels, tmp_path / "out", RULE, screen=SCREEN)
    path.write_bytes(whole[:300] + bytes(400) + whole[700:])  # the footer is good, a page is not
    with pytest.raises(DataProblem, match=r"part-00001\.parquet is damaged"):
        select_parts(labels, tmp_path / "out", RULE, screen=SCREEN)
    rows = many()
    rows[7] = (7, 4, 0.9, 0.0)
    write_labels(labels, parts_of(rows))
    with pytest.raises(DataProblem, match=r"part-00000.*label 4 is none of the 4 classes"):
        select_parts(labels, tmp_path / "out", RULE, screen=SCREEN)


def test_parts_of_two_teachers_are_refused(labels, tmp_path):
    write_labels(tmp_path / "other", parts_of(many()), teacher="another")
    (tmp_path / "other" / "part-00003.parquet").rename(labels / "part-00003.parquet")
    with pytest.raises(DataProblem, match="by one teacher"):
        select_parts(labels, tmp_path / "out", RULE, screen=SCREEN)


def test_energies_that_are_asked_for_must_be_there(labels, tmp_path):
    for path in labels.iterdir():
        table = pq.read_table(path)
        pq.write_table(table.drop_columns("energy"), path)
    select_parts(labels, tmp_path / "out", RULE, screen=SCREEN)
    with pytest.raises(UsageError, match="has no energies"):
        select_parts(labels, tmp_path / "ood", Select(ood=0.1), screen=SCREEN)
    table = PseudoLabels(("a",), torch.tensor([[0]]), torch.tensor([[0.9]]), CLASSES, "digest")
    with pytest.raises(UsageError, match="has no energies"):
        select(table, Select(ood=0.1))


def test_the_verb_and_the_function_say_what_came_out(labels, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["select", str(labels), "--out", str(out), "--per-class", "40"]) == 0
    said = capsys.readouterr().out
    counts = json.loads((out / "selection.json").read_text())["reasons"]
    for reason, images in counts.items():
        assert not images or f"{reason:<22}{images:>16,} images" in said
    assert "of 4 classes, 40 images wanted of each" in said
    assert "full classes take confidences from" in said
    made = tutelage.select(str(labels), out=str(out), rule=Select(per_class=40))
    assert made.content["reasons"] == counts
    more = ["--mode", "histogram", "--ood", "0.1", "--seed", "3", "--overwrite"]
    assert main(["select", str(labels), "--out", str(out), "--per-class", "40", *more]) == 0
    assert read_selection(out) == brute(many(), Select(per_class=40, mode="histogram", ood=0.1), 3)
    assert main(["select", str(labels), "--out", str(tmp_path / "no"), "--threshold", "1"]) == 3
    assert "the teacher's surest answer is 1.000" in capsys.readouterr().err


def test_threads_change_nothing(labels, tmp_path, monkeypatch):
    before = threading.active_count()
    for cores in (1, 4):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        select_parts(labels, tmp_path / f"out{cores}", RULE, screen=SCREEN)
    one, four = (tmp_path / f"out{cores}" for cores in (1, 4))
    for path in one.glob("*.parquet"):
        assert path.read_bytes() == (four / path.name).read_bytes()
    assert threading.active_count() == before
