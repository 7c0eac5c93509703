"""`tutelage compare`: which model is better on the same images, said no more surely than it is."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import toy

import tutelage
from tutelage.cli import main
from tutelage.errors import TutelageError, UsageError
from tutelage.evaluation.kept import Kept
from tutelage.files import write_json
from tutelage.judging_settings import CompareSettings
from tutelage.pipelines import answers as answers_module
from tutelage.pipelines import compare as pipeline
from tutelage.pipelines import robust
from tutelage.pipelines import speeds as speeds_module
from tutelage.pipelines.answers import Answers, distinct_names
from tutelage.pipelines.compare import side_by_side
from tutelage.pipelines.manifest import read_manifest
from tutelage.progress import Screen
from tutelage.speed.counts import Counts
from tutelage.speed.rows import Row
from tutelage.speed.timing import Protocol, Timed
from tutelage.values import percent

QUICK = Protocol(
    warmup=1, warmup_seconds=0, passes=4, seconds=0, turn_passes=2, turn_seconds=0,
    search_passes=1, search_seconds=0, most_batch=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toy.write_toy(tmp_path_factory.mktemp("toy"), labeled=8)


def trained(images, out, **more):
    tutelage.train(**toy.train_settings(images, out, **more))
    return out


@pytest.fixture(scope="module")
def runs(images, tmp_path_factory):
    """Two runs on the same test images, in different folders and under different names."""
    root = tmp_path_factory.mktemp("runs")
    moved = root / "elsewhere"
    for path in (images / "test").rglob("*.png"):
        to = moved / path.parent.name / f"{9 - int(path.stem)}-{path.stem}.png"
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    one = trained(images, root / "one", steps=40)
    return one, trained(images, root / "two", steps=2, seed=1, test=moved)


@pytest.fixture
def copies(runs, tmp_path):
    """The runs, to be changed."""
    return [shutil.copytree(run, tmp_path / run.name) for run in runs]


def test_the_same_images_in_another_folder_are_the_same(runs, capsys):
    found = tutelage.compare(*runs)
    assert [row.accuracy.total for row in found.rows] == [24, 24]
    for row, run in zip(found.rows, runs, strict=True):
        stages = json.loads((run / "run.json").read_text())["stages"]
        assert vars(row.accuracy) == stages["evaluate"]["rounds"][-1]["test"]
    by_content = [
        dict(
            zip(
                row.images,
                row.right.tolist(),
                strict=True,
            )
        )
        for row in found.rows
    ]
    assert by_content[0].keys() == by_content[1].keys()
    (pair,) = found.pairs
    gained = sum(by_content[1][key] and not by_content[0][key] for key in by_content[0])
    assert pair.paired.gained == gained
    out = capsys.readouterr().out
    assert "24 test images, 4 classes" in out
    assert pair.sentence() in out


def test_asking_gives_what_is_stored_and_nothing_is_computed_twice(copies, images, monkeypatch):
    stored = tutelage.compare(*copies)
    asked = tutelage.compare(*copies, data=images / "test", device="cpu")
    for one, other in zip(stored.rows, asked.rows, strict=True):
        assert one.images == other.images
        assert torch.equal(one.right, other.right)
        assert (one.weights, one.name) == (other.weights, other.name)
    assert stored.pairs == asked.pairs

    def never(*given):
        raise AssertionError("asked again")

    monkeypatch.setattr(answers_module, "answers", never)
    again = tutelage.compare(*copies, data=images / "test", device="cpu")
    assert again.pairs == asked.pairs


def test_what_evaluate_has_kept_is_read(copies, images, monkeypatch):
    for run in copies:
        tutelage.evaluate(run, data=images / "test", device="cpu")
    before = {path: path.read_bytes() for run in copies for path in run.rglob("answers.parquet")}
    assert len(before) == 2

    def never(*given):
        raise AssertionError("asked again")

    monkeypatch.setattr(answers_module, "answers", never)
    found = tutelage.compare(*copies, data=images / "test", device="cpu")
    assert [row.kept.path.parent.parent for row in found.rows] == copies
    assert before == {path: path.read_bytes() for path in before}


def test_model_folders_alone_can_be_asked(runs, images, tmp_path, capsys):
    one = shutil.copytree(runs[0] / "model", tmp_path / "one")
    two = shutil.copytree(runs[1] / "model", tmp_path / "two")
    assert main(["compare", str(one), str(two)]) == 2
    assert "is a model alone and has no stored answers: give --data" in capsys.readouterr().err
    found = tutelage.compare(one, two, data=images / "test", device="cpu")
    assert found.pairs[0].paired == tutelage.compare(*runs).pairs[0].paired


def test_rounds_of_a_run_are_models_too(runs):
    (round_folder,) = (runs[0] / "rounds").iterdir()
    found = tutelage.compare(round_folder, runs[1])
    assert found.pairs[0].paired == tutelage.compare(*runs).pairs[0].paired
    assert found.rows[0].name == round_folder.name


def test_copies_of_an_image_count_as_often_as_they_are_there(images, tmp_path, runs):
    twice = shutil.copytree(images / "test", tmp_path / "twice")
    for name in ("0.png", "1.png"):
        shutil.copy(twice / "dot" / name, twice / "dot" / f"again-{name}")
    run = trained(images, tmp_path / "run", steps=2, test=twice)
    assert tutelage.compare(run, runs[1], data=twice, device="cpu").rows[0].accuracy.total == 26
    with pytest.raises(
        UsageError, match=r"2 are in the first one's alone, 0 in the second one's alone, 24 in both"
    ):
        tutelage.compare(run, runs[0])


def test_other_test_images_are_refused_with_their_number(images, runs, tmp_path, capsys):
    fewer = shutil.copytree(images / "test", tmp_path / "fewer")
    (fewer / "dot" / "0.png").unlink()
    toy.picture(0, np.random.default_rng(77)).save(fewer / "dot" / "new.png")
    toy.picture(1, np.random.default_rng(78)).save(fewer / "horizontal" / "new.png")
    run = trained(images, tmp_path / "run", steps=2, test=fewer)
    capsys.readouterr()
    assert main(["compare", str(runs[0]), str(run)]) == 2
    said = capsys.readouterr().err
    assert "different test images: 1 are in the first one's alone, 2 in the second one's" in said
    assert f"tutelage compare {runs[0]} {run} --data TEST" in said


def test_other_labels_are_refused_with_their_number(copies):
    for path in (copies[0] / "rounds").glob("*/predictions-test.parquet"):
        table = pq.read_table(path)
        labels = table["label"].to_pylist()
        place = labels.index("dot")
        labels[place : place + 2] = ["square", "square"]
        pq.write_table(table.set_column(1, "label", [labels]), path)
    with pytest.raises(UsageError, match="the same images, of which 2 have different labels"):
        tutelage.compare(*copies)


def test_other_classes_are_refused(images, runs, tmp_path):
    fewer = shutil.copytree(images, tmp_path / "fewer")
    for part in ("labeled", "test"):
        shutil.rmtree(fewer / part / "dot")
    run = trained(fewer, tmp_path / "run", steps=2)
    with pytest.raises(UsageError, match=r"one and run have different classes \(dot\)"):
        tutelage.compare(runs[0], run)


def test_runs_without_test_answers_are_refused_with_what_to_do(images, runs, tmp_path, capsys):
    validated = trained(images, tmp_path / "val", steps=2, test=None, val_fraction=0.25)
    blind = trained(images, tmp_path / "blind", steps=2, test=None)
    unfinished = shutil.copytree(runs[0], tmp_path / "unfinished")
    content = json.loads((unfinished / "run.json").read_text())
    del content["stages"]["evaluate"]
    write_json(unfinished / "run.json", content)
    for run, words in (
        (validated, "was judged on validation images only, which is no comparison: give --data"),
        (blind, "was judged without labeled images, which is no comparison: give --data TEST"),
        (unfinished, "has not been judged yet"),
        (tmp_path / "nothing", "is no run folder"),
    ):
        assert main(["compare", str(runs[0]), str(run)]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "needs two models or more"),
        (["RUN"], "is given twice"),
        (["--latency", "gpu"], "--latency doesn't know 'gpu'; did you mean"),
        (["--latency", "cuda"], "there is no CUDA device here"),
        (["--again"], "--again is for times that --out has"),
        (["--threads", "0"], "threads is at least 1"),
    ],
)
def test_flags_that_mean_nothing_are_refused(flags, words, runs, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    paths = [runs[0]] if not flags else [runs[0], runs[0]] if flags == ["RUN"] else list(runs)
    more = [] if flags == ["RUN"] else flags
    assert main(["compare", *map(str, paths), *more]) == 2
    assert words in capsys.readouterr().err


def test_names_are_as_short_as_they_can_be(tmp_path):
    for run in ("a/x", "b/x", "c"):
        write_json(tmp_path / run / "run.json", {})
    assert distinct_names([tmp_path / "a/x", tmp_path / "c"]) == ["x", "c"]
    assert distinct_names([tmp_path / "a/x", tmp_path / "b/x"]) == ["a/x", "b/x"]
    assert distinct_names([tmp_path / "a/x/model", tmp_path / "c/model"]) == ["x", "c"]
    assert distinct_names([tmp_path / "c/model", tmp_path / "c"]) == ["model", "c"]


# robustness, as kept


def keep_summary(run, suite, numbers, asked):
    """As `evaluate --robust` leaves it."""
    files = {path: json.loads(path.read_text()) for path in run.glob("evaluations/*/*.json")}
    ((file, about),) = [item for item in files.items() if item[1]["images"] == 24]
    about["robust"] = [
        *about["robust"],
        {"suite": suite, "title": f"suite {suite}", "numbers": numbers, "asked": asked},
    ]
    write_json(file, about)


def test_kept_numbers_stand_side_by_side_where_all_went_through_the_same(copies, images, capsys):
    for place, run in enumerate(copies):
        tutelage.evaluate(run, data=images / "test", device="cpu")
        keep_summary(run, "c", {"mean_error": 0.25 + place, "rms_calibration_error": 0.5}, "aaaa")
        keep_summary(run, "fgsm", {"error": 0.5}, f"bbb{place}")
    keep_summary(copies[0], "p", {"flips": 0.5}, "cccc")
    capsys.readouterr()
    for more in ({}, {"data": images / "test", "device": "cpu"}):
        (table,) = tutelage.compare(*copies, **more).robust
        assert dict(table["numbers"]) == {
            "mean_error": [0.25, 1.25], "rms_calibration_error": [0.5, 0.5]
        }  # fmt: skip
        out = capsys.readouterr().out
        assert re.search(r"mean error +0.250 +1.250\n", out)
        assert re.search(r"rms calibration error +50.0 % +50.0 %\n", out)
        assert "--robust fgsm: kept with other settings" in out
        assert "--robust p: not kept for two, on these images" in out


def test_models_of_other_temperatures_went_through_the_same(copies, images, capsys):
    one, two = copies
    asked = {"data": images / "test", "robust": "pgd", "epsilon": (4,), "restarts": 1}
    for run, steps in ((one, 1), (one, 2), (two, 2)):  # one of them with other settings before
        tutelage.evaluate(run, attack_steps=steps, **asked)
    capsys.readouterr()
    (table,) = tutelage.compare(*copies).robust
    assert table["suite"] == "pgd"
    assert "other settings" not in capsys.readouterr().out
    tutelage.evaluate(two, attack_steps=1, **asked)
    assert tutelage.compare(*copies).robust == ()
    assert "--robust pgd: kept with other settings" in capsys.readouterr().out


def test_confidences_of_another_temperature_go_as_with_evaluate(copies, images):
    data = {"data": images / "test", "device": "cpu"}
    for run in copies:
        tutelage.evaluate(run, **data)
        keep_summary(run, "c", {"mean_error": 0.5, "calibration_error": 0.1}, "aaaa")
        keep_summary(run, "p", {"mean_flips": 0.5}, "bbbb")
    assert [one["suite"] for one in tutelage.compare(*copies, **data).robust] == ["c", "p"]
    tutelage.calibrate(copies[1], **data)
    found = tutelage.compare(*copies, **data)
    assert [one["suite"] for one in found.robust] == ["p"]
    assert found.content["robust_notes"] == ["--robust c: not kept for two, on these images"]


def rows_with(folder, *kept):
    """Two models and more, each with its image size and one kept summary."""
    rows = []
    for place, (size, summary) in enumerate(kept):
        one = Kept(folder / str(place))
        one.write({"robust": [{"title": "a title", "asked": "aaaa"} | summary]})
        rows.append(
            Answers(
                name=f"m{place}", path=folder, network="test_resnet", img_size=size, weights="w",
                classes=("a", "b"), images=(("x", "a"),), right=torch.tensor([True]), measures={},
                kept=one,
            )
        )  # fmt: skip
    return rows


def test_what_is_done_to_images_is_compared_at_one_size_alone(tmp_path):
    for suite in (*robust.MAKERS, "imagenet-c"):
        summary = {"suite": suite, "numbers": {"mean_error": 0.5}}
        tables, notes = side_by_side(rows_with(tmp_path, (32, summary), (32, summary)))
        assert (len(tables), notes) == (1, [])
        tables, notes = side_by_side(rows_with(tmp_path, (64, summary), (32, summary)))
        if suite in pipeline.PUBLISHED:
            assert (len(tables), notes) == (1, [])
        else:
            assert not tables
            assert notes == [f"--robust {suite}: kept at different image sizes (32, 64 px)"]


@pytest.mark.parametrize("marks", [("", ""), ("f00", ""), ("f00", "bar"), (None, None)])
def test_what_is_relative_to_another_model_is_compared_where_that_is_the_same(marks, tmp_path):
    relative = ("relCE", "relCE_fog", "relative_flips", "relative_error", "reference_4",
                "difference_4")  # fmt: skip
    numbers = dict.fromkeys(("mean_error", *relative, "rCE", "accuracy_4"), 0.5)

    def names(*given):
        kept = [
            {"suite": "c", "numbers": numbers} | ({} if mark is None else {"reference": mark})
            for mark in given
        ]
        (table,), notes = side_by_side(rows_with(tmp_path, *((32, one) for one in kept)))
        return [name for name, _ in table["numbers"]], notes

    found, notes = names(*marks)
    assert found == ["mean_error", "rCE", "accuracy_4"]
    assert "evaluate each with one --reference" in notes[0]
    assert names("f00", "f00") == (list(numbers), [])


# speed, page and JSON


def quick(runs, **more):
    asked = CompareSettings(runs=tuple(runs), **({"threads": 1, "latency": "cpu"} | more))
    return pipeline.compare(asked, Screen(), protocol=QUICK)


def test_a_comparison_is_kept_as_json_and_as_a_page(runs, tmp_path, monkeypatch, capsys):
    real = speeds_module.export_onnx

    def export_first(model, file):
        if file.stem == "1":
            raise TutelageError("test_resnet can't be exported: it is told so")
        real(model, file)

    monkeypatch.setattr(speeds_module, "export_onnx", export_first)
    threads = torch.get_num_threads()
    found = quick(runs, latency="cpu,onnx", out=tmp_path)
    assert torch.get_num_threads() == threads
    out = capsys.readouterr().out
    content = json.loads((tmp_path / "compare.json").read_text())
    assert set(content) == {
        "format", "date", "command", "environment", "test", "models", "pairs", "robust",
        "robust_notes", "speed",
    }  # fmt: skip
    assert {"processor", "cores", "threads", "packages", "system"} <= set(content["environment"])
    assert content["environment"]["packages"]["torch"] == torch.__version__.split("+")[0] or (
        content["environment"]["packages"]["torch"] == torch.__version__
    )
    assert [group["backend"] for group in content["speed"]] == ["cpu", "onnx"]
    for group in content["speed"]:
        assert {"device", "threads", "precision", "date", "front", "protocol"} <= set(group)
        assert group["front"]
        for row in group["rows"]:
            if group["backend"] == "onnx" and row["name"] == "two":
                assert row["failure"] == "test_resnet can't be exported: it is told so"
                continue
            assert row["failure"] == ""
            times = row["samples"]["latency"]
            assert len(times) >= QUICK.passes
            assert row["latency"]["p50"] == pytest.approx(np.median(times), abs=1e-6)
            assert row["parameters"] > 100_000
            assert row["macs"] > 1_000_000
            assert row["memory_is"] == "estimated"
    assert all(len(line) <= 80 for line in out.splitlines() if line[:2] in ("* ", "*?", " ?"))
    assert content["command"] == (
        f"tutelage compare {runs[0]} {runs[1]} --latency cpu,onnx --threads 1 "
        "--device auto --seed 0"
    )
    page = found.page.read_text()
    assert page.count("<svg") == 4
    for words in ("Every pair, image by image", "Speed on onnx", "milliseconds for one image"):
        assert words in page
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    assert "<script" not in page


def timed_row(name, seconds):
    counts = Counts(1000, 4000, 5000, 6000)
    return Row(name=name, counts=counts, file_bytes=4000, one=Timed(1, (seconds,) * 4))


def test_a_stopped_comparison_goes_on_and_takes_no_time_twice(runs, tmp_path, monkeypatch):
    taken = []

    def stop(backend, found, *given):
        taken.append(backend)
        if backend == "onnx" and len(taken) == 2:
            raise KeyboardInterrupt
        return [timed_row(one.name, 0.001 * len(taken)) for one in found]

    monkeypatch.setattr(speeds_module, "_measured", stop)
    asked = {"latency": "cpu,onnx", "out": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        quick(runs, **asked)
    (first,) = json.loads((tmp_path / "compare.json").read_text())["speed"]
    again = quick(runs, **asked)
    assert taken == ["cpu", "onnx", "onnx"]
    assert again.speed[0]["rows"] == first["rows"]
    quick(runs, **asked)
    assert len(taken) == 3
    quick(runs, **asked, again=True)
    assert taken[3:] == ["cpu", "onnx"]
    later = quick(runs, latency="", out=tmp_path)
    assert len(later.content["speed"]) == 2  # the page still shows them


def test_other_threads_or_models_are_timed_anew(runs, tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(speeds_module, "_measured", lambda *given: taken.append(1) or [])
    quick(runs, out=tmp_path)
    quick(runs, out=tmp_path, threads=2)
    quick(runs[::-1], out=tmp_path)
    assert len(taken) == 3


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 99}', "{"])
def test_a_file_of_something_else_is_not_written_over(text, runs, tmp_path):
    (tmp_path / "compare.json").write_text(text)
    with pytest.raises(UsageError, match=r"compare.json is not of this version's making"):
        quick(runs, out=tmp_path)
    assert (tmp_path / "compare.json").read_text() == text


def test_judging_on_images_of_the_training_is_said(copies, images, capsys):
    words = "was trained on"
    tutelage.compare(*copies, data=images / "test", device="cpu")
    assert words not in capsys.readouterr().err
    tutelage.compare(*copies, data=images / "labeled", device="cpu")
    assert capsys.readouterr().err.count(words) == 2
    tutelage.evaluate(copies[0], data=images / "labeled", device="cpu")
    assert words in capsys.readouterr().err


def test_judging_on_images_of_the_pool_is_said(images, tmp_path, capsys):
    pool = tmp_path / "pool"
    pool.mkdir()
    for path in sorted((images / "test").glob("*/*.png"))[:5]:
        shutil.copy(path, pool / f"{path.parent.name}-{path.name}")
    more = {"method": "fixmatch", "unlabeled": pool, "ratio": 1, "test": None}
    run = trained(images, tmp_path / "run", steps=2, **more)
    capsys.readouterr()
    tutelage.evaluate(run, data=images / "test", device="cpu")
    words = f"note: 5 of these 24 images were in the pool of {run}"
    assert words in capsys.readouterr().err


def test_judging_on_images_of_validation_and_calibration_is_said(images, tmp_path, capsys):
    run = trained(images, tmp_path / "run", steps=2, val_fraction=0.25)
    tutelage.evaluate(run, data=images / "test", device="cpu")
    assert "warning" not in capsys.readouterr().err
    part = read_manifest(run / "data", ("val",))["val"]
    val = tmp_path / "val"
    for path in map(Path, part.places):
        (val / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, val / path.parent.name)
    tutelage.evaluate(run, data=val, device="cpu")
    all_of = f"{len(part)} of these {len(part)} images"
    assert f"warning: {run} was validated and calibrated on {all_of}" in capsys.readouterr().err
    tutelage.calibrate(run, data=images / "test", device="cpu")
    capsys.readouterr()
    words = f"warning: {run} was calibrated on these 24 images"
    tutelage.evaluate(run, data=images / "test", device="cpu")
    assert words in capsys.readouterr().err
    alone = shutil.copytree(run / "model", tmp_path / "alone")  # without what the run wrote down
    tutelage.compare(alone, run, data=images / "test", device="cpu")
    assert f"warning: {alone} was calibrated on these 24 images" in capsys.readouterr().err


def test_models_are_shown_as_predict_answers_also_after_a_calibration(copies, images, capsys):
    data = {"data": images / "test", "device": "cpu"}
    tutelage.compare(*copies, **data)  # keeps answers at the temperature of before
    tutelage.calibrate(copies[1], data=images / "test", device="cpu")
    capsys.readouterr()
    for more in ({}, data):
        found = tutelage.compare(*copies, **more)
        _, head, *lines = capsys.readouterr().out.splitlines()
        assert re.split(" {2,}", head.strip()) == [
            "accuracy", "95 % interval", "balanced", "log loss", "calibration error"
        ]  # fmt: skip
        for row, run, line in zip(found.rows, copies, lines[:2], strict=True):
            judged = tutelage.evaluate(run, data=images / "test", device="cpu").judgement
            balanced, _, error = re.split(" {2,}", line.strip())[-3:]
            assert (balanced, error) == (percent(judged.balanced.value), percent(judged.ece))
            assert row.measures == pytest.approx({
                "balanced": judged.balanced.value, "log_loss": judged.nll.value,
                "calibration_error": judged.ece, "brier": judged.brier.value,
            })  # fmt: skip
        capsys.readouterr()


def test_a_model_that_can_not_be_timed_is_a_row_with_the_reason(runs, monkeypatch, capsys):
    def broken(one, *given):
        if one.name == "two":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return speeds_module._eager(one, *given)

    monkeypatch.setitem(speeds_module.MAKERS, "cpu", broken)
    found = quick(runs)
    one, two = found.speed[0]["rows"]
    assert (one["failure"], two["failure"]) == ("", "out of memory")
    assert found.speed[0]["front"] == ["one"]
    assert "two: no times: out of memory" in capsys.readouterr().out


def test_a_page_of_models_without_times_is_written(runs, tmp_path, monkeypatch):
    def broken(*given):
        raise RuntimeError("<b>no</b>")

    monkeypatch.setitem(speeds_module.MAKERS, "cpu", broken)
    found = quick(runs, out=tmp_path)
    page = found.page.read_text()
    assert "no times: RuntimeError: &lt;b&gt;no&lt;/b&gt;" in page


def test_the_headline_of_several_models_claims_no_more_than_the_pairs(runs, tmp_path):
    found = quick(runs, latency="", out=tmp_path)
    from tutelage.reports.compare_page import _headline

    models = [{"name": name, "accuracy": {"value": v}} for name, v in (("a", 0.9), ("b", 0.8))]
    models.append({"name": "c", "accuracy": {"value": 0.7}})
    plain = found.content["pairs"][0]

    def pairs(*outcomes):
        names = (("a", "b"), ("a", "c"), ("b", "c"))
        return {
            "pairs": [
                plain | {"first": a, "second": b, "outcome": outcome, "difference": -0.1}
                for (a, b), outcome in zip(names, outcomes, strict=True)
            ]
        }

    assert _headline(pairs("worse", "worse", "open"), models) == (
        "help", "a is better than each of the 2 others"
    )  # fmt: skip
    assert _headline(pairs("open", "worse", "open"), models)[1].startswith("a is better than 1 of")
    assert _headline(pairs("open", "open", "worse"), models)[0] == "open"


def test_settings_take_the_words_of_the_command_line():
    one = CompareSettings(runs=(Path("a"), Path("b")), latency=" cpu, onnx,cpu")
    assert one.backends() == ("cpu", "onnx")
    assert replace(one, latency="").backends() == ()
