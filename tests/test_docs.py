"""Every fenced block of the README and the docs: it runs, is understood, or is output.

bash: each line is a command that its program understands. python: it runs, on small images in the
place of those that the page speaks of. yaml, csv: read by what reads them. text: what is printed,
a tree of files or a drawing.
"""

import importlib
import inspect
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import shards
import test_methods
import toy
from pages import ROOT, Block, blocks, languages, lines
from torch.distributed.run import get_args_parser
from torch.distributed.run import parse_args as parse_torchrun

import tutelage
from tutelage import catalog, data_verbs, judging_verbs, launch, methods, verbs
from tutelage.cli import main
from tutelage.data.find import kinds, open_source
from tutelage.distributed import launcher
from tutelage.networks.names import name_in
from tutelage.pipelines import search, trial_cost

DONE = {
    launch: ("run_train", "run_selftrain", "run_distill", "run_search"),
    data_verbs: ("check", "run_label", "select"),
    judging_verbs: ("run_calibrate", "run_compare", "run_evaluate"),
    verbs: ("predict", "report", "demo", "list_methods"),
    launcher: ("run_in_processes",),
}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TARGETS = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
SMALLER = {  # what takes long, and what stands for it here
    'budget="1h"': "steps=4, img_size=16, batch=8, val_fraction=0",
    "    pretrained=True,\n": "",
    'model="resnet18"': 'model="test_resnet"',
    "steps=40": "steps=9, batch=8",
    "threshold=0.3": "threshold=0.2",
}


def test_every_block_says_what_it_is():
    known = {"bash", "python", "yaml", "csv", "text"}
    odd = {page: kinds - known for page, kinds in languages().items() if kinds - known}
    assert not odd, "name the language, which says how a block is tested; text is output"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folders that the docs speak of, as the working folder."""
    root = toy.write_toy(tmp_path)
    monkeypatch.chdir(root)
    recipe = root / "runs" / "stages" / "recipes" / "best.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("data: labeled\nmodel: test_resnet\n")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The same folders with two runs, the pool's labels, and the pool in tar shards."""
    root = toy.write_toy(tmp_path_factory.mktemp("trained"))
    for seed, name in enumerate(("first", "second")):
        tutelage.train(**toy.train_settings(root, root / "runs" / name, seed=seed))
    tutelage.label(model=root / "runs" / "first", data=root / "pool", out=root / "ready-labels")
    for number in range(2):
        members = {f"{i}.jpg": shards.png(i) for i in range(3)}
        shards.write_tar(root / f"pool-000{number}.tar", members)
    return root


@pytest.fixture
def my_method(tmp_path, monkeypatch):
    """The example of add-method.md as a file among the methods; the module that it is."""
    (block,) = blocks("python", "docs/add-method.md")
    among = tmp_path / "methods"
    among.mkdir()
    for file in catalog.FOLDER.glob("*.py"):
        (among / file.name).symlink_to(file)
    (among / "my_method.py").write_text(block.text)
    monkeypatch.setattr(catalog, "FOLDER", among)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(among)])
    importlib.invalidate_caches()
    module = importlib.import_module("tutelage.methods.my_method")
    yield module
    del sys.modules[module.__name__], methods.my_method


def understood_by_tutelage(arguments, monkeypatch):
    """Whether the command line takes these arguments, up to where work would begin."""
    called = []
    for module, name in ((module, name) for module, names in DONE.items() for name in names):
        real = getattr(module, name)

        def note(*given, _name=name, **more):
            called.append(_name)
            return 0

        note.__signature__ = inspect.signature(real)
        note.__annotations__, note.__doc__ = real.__annotations__, real.__doc__
        monkeypatch.setattr(module, name, note)
    return main(arguments) == 0 and bool(called)


def commands():
    """Each line of a bash block once."""
    return sorted({line for block in blocks("bash") for line in lines(block.text)
                   if not block.text.startswith("#!")})  # fmt: skip


