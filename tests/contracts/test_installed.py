"""What a user has: scripts beside folders named like ours, notebooks run again, the wheel alone."""

import os
import re
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHORT = (
    *("--set", "steps=20", "eval_every=10", "data.name=text", f"data.path={os.__file__}"),
    "data.validation_sequences=8",
)
BESIDE = """
import analysis, models
assert (models.NAME, analysis.NAME) == ("mine", "mine")
from foretune import Run, fit, load, resolve, train
from foretune.models import TransformerConfig
print(TransformerConfig.__module__, fit.__module__, train.__module__)
"""
EXAMPLE = """
import sys
example = open(sys.argv[1]).read()
for again in range(2):
    exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
    print("AGAIN")
"""


def python(*words: str | Path, cwd: Path, python: str | Path = sys.executable, **environment: str):
    """Returns what a script printed, started from its folder as a user would."""
    done = subprocess.run(
        [str(python), *map(str, words)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_script_beside_its_own_models_and_analysis_gets_ours_by_our_name(tmp_path):
    for name in ("models", "analysis"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("NAME = 'mine'\n")
    (tmp_path / "script.py").write_text(BESIDE)
    output = python("script.py", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert all(name.startswith("foretune.") for name in output.split())


@pytest.mark.slow
def test_readme_s_python_example_runs_twice_in_one_interpreter(tmp_path):
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (example,) = [text for text in examples if "sweep(" in text]
    (tmp_path / "example.py").write_text(example)
    output = python("-c", EXAMPLE, "example.py", cwd=tmp_path, PYTHONPATH=str(ROOT))
    first, second = (part.splitlines()[-1] for part in output.split("AGAIN\n")[:2])
    assert first == second
    assert "learning rate" in first


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The python of an environment that has the wheel, and what it needs, but no checkout."""
    folder = tmp_path_factory.mktemp("installed")
    for name in ("foretune", "models", "analysis", "search_spaces", "tuner"):
        shutil.copytree(ROOT / name, folder / "checkout" / name, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "checkout")
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder]
    python(*build, folder / "checkout", cwd=folder)
    (wheel,) = folder.glob("*.whl")
    python("-m", "venv", "--without-pip", folder / "env", cwd=folder)
    own = folder / "env" / "bin" / "python"
    where = Path(python("-c", "import site; print(site.getsitepackages()[0])", cwd=folder,
                        python=own).strip())  # fmt: skip
    python("-m", "pip", "install", "--quiet", "--no-deps", "--target", where, wheel, cwd=folder)
    # Paths in a .pth bring packages, but not the .pth files there: not our editable install.
    (where / "needed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return own


@pytest.mark.slow
def test_the_wheel_alone_runs_the_demo_s_sweep(installed, tmp_path):
    code = "import foretune.models as m, foretune; print(foretune.__file__, m.__file__)"
    for path in python("-c", code, cwd=tmp_path, python=installed, PYTHONPATH="").split():
        assert path.startswith(str(installed.parents[1]))
    words = ("-m", "foretune", "sweep", "lr", "--sizes", "16", *SHORT, "--out", "swept")
    output = python(*words, cwd=tmp_path, python=installed, PYTHONPATH="", RAY_ADDRESS="")
    assert "10 trials: 10 finished" in output
    words = ("-m", "foretune", "report", "swept")
    python(*words, cwd=tmp_path, python=installed, PYTHONPATH="")
    assert (tmp_path / "swept" / "report" / "index.html").is_file()
