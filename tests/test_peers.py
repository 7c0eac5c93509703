"""The arithmetic of the comparison with peers: steps for a time, keys, and the table."""

import argparse
import json

import numpy as np
import pytest
import torch
from benchmarks import peers, peers_data, peers_network, peers_tutelage
from benchmarks.gains import bits
from benchmarks.peers_job import Job, answers_file, truth, write_answers
from benchmarks.peers_table import difference, tables
from benchmarks.peers_time import SHARE, Cost, Failed, Place, calibrated, cost_of, done, fresh, keep

from tutelage.networks.build import Net, build


def job(tmp_path, **changes):
    given = {"data": str(tmp_path), "out": str(tmp_path / "out"), "steps": 3, "seconds": 60,
             "seed": 0, "flip": True, "threads": 1, "side": 32}  # fmt: skip
    return Job(**given | changes)


def row(arm, seed, right, **changes):
    told = {"seconds": 60.0, "ended": False, "steps": 100, "nothing": False}
    return {"data": "d", "minutes": 5, "seed": seed, "arm": arm, **bits(right), **told} | changes


def test_the_line_through_two_timed_runs_gives_start_and_step():
    cost = cost_of((10, 7.0), (110, 57.0))
    assert cost == Cost(start=2.0, step=0.5)


def test_planned_steps_end_within_the_limit_and_one_more_would_not():
    cost = Cost(start=20.0, step=0.13)
    for limit in (60.0, 300.0, 1200.0):
        steps = cost.steps_within(limit)
        assert cost.start + cost.step * steps <= SHARE * limit
        assert cost.start + cost.step * (steps + 1) > SHARE * limit


def test_an_arm_that_starts_for_longer_than_the_limit_still_has_a_step():
    assert Cost(start=90.0, step=0.1).steps_within(60.0) == 1


def test_steps_that_take_no_time_are_no_plan():
    with pytest.raises(Failed, match="no time of a step"):
        cost_of((10, 7.0), (40, 6.9))


@pytest.mark.parametrize("step", [0.001, 0.05, 3.0])
def test_calibration_finds_any_step_and_runs_long_enough_to_see_it(step):
    asked = []

    def timed(steps):
        asked.append(steps)
        return 12 + step * steps

    found = calibrated(timed, 30.0)
    assert found["start"] == pytest.approx(12)
    assert found["step"] == pytest.approx(step)
    assert timed(asked[-1]) - timed(asked[0]) >= 30
    assert len(asked) < 12


def test_every_row_has_a_key_of_its_own_and_short_times_come_first():
    given = argparse.Namespace(
        minutes=[20, 5],
        seeds=3,
        sets=["cifar-400", "mnist-100"],
        arms=list(peers.ARMS),
        published=None,
    )
    keys = peers.wanted(given)
    assert len({json.dumps(key, sort_keys=True) for key in keys}) == len(keys)
    assert len(keys) == 2 * 3 * 2 * 11
    assert [key["minutes"] for key in keys] == sorted(key["minutes"] for key in keys)


def test_estimators_that_share_a_training_count_once():
    given = argparse.Namespace(
        minutes=[5, 10], seeds=2, sets=["cifar-400"], arms=["sklearn", "timm"], published=None
    )
    found = peers.trainings(peers.wanted(given))
    assert len(found) == 2 * 2 * 2
    assert sum(minutes for _, minutes, _, _ in found) == 2 * 2 * (5 + 10)


def test_every_arm_has_its_module_beside_the_benchmark():
    folder = peers_data.Path(peers.__file__).parent
    assert all((folder / f"{arm.module}.py").exists() for arm in peers.BY_NAME.values())
    assert set(peers.REFERENCES) <= set(peers.BY_NAME)


def test_all_arms_train_the_layers_that_tutelage_makes_of_its_network():
    ours = build(Net(name="test_resnet", num_classes=10, img_size=32, small_stem=True)).eval()
    theirs = peers_network.network(10).eval()
    theirs.load_state_dict(ours.net.state_dict())
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert theirs.forward_features(images).shape[-1] == 4
        assert torch.allclose(theirs(peers_network.normalized(images)), ours(images), atol=1e-6)


def test_the_table_has_gains_on_the_same_images_and_verdicts_by_seed():
    base = np.arange(1000) < 600
    better = np.arange(1000) < 700
    rows = [row("a", seed, base) for seed in range(3)]
    rows += [row("b", seed, better) for seed in range(3)]
    rows.append(row("c", 0, np.zeros(1000, dtype=bool), nothing=True, ended=True))
    text = tables(rows, ("a",))
    lines = text.splitlines()
    assert lines[0] == "### d, 5 minutes"
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| b", "| a", "| c"]
    assert "| b | 70.00 ± 0.00 % |" in text
    assert "3 better" in lines[4]
    assert "+10.0" in lines[4]
    assert "nothing saved" in lines[6]
    assert "1 ended at the limit" in lines[6]
    assert "1 worse" in lines[6]


