"""A search's lines, figures and page: all that search.json holds, said as it is."""

import json
import re

import pytest
from search_contents import content, network
from test_report import HOSTILE, Page

from tutelage.cli import main
from tutelage.errors import Damaged, UsageError
from tutelage.files import write_json
from tutelage.networks.published import V2
from tutelage.reports import search_answer, search_figures
from tutelage.reports.page import write_report
from tutelage.reports.search_page import write_search_page
from tutelage.reports.search_text import answer_lines, trial_line

TIMM = ("resnet18", "tf_efficientnetv2_b0.in1k", "mobilenetv4_conv_small.e2400_r224_in1k")


def timm_name(number):
    return TIMM[number % 3] + ("" if number < 3 else f"_v{number}")


CASES = {
    "usual": content(27, infeasible=(3, 9, 10), again=(14, 20, 21)),
    "one alone": content(1, scaled=()),
    "one of five": content(5, infeasible=(0, 1, 2, 3), test=False),
    "no pairs": content(9, rungs=2, pairs=False),
    "latency": content(12, name=timm_name, limit=0.004, weights=(0, 0), infeasible=(2,)),
    "latency and reward": content(27, limit=0.004),
    "one rung": content(40, rungs=1),
    "nothing right": content(4, total=1),
    "hostile": content(9, name=lambda n: f"{HOSTILE} {n}\n\x1b[2J", infeasible=(1,)),
    "hostile stages": content(9, name=lambda n: f"efficientnet+<script>{n}"),
    "many": content(300, again=range(100, 140), infeasible=range(50, 70)),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Each case's page."""
    folder = tmp_path_factory.mktemp("pages")
    return {
        name: write_search_page(folder / name, case).read_text() for name, case in CASES.items()
    }


def visible(text):
    """The page's text, a space between any two parts."""
    return " ".join(Page(text).text.split())


@pytest.mark.parametrize("name", CASES)
def test_lines_fit_a_terminal_but_for_names_and_commands(name):
    case = CASES[name]
    lines = answer_lines(case)
    full = search_answer.short(search_answer.best_of(case)["network"], 1000)
    wide = [line for line in lines if len(line) > 80]
    assert all(line.strip() == full or "--config" in line for line in wide)
    assert all(line.isprintable() for line in lines)
    for trial in case["trials"]:
        line = trial_line(trial)
        assert line.isprintable()
        assert len(line) <= 80 or trial["infeasible"]


@pytest.mark.parametrize("name", CASES)
def test_every_page_is_whole_small_and_refers_to_nothing_outside(name, pages):
    page = Page(pages[name])
    assert page.stack == []
    assert len(pages[name].encode()) < 1e6
    assert not re.search(r"<(script|link|iframe|object|metadata)\b", pages[name])
    assert not re.search(r'(src|href)="(?!#|data:)', pages[name])
    wanted = set(re.findall(r'(?:href="|url\()#([\w-]+)', pages[name]))
    assert wanted <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert pages[name].count("<svg") == pages[name].count('role="img"><title>')
    shown = re.findall(r"<table.*?</table>", pages[name], flags=re.DOTALL)
    assert all('scope="col"' in one and 'scope="row"' in one for one in shown)
    for trial in CASES[name]["trials"]:
        assert " ".join(trial["network"].split()) in " ".join(page.text.split())


def test_the_answer_stands_first_with_its_interval_and_its_doubt():
    case = CASES["usual"]
    best = search_answer.best_of(case)
    lines = answer_lines(case)
    result = best["results"][-1]
    assert lines[0] == f"#{best['number']} has the highest reward of 21 networks"
    assert lines[1].strip() == best["network"]
    text = " ".join(" ".join(lines).split())
    right = search_answer.accuracy_of(result)
    assert f"accuracy {right} on the validation images, after 594 steps" in text
    assert "chosen on these very images, so that this number is too good - on the test" in text
    assert "asked once and of it alone: 35.5 % (32.6 % to 38.5 %, 1,000 images)" in text
    assert f"{result['relative_time']:.2f} times that of efficientnetv2_b0" in text
    assert "24 networks tried, chosen by evolution, 3 suggested again" in text
    assert "#3 and #9 can't be used: out of memory at batch 32: CUDA tried to allocate" in text
    assert "tutelage train --config 'a run/recipes/best.yaml' --out NEW" in text
    assert "size M: tutelage train --config 'a run/recipes/m.yaml' --out NEW" in text


def test_a_base_of_own_stages_is_called_the_base(pages):
    case = content(9, rungs=2) | {"reference": network(2)}
    text = " ".join(" ".join(answer_lines(case)).split())
    assert "times that of the base - " in text
    assert "times those of the base " in text
    assert "times: a step over that of the base" in text
    assert network(2) not in text
    assert "a step over one of efficientnetv2_b0." in visible(pages["usual"])


def test_without_test_images_the_doubt_says_so():
    text = " ".join(" ".join(answer_lines(content(9, test=False))).split())
    assert "too good; there are no test images to say by how much" in text
    assert "asked once" not in text


def test_images_from_python_are_trained_on_from_python():
    lines = answer_lines(content(9) | {"from_python": True})
    assert not any("--config" in line for line in lines)
    assert any(
        "tutelage.train(...) with the same images and what 'a run/recipes/best.yaml' says" in line
        for line in lines
    )


def test_one_network_alone_was_not_chosen_and_beats_nobody(pages):
    for name in ("one alone", "one of five"):
        text = " ".join(answer_lines(CASES[name]))
        assert "is the only network that could be trained" in text
        assert "chosen on" not in text
        assert "accurate" not in text
        assert 'class="verdict none"' in pages[name]
        assert "What the sampler learned" not in pages[name]


def pair(first, second, gained, lost, low, high, p):
    return {
        "first": first, "second": second, "difference": (gained - lost) / 800, "total": 800,
        "gained": gained, "lost": lost, "low": low, "high": high, "p_value": p / 3, "p_holm": p,
        "outcome": "open", "images_to_decide": 900, "sentence": "",
    }  # fmt: skip


def test_others_are_behind_open_or_ahead_whichever_way_the_pairs_stand():
    case = content(27)
    best, *others = [one["number"] for one in search_answer.finalists(case)]
    assert len(others) == 2
    more = {**case["trials"][0], "number": 99, "results": case["trials"][best]["results"]}
    case["trials"].append({**more, "network": "efficientnet+far"})
    name = case["trials"][best]["network"]
    case["pairs"] = [
        pair(name, case["trials"][others[0]]["network"], 10, 90, -0.15, -0.05, 0.001),
        pair(case["trials"][others[1]]["network"], name, 40, 38, -0.02, 0.03, 0.9),
        pair("efficientnet+far", name, 10, 60, -0.09, -0.03, 0.01),
    ]
    said = search_answer.sentences(case)
    assert f"#{others[0]} is shown to be less accurate" in said
    assert f"#{others[1]} is not shown to be less accurate" in said
    assert "#99 is shown to be more accurate, and pays for it" in said
    assert search_answer.outcome(case) == "open"
    case["pairs"] = case["pairs"][:1]
    assert search_answer.outcome(case) == "help"


def test_most_right_answers_may_be_chance_where_only_accuracy_counts():
    case = content(27, weights=(0, 0))
    assert "most right answers of 27 networks" in search_answer.headline(case)
    open_ones = any(one.outcome != "better" for one in search_answer.rivals(case))
    assert ("which may be chance" in search_answer.headline(case)) == open_ones
    assert "reward" not in " ".join(answer_lines(case))


def test_a_limit_of_latency_is_said_drawn_and_is_the_cost_of_the_figure(pages):
    case = CASES["latency"]
    lines = answer_lines(case)
    assert "networks that answer within 4 ms" in lines[0]
    assert any("ms to answer one image, within the limit of 4 ms" in line for line in lines)
    assert any("ms/image" in line for line in lines)
    assert "milliseconds of one answer" in pages["latency"]
    assert "limit 4 ms" in pages["latency"]
    assert "milliseconds of a training step" in pages["usual"]
    assert "limit" not in visible(pages["usual"]).replace("latency limitnone", "")
    best = search_answer.best_of(case)["results"][-1]
    assert search_figures.cost_of(case, best) == pytest.approx(1000 * best["latency"])
    best["latency"] = 0.005
    assert "above the limit of 4 ms" in " ".join(search_answer.sentences(case))


def test_trials_that_were_left_out_early_are_not_called_worse():
    case = content(12)
    assert len(search_answer.finalists(case)) == 1
    assert "left out after fewer steps" in " ".join(search_answer.sentences(case))
    assert "less accurate" not in " ".join(answer_lines(case))


def test_waiting_for_images_is_said_where_it_is_much():
    case = content(27)
    assert "waited" not in " ".join(search_answer.sentences(case))
    search_answer.finalists(case)[-1]["results"][-1]["waited"] = 0.6
    assert "up to 60% of their time" in " ".join(search_answer.sentences(case))


def test_a_line_of_a_trial_says_what_it_came_to():
    case = CASES["usual"]
    first = case["trials"][0]["results"][-1]
    assert trial_line(case["trials"][0]) == (
        f"#0 F1 F1 M2 M1 M3  {100 * first['right'] / 800:.1f} %, 45.0 ms/step, 1.18 M weights, "
        f"reward {first['reward']:.3f}  31s"
    )
    timed = CASES["latency"]["trials"][0]
    right, answer = timed["results"][-1]["right"], 1000 * timed["results"][-1]["latency"]
    assert trial_line(timed) == (  # where accuracy alone counts, it is the reward
        f"#0 resnet18  {100 * right / 800:.1f} %, 45.0 ms/step, {answer:.2f} ms/image  31s"
    )
    assert trial_line(case["trials"][14]) == ("#14  the same network as #0: not trained again")
    assert trial_line(case["trials"][3]) == (
        "#3 F2 F1 M5 M4 M3  can't be used: out of memory at batch 32: CUDA tried to allocate 2 GiB"
    )
    fresh = {**case["trials"][0], "results": []}
    assert trial_line(fresh).endswith("not trained yet")


def test_reasons_that_differ_in_numbers_alone_are_one_and_stand_whole_on_the_page(tmp_path):
    case = content(12, name=timm_name, limit=0.004, infeasible=(2, 3, 5))
    for number, answer in ((2, 9), (5, 7.5)):
        reason = f"too slow: an answer takes {answer} ms, more than 4 ms"
        case["trials"][number]["infeasible"] = reason
    first, second = search_answer.reasons(case)
    assert first == ("too slow: an answer takes 9 ms, more than 4 ms, and the like", [2, 5])
    assert second[1] == [3]
    page = visible(write_search_page(tmp_path, case).read_text())
    assert "can't be used: too slow: an answer takes 7.5 ms, more than 4 ms" in page


def test_the_best_networks_stages_are_a_table(pages):
    rows = re.findall(r'<tr><th scope="row" class="name">(.*?)</tr>', pages["usual"])
    cells = [re.sub("<.*?>", " ", row).split() for row in rows]
    assert ["convolution", "1", "3", "24", "2", "16"] in cells  # the stem, of 32 pixels
    assert ["Fused-MBConv", "3", "5", "4", "48", "2", "8"] in cells
    assert ["MBConv", "4", "3", "4", "64", "2", "0.25", "4"] in cells
    assert "Stages of the best network" not in pages["latency"]  # no EfficientNet of stages


def test_a_sampler_that_learns_nothing_has_no_figure(pages, tmp_path):
    chance = write_search_page(tmp_path, content(27) | {"sampler": "random"}).read_text()
    assert "What the sampler learned" in pages["usual"]
    assert "What the sampler learned" not in chance


def test_published_networks_have_stages_too():
    assert search_answer.architecture("efficientnetv2_s").name.startswith(V2["s"])
    assert search_answer.compact("efficientnetv2_s") == "efficientnetv2_s"
    assert search_answer.compact(V2["s"]) == "F2 F4 F4 M6 M9 M15"
    assert search_answer.compact("efficientnet+<b>") == "efficientnet+<b>"


def test_duplicates_have_the_value_of_their_first_in_the_samplers_figure():
    case = CASES["usual"]
    rewards, again, bad = search_figures.suggestions(case)
    assert (again, bad) == ({14, 20, 21}, [3, 9, 10])
    values = dict(rewards)
    assert values[14] == values[20] == values[0] == case["trials"][0]["results"][0]["reward"]
    assert len(values) == 24


def test_a_result_of_a_network_that_failed_later_still_counts():
    case = content(27)
    late = next(one for one in case["trials"] if len(one["results"]) == 2)
    late["infeasible"] = "no memory"
    rewards, _, bad = search_figures.suggestions(case)
    assert late["number"] in dict(rewards)
    assert not bad
    last = search_answer.finalists(case)[-1]
    last["infeasible"] = "too slow after all"
    assert not [one for one in search_answer.finalists(case) if one["infeasible"]]
    assert "2 can't be used" in " ".join(answer_lines(case))


@pytest.mark.parametrize("name", ["usual", "latency and reward", "one rung"])
def test_stars_of_the_table_are_the_front(name):
    case = CASES[name]
    rows = [re.match(r"([* ]) #(\d+) .* %", line) for line in answer_lines(case)]
    marks = {int(row[2]): row[1] == "*" for row in rows if row}
    shown = [one["number"] for one in search_answer.finalists(case)][:20]
    assert list(marks) == shown
    assert marks == {number: number in case["front"] for number in shown}
    assert len(set(marks.values())) == 2


def test_all_trials_stand_on_the_page_with_what_became_of_them(pages):
    text = visible(pages["many"])
    assert text.count("the same as #0") == 40
    assert "300 suggestions, in order" in text
    assert "#51, #53, #55" in text
    assert re.search(r"\d\d\.\d → \d\d\.\d → \d\d\.\d", text)


def finished(path, case):
    """A run folder of a search."""
    write_json(path / "run.json", {"verb": "search", "state": "done", "stage": "", "stages": {}})
    write_json(path / "search.json", case)
    return path


def test_report_writes_the_page_of_a_search_again(tmp_path, capsys):
    run = finished(tmp_path / "a run", CASES["usual"])
    path = write_search_page(run, CASES["usual"])
    before = path.read_bytes()
    path.unlink()
    assert main(["report", str(run)]) == 0
    assert f"report: {path}" in capsys.readouterr().out
    assert path == run / "report" / "index.html"
    assert path.read_bytes() == before


def test_a_search_whose_best_network_was_not_tried_is_damaged(tmp_path):
    run = finished(tmp_path, CASES["usual"] | {"best": 999})
    with pytest.raises(Damaged, match=r"search\.json is damaged.*KeyError: 999"):
        write_report(run)


@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_a_search_that_is_not_finished_says_how_to_go_on(tmp_path, state, capsys):
    write_json(tmp_path / "run.json", {"verb": "search", "state": state, "stage": "", "stages": {}})
    assert main(["report", str(tmp_path)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert state in said
    assert "the same `tutelage search` command goes on" in said
    assert not (tmp_path / "report").exists()


def test_a_page_of_another_versions_search_is_refused(tmp_path):
    run = finished(tmp_path, CASES["one alone"] | {"format": 2})
    with pytest.raises(UsageError, match="has format 2"):
        write_report(run)


def test_a_content_is_plain_and_is_not_changed():
    case = content(27)
    before = json.dumps(case)
    answer_lines(case)
    search_figures.costs(case)
    search_figures.learning(case)
    assert json.dumps(case) == before
    assert network(3) == case["trials"][3]["network"]
