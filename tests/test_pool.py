from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from label_tables import from_probs

from tutelage.data.label_parts import TOP
from tutelage.data.pool import load, save
from tutelage.errors import DataProblem
from tutelage.labeling.select import select
from tutelage.settings import Select


def probs(num_images=7, num_classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(num_images, num_classes, generator=generator)).softmax(-1)


def table_of(answers, prefix=""):
    names = tuple(f"{prefix}{row} ä.png" for row in range(len(answers)))
    classes = tuple(f"class, {number}" for number in range(answers.shape[1]))
    return from_probs(names, answers, classes, "digest of the teacher")


def assert_same(one, other):
    assert (one.names, one.classes, one.teacher) == (other.names, other.classes, other.teacher)
    assert torch.equal(one.top_classes, other.top_classes)
    assert torch.equal(one.top_probs, other.top_probs)
    assert one.reasons == other.reasons
    assert (one.copies is None) == (other.copies is None)
    assert one.copies is None or torch.equal(one.copies, other.copies)


@pytest.mark.parametrize("num_classes", [2, 4, 10, 11, 30])
def test_a_table_comes_back_from_parquet_to_the_last_bit(tmp_path, num_classes):
    table = table_of(probs(num_classes=num_classes))
    save(tmp_path / "a.parquet", table)
    assert_same(load(tmp_path / "a.parquet"), table)
    chosen = select(table, Select(threshold=0.0, per_class=2))
    save(tmp_path / "b.parquet", chosen)
    assert_same(load(tmp_path / "b.parquet"), chosen)


def full(stored):
    """All targets at once."""
    return stored.at(torch.arange(len(stored.top_probs)))


def test_others_can_read_the_file_without_us(tmp_path):
    answers = probs(num_classes=12)
    save(tmp_path / "a.parquet", select(table_of(answers), Select(threshold=0.0)))
    arrow = pq.read_table(tmp_path / "a.parquet")
    assert arrow.column_names == [
        "path", "label", "confidence", "classes", "probs", "rest", "copies", "reason",
    ]  # fmt: skip
    assert arrow["label"].to_pylist() == [f"class, {i}" for i in answers.argmax(-1)]
    assert arrow["confidence"].to_pylist() == answers.amax(-1).tolist()
    kept = torch.tensor(arrow["probs"].to_pylist())
    assert kept.shape == (7, TOP)
    assert torch.allclose(kept.sum(-1) + torch.tensor(arrow["rest"].to_pylist()), torch.ones(7))
    assert arrow.schema.metadata[b"teacher"] == b"digest of the teacher"


def test_the_surest_class_comes_first():
    table = table_of(probs())
    assert torch.equal(table.labels, probs().argmax(-1))
    assert torch.equal(table.confidence, probs().amax(-1))
    assert (table.top_probs.diff(dim=-1) <= 0).all()


def test_up_to_ten_classes_soft_targets_are_the_teachers_probs():
    table = select(table_of(probs(num_classes=10)), Select(threshold=0.0, balance=False))
    assert torch.allclose(full(table.targets(soft=True)), probs(num_classes=10), atol=1e-6)


def test_beyond_ten_classes_the_rest_mass_is_spread_over_the_others():
    answers = probs(num_classes=30)
    table = select(table_of(answers), Select(threshold=0.0, balance=False))
    targets = full(table.targets(soft=True))
    assert torch.allclose(targets.sum(-1), torch.ones(7))
    for row in range(7):
        top = answers[row].topk(TOP).indices
        others = [i for i in range(30) if i not in top.tolist()]
        assert torch.allclose(targets[row, top], answers[row, top], atol=1e-6)
        rest = (1 - answers[row, top].sum()) / 20
        assert torch.allclose(targets[row, others], rest.expand(20), atol=1e-6)


def test_targets_are_those_of_the_images_in_use_and_hard_ones_their_surest_class():
    table = replace(table_of(probs()), copies=torch.tensor([0, 1, 3, 0, 0, 1, 0]))
    assert table.rows().tolist() == [1, 2, 5]
    hard = full(table.targets(soft=False))
    assert torch.equal(hard.argmax(-1), probs()[[1, 2, 5]].argmax(-1))
    assert torch.equal(hard.amax(-1), torch.ones(3))
    sharp = full(table.targets(soft=True, temperature=0.5))
    squares = probs()[[1, 2, 5]] ** 2
    assert torch.allclose(sharp, squares / squares.sum(-1, keepdim=True), atol=1e-6)


def test_what_is_no_label_table_is_refused_by_name(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    pq.write_table(pa.table({"path": ["x"]}), tmp_path / "b.parquet")
    save(tmp_path / "c.parquet", table_of(probs()))
    whole = (tmp_path / "c.parquet").read_bytes()
    (tmp_path / "c.parquet").write_bytes(whole[: len(whole) // 2])
    for name in "abc":
        with pytest.raises(DataProblem, match=rf"{name}\.parquet is no label table"):
            load(tmp_path / f"{name}.parquet")
