import pytest
import synthetic

from foretune import analysis


@pytest.fixture(scope="session")
def sweep(tmp_path_factory):
    """Three sizes, five learning rates, one seed, twins."""
    return synthetic.write_sweep(tmp_path_factory.mktemp("sweeps") / "twins")


@pytest.fixture(scope="session")
def sweep_page(sweep):
    """The text of the page about that sweep."""
    return analysis.write_report(sweep).read_text(encoding="utf-8")
