"""From a teacher's answers to what the student learns from: threshold, balance, copies.

Paper: Xie et al. 2020 (arXiv 1911.04252), section 3.1, data filtering and balancing. Deviation:
the reference code thins large classes at random and meets the count in expectation; here the
surest images of each class are taken exactly, and short classes are repeated in turn, surest first.
`mode="histogram"` is the reference code's rule.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tutelage.data.pool import PseudoLabels
from tutelage.errors import DataProblem, UsageError
from tutelage.labeling.boundary import COLLECT, COUNTERS, Order, count_places, find
from tutelage.labeling.rules import (
    BINS,
    KEPT,
    NOWHERE,
    OUTSIDE,
    REASONS,
    Answers,
    Array,
    Key,
    Plan,
    Pool,
    T,
    bins_of,
    boundary_bin,
    code_bits,
    cyclic_copies,
    descending,
    energy_codes,
    first_reasons,
    quota_of,
    salt_of,
)
from tutelage.settings import Select


def select(
    table: PseudoLabels, rule: Select, *, seed: int = 0, ids: Tensor | None = None
) -> PseudoLabels:
    """The same table with `copies` and `reasons`; ties go to the lower id, by default the row.

    Raises DataProblem, with the surest answer, where no image is above the threshold; UsageError
    where `rule` asks for energies that the table lacks.
    """
    numbers = torch.arange(len(table)) if ids is None else ids
    answers = {
        "id": numbers.numpy(), "label": table.labels.numpy(),
        "confidence": table.confidence.float().numpy(),
    }  # fmt: skip
    if table.energy is not None:
        answers["energy"] = table.energy.float().numpy()
    elif rule.ood:
        raise no_energy("the label table")
    plan = make_plan(InMemory(answers, len(table.classes)), rule, seed=seed)
    copies, reasons = plan.apply(answers)
    return replace(
        table,
        copies=torch.from_numpy(copies.astype(np.int64)),
        reasons=tuple(REASONS[reason] for reason in reasons.tolist()),
    )


@dataclass(frozen=True)
class InMemory:
    """A table of answers as a pool of one portion."""

    answers: Answers
    num_classes: int

    @property
    def num_rows(self) -> int:
        """Number of images."""
        return len(self.answers["id"])

    @property
    def id_bits(self) -> int:
        """All ids are below two to this power."""
        return int(self.answers["id"].max(initial=0)).bit_length()

    def scan(self, columns: tuple[str, ...], visit: Callable[[Answers], T]) -> Iterator[T]:
        """What `visit` makes of the columns."""
        yield visit({name: self.answers[name] for name in columns})


def make_plan(
    pool: Pool, rule: Select, *, seed: int, counters: int = COUNTERS, collect: int = COLLECT
) -> Plan:
    """Each class's quota and boundary; raises DataProblem where no image could be kept."""
    floor = _floor(pool, rule, counters=counters, collect=collect) if rule.ood else None
    nowhere = np.full(pool.num_classes, NOWHERE, np.int64)
    none = np.zeros(pool.num_classes, np.int64)
    blank = Plan(
        rule, none, 0, none, Key(nowhere, nowhere), none, none, salt=salt_of(seed), floor=floor
    )
    if rule.mode == "histogram":
        return _by_bins(pool, blank)
    order = _surest_first(pool, blank, "id" if rule.ood else None)
    each = none.copy()
    quota = 0

    def wanted(counts: Array) -> Array:
        nonlocal quota
        _stop_if_none(pool, blank, counts)
        if not rule.balance:
            each[:] = 1
            return none
        quota = quota_of(counts, rule)
        shares = [cyclic_copies(int(count), quota) for count in counts]
        each[:] = [share[0] for share in shares]
        more = np.array([share[1] for share in shares], np.int64)
        return np.where(each >= rule.max_copies, 0, more)

    counts, key = find(pool, order, wanted, counters=counters, collect=collect)
    return replace(blank, counts=counts, quota=quota, each=each, more=key)


