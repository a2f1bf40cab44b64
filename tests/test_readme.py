"""README: its tree names every file there is, and none that isn't; its links lead somewhere."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
UNNAMED = ("__init__.py", "__main__.py")


def tree() -> dict[str, list[str]]:
    """Names and patterns of files in the tree's block, by package."""
    (block,) = re.findall(r"## The tree\n\n```\n(.*?)```", README, re.DOTALL)
    names: dict[str, list[str]] = {}
    package = ""
    for line in block.splitlines():
        if not line.startswith(" "):
            package = line.split()[0].rstrip("/")
        names.setdefault(package, []).extend(re.findall(r"[\w*]+\.py\b", line))
    return names


@pytest.mark.parametrize(
    "package", ["analysis", "analysis/paper_figures", "models", "search_spaces", "tuner"]
)
def test_the_tree_names_the_files_that_there_are(package):
    patterns = tree()[package]
    files = [p.name for p in (ROOT / package).glob("*.py") if p.name not in UNNAMED]
    missing = [f for f in files if not any(fnmatch(f, p) for p in patterns)]
    stale = [p for p in patterns if not any(fnmatch(f, p) for f in files)]
    assert (missing, stale) == ([], [])


def test_links_and_pictures_are_there():
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in t]
    assert [t for t in targets if not (ROOT / t).exists()] == []


def test_every_page_of_docs_is_linked():
    pages = [f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")]
    assert [page for page in pages if f"({page})" not in README] == []
