"""What the README and the docs show can be run."""

import re
import shlex
import sys
from importlib import util
from pathlib import Path

import pytest
import toy

from tutelage import data_verbs, judging_verbs, launch, verbs
from tutelage.catalog import describe, names
from tutelage.cli import main
from tutelage.data.find import kinds
from tutelage.distributed import launcher
from tutelage.pipelines import search, trial_cost

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def commands() -> list[str]:
    lines = [
        line for page in PAGES for block in blocks(page, "bash") for line in block.splitlines()
    ]
    return sorted({line for line in lines if line.startswith("tutelage ")})


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folders that the docs speak of, as the working folder."""
    root = toy.write_toy(tmp_path)
    monkeypatch.chdir(root)
    recipe = root / "runs" / "stages" / "recipes" / "best.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("data: labeled\nmodel: test_resnet\n")
    return root


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_docs_is_understood(command, folders, monkeypatch):
    called = []
    done = [(launch, name) for name in ("run_train", "run_selftrain", "run_distill", "run_search")]
    done += [(data_verbs, name) for name in ("check", "run_label", "select")]
    judges = ("run_calibrate", "run_compare", "run_evaluate")
    done += [(judging_verbs, name) for name in judges]
    done += [(verbs, name) for name in ("predict", "report")]
    done += [(launcher, "run_in_processes")]
    for module, name in done:
        real = getattr(module, name)

        def note(*given, _name=name, **more):
            called.append(_name)
            return 0

        note.__signature__ = __import__("inspect").signature(real)
        note.__annotations__, note.__doc__ = real.__annotations__, real.__doc__
        monkeypatch.setattr(module, name, note)
    assert main(shlex.split(command, comments=True)[1:]) == 0
    assert called


def test_the_readme_example_runs(folders):
    (code,) = blocks(ROOT / "README.md", "python")
    small = code.replace('budget="1h"', "steps=4, img_size=16, batch=8, val_fraction=0")
    small = small.replace('model="resnet18"', 'model="test_resnet"')
    assert small != code
    exec(compile(small, "README.md", "exec"), {})
    assert (folders / "labels.csv").read_text().startswith("path,label,confidence")
    assert (folders / "runs" / "first" / "report" / "index.html").exists()


def test_the_labels_of_the_docs_are_made_and_read(folders, capsys):
    section = (ROOT / "docs" / "scale.md").read_text().split("## Labeling a pool")[1]
    code = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)[0]
    verbs.train(**toy.train_settings(folders, folders / "runs" / "first"))
    capsys.readouterr()
    exec(compile(code, "scale.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for line in lines:
        name, label = line.split()
        assert (folders / "pool" / name).exists()
        assert label in toy.CLASSES


def test_the_example_with_arrays_runs(folders):
    (code,) = blocks(ROOT / "docs" / "data.md", "python")
    scope = {}
    exec(compile(code, "data.md", "exec"), scope)
    assert len(scope["found"].paths) == 20
    assert (folders / "runs" / "arrays" / "report" / "index.html").exists()


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


def test_the_method_of_the_docs_trains(folders, tmp_path):
    import torch

    from tutelage.core import Batch, Clock, Labeled, Unlabeled
    from tutelage.learner import Learner
    from tutelage.methods.method import State
    from tutelage.networks.build import Net, build
    from tutelage.settings import Optim

    (code,) = blocks(ROOT / "docs" / "concepts.md", "python")
    path = tmp_path / "my_method.py"
    path.write_text(code)
    spec = util.spec_from_file_location("my_method", path)
    module = util.module_from_spec(spec)
    sys.modules["my_method"] = module
    spec.loader.exec_module(module)
    student = Learner(build(Net(name="test_resnet", num_classes=3, img_size=32)), Optim())
    images, targets = torch.rand(4, 3, 32, 32), torch.eye(3)[[0, 1, 2, 0]]
    views = {"weak": images, "strong": images.flip(3)}
    batch = Batch(Labeled(images, targets), Unlabeled(torch.arange(4), views, None))
    metrics = module.MyMethod().step(State(student), batch, Clock(1, 10))
    assert metrics["loss"].isfinite()


def test_the_readme_lists_every_method_with_its_paper():
    """As `tutelage methods` does, from the files themselves."""
    text = (ROOT / "README.md").read_text()
    for one in map(describe, names()):
        assert f"| `{one.name}` | {one.paper} | {one.verb} |" in text, one.name


def test_the_example_of_a_corruption_runs():
    section = (ROOT / "docs" / "robustness.md").read_text().split("## Corruptions")[1]
    code = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)[0]
    scope = {}
    exec(compile(code, "robustness.md", "exec"), scope)
    assert scope["foggy"].shape == (2, 3, 64, 64)
    assert str(scope["foggy"].dtype) == "torch.uint8"


def test_the_search_of_the_docs_finds_a_network(folders, monkeypatch, capsys):
    (code,) = blocks(ROOT / "docs" / "search.md", "python")
    quick = trial_cost.Pace(warmup=1, warmup_seconds=0, turns=1, most_turns=1)
    monkeypatch.setattr(search, "PACE", quick)
    assert "steps=40" in code
    exec(code.replace("steps=40", "steps=20, batch=8"), {})
    name, recipe = capsys.readouterr().out.splitlines()[-1].split()
    assert name in ("test_resnet", "test_vit")
    assert f"model: {name}" in Path(recipe).read_text()
