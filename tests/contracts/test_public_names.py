"""Every public name, asked for again and from two threads, is what its module defines."""

import ast
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "foretune": ROOT / "foretune",
    "foretune.analysis": ROOT / "analysis",
    "foretune.models": ROOT / "models",
    "foretune.tuner": ROOT / "tuner",
}
PROMISED = {
    *("Run", "train", "sweep", "override", "resolve", "load", "predict", "fit"),
    *("lr_sensitivity", "sensitivity_table"),
}
"""What DESIGN and README name as `from foretune import ...`."""
TWICE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

def ask(barrier):
    found = {}
    barrier.wait()
    for again in range(2):
        for name in sys.argv[2:]:
            scope = {}
            exec(f"from {sys.argv[1]} import {name}", scope)
            assert found.setdefault(name, scope[name]) is scope[name], name
    return found

barrier = Barrier(2)
with ThreadPoolExecutor(2) as threads:
    one, other = threads.map(ask, [barrier, barrier])
assert one.keys() == other.keys() == set(sys.argv[2:])
for name in one:
    assert one[name] is other[name], name
    assert type(one[name]).__name__ != "module", name
print("same")
"""


def table(folder: Path) -> dict[str, str]:
    """{public name: module it is defined in}, from the package's stub."""
    stub = ast.parse((folder / "__init__.pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}


NAMES = [(package, name) for package, folder in PACKAGES.items() for name in table(folder)]


def test_the_names_that_are_promised_are_there():
    assert table(PACKAGES["foretune"]).keys() >= PROMISED


# Each in a process of its own: once one package has loaded, the names of those below are there.
@pytest.mark.parametrize(
    "package",
    [
        pytest.param(p, marks=pytest.mark.slow) if p in ("foretune", "foretune.tuner") else p
        for p in PACKAGES
    ],
)
def test_names_asked_for_twice_and_from_two_threads_are_the_same(package):
    command = [sys.executable, "-c", TWICE, package, *table(PACKAGES[package])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("same\n", "")


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_no_public_name_is_that_of_a_module_beside_it(package, name):
    """Importing that would take the name: `sweep`, asked for a second time, was a module."""
    thing = getattr(import_module(package), name)
    assert find_spec(f"{package}.{name}") is None
    assert thing is getattr(import_module(f"{package}.{table(PACKAGES[package])[name]}"), name)
    assert name.isupper() or callable(thing)


def test_a_name_that_is_not_there_is_an_attribute_error():
    for package in PACKAGES:
        with pytest.raises(AttributeError, match="no_such_name"):
            _ = import_module(package).no_such_name


def test_importing_the_package_loads_neither_torch_nor_ray():
    script = (
        "import sys, foretune\n"
        "from foretune import analysis, models, tuner\n"
        "print(sorted({'torch', 'ray', 'numpy', 'pandas', 'mlflow', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
