"""The report: whatever a run folder holds becomes one page that needs nothing else."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from images import write_picture
from label_tables import from_probs

from tutelage.data import pool
from tutelage.data.issues import Issue, write_issues
from tutelage.errors import UsageError
from tutelage.files import write_json, write_text
from tutelage.labeling.select import select
from tutelage.reports import contents as gathered
from tutelage.reports import figures, tables, thumbnails
from tutelage.reports.cells import short
from tutelage.reports.contents import gather
from tutelage.reports.page import write_report
from tutelage.settings import Select

HOSTILE = "<b>&\"$x_1$'</script>"
SENTENCE = "the unlabeled images help: +10.0 points (+2.0 to +18.0, 95 % interval, 60 test images)"
VERDICT = {
    "total": 60, "gained": 8, "lost": 2, "low": 0.02, "high": 0.18, "p_value": 0.04,
    "sentence": SENTENCE, "outcome": "help",
}  # fmt: skip
VOID = {"meta", "img", "br"}


def write_run(
    path: Path, *, classes=("cat", "dog", "owl"), verb="selftrain", verdict=VERDICT, side=8,
    judge="test",
) -> Path:  # fmt: skip
    """A finished run of a baseline and, for selftrain, one student, without any training."""
    student = verb == "selftrain"
    names = ["00-baseline", "01-student"] if student else ["00-supervised"]
    rows = [
        {"name": name, "model": "resnet18", "parameters": 11_000_000 + number,
         "val": {"right": 9, "total": 10}, "test": {"right": 48 + 6 * number, "total": 60}}
        for number, name in enumerate(names)
    ]  # fmt: skip
    evaluated = {"judge": judge, "rounds": rows if judge else [], "verdict": verdict}
    counts = {"labeled": 40, "test": 60} | ({"pool": 80} if student else {})
    stages = {
        "check": {"img_size": 32, "images": counts, "fingerprint": "0123abcd"},
        **{name: {} for name in names},
        "01-labels": {"teacher": "00-baseline", "kept": 60},
        "evaluate": evaluated,
        "model": {},
    }
    if not student:
        del stages["01-labels"]
    done = {k: {"state": "done", "seconds": 61.0 + len(k)} | v for k, v in stages.items()}
    settings = {"data": "labeled", "select": {"threshold": 0.5}, "students": ["resnet18"]}
    stages = done | {"report": {"state": "running"}}
    content = {"verb": verb, "state": "running", "stage": "report", "settings": settings}
    write_json(path / "run.json", content | {"stages": stages})
    write_text(path / "config.yaml", yaml.safe_dump(settings))
    write_json(path / "data" / "classes.json", classes)
    start = {
        "time": "2026-01-02T03:04:05+00:00", "command": "tutelage selftrain --seed 3",
        "python": "3.11.7", "packages": {"tutelage": "0.1.0", "torch": "2.11.0"},
    }  # fmt: skip
    write_json(path / "environment.json", [start])
    write_issues(path / "data" / "issues.csv", [])
    for name in names:
        write_round(path / "rounds" / name, classes, judge)
    if student:
        write_labels(path, classes, side)
    return path


def write_round(folder: Path, classes, judge) -> None:
    """Metrics, and predictions where there is a judge."""
    lines = [
        {"step": step, "total": 50, "loss": 3 / step, "labels": 1 / step, "pseudo": 2 / step}
        | ({"val_accuracy": step / 60} if step % 10 == 0 else {})
        for step in range(1, 51)
    ]
    write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    rng, k = np.random.default_rng(0), len(classes)
    probs = rng.dirichlet(np.ones(k), 60).astype(np.float32)
    table = pa.table(
        {
            "path": [f"{i}.png" for i in range(60)],
            "label": [classes[i % k] for i in range(60)],
            "predicted": [classes[i] for i in probs.argmax(-1)],
            "confidence": probs.max(-1),
            "probs": list(probs),
        }
    )
    if judge:
        pq.write_table(table, folder / f"predictions-{judge}.parquet")


def write_labels(path: Path, classes, side: int) -> None:
    """A selected label table of 80 images, which exist."""
    root = path.parent / "pool"
    names = tuple(f"p{i:02d}.png" for i in range(80))
    for number, name in enumerate(names):
        write_picture(root / name, number, side)
    write_json(path / "data" / "sources.json", {"pool": str(root)})
    probs = (3 * torch.randn(80, len(classes), generator=torch.Generator().manual_seed(0))).softmax(
        -1
    )
    table = select(from_probs(names, probs, tuple(classes), "abc"), Select(threshold=0.5))
    pool.save(path / "labels" / "01-student.parquet", table)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run and its page."""
    run = write_run(tmp_path_factory.mktemp("report") / "run")
    return run, write_report(run).read_text()


