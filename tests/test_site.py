"""The pages hang together: navigation, links, files, flags and figures that they name."""

import contextlib
import io
import re
from importlib import util

import pytest
import yaml
from commands_page import page as commands_page
from pages import DOCS, PAGES, ROOT, anchors, prose, slug

from tutelage.catalog import describe, names
from tutelage.cli import VERBS, main

LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
FIGURE = re.compile(r"(?<![\w.-])[+-]?\d[\d,]*(?:\.\d+)?(?![\w-])")
OTHERS = {  # flags of torchrun, SLURM and tar
    "--max-restarts", "--nnodes", "--rdzv-endpoint", "--shutdown-timeout", "--nodes", "--requeue",
    "--sort",
}  # fmt: skip
MEASURED = ("results.md", "performance.md", "reliability.md")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def in_navigation(part):
    if isinstance(part, str):
        return [part]
    return [page for one in (part.values() if isinstance(part, dict) else part)
            for page in in_navigation(one)]  # fmt: skip


def test_every_page_is_in_the_navigation_once_and_exists():
    listed = in_navigation(SITE["nav"])
    assert sorted(listed) == sorted(path.name for path in DOCS.glob("*.md"))
    assert all((DOCS / page).read_text() for page in listed)


def test_the_site_is_strict_and_loads_nothing_from_the_net():
    assert SITE["strict"]
    assert SITE["theme"]["font"] is False
    assert SITE["plugins"] == ["search"]  # `offline` would load a script from unpkg.com
    assert not {"extra_css", "extra_javascript", "repo_url", "extra"} & SITE.keys()
    for page in DOCS.glob("*.md"):
        assert "![" not in prose(page), f"{page.name}: keep images in docs/, and test it here"


@every_page
def test_links_lead_to_pages_and_headings_that_exist(page):
    home = page.resolve().parent  # that of the file where docs/ has a link to it
    for address, anchor in LINK.findall(prose(page)):
        if address.startswith(("http://", "https://")):
            continue
        target = home / address if address else page
        assert target.exists(), f"{page.name}: {address}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {address}#{anchor}"


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda p: p.name)
def test_pages_of_the_site_link_to_pages_of_the_site_alone(page):
    for address, _ in LINK.findall(prose(page)):
        assert address.startswith("http") or "/" not in address, f"{page.name}: {address}"


@every_page
def test_the_files_and_benchmarks_that_pages_name_exist(page):
    text = page.read_text()
    for module in re.findall(r"-m benchmarks\.(\w+)", text):
        assert util.find_spec(f"benchmarks.{module}"), f"{page.name}: benchmarks.{module}"
    if page.name.lower() == "changelog.md":  # it has what was once there
        return
    for named in re.findall(r"(?<![\w/{.])((?:[a-z_]+/)+[a-z_]+\.(?:py|md))\b", text):
        places = (ROOT, ROOT / "src" / "tutelage")
        if not named.startswith(("model/", "RUN/")) and "my_method" not in named:
            assert any((place / named).exists() for place in places), f"{page.name}: {named}"


@pytest.fixture(scope="module")
def flags():
    """All flags of all verbs, as their help has them."""
    said = io.StringIO()
    for verb in VERBS:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main([verb, "--help"])
    return set(re.findall(r"--[\w.-]+", said.getvalue()))


@every_page
def test_the_flags_that_pages_speak_of_exist(page, flags):
    if page.name in MEASURED:  # their commands are those of benchmarks
        return
    spans = [span for span in re.findall(r"`([^`]+)`", prose(page)) if "benchmarks" not in span]
    named = {flag for span in spans for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*", span)}
    families = {flag.partition(".")[0] + "." for flag in flags if "." in flag}  # --noise.
    assert not named - OTHERS - flags - families


def test_the_page_of_commands_says_what_help_says():
    assert (DOCS / "commands.md").read_text() == commands_page(), "make fix writes it"


def rows(text):
    """The cells of each row of a page's tables, without the heads."""
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")]
             for line in text.splitlines() if line.startswith("|")]  # fmt: skip
    return [one for one in cells if not set(one[0]) <= set("- |")]


def test_every_method_has_its_paper_verb_file_and_equation_on_the_page():
    text = (DOCS / "methods.md").read_text()
    for one in map(describe, names()):
        file = f"methods/{one.name.replace('-', '_')}.py"
        assert f"| `{one.name}` | {one.paper} | {one.verb} | `{file}` |" in text
        said = [" ".join(row[1:]) for row in rows(text) if row[0] == f"`{one.name}`"]
        assert sum(bool(re.search(r"H\(|KL\(|Σ", words)) for words in said) == 1, one.name


def sections():
    """The text below each heading of what was measured, by page and anchor."""
    found = {}
    for page in MEASURED:
        parts = re.split(r"^## (.*)$", (DOCS / page).read_text(), flags=re.MULTILINE)
        titles = zip(parts[1::2], parts[2::2], strict=True)
        found |= {f"{page}#{slug(title)}": text for title, text in titles}
    return found


def figures(text):
    """Numbers without signs and without what links, options and names have of them."""
    text = re.sub(r"\]\([^)]*\)|`[^`]*`|CIFAR-10|EfficientNetV2-B0", " ", text)
    return {found.lstrip("+-").rstrip(",").replace(",", "") for found in FIGURE.findall(text)}


DECISIONS = [row for row in rows((DOCS / "which-method.md").read_text()) if "because" not in row]


@pytest.mark.parametrize("row", DECISIONS, ids=lambda row: row[0])
def test_the_figures_of_a_decision_stand_in_the_section_it_names(row):
    found = sections()
    named = re.findall(r"\(((?:results|performance)\.md#[^)]*)\)", row[-1])
    assert named, "each decision says which section has its figures"
    there = set().union(*(figures(found[anchor]) for anchor in named))
    assert figures(row[-1]) <= there, figures(row[-1]) - there
