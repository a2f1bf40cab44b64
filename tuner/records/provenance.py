"""Where a sweep's numbers come from: the code, the versions and the machine."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import foretune

CODE_ROOT = Path(foretune.__file__).resolve().parent.parent
"""The checkout that runs."""
COMMIT_VARIABLE = "FORETUNE_COMMIT"
"""Environment variable that names the commit where git can't: `submit` sets it for its job, whose
copy of the checkout has no .git."""
PACKAGES = ("foretune", "ray", "torch", "numpy", "mlflow", "optuna", "pyarrow", "pandas")


def commit(root: Path = CODE_ROOT) -> str:
    """Returns the commit of a checkout, with -dirty for changed files; unknown without git.

    What `COMMIT_VARIABLE` says wins.
    """
    named = os.environ.get(COMMIT_VARIABLE)
    if named:
        return named
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that the numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def machine() -> dict[str, Any]:
    """Returns system, number of CPUs and processor of this machine."""
    return {"system": platform.platform(), "cpus": os.cpu_count(), "processor": _processor()}


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
