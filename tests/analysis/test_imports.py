import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {
            "torch", "ray", "mlflow", "optuna", "tyro"
        } or name.startswith(("foretune.models", "foretune.tuner", "foretune.search_spaces")):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_analysis_works_and_draws_without_torch_ray_and_pyplot(sweep):
    code = (
        f"{BLOCK}\nfrom foretune import analysis\nanalysis.write_report({str(sweep)!r})\n"
        f"print(analysis.predict({str(sweep)!r}, n_params=6e5).verdict)\n"
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["None", "True", "False"]


def test_importing_analysis_does_not_import_matplotlib():
    done = run("import sys\nfrom foretune import analysis\nprint('matplotlib' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


def test_every_public_name_is_there():
    from foretune import analysis

    for name in analysis.__all__:
        assert getattr(analysis, name) is not None
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = analysis.nothing


@pytest.mark.parametrize("path", sorted((ROOT / "analysis").rglob("*.py")), ids=lambda p: p.stem)
def test_a_file_is_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
