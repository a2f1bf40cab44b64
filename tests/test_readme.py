"""README: its tree names every folder there is, and none that isn't; its links lead somewhere.
Files that a page of docs names are there, too."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def tree() -> set[str]:
    """The folders that the tree's block names, below the top by their own indented lines."""
    (block,) = re.findall(r"## The tree\n\n```\n(.*?)```", README, re.DOTALL)
    names, top = set(), ""
    for line in block.splitlines():
        first = line.split()[0]
        if not line.startswith(" "):
            top = first
        names.add(first if first == top else top + first)
        if top != "benchmarks/":  # Its line names what is below it.
            continue
        names |= {top + name for name in re.findall(r"\w+/", line) if name != top}
    return names


def test_the_tree_names_the_folders_that_there_are():
    tops = ("analysis", "models", "search_spaces", "tuner", "examples", "benchmarks")
    code = {path.parent.relative_to(ROOT) for top in tops for path in (ROOT / top).rglob("*.py")}
    below = {f"{folder.as_posix()}/" for folder in code if len(folder.parts) < 3}
    assert tree() - {"docs/", "foretune/", "tests/"} == below


def test_links_and_pictures_are_there():
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in t]
    assert [t for t in targets if not (ROOT / t).exists()] == []


def test_every_page_of_docs_is_linked():
    pages = [f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")]
    assert [page for page in pages if f"({page})" not in README] == []


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=str
)
def test_files_that_a_page_names_are_there(page):
    named = re.findall(
        r"`((?:models|analysis|tuner|search_spaces|benchmarks)/[\w/]+\.\w+)`", page.read_text()
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_a_learning_rate_passes_nine_files_at_most():
    """Those that docs/architecture.md lists, each of which takes it from the one before."""
    (section,) = re.findall(
        r"^A learning rate passes .*?\n\n",
        (ROOT / "docs" / "architecture.md").read_text(),
        re.M | re.S,
    )
    files = re.findall(r"`([\w/]+\.py)`", section)
    assert files[0].startswith("tuner/cli/")
    assert files[-1] == "tuner/optim/update_rules.py"
    assert len(files) == len(set(files)) <= 9
