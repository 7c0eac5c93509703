"""`tutelage search` from the folders to the recipe: killed, shared, with networks that fail."""

import json
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import starts
import toy
import yaml

import tutelage
from tutelage import launch
from tutelage.cli import main
from tutelage.errors import DataProblem, RunMismatch, UsageError
from tutelage.networks.published import architecture_of
from tutelage.pipelines import search as search_module
from tutelage.pipelines import search_plan
from tutelage.pipelines import trial as trial_module
from tutelage.pipelines.trial_cost import Pace
from tutelage.search_settings import SAMPLERS, SearchSettings
from tutelage.searching.journal import Journal
from tutelage.searching.ready import ReadySpace
from tutelage.searching.rungs import Plan
from tutelage.searching.samplers import Sampler, sampler_of
from tutelage.searching.trials import Trial, Weights
from tutelage.values import to_plain

SEARCH = (  # the command line, with times taken less thoroughly
    "import sys; from tutelage.pipelines import search, trial_cost; from tutelage.cli import main; "
    "search.PACE = trial_cost.Pace(warmup=1, warmup_seconds=0, turns=1, most_turns=1); "
    "sys.exit(main(['search', *sys.argv[1:]]))"
)
QUICK = Pace(warmup=1, warmup_seconds=0, turns=1, most_turns=1)
BASE = "efficientnet+stem8+er_r1_k3_s1_e1_c8+ir_r1_k3_s2_e4_c16_se0.25+head16"
TINY = {
    "base": BASE, "img_size": 16, "batch": 8, "device": "cpu", "rungs": 2, "keep": 2, "steps": 40,
    "trials": 4, "val_fraction": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toy.write_toy(tmp_path_factory.mktemp("images"), labeled=8, test=4)


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Take times less thoroughly."""
    patch = pytest.MonkeyPatch()
    patch.setattr(search_module, "PACE", QUICK)
    yield
    patch.undo()


def asked(images, out, **more):
    return {"data": images / "labeled", "out": out} | TINY | more


def ready(images, out, **more):
    given = asked(images, out, space="timm:test_resnet", **more)
    return {key: value for key, value in given.items() if key not in ("base", "trials")}


def flags(given):
    return [
        part for key, value in given.items() for part in (f"--{key.replace('_', '-')}", str(value))
    ]


def outcome(out):
    """What must be the same of two searches that are the same, times aside."""
    trials = Journal(out / "trials.jsonl").read().trials
    return [
        (one.network, one.same_as, one.infeasible, [(r.right, r.total) for r in one.results])
        for one in trials
    ]


@pytest.fixture(scope="module")
def found(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("search") / "run"
    given = asked(images, out, test=images / "test", sizes=("m",), sampler="random", time_weight=0)
    return tutelage.search(**given)


def test_a_search_ends_with_a_network_a_recipe_and_a_page(found, images, tmp_path):
    content = json.loads((found.run / "search.json").read_text())
    assert content["rungs"] == [
        {"steps": 20, "entered": 4, "done": 4}, {"steps": 40, "entered": 2, "done": 2}
    ]  # fmt: skip
    assert content["trials"][content["best"]]["network"] == found.network
    assert content["test"]["total"] == 16
    assert json.loads((found.run / "run.json").read_text())["state"] == "done"
    assert found.network in (found.run / "report" / "index.html").read_text()
    recipe = yaml.safe_load(found.recipe.read_text())
    assert recipe["model"] == found.network
    done = main(["train", "--config", str(found.recipe), "--steps", "2", "--out", str(tmp_path)])
    assert done == 0


def test_a_larger_network_is_scaled_from_the_best(found):
    recipe = yaml.safe_load((found.run / "recipes" / "m.yaml").read_text())
    assert recipe["model"] == f"{found.network}-w1.1-d1.2"
    assert recipe["img_size"] == 32


def test_the_same_command_again_changes_nothing(found, images, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in (found.run / "trials").rglob("*") if p.is_file()}
    given = asked(
        images, found.run, test=images / "test", sizes=("m",), sampler="random", time_weight=0
    )
    monkeypatch.setattr(search_module, "prepare", None)  # no image is looked at
    again = tutelage.search(**given)
    assert (again.content, again.network, again.recipe) == (
        found.content, found.network, found.recipe
    )  # fmt: skip
    for path, time_ns in before.items():
        assert path.stat().st_mtime_ns == time_ns


def test_a_search_killed_before_its_page_was_written_writes_it(found, images):
    content = json.loads((found.run / "run.json").read_text())
    content["stages"]["report"]["state"] = "running"
    (found.run / "run.json").write_text(json.dumps(content))
    (found.run / "report" / "index.html").unlink()
    given = asked(
        images, found.run, test=images / "test", sizes=("m",), sampler="random", time_weight=0
    )
    tutelage.search(**given)
    assert found.network in (found.run / "report" / "index.html").read_text()


def test_other_settings_are_refused_once_trials_have_begun(found, images):
    with pytest.raises(RunMismatch, match="keep: 2 -> 3"):
        tutelage.search(**asked(images, found.run, test=images / "test", keep=3))


def test_only_the_last_rung_keeps_weights(found):
    kept = {path.parent.name.split("-")[1] for path in found.run.rglob("model.safetensors")}
    assert kept == {"rung1"}
    assert not list(found.run.rglob("last.pt"))


def test_every_named_sampler_can_be_made():
    for name in SAMPLERS:
        sampler_of(name)


def test_a_killed_search_ends_as_if_it_had_not_been_killed(found, images, tmp_path):
    part = asked(images, tmp_path / "part", sampler="random", time_weight=0)
    process = starts.Start(SEARCH, *flags(part))
    file = tmp_path / "part" / "trials.jsonl"
    while process.running():
        if file.exists() and len(file.read_bytes().splitlines()) >= 7:  # in a second training
            process.send_signal(signal.SIGKILL)
            break  # a second one may find nobody
        time.sleep(0.01)
    assert process.end().returncode == -signal.SIGKILL
    assert main(["search", *flags(part)]) == 0
    assert outcome(tmp_path / "part") == outcome(found.run)


def test_two_processes_share_a_search(found, images, tmp_path):
    given = asked(images, tmp_path / "run", sampler="random", time_weight=0)
    both = [starts.Start(SEARCH, *flags(given)) for _ in range(2)]
    ends = [process.end(timeout=120) for process in both]
    assert [end.returncode for end in ends] == [0, 0], ends
    assert outcome(tmp_path / "run") == outcome(found.run)
    text = (tmp_path / "run" / "trials.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len({line["pid"] for line in lines if line["event"] == "finished"}) == 2
    begun = [(line["trial"], line["rung"]) for line in lines if line["event"] == "begun"]
    assert len(begun) == len(set(begun))  # nothing was done twice


def test_networks_that_fail_are_recorded_and_the_search_goes_on(images, tmp_path, monkeypatch):
    real, calls = trial_module.fit, []

    def failing(recipe, *more, **given):
        calls.append(recipe.net.name)
        if len(calls) == 1:
            raise MemoryError
        if len(calls) == 2:
            raise TypeError("forward() lacks an argument")
        return real(recipe, *more, **given)

    monkeypatch.setattr(trial_module, "fit", failing)
    given = asked(images, tmp_path / "run", trials=1, rungs=1, steps=20, sampler="random")
    trials = tutelage.search(**given).content["trials"]
    assert [one["network"] for one in trials] == calls
    assert "memory" in trials[0]["infeasible"]
    assert trials[1]["infeasible"] == "TypeError: forward() lacks an argument"
    assert trials[2]["results"]


@pytest.mark.parametrize("error", [DataProblem("an image is gone"), OSError(28, "No space")])
def test_what_is_no_fault_of_a_network_stops_the_search(images, tmp_path, monkeypatch, error):
    def failing(*more, **given):
        raise error

    monkeypatch.setattr(trial_module, "fit", failing)
    given = asked(images, tmp_path / "run", trials=1, rungs=1, steps=20, sampler="random")
    with pytest.raises(type(error)):
        tutelage.search(**given)
    (trial,) = Journal(tmp_path / "run" / "trials.jsonl").read().trials
    assert (trial.infeasible, trial.attempts) == ("", 0)


class Stubborn(Sampler):
    def suggest(self, space, history, *, seed):
        return (0,)


def test_each_suggestion_follows_from_the_lines_before_it(tmp_path):
    journal = Journal(tmp_path / "trials.jsonl")
    plan = Plan(trials=2, steps=(1,), keep=3, weights=Weights(time=0, params=0))
    its = SimpleNamespace(
        bench=SimpleNamespace(journal=journal, plan=plan), seed=0, sampler=Stubborn(),
        space=ReadySpace(("a", "b", "c")),
    )  # fmt: skip
    for number in range(12):
        assert search_module._suggest(its, journal.read())
        assert len(journal.read().trials) == number + 1  # a kill in between changes nothing
    trials = journal.read().trials
    assert [one.network for one in trials[:11]] == ["a"] * 11
    assert [one.same_as for one in trials] == [None, *[0] * 10, None]
    assert search_module._suggest(its, journal.read())
    assert journal.read().trials[-1].same_as == 0  # the sampler is asked again


def test_a_network_is_given_up_after_three_kills_unless_its_training_was_saved(tmp_path):
    trial = Trial(number=0, genes=(0,), network="a", attempts=3)
    assert search_module._ends_processes(trial, tmp_path)
    assert not search_module._ends_processes(replace(trial, attempts=2), tmp_path)
    (tmp_path / "last.pt").touch()
    assert not search_module._ends_processes(trial, tmp_path)


def test_a_loss_that_is_not_finite_makes_a_network_infeasible(images, tmp_path):
    with pytest.raises(UsageError, match=r"none of .* networks can be used"):
        tutelage.search(**ready(images, tmp_path / "run", optim=replace(tutelage.Optim(), lr=1e30)))


def test_nothing_is_trained_that_answers_too_late(images, tmp_path):
    with pytest.raises(UsageError, match=r"an answer takes .* ms, more than 0.001 ms"):
        tutelage.search(**ready(images, tmp_path / "run", latency="1us"))
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_ready_networks_are_tried_all_and_each_once(images, tmp_path):
    given = ready(images, tmp_path / "run", img_size=40, steps=20, rungs=1)
    found = tutelage.search(**given | {"space": "timm:test_resnet,test_vit3,test_coatnet"})
    tried = {one["network"]: one["infeasible"] for one in found.content["trials"]}
    assert set(tried) == {"test_resnet", "test_vit3", "test_coatnet"}
    assert [name for name, why in tried.items() if why] == ["test_coatnet"]
    assert "can't take images of 40 pixels" in tried["test_coatnet"]
    assert found.content["weights"] == {"time": 0.0, "params": 0.0}


def test_a_search_learns_from_a_pool_too(images, tmp_path):
    given = asked(images, tmp_path / "run", unlabeled=images / "pool", method="fixmatch")
    found = tutelage.search(**given | {"trials": 1, "rungs": 1, "steps": 20, "ratio": 2})
    assert found.content["method"] == "fixmatch"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"space": "efficientnet"}, "did you mean effnetv2"),
        ({"sampler": "tpe"}, "did you mean optuna:tpe"),
        ({"pretrained": True}, "nobody has weights"),
        ({"init": "somewhere"}, "a search tries many"),
        ({"space": "timm:resnet*", "sizes": ("m",)}, "are for --space effnetv2"),
        ({"latency": "soon"}, "--latency 'soon': that is no time"),
        ({"rungs": 0}, "rungs"),
        ({"time_weight": 0.07}, "--time-weight"),
        ({"base": "resnet18"}, "is no EfficientNet"),
        ({"val_fraction": 0}, "judges networks on validation images"),
        ({"method": "hinton"}, "needs a teacher"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_trained(images, tmp_path, wrong, words):
    given = asked(images, tmp_path / "run") | wrong
    if "space" in wrong:
        given.pop("base")
    with pytest.raises(UsageError, match=words):
        tutelage.search(**given)
    assert not list(tmp_path.rglob("trials.jsonl"))


@pytest.mark.parametrize(("b_seconds", "steps"), [(0.3, 225), (None, 450)])
def test_steps_follow_from_the_time_of_networks_that_are_tried(
    monkeypatch, tmp_path, b_seconds, steps
):
    asks = {"data": "d", "out": tmp_path, "space": "timm:a,b", "budget": "100s", "rungs": 1}
    run = SimpleNamespace(notes=lambda stage: {"seconds": 0})
    times = {"a": 0.1, "b": b_seconds}  # None: it can't be trained
    monkeypatch.setattr(search_plan, "_timed", lambda settings, prepared, name: times[name])
    made = search_plan.planned(SearchSettings(**asks), run, None, ReadySpace(("a", "b")))
    assert made["trials"] == 2
    assert made["rungs"] == [pytest.approx(steps, abs=1)]


def test_a_budget_is_kept(images, tmp_path, monkeypatch):
    monkeypatch.setattr(search_plan, "_timed", lambda settings, prepared, name: 0.02)
    given = asked(images, tmp_path / "run", budget="9s", sampler="random")
    for name in ("steps", "trials"):
        given.pop(name)
    begun = time.monotonic()
    found = tutelage.search(**given)
    assert time.monotonic() - begun < 30  # a search without end, not a benchmark
    assert sum(rung["done"] for rung in found.content["rungs"]) >= 2  # one each


def test_the_base_may_be_a_file_of_stages(tmp_path):
    file = tmp_path / "stages.yaml"
    file.write_text(yaml.safe_dump(to_plain(architecture_of(BASE))))
    named = launch._named(SearchSettings(data="d", out=tmp_path, base=str(file)))
    assert named.base == BASE


def test_settings_are_those_of_a_training(images, tmp_path):
    settings = SearchSettings(data="d", out=tmp_path, batch=32, views="weak")
    training = settings.training("resnet18")
    assert (training.model, training.batch, training.views) == ("resnet18", 32, "weak")