def _surest_first(pool: Pool, plan: Plan, also: str | None) -> Order:
    """Images that could be kept by class, the surest first."""
    rule = plan.rule
    columns = ("label", "confidence", *(("id", "energy") if also else ()))

    def rank(answers: Answers) -> tuple[Array, Array, Array]:
        rows = np.flatnonzero(first_reasons(answers, rule, plan.floor) == REASONS.index(KEPT))
        return rows, answers["label"][rows], descending(answers["confidence"][rows], rule.ceiling)

    return Order(rank, columns, pool.num_classes, code_bits(rule.ceiling, rule.threshold))


def _floor(pool: Pool, rule: Select, *, counters: int, collect: int) -> Key | None:
    """The last of the images by energy that is in distribution; None: all are."""

    def rank(answers: Answers) -> tuple[Array, Array, Array]:
        rows = np.flatnonzero(answers["label"] >= 0)
        return rows, np.zeros(len(rows), np.int64), energy_codes(answers["energy"][rows])

    order = Order(rank, ("label", "energy"), 1, code_bits(np.inf, -np.inf))
    far = 0

    def wanted(counts: Array) -> Array:
        nonlocal far
        far = max(0, min(round(rule.ood * int(counts[0])), int(counts[0]) - 1))
        return counts - far if far else np.zeros_like(counts)

    _, key = find(pool, order, wanted, counters=counters, collect=collect)
    return key if far else None


def _by_bins(pool: Pool, plan: Plan) -> Plan:
    """The reference code's rule: whole bins, and copies drawn to meet the quota in expectation."""
    rule = plan.rule
    columns = ("label", "confidence", *(("id", "energy") if plan.floor is not None else ()))

    def places(answers: Answers) -> Array:
        rows = np.flatnonzero(first_reasons(answers, rule, plan.floor) == REASONS.index(KEPT))
        return answers["label"][rows].astype(np.int64) * BINS + bins_of(answers["confidence"][rows])

    table = count_places(pool.scan(columns, places), pool.num_classes * BINS).reshape(-1, BINS)
    counts = table.sum(1)
    _stop_if_none(pool, plan, counts)
    quota = quota_of(counts, rule)
    lowest = np.array([boundary_bin(row, quota) for row in table])
    inside = [int(row[low:].sum()) for row, low in zip(table, lowest, strict=True)]
    shares = [cyclic_copies(images, quota) for images in inside]
    chance = [(share[1] << 63) // max(1, images)
              for share, images in zip(shares, inside, strict=True)]  # fmt: skip
    each = np.array([share[0] for share in shares], np.int64)
    return replace(
        plan, counts=counts, quota=quota, each=each, lowest=lowest,
        chance=np.array(chance, np.int64),
    )  # fmt: skip


def _stop_if_none(pool: Pool, plan: Plan, counts: Array) -> None:
    """Raises DataProblem, with the surest answer, where no image could be kept."""
    if counts.any():
        return
    rule = plan.rule

    def range_of(answers: Answers) -> tuple[float, float]:
        near = first_reasons(answers, rule, plan.floor) < REASONS.index(OUTSIDE)
        confidence = answers["confidence"][near]
        return confidence.min(initial=np.inf), confidence.max(initial=-np.inf)

    ranges = list(pool.scan(plan.columns, range_of))
    low = float(min((low for low, _ in ranges), default=np.inf))
    high = float(max((high for _, high in ranges), default=-np.inf))
    if high < low:
        raise DataProblem(
            f"of {pool.num_rows:,} images none could be read, so there are no labels to select "
            "from: look at the pool with `tutelage check`"
        )
    raise DataProblem(
        f"no image is above the threshold of {rule.threshold:g}: the teacher's surest answer "
        f"is {high:.3f}; lower --select.threshold, or train a better teacher"
        if rule.ceiling == 1
        else f"no confidence is above {rule.threshold:g} and up to {rule.ceiling:g}: they are "
        f"{low:.3f} to {high:.3f}; lower --select.threshold, or raise --select.ceiling"
    )


def no_energy(what: str) -> UsageError:
    """The cut by energy asks for what is not there."""
    return UsageError(
        f"--select.ood leaves out images of low energy, but {what} has no energies: label the pool "
        "again, or leave out --select.ood"
    )
