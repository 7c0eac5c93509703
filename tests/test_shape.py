"""The shape of the code: imports go down, files and functions stay small, help stays short."""

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "tutelage"
FILES = sorted(SOURCE.rglob("*.py"))

LAYERS = [  # a module may import modules of lower rows, and of its own package
    {"__main__"},
    {"cli"},
    {"verbs"},
    {"data_verbs", "judging_verbs"},
    {"launch"},
    {"pipelines"},
    {"deploy", "loop"},
    {"labeling", "reports"},
    {"begin", "checkpoint", "meter", "run", "progress"},
    {"searching"},
    {"robustness", "speed"},
    {"evaluation"},
    {"corruptions"},
    {"recipes"},
    {"recipe", "catalog", "progressive"},
    {"methods"},
    {"data"},
    {"feedback", "recalibration"},
    {"learner", "weights"},
    {"frozen"},
    {"averages", "compilation", "optimizers"},
    {"losses", "gates", "targets", "mixing", "schedules", "networks"},
    {"search_settings"},
    {"jobs", "judging_settings"},
    {"training_settings"},
    {"settings", "flags"},
    {"values", "files", "ends"},
    {"distributed"},
    {"core", "heap"},
    {"errors"},
]


def layer(module: str) -> int:
    name = module.split(".")[1] if "." in module else "__init__"
    return next((i for i, row in enumerate(LAYERS) if name in row), -1)


def test_imports_go_down():
    graph = grimp.build_graph("tutelage", exclude_type_checking_imports=True)
    wrong = []
    for module in sorted(graph.modules - {"tutelage"}):
        assert layer(module) >= 0, f"{module} stands in no layer of this test"
        for other in graph.find_modules_directly_imported_by(module):
            same = module.split(".")[1] == other.split(".")[1]
            if not same and layer(other) <= layer(module):
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_concepts_shows_these_layers_and_names_files_that_there_are():
    page = (ROOT / "docs" / "concepts.md").read_text()
    diagram = page.split("## Imports go down")[1].split("```")[1].splitlines()[1:]
    for line, row in zip(diagram, LAYERS[1:], strict=True):
        assert row <= set(line.split()), line
    for name in set(re.findall(r"[\w/]+\.py\b", page)):
        assert any((folder / name).exists() for folder in (SOURCE, SOURCE / "distributed", ROOT)), (
            name
        )


def test_no_package_is_named_like_a_public_function():
    import tutelage

    assert not {path.stem for path in SOURCE.iterdir()} & set(tutelage.__all__)


def test_package_inits_are_empty():
    assert [
        p for p in FILES if p.name == "__init__.py" and p.parent != SOURCE and p.read_text()
    ] == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_and_functions_are_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 50, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_dynamic_access_to_own_types(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "hasattr"
            assert not (node.func.id == "getattr" and len(node.args) == 3), ast.unparse(node)


def test_help_needs_neither_torch_nor_half_a_second():
    code = (
        "import sys; from tutelage.cli import main; main(['--help']); "
        "assert not {'torch', 'timm', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    assert "selftrain" in done.stdout
    assert seconds < 5  # a hang, not a benchmark: the time itself is measured by `make bench`


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem
)
def test_what_a_benchmark_imports_of_the_package_is_there(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tutelage":
            module = importlib.import_module(node.module)
            missing = [one.name for one in node.names if not hasattr(module, one.name)]
            submodules = [name for name in missing if has_module(f"{node.module}.{name}")]
            assert missing == submodules, f"{node.module} has no {missing}"


def has_module(name):
    return importlib.util.find_spec(name) is not None
