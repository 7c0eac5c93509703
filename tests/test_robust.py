"""`tutelage evaluate --robust`: cases kept, none run twice, and what the page shows of them."""

import errno
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import pyarrow.parquet as pq
import pytest
import torch
import toy

import tutelage
from tutelage.cli import main
from tutelage.evaluation.kept import Kept
from tutelage.pipelines import robust
from tutelage.robustness.choice import chosen
from tutelage.robustness.suite import RELATIVE, Case, Curve, Suite, Summary, answered, joined


@dataclass(frozen=True)
class Dark(Suite):
    """Images at parts of their brightness; stops before a case where it is told to."""

    asked: list
    stop: str = ""
    shift: float = 0.0
    name_of_number: ClassVar = "mean"

    @property
    def name(self):
        return "c"

    @property
    def settings(self):
        return {"shift": self.shift}

    def check(self, subject):
        self.asked.append("check")

    def cases(self, subject):
        return tuple(Case("c", "dark", str(level)) for level in (1, 2, 3))

    def run(self, case, subject, before, advance):
        if case.key == self.stop:
            raise KeyboardInterrupt
        self.asked.append(case.key)
        parts = []
        for rows, images in subject.batches():
            dark = images.float() / 255 * (1 - 0.3 * int(case.level) + self.shift)
            parts.append(answered(subject.logits(dark), 1.0))
            advance(len(rows))
        return joined(parts)

    def summary(self, subject, found, reference):
        right = [float((c["predicted"] == subject.labels).double().mean()) for c in found.values()]
        numbers = {self.name_of_number: sum(right) / 3}
        if reference is not None:
            beside = [c["predicted"] == subject.labels for c in reference.found.values()]
            numbers["other"] = float(torch.stack(beside).double().mean())
        return Summary(
            suite="c", title="darkness", numbers=numbers, lines=("about 5 % <dark>",),
            notes=("of no use",), columns=("level", "right"),
            rows=tuple((str(k), share) for k, share in enumerate(right)),
            curve=Curve("level", "accuracy", (1, 2, 3), tuple(right)),
        )  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toy.write_toy(tmp_path_factory.mktemp("toy"), labeled=12)


def trained(images, out, **more):
    settings = {"steps": 12, "batch": 16, "device": "cpu", "img_size": 32} | more
    tutelage.train(
        data=images / "labeled", test=images / "test", model="test_resnet", out=out, **settings
    )
    return out


