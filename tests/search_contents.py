"""Contents of search.json as a search would write them, without any search."""

import json

import torch

from tutelage.evaluation.paired import compare
from tutelage.evaluation.pairs import Pair, holm
from tutelage.searching.reward import reward
from tutelage.speed.pareto import pareto_front


def network(number: int) -> str:
    """A name of the V2 space, another one for each number."""
    return (
        f"efficientnet+stem24+er_r{1 + number % 2}_k3_s1_e1_c{8 + 8 * number}"
        f"+er_r{1 + number % 3}_k5_s2_e4_c48+ir_r{2 + number % 4}_k3_s2_e4_c64_se0.25"
        f"+ir_r{1 + number % 5}_k3_s1_e6_c96_se0.25+ir_r3_k3_s2_e6_c128_se0.25+head1280"
    )


def content(
    num=27, *, rungs=3, name=network, limit=None, test=True, weights=(-0.07, -0.05), total=800,
    infeasible=(), again=(), scaled=("m",), pairs=True,
):  # fmt: skip
    """A search by successive halving with eta 3, the best network among the trials chosen by the
    reward of the last rung; `infeasible` and `again` are numbers of trials."""
    rungs = min(rungs, len(_alive(num, infeasible, again)))
    dice = torch.Generator().manual_seed(num)
    trials = [_trial(number, name(number), infeasible, again) for number in range(num)]
    alive, steps, said = _alive(num, infeasible, again), 66, []
    rights = {}
    for rung in range(rungs):
        for number in alive:
            chance = 0.25 + 0.08 * rung + 0.1 * number / num
            right = torch.rand(total, generator=dice) < chance
            rights[trials[number]["network"]] = right
            trials[number]["results"].append(
                _result(number, int(right.sum()), total, limit, weights)
            )
        said.append({"steps": steps, "entered": len(alive), "done": len(alive)})
        alive.sort(key=lambda n: -trials[n]["results"][-1]["reward"])
        if rung < rungs - 1:
            alive, steps = alive[: max(1, len(alive) // 3)], 3 * steps
    best = alive[0]
    cost = "latency" if limit else "step_seconds"
    points = [
        (1 / trials[n]["results"][-1][cost], trials[n]["results"][-1]["right"]) for n in alive
    ]
    front = [n for n, on in zip(alive, pareto_front(points), strict=True) if on]
    found = {
        "format": 1, "space": "effnetv2", "sampler": "evolution", "reference": "efficientnetv2_b0",
        "weights": {"time": weights[0], "params": weights[1]}, "latency_limit": limit,
        "img_size": 32, "classes": 10, "val_images": total, "method": "supervised",
        "device": "cpu", "processor": "Some Processor 3000 @ 2.10GHz", "threads": 1,
        "from_python": False,
        "rungs": said, "trials": trials, "best": best, "front": front,
        "pairs": _pairs([trials[n]["network"] for n in alive], rights) if pairs else [],
        "test": {"right": 355, "total": 1000} if test else None,
        "recipes": {
            "best": "a run/recipes/best.yaml", **{k: f"a run/recipes/{k}.yaml" for k in scaled}
        },
        "seconds": 1234.5,
    }  # fmt: skip
    return json.loads(json.dumps(found))


def _pairs(names, rights):
    """The first network against each other one, the draws few so that hundreds are quick."""
    best, *others = names
    found = [
        compare(rights[one], rights[best], alpha=0.05 / len(others), resamples=500)
        for one in others
    ]
    return [
        Pair(first=one, second=best, paired=paired, p_holm=p, num_pairs=len(others)).plain()
        for one, paired, p in zip(others, found, holm([one.p_value for one in found]), strict=True)
    ]


def _alive(num, infeasible, again):
    return [n for n in range(num) if n not in infeasible and n not in again]


def _trial(number, name, infeasible, again):
    if number in again:
        return {"number": number, "network": name, "same_as": 0, "infeasible": "", "results": []}
    reason = "out of memory at batch 32: CUDA tried\nto allocate 2 GiB" if number % 2 else "<i>bad"
    bad = reason if number in infeasible else ""
    return {"number": number, "network": name, "same_as": None, "infeasible": bad, "results": []}


def _result(number, right, total, limit, weights):
    times, params = 0.3 + 0.07 * (number * 7 % 13), 0.2 + 0.11 * (number * 5 % 17)
    value = reward(right / total, times, params, time_weight=weights[0], params_weight=weights[1])
    return {
        "right": right, "total": total, "reward": value, "parameters": round(5_900_000 * params),
        "step_seconds": 0.15 * times, "relative_time": times, "relative_parameters": params,
        "latency": 0.9 * limit * times / 1.3 if limit else None, "seconds": 31.2, "waited": 0.02,
    }  # fmt: skip
