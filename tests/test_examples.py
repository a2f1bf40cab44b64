"""Every example runs as it stands, and does what its docstring says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from foretune import load

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_plain_loop_is_stopped_where_it_is_doomed_and_not_where_it_learns(tmp_path):
    out = str(tmp_path / "runs")
    doomed, healthy = (run("plain_loop.py", rate, out) for rate in ("1.0", "0.003"))
    assert doomed.startswith("stopped at step ")
    assert "forecast to end unstable with probability" in doomed
    assert healthy.startswith("loss 2.")
    trials = load(out).trials.set_index("optimizer.lr")
    assert trials["outcome"].to_dict() == {1.0: "stopped", 0.003: "finished"}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short(path):
    code = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(code) < 60