class Page(HTMLParser):
    """Sections, visible text and unbalanced tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.all_tags, self.stack, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.all_tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.all_tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data.replace("\u00a0", " ")

    def sections(self) -> list[str]:
        return [attrs["id"] for tag, attrs in self.all_tags if tag == "section"]


def test_a_finished_run_has_its_verdict_and_every_section_in_order(finished):
    page = Page(finished[1])
    assert page.stack == []
    assert page.text.index(SENTENCE) < page.text.index("Accuracy of each round")
    assert f'content="{SENTENCE}"' in finished[1]
    assert 'class="verdict help"' in finished[1]
    assert page.sections() == [
        "accuracy", "classes", "learning", "labels", "confusion", "gallery", "data", "settings",
        "environment", "time",
    ]  # fmt: skip
    for words in ("8 images gained", "p = 0.04", "54 of 60", "79.9 % to 95.3 %", "1m12s"):
        assert words in page.text, words
    assert "select.threshold" in page.text
    assert "tutelage selftrain --seed 3" in page.text


def test_the_page_refers_to_nothing_outside(finished):
    text = finished[1]
    assert "http://" not in text
    assert "https://" not in text
    assert "<!DOCTYPE svg" not in text
    assert not re.search(r"<(script|link|iframe|object|metadata)\b", text)
    assert not re.search(r"@import|url\((?!#)", text)
    for _, attrs in Page(text).all_tags:
        assert attrs.get("src", "data:").startswith("data:")
        assert attrs.get("href", "#").startswith("#")
        assert "xlink:href" not in attrs


def test_every_reference_inside_the_page_finds_its_one_target(finished):
    page = Page(finished[1])
    wanted = set(re.findall(r'(?:href="|url\()#([\w-]+)', finished[1]))
    assert wanted <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_every_figure_and_picture_can_be_heard(finished):
    text, page = finished[1], Page(finished[1])
    assert text.count("<svg") == text.count('role="img"><title>') == 5
    assert all(attrs["alt"] for tag, attrs in page.all_tags if tag == "img")
    tables_shown = re.findall(r"<table.*?</table>", text, flags=re.DOTALL)
    assert tables_shown
    assert all('scope="col"' in one and 'scope="row"' in one for one in tables_shown)


def test_the_same_run_gives_the_same_small_page_again(finished):
    run, text = finished
    content = json.loads((run / "run.json").read_text())
    content["state"], content["stages"]["report"] = "done", {"state": "done", "seconds": 1.5}
    write_json(run / "run.json", content)
    path = write_report(run)
    assert path == run / "report" / "index.html"
    assert path.read_text() == text
    assert path.stat().st_size < 3e6


def test_a_hostile_class_name_is_text_everywhere(tmp_path):
    run = write_run(tmp_path / "a<i>b&", classes=(HOSTILE, "猫", "$\\frac{1}{2}$"))
    issue = Issue("note", "<u>odd", "pool", "<u>path", "<u>&detail")
    write_issues(run / "data" / "issues.csv", [issue] * 30)
    text = write_report(run).read_text()
    page = Page(text)
    assert page.stack == []
    tags = [tag for tag, _ in page.all_tags]
    assert not {"i", "u", "script"} & set(tags)
    assert tags.count("b") == 36  # the captions' own
    assert HOSTILE in page.text
    assert "$\\frac{1}{2}$" in page.text
    assert "a<i>b&" in page.text
    assert "The first 20 of 30 issues" in page.text
    assert page.text.count("<u>&detail") == 20


def test_a_missing_and_a_broken_pool_image_are_said_to_be(tmp_path):
    run = write_run(tmp_path / "run")
    table = pool.load(run / "labels" / "01-student.parquet")
    first, second = table.confidence.argsort(descending=True, stable=True)[:2].tolist()
    (tmp_path / "pool" / table.names[first]).unlink()
    (tmp_path / "pool" / table.names[second]).write_bytes(b"no image")
    text = write_report(run).read_text()
    assert text.count("the file is missing now") == 1
    assert text.count("the file can&#39;t be read now") == 1
    assert text.count("<img") == 34


@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_a_run_that_only_began_has_a_page(tmp_path, state):
    content = {
        "verb": "selftrain", "state": state, "stage": "check", "settings": {"data": "a"},
        "stages": {"check": {"state": "running", "seconds": 0.1}}, "error": "DataProblem: <u>",
    }  # fmt: skip
    write_json(tmp_path / "run.json", content)
    write_issues(tmp_path / "issues.csv", [Issue("fatal", "empty class", "labeled", "p", "d")])
    page = Page(write_report(tmp_path).read_text())
    assert "not finished" in page.text
    assert ("DataProblem: <u>" in page.text) == (state == "failed")
    assert "empty class" in page.text
    assert page.sections() == ["data", "settings", "time"]


def test_a_run_stopped_before_the_verdict_shows_what_it_has(tmp_path):
    run = write_run(tmp_path / "run")
    content = json.loads((run / "run.json").read_text())
    content |= {"state": "interrupted", "stage": "01-student"}
    for stage in ("evaluate", "model", "report"):
        del content["stages"][stage]
    write_json(run / "run.json", content)
    page = Page(write_report(run).read_text())
    assert "not finished: stopped in 01-student" in page.text
    assert page.sections()[:3] == ["learning", "labels", "gallery"]


def test_a_train_run_shows_its_accuracy_and_no_pool(tmp_path):
    page = Page(write_report(write_run(tmp_path / "run", verb="train", verdict=None)).read_text())
    assert "accuracy on the test images: 80.0 % (68.2 % to 88.2 %, 60 images)" in page.text
    assert page.sections()[:4] == ["accuracy", "classes", "learning", "confusion"]
    assert not {"labels", "gallery"} & set(page.sections())


def test_a_run_without_a_judge_says_what_to_give(tmp_path):
    run = write_run(tmp_path / "run", verb="train", verdict=None, judge=None)
    page = Page(write_report(run).read_text())
    assert "give --test or --val" in page.text
    assert not {"accuracy", "confusion"} & set(page.sections())


def test_many_classes_are_pairs_and_a_curve_instead_of_a_matrix(tmp_path):
    run = write_run(tmp_path / "run", classes=[f"class {i}" for i in range(60)])
    text = write_report(run).read_text()
    assert 'class="matrix' not in text
    assert "Most confused classes" in text
    assert "the 50 most frequent of 60 classes" in text


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no run folder"):
        write_report(tmp_path)


def test_the_confusion_counts_every_answer_once(finished):
    contents = gather(finished[0])
    found = tables.confusion(contents)
    assert sum(map(sum, found.counts)) == 60
    assert [sum(row) for row in found.counts] == list(found.totals)
    wrong = sum(n for i, row in enumerate(found.counts) for j, n in enumerate(row) if i != j)
    assert sum(count for _, _, count, _ in found.pairs) == wrong


def test_class_counts_add_up_to_images_and_copies(finished):
    table = gather(finished[0]).labels["01-student"]
    before, after = tables.class_counts(table)
    assert int(before.sum()) == len(table)
    assert int(after.sum()) == int(table.copies.sum())
    assert sum(count for _, count, _ in tables.reason_rows(table)) == len(table)


@pytest.mark.parametrize("count", [1, 6, 13, 36, 500])
def test_strips_fall_in_confidence_and_show_no_image_twice(count, tmp_path):
    probs = torch.rand(count, 2, generator=torch.Generator().manual_seed(1)).softmax(-1)
    names = tuple(f"{i}.png" for i in range(count))
    table = select(from_probs(names, probs, ("a", "b"), "t"), Select())
    found = thumbnails.strips(table, tmp_path)
    tiles = [tile for strip in found for tile in strip.tiles]
    sure = [tile.confidence for tile in tiles]
    assert sure == sorted(sure, reverse=True)
    assert len({tile.path for tile in tiles}) == len(tiles) == min(count, 36)
    assert sure[0] == float(table.confidence.max())
    assert sure[-1] == float(table.confidence.min())


def test_thumbnails_are_small_and_only_tiny_images_show_their_pixels(tmp_path):
    source, tiny = thumbnails.picture(write_picture(tmp_path / "a.jpg", 0, side=400).read_bytes())
    assert source.startswith("data:image/jpeg;base64,")
    assert not tiny
    assert len(source) < 12_000
    source, tiny = thumbnails.picture(write_picture(tmp_path / "b.png", 0, side=8).read_bytes())
    assert source.startswith("data:image/png;base64,")
    assert tiny


def test_a_figure_keeps_the_caller_from_noticing_matplotlib(monkeypatch):
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "font.size", 31)
    before = dict(matplotlib.rcParams)
    shares = np.array([[0.1, 0.2, 0.3], [0.5, 0.6, 0.7]])
    svg = figures.accuracies(["a", "b"], shares, "9 images")
    assert dict(matplotlib.rcParams) == before
    assert "31px" not in svg
    assert "#00000" not in svg
    assert "var(--blue)" in svg


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat", "cat"),
        ("a" * 18, "a" * 18),
        ("animal/mammal/cat 12", "animal/ma…l/cat 12"),
        ("tab\there", "tab\ufffdhere"),
    ],
)
def test_long_names_are_shortened_in_the_middle(name, shown):
    assert short(name) == shown


def test_a_page_is_written_where_the_pool_s_storage_can_not_be_reached(monkeypatch):
    def refuse(address, given):
        raise OSError("can't connect")

    monkeypatch.setattr(gathered, "open_source", refuse)
    assert gathered._opened("s3://bucket/pool", None) is None
