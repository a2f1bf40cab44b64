import sys
from pathlib import Path

import pytest

# Tests are imported by path (`--import-mode=importlib`), so their helper needs the folder.
sys.path.insert(0, str(Path(__file__).parent))

import synthetic

import analysis


@pytest.fixture(scope="session")
def sweep(tmp_path_factory):
    """Three sizes, five learning rates, one seed, twins."""
    return synthetic.write_sweep(tmp_path_factory.mktemp("sweeps") / "twins")


@pytest.fixture(scope="session")
def sweep_page(sweep):
    """The text of the page about that sweep."""
    return analysis.write_report(sweep).read_text(encoding="utf-8")
