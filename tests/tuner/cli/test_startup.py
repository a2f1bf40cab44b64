"""Nothing heavy is loaded by an import or by `--help`, nor before the first line of a sweep."""

import os
import subprocess
import sys

import pytest
from processes import ROOT

from foretune.tuner.cli.main import COMMANDS

HEAVY = ("torch", "ray", "mlflow", "optuna", "numpy", "pandas", "scipy", "matplotlib")
AT_THE_END = f"""
import atexit, sys
atexit.register(lambda: print([n for n in {HEAVY} if n in sys.modules], file=sys.stderr))
"""
AT_THE_FIRST_LINE = f"""
import sys
class First:
    def write(self, text):
        print(text, [n for n in {HEAVY} if n in sys.modules], file=sys.stderr)
        raise KeyboardInterrupt
    def flush(self): pass
sys.stdout = First()
"""


def python(code, cwd):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def command(*words):
    return f"from foretune.tuner.cli.main import main; main({list(words)})"


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    ["import foretune", "from foretune.search_spaces import SPACES", command("--help")]
    + [command(name, "--help") for name in COMMANDS],
)
def test_nothing_heavy_is_loaded_to_say_what_there_is(tmp_path, code):
    found = python(AT_THE_END + code, tmp_path)
    assert (found.returncode, found.stderr) == (0, "[]\n")


def test_a_sweep_says_where_it_goes_before_it_loads_ray_and_torch(tmp_path):
    found = python(AT_THE_FIRST_LINE + command("sweep", "lr", "--out", "here"), tmp_path)
    assert found.stderr.startswith("foretune sweep lr -> here []\n")
    assert list(tmp_path.iterdir()) == []
