"""The suite itself ends red, with the test's name, where a worker dies or a test hangs."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # They wait for limits to run out.

ROOT = Path(__file__).parents[1]
ABORTS = """
    import os

    def test_aborts():
        os.abort()
"""
HANGS = """
    import threading

    def test_hangs():
        threading.Event().wait()
"""
HANGS_IN_C = """
    import signal

    def test_hangs_in_c():  # As Ray's calls do: no handler of Python's runs.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        signal.sigwait([signal.SIGUSR1])
"""
HANGS_OUTSIDE = """
    import threading, pytest

    @pytest.fixture(scope="session", autouse=True)
    def endless():
        yield
        threading.Event().wait()

    def test_hangs_outside():
        pass
"""
PASS = """
    import time, pytest

    @pytest.mark.parametrize("n", range(3))
    def test_passes(n):
        time.sleep(0.01)
"""


def start(folder: Path, *options: str, **files: str) -> subprocess.Popen[str]:
    """Starts a suite of these files and of files that pass, by this project's settings."""
    files = {**{f"{where}{n}": PASS for where in "az" for n in range(3)}, **files}
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(textwrap.dedent(text))
    for name in ("conftest.py", "support/process_tree.py"):
        shutil.copy(ROOT / "tests" / name, folder)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p"]
    command += ["no:cacheprovider", "--rootdir", str(folder), "-n", "2", *options, str(folder)]
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(scope="module")
def suites(tmp_path_factory):
    """Both suites, started together: they wait more than they work."""
    ends = {"a": ABORTS, "m": ABORTS, "zz": ABORTS, "n": HANGS, "o": HANGS_IN_C}
    died = tmp_path_factory.mktemp("died")
    hung = tmp_path_factory.mktemp("hung")
    with (
        start(died, "--timeout=5", "-o", "faulthandler_timeout=10", **ends) as one,
        start(hung, "--timeout=0", "--session-timeout=20", m=HANGS_OUTSIDE) as other,
    ):
        yield one, other
        one.kill()
        other.kill()


def test_workers_that_die_and_tests_that_hang_are_red_with_their_names_and_the_rest_is_run(suites):
    out, _ = suites[0].communicate()
    assert suites[0].returncode == 1, out
    for name in ("a", "m", "zz"):
        assert re.search(rf"FAILED test_{name}.py::test_aborts - worker 'gw\d' crashed", out)
    assert "FAILED test_n.py::test_hangs - Failed: Timeout (>5.0s)" in out
    assert re.search(r"FAILED test_o.py::test_hangs_in_c - worker 'gw\d' crashed", out)
    assert "5 failed, 18 passed" in out


def test_a_suite_that_hangs_outside_of_its_tests_ends_as_well(suites):
    out, err = suites[1].communicate()
    assert suites[1].returncode == 1, out
    assert "The suite hung: 22 s are over, and this ran: test_" in err