@pytest.fixture(scope="module")
def original(images, tmp_path_factory):
    return trained(images, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


@pytest.fixture
def suite(monkeypatch):
    """Puts a suite in the place of c; returns what it is asked."""

    def put(**settings):
        asked = []
        monkeypatch.setitem(
            robust.MAKERS, "c", lambda given, address, sources: Dark(asked, **settings)
        )
        return asked

    return put


def test_a_stopped_suite_goes_on_with_the_next_case(run, images, suite, tmp_path, capsys):
    whole = trained(images, tmp_path / "whole")
    suite()
    expected = tutelage.evaluate(whole, data=images / "test", robust="c")
    asked = suite(stop="c-dark-3")
    flags = [str(run), "--data", str(images / "test"), "--robust", "c"]
    assert main(["evaluate", *flags]) == 4
    assert "to go on: tutelage evaluate" in capsys.readouterr().err
    assert asked == ["check", "c-dark-1", "c-dark-2"]
    asked = suite()
    found = tutelage.evaluate(run, data=images / "test", robust="c")
    assert asked == ["check", "c-dark-3"]
    assert found.robust == expected.robust
    assert found.judgement == expected.judgement
    tutelage.evaluate(run, data=images / "test", robust="c")
    assert asked == ["check", "c-dark-3", "check"]


def test_two_evaluations_at_once_do_not_spoil_each_others_cases(tmp_path, monkeypatch):
    kept = Kept(tmp_path / "evaluations" / "test")
    write, columns = pq.write_table, {"predicted": torch.arange(9)}

    def slowly(table, part, **settings):  # and before it is done another process writes the same
        write(table, part, **settings)
        monkeypatch.setattr(pq, "write_table", write)
        with ThreadPoolExecutor(1) as other:
            other.submit(kept.write_case, "c", "c-fog-1", columns).result()

    monkeypatch.setattr(pq, "write_table", slowly)
    kept.write_case("c", "c-fog-1", columns)
    assert torch.equal(kept.case("c", "c-fog-1")["predicted"], columns["predicted"])
    assert len(list(kept.path.rglob("*.*"))) == 1


def test_other_settings_images_and_weights_are_asked_anew(run, images, suite, tmp_path):
    asked = suite()
    tutelage.evaluate(run, data=images / "test", robust="c")
    first = list(asked)
    asked = suite(shift=0.1)
    tutelage.evaluate(run, data=images / "test", robust="c")
    assert asked == first
    asked = suite()
    tutelage.evaluate(run, data=images / "test", robust="c", robust_images=5)
    assert asked == first
    asked = suite()
    tutelage.evaluate(run, data=images / "labeled", robust="c")
    assert asked == first
    other = trained(images, run, steps=13, overwrite=True)
    asked = suite()
    tutelage.evaluate(other, data=images / "test", robust="c")
    assert asked == first


@pytest.mark.parametrize("confident", [True, False])
def test_only_confidences_are_asked_anew_at_another_temperature(
    confident, images, suite, tmp_path, monkeypatch
):
    run = trained(images, tmp_path / "run", val_fraction=0.25)
    monkeypatch.setattr(Dark, "confident", confident)
    monkeypatch.setattr(Dark, "name_of_number", "calibration_error" if confident else "mean")
    asked = suite()
    tutelage.evaluate(run, data=images / "test", robust="c")
    tutelage.calibrate(run, data=images / "test")
    plain = tutelage.evaluate(run, data=images / "test")
    about = json.loads((plain.folder / "evaluation.json").read_text())
    assert len(about["robust"]) == (0 if confident else 1)
    before = list(asked)
    tutelage.evaluate(run, data=images / "test", robust="c")
    assert asked == before + (before if confident else ["check"])


def test_the_reference_is_asked_the_same_and_kept_beside_it(run, images, suite, tmp_path):
    other = trained(images, tmp_path / "other", seed=1)
    asked = suite()
    found = tutelage.evaluate(run, data=images / "test", robust="c", reference=other)
    assert asked == ["check", *2 * ["c-dark-1", "c-dark-2", "c-dark-3"]]
    asked = suite()
    alone = tutelage.evaluate(other, data=images / "test", robust="c")
    assert asked == ["check"]  # all was kept when it was the reference
    assert alone.robust[0].numbers["mean"] == pytest.approx(found.robust[0].numbers["other"])


def test_the_reference_shares_images_and_its_own_evaluations_cases(
    run, images, suite, tmp_path, monkeypatch
):
    other = trained(images, tmp_path / "other", seed=1)
    suite()
    tutelage.evaluate(other, data=images / "test", robust="c", robust_images=6)
    tutelage.evaluate(run, data=images / "test", robust="c", robust_images=6)
    decoded, opened = [], robust.open_pixels
    monkeypatch.setattr(
        robust, "open_pixels", lambda *given, **more: decoded.append(1) or opened(*given, **more)
    )
    asked = suite()
    wish = {"robust": "c", "robust_images": 6, "reference": other}
    tutelage.evaluate(run, data=images / "test", **wish)
    assert asked == ["check"]
    assert len(decoded) == 1


@pytest.mark.parametrize("wish", [["c", "--reference", "nowhere"], ["autoattack"]])
def test_what_is_not_there_is_said_before_anything_is_judged(
    run, images, wish, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    flags = [str(run), "--data", str(images / "test"), "--robust", *wish]
    assert main(["evaluate", *flags]) == 2
    assert not capsys.readouterr().out
    assert not (run / "evaluations").exists()


def test_the_evaluation_is_kept_and_the_page_shows_it(run, images, suite):
    suite()
    found = tutelage.evaluate(run, data=images / "test", robust="c")
    about = json.loads((found.folder / "evaluation.json").read_text())
    assert about["images"] == found.accuracy.total
    assert about["robust"][0]["numbers"] == found.robust[0].numbers
    page = (run / "report" / "index.html").read_text()
    assert "about 5\u00a0% &lt;dark&gt;" in page
    assert str(found.accuracy).replace(" %", "\u00a0%") in page
    assert "darkness: 1: " in page  # the curve, as it is spoken
    suite(stop="c-dark-1")
    tutelage.evaluate(run, data=images / "test")
    assert (run / "report" / "index.html").read_text() == page  # what was asked before stays


def test_a_run_that_can_not_be_written_to_is_judged_aloud_and_named(
    run, images, monkeypatch, capsys
):
    def refused(table, part, **settings):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(pq, "write_table", refused)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(images / "test")]) != 0
    said = capsys.readouterr()
    assert said.out.startswith("accuracy ")
    assert "make its folder writable" in said.err
    assert "--out" not in said.err


