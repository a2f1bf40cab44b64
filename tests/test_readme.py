"""README: its tree names every folder there is, and none that isn't; its links lead somewhere."""

import re
from pathlib import Path

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
    tops = ("analysis", "models", "search_spaces", "tuner", "benchmarks")
    code = {path.parent.relative_to(ROOT) for top in tops for path in (ROOT / top).rglob("*.py")}
    below = {f"{folder.as_posix()}/" for folder in code if len(folder.parts) < 3}
    assert tree() - {"docs/", "foretune/", "tests/"} == below


def test_links_and_pictures_are_there():
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in t]
    assert [t for t in targets if not (ROOT / t).exists()] == []


def test_every_page_of_docs_is_linked():
    pages = [f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")]
    assert [page for page in pages if f"({page})" not in README] == []