def test_a_difference_counts_only_seeds_that_both_have():
    base = np.arange(100) < 50
    own, other = {0: row("a", 0, base), 1: row("a", 1, base)}, {1: row("b", 1, base)}
    assert difference(own, other) == "+0.0 (+0.0 to +0.0); 1 open"
    assert difference(own, {}) == ""


def test_the_pool_has_no_image_that_is_labeled(tmp_path):
    given = tmp_path / "given"
    for name in [f"test/{label}/t.png" for label in "ab"] + [f"unlabelled/{i}.png" for i in "123"]:
        (given / name).parent.mkdir(parents=True, exist_ok=True)
        (given / name).write_bytes(b"")
    for i in range(400):
        path = given / "labelled_400" / "ab"[i % 2] / f"l{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    listed = [f"labelled_400/{'ab'[i % 2]}/l{i}.png,{'ab'[i % 2]}" for i in range(399)]
    table = ["path,label", *listed, "unlabelled/2.png,b"]
    (given / "labelled_4000.csv").write_text("\n".join(table) + "\n")
    folder = peers_data.prepared("cifar-400", given, tmp_path / "out")
    assert sorted(p.name for p in (folder / "unlabeled").iterdir()) == ["1.png", "2.png", "3.png"]
    assert len(list(folder.glob("labeled/*/*.png"))) == 400
    assert truth(job(tmp_path, data=str(folder)), "test") == [0, 1]
    with pytest.raises(SystemExit, match="400 labeled images, not 4000"):
        peers_data.prepared("cifar-4000", given, tmp_path / "out")


def test_an_arm_is_ended_at_the_limit_with_all_that_it_started(tmp_path):
    asked = job(tmp_path)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nsleep 60 &\necho $! > " + str(tmp_path / "child") + "\nwait\n")
    python.chmod(0o755)
    said = Place((0,)).run("train", "peers_timm", asked, python=python, limit=1.0)
    assert said["ended"]
    assert 1 <= said["seconds"] < 10
    state = peers_data.Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_an_arm_that_fails_is_named_with_its_last_words(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such network >&2\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(Failed, match=r"peers_timm train failed with 3[\s\S]*no such network"):
        Place((0,)).run("train", "peers_timm", job(tmp_path), python=python, limit=5.0)


def test_an_arm_that_was_planned_too_long_is_trained_again_with_fewer_steps(tmp_path, monkeypatch):
    tried = []

    def run(self, verb, module, asked, *, python, limit):
        tried.append((verb, asked.steps))
        return {"seconds": limit, "ended": verb == "train" and asked.steps > 85}

    monkeypatch.setattr(Place, "run", run)
    monkeypatch.setattr(peers, "cost", lambda *_: Cost(start=0.0, step=0.57))
    monkeypatch.setattr(peers, "job_of", lambda row, arm, out, given: job(tmp_path, out=str(out)))
    monkeypatch.setattr(peers, "python", lambda arm, given: tmp_path)
    given = argparse.Namespace(cores=(0,))
    said = peers.trained({"minutes": 1}, peers.BY_NAME["timm, labels"], tmp_path / "w", given)
    assert said == {"seconds": 60, "ended": False, "steps": 81}
    assert tried == [("train", 100), ("train", 90), ("train", 81), ("predict", 81)]


def test_what_was_trained_is_not_trained_again(tmp_path):
    folder = fresh(tmp_path / "work")
    assert done(folder) is None
    keep(folder, {"seconds": 3.0})
    assert done(folder) == {"seconds": 3.0}


def test_answers_are_numbers_in_the_order_of_the_images(tmp_path):
    asked = job(tmp_path)
    asked.write()
    write_answers(asked, "timm", np.array([1, 0]))
    assert json.loads(answers_file(tmp_path / "out", "timm").read_text()) == [1, 0]


def test_a_run_that_was_ended_is_judged_by_its_last_finished_round(tmp_path):
    run = tmp_path / "run"
    for name in ("00-baseline", "01-student"):
        (run / "rounds" / name).mkdir(parents=True)
    with pytest.raises(SystemExit, match="no finished training"):
        peers_tutelage.newest_model(run)
    (run / "rounds" / "00-baseline" / "config.json").touch()
    assert peers_tutelage.newest_model(run).name == "00-baseline"
    (run / "model").mkdir()
    (run / "model" / "config.json").touch()
    assert peers_tutelage.newest_model(run) == run