def test_tables_beside_a_reference_fit_a_terminal_of_80_columns(run, images, tmp_path, capsys):
    other = tmp_path / "a-longer-name"
    shutil.copytree(run, other)
    wish = {"robust": "c-extra,fgsm,p", "robust_images": 4, "reference": other, "epsilon": (8,)}
    capsys.readouterr()
    tutelage.evaluate(run, data=images / "test", **wish)
    tables = [line for line in capsys.readouterr().out.splitlines() if line.count("  ") > 4]
    assert any("relCE" in line for line in tables)
    assert any("a-longer-name  difference in points" in line for line in tables)
    assert max(map(len, tables)) <= 80


def test_numbers_that_a_reference_has_a_part_in_are_known_by_their_names_and_it_by_its_mark(
    run, images, tmp_path
):
    other = trained(images, tmp_path / "other", seed=1)
    wish = {
        "data": images / "test", "robust": "c-extra,fgsm,p", "robust_images": 4, "epsilon": (8,)
    }  # fmt: skip
    alone = tutelage.evaluate(run, **wish).robust
    beside = tutelage.evaluate(run, reference=other, **wish).robust
    itself = tutelage.evaluate(run, reference=run, **wish).robust
    for one, two, three in zip(alone, beside, itself, strict=True):
        known = {name for name in two.numbers if name.startswith(RELATIVE)}
        assert known == set(two.numbers) - set(one.numbers)
        assert known or two.suite == "p"  # which has none where the other's answers never flip
        assert one.reference == ""
        assert two.reference != three.reference
        assert two.asked == one.asked
    tutelage.evaluate(other, reference=other, **wish)
    (found, *_) = tutelage.compare(run, other).robust
    assert not any(name.startswith(RELATIVE) for name, _ in found["numbers"])
    tutelage.evaluate(run, reference=other, **wish)
    (found, *_) = tutelage.compare(run, other).robust
    assert "relCE" in [name for name, _ in found["numbers"]]


@pytest.mark.parametrize("most", [1, 4, 7, 30, 31, 99, None])
def test_chosen_images_are_spread_evenly_over_the_classes(most):
    labels = torch.tensor([0] * 20 + [1] * 8 + [2] * 3)
    rows = chosen(labels, most, seed=3)
    count = min(most or 31, 31)
    assert len(set(rows.tolist())) == len(rows) == count
    assert torch.equal(rows, rows.sort().values)
    assert torch.equal(rows, chosen(labels, most, seed=3))
    counts = torch.bincount(labels[rows], minlength=3)
    full = torch.tensor([20, 8, 3])
    most_of = counts.max()
    assert all(c >= min(most_of - 1, f) for c, f in zip(counts, full, strict=True))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--robust", "c,pdg"], "doesn't know 'pdg'; did you mean"),
        (["--robust", "c,c"], "twice"),
        (["--robust", "a="], "give the folder"),
        (["--robust", "pgd=x"], "doesn't know"),
        (["--reference", "x"], "--reference is for --robust"),
        (["--robust", "c", "--robust-images", "0"], "--robust-images is at least 1, got 0"),
        (["--robust", "fgsm", "--epsilon", "-1"], "epsilon"),
        (["--robust", "c", "--reference", "nowhere"], "nowhere"),
    ],
)
def test_wrong_wishes_are_refused_before_anything_is_read(run, flags, message, images, capsys):
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(images / "test"), *flags]) == 2
    assert message in capsys.readouterr().err
