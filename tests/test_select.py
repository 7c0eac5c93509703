import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from label_tables import from_probs

from tutelage.errors import DataProblem
from tutelage.labeling.rules import KEPT, SURPLUS, UNSURE, cyclic_copies
from tutelage.labeling.select import select
from tutelage.settings import Select


def table_of(answers, num_classes=3):
    """A label table out of (class, confidence) pairs; the rest mass is spread evenly."""
    probs = torch.empty(len(answers), num_classes)
    for row, (number, confidence) in enumerate(answers):
        probs[row] = (1 - confidence) / (num_classes - 1)
        probs[row, number] = confidence
    names = tuple(f"{row}.png" for row in range(len(answers)))
    return from_probs(names, probs, tuple("abcdefgh"[:num_classes]), "digest")


# six, two and one image above 0.3, and two below
ANSWERS = [
    (0, 0.9), (0, 0.5), (0, 0.8), (0, 0.95), (0, 0.6), (0, 0.7),
    (1, 0.7), (1, 0.9), (2, 0.4), (2, 0.35), (1, 0.34),
]  # fmt: skip


def per_class(table):
    return torch.bincount(table.labels, table.copies, minlength=len(table.classes)).tolist()


def test_four_images_a_class_come_out_exactly_for_large_and_small_classes():
    chosen = select(table_of(ANSWERS), Select(threshold=0.36, per_class=4))
    assert per_class(chosen) == [4, 4, 4]
    # the surest four of class 0, two of class 1 twice, one of class 2 four times
    assert chosen.copies.tolist() == [1, 0, 1, 1, 0, 1, 2, 2, 4, 0, 0]
    assert chosen.reasons[1] == SURPLUS
    assert chosen.reasons[9] == UNSURE
    assert chosen.reasons[0] == KEPT


def test_what_does_not_fill_the_class_evenly_goes_to_the_surest_first():
    chosen = select(table_of(ANSWERS), Select(threshold=0.36, per_class=5))
    assert per_class(chosen) == [5, 5, 5]
    assert chosen.copies[[6, 7]].tolist() == [2, 3]  # confidence 0.7 and 0.9


def test_nothing_at_or_below_the_threshold_is_kept():
    table = table_of([(0, 0.75), (1, 0.5), (2, 0.5), (0, 0.5000001)])
    assert select(table, Select(threshold=0.5, per_class=1)).copies.tolist() == [1, 0, 0, 0]
    plain = select(table, Select(threshold=0.5, balance=False))
    assert plain.copies.tolist() == [1, 0, 0, 1]
    assert plain.reasons == (KEPT, UNSURE, UNSURE, KEPT)


def test_without_balance_each_sure_image_comes_once():
    chosen = select(table_of(ANSWERS), Select(threshold=0.36, balance=False))
    assert chosen.copies.tolist() == [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]


def test_auto_shares_what_is_kept_among_the_classes_that_the_teacher_answers():
    chosen = select(table_of(ANSWERS), Select(threshold=0.36))
    assert per_class(chosen) == [3, 3, 3]  # 9 images for 3 classes
    four = table_of(ANSWERS, num_classes=4)
    assert per_class(select(four, Select(threshold=0.36))) == [3, 3, 3, 0]


def test_one_image_is_never_copied_more_often_than_allowed():
    chosen = select(table_of(ANSWERS), Select(threshold=0.36, per_class=7, max_copies=3))
    assert chosen.copies[8] == 3
    assert chosen.copies[[6, 7]].tolist() == [3, 3]
    assert per_class(chosen) == [7, 6, 3]


def test_a_class_that_the_teacher_never_answers_is_no_reason_to_stop():
    chosen = select(table_of([(0, 0.9), (2, 0.8)], num_classes=5), Select(per_class=2))
    assert per_class(chosen) == [2, 0, 2, 0, 0]


def test_an_empty_selection_says_the_surest_answer():
    with pytest.raises(DataProblem, match=r"threshold of 0\.96: .*surest answer is 0\.950"):
        select(table_of(ANSWERS), Select(threshold=0.96))


def test_ties_are_broken_by_the_order_of_the_pool():
    chosen = select(table_of([(0, 0.8)] * 5 + [(1, 0.8)] * 2), Select(per_class=3))
    assert chosen.copies.tolist() == [1, 1, 1, 0, 0, 2, 1]


def test_selecting_changes_neither_labels_nor_the_table_it_is_given():
    table = table_of(ANSWERS)
    chosen = select(table, Select())
    assert table.copies is None
    assert torch.equal(chosen.top_probs, table.top_probs)
    assert chosen.names == table.names


CONFIDENCES = st.integers(0, 100).map(lambda percent: (34 + percent * 0.66) / 100)
TABLES = st.lists(st.tuples(st.integers(0, 3), CONFIDENCES), min_size=1, max_size=60)
RULES = st.builds(
    Select,
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    balance=st.booleans(),
    per_class=st.one_of(st.just("auto"), st.integers(1, 20)),
    max_copies=st.integers(1, 5),
)


@given(TABLES, RULES)
def test_every_selection_keeps_its_promises(answers, rule):
    table = table_of(answers, num_classes=4)
    sure = table.confidence > rule.threshold
    if not sure.any():
        with pytest.raises(DataProblem):
            select(table, rule)
        return
    chosen = select(table, rule)
    copies = chosen.copies
    assert not copies[~sure].any()
    assert copies.max() <= rule.max_copies
    assert len(chosen.rows()) >= 1
    assert [reason == KEPT for reason in chosen.reasons] == (copies > 0).tolist()
    assert [reason == UNSURE for reason in chosen.reasons] == (~sure).tolist()
    if not rule.balance:
        assert torch.equal(copies, sure.long())
        return
    present = table.labels[sure].unique()
    quota = int(sure.sum()) // len(present) if rule.per_class == "auto" else rule.per_class
    for number in present.tolist():
        rows = (sure & (table.labels == number)).nonzero()[:, 0]
        order = rows[table.confidence[rows].argsort(descending=True, stable=True)]
        assert copies[rows].sum() == min(quota, len(rows) * rule.max_copies)
        assert (copies[order].diff() <= 0).all()  # the surer, the more copies
        assert copies[rows].max() - copies[rows].min() <= 1


@given(TABLES, st.randoms(use_true_random=False))
def test_the_order_of_the_pool_matters_for_ties_alone(answers, random):
    answers = list(dict.fromkeys(answers))
    rule = Select(threshold=0.3, per_class=3)
    shuffled = random.sample(answers, len(answers))
    first, second = select(table_of(answers, 4), rule), select(table_of(shuffled, 4), rule)
    counts = dict(zip(answers, first.copies.tolist(), strict=True))
    assert counts == dict(zip(shuffled, second.copies.tolist(), strict=True))


@given(st.integers(1, 50), st.integers(1, 200))
def test_copies_add_up_to_the_quota_and_differ_by_one_at_most(images, quota):
    each, more = cyclic_copies(images, quota)
    assert each * images + more == quota
    assert 0 <= more < images