def check_torchrun(words, monkeypatch):
    """torchrun's flags, and those of the module that it begins."""
    newer = "--shutdown-timeout"  # than torch 2.11, as the page says
    if newer in words and newer not in get_args_parser().format_help():
        at = words.index(newer)
        words = words[:at] + words[at + 2 :]
    assert parse_torchrun(words).training_script == "tutelage"
    launched = words[words.index("-m") + 2 :]
    assert understood_by_tutelage(launched, monkeypatch)


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_docs_is_understood(command, folders, my_method, monkeypatch):
    program, *words = shlex.split(command, comments=True)
    if program == "make":
        assert set(words) <= TARGETS
    elif program == "pip":
        what = words[-1]
        assert words in (["install", what], ["install", "-e", what])
        assert re.fullmatch(r"(?:\.|tutelage)\[(\w+)\]", what)[1] in EXTRAS
    elif program == "torchrun":
        check_torchrun(words, monkeypatch)
    else:
        assert program == "tutelage"
        assert understood_by_tutelage(words, monkeypatch)


@pytest.mark.parametrize(
    "block", [one for one in blocks("bash") if one.text.startswith("#!")], ids=lambda one: one.name
)
def test_scripts_of_the_docs_are_scripts_that_start_commands(block, folders, monkeypatch):
    read = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True)
    assert (read.returncode, read.stderr) == (0, "")
    (line,) = [line for line in lines(block.text) if "torchrun" in line]
    check_torchrun(shlex.split(line.partition("torchrun")[2]), monkeypatch)


def made_by_readme(folders, scope, said):
    assert (folders / "labels.csv").read_text().startswith("path,label,confidence")
    assert (folders / "runs" / "first" / "report" / "index.html").exists()


def made_by_data(folders, scope, said):
    assert len(scope["found"].paths) == 20
    assert (folders / "runs" / "arrays" / "report" / "index.html").exists()


def made_by_labeling(folders, scope, said):
    assert len(said) == 3
    for line in said:
        name, label = line.split()
        assert (folders / "pool" / name).exists()
        assert label in toy.CLASSES


def made_by_corruption(folders, scope, said):
    assert scope["foggy"].shape == (2, 3, 64, 64)
    assert str(scope["foggy"].dtype) == "torch.uint8"


def made_by_search(folders, scope, said):
    name, recipe = said[-1].split()
    assert name in ("test_resnet", "test_vit")
    assert f"model: {name}" in Path(recipe).read_text()


def made_by_compare(folders, scope, said):
    *_, first, second, pair = said
    assert [line.split()[0] for line in (first, second)] == ["first", "second"]
    assert "first" in pair
    assert "second" in pair


MADE = {  # what a block has to come to, where that is more than to run
    "README.md-0": made_by_readme,
    "docs/compare.md-0": made_by_compare,
    "docs/data.md-0": made_by_data,
    "docs/labeling.md-0": made_by_labeling,
    "docs/robustness.md-0": made_by_corruption,
    "docs/search.md-0": made_by_search,
}
NEW = ("README.md-0", "docs/search.md-0", "docs/data.md-0")  # begin without runs
ELSEWHERE = {  # with what they print or make
    "docs/add-method.md-0": "below",
    "docs/index.md-0": "below, as the README's",
    "docs/networks.md-0": "test_scaling.py",
    "docs/networks.md-1": "test_scaling.py",
    "docs/networks.md-2": "test_squeeze_excite.py",
    "docs/robustness.md-1": "test_weather.py",
    "docs/streaming.md-0": "test_stream.py",
}


@pytest.mark.parametrize(
    "block",
    [one for one in blocks("python") if one.name not in ELSEWHERE],
    ids=lambda one: one.name,
)
def test_every_example_in_python_runs(block: Block, folders, request, monkeypatch, capsys):
    if block.name not in NEW:
        shutil.copytree(request.getfixturevalue("trained"), folders, dirs_exist_ok=True)
    if block.name == "docs/selection.md-0":
        (folders / "ready-labels").rename("labels")
    quick = trial_cost.Pace(warmup=1, warmup_seconds=0, turns=1, most_turns=1)
    monkeypatch.setattr(search, "PACE", quick)
    code = block.text
    for long, short in SMALLER.items():
        code = code.replace(long, short)
    capsys.readouterr()
    exec(compile(code, block.page, "exec"), scope := {})
    said = capsys.readouterr().out.splitlines()
    if block.name in MADE:
        MADE[block.name](folders, scope, said)


def test_blocks_that_are_run_elsewhere_are_there():
    assert ELSEWHERE.keys() | MADE.keys() | set(NEW) <= {one.name for one in blocks("python")}
    for name, file in ELSEWHERE.items():
        page = name.split("/")[1].rpartition("-")[0]
        assert "below" in file or page in (ROOT / "tests" / file).read_text()
    assert blocks("python", "docs/index.md")[0].text == blocks("python", "README.md")[0].text


def test_the_method_of_the_docs_is_found_and_keeps_what_methods_promise(my_method, tiny, capsys):
    kind = my_method.MyMethod
    assert main(["methods", "my-method"]) == 0
    assert "weight" in capsys.readouterr().out
    assert catalog.kind_of("my-method") is kind
    test_methods.test_a_method_is_a_frozen_value(kind)
    test_methods.test_the_docstring_names_the_paper_or_says_that_there_is_none(my_method)
    test_methods.test_a_method_asks_for_views_and_a_teacher_that_exist(kind)
    test_methods.test_a_step_changes_the_student_and_its_average_and_says_its_loss(kind, tiny)
    test_methods.test_steps_on_the_same_batch_lower_the_loss(kind, tiny)


def test_the_method_of_the_docs_self_trains_by_its_name(my_method, folders):
    run = folders / "runs" / "mine"
    flags = {"method": "my-method", "options": "weight=0.5", "steps": 2}
    assert main(["selftrain", *selftrain_flags(folders, run, **flags)]) == 0
    assert "my-method" in (run / "config.yaml").read_text()
    tree = (ROOT / "docs" / "run-folder.md").read_text()
    for path in run.iterdir():
        assert re.search(rf"[├└]─ {re.escape(path.name)}\b", tree), "describe it in run-folder.md"


def selftrain_flags(root, out, **more):
    """Of a method that is not Noisy Student: without what only that one reads."""
    flags = toy.selftrain_flags(root, out, **more)
    pairs = zip(flags[::2], flags[1::2], strict=True)
    return [word for pair in pairs if pair[0] not in ("--rounds", "--select.threshold")
            for word in pair]  # fmt: skip


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda one: one.name)
def test_every_yaml_of_the_docs_is_read(block, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(block.text)
    assert block.page == "docs/networks.md", "say here what reads it"
    assert name_in(str(file)).startswith("efficientnet+stem24+er_r2")


@pytest.mark.parametrize("block", blocks("csv"), ids=lambda one: one.name)
def test_every_table_of_the_docs_is_read(block, folders):
    Path("labels.csv").write_text(block.text)
    source = open_source("labels.csv")
    images = source.listing("labeled")
    assert len(images.names) >= 1


def test_the_page_on_data_names_every_kind_of_source():
    """By the words of its title in the page, so that a new kind is not forgotten."""
    words = {
        "Folder": "Class folders", "Table": "A table", "ParquetImages": "images inside",
        "HuggingFace": "hf://owner/name", "Arrays": ".npz", "Memory": "From Python",
        "WebDataset": "Tar shards",
    }  # fmt: skip
    text = (ROOT / "docs" / "data.md").read_text()
    missing = [kind.__name__ for kind in kinds() if words.get(kind.__name__, "?!") not in text]
    assert not missing, "describe it in docs/data.md and name a word of it here"
