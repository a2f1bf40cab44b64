"""Training needs torch and numpy alone; models need torch alone."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WITHOUT = """
import sys

class Without:
    # Stands before a finder of Python's; the names are then as if never installed.
    def __init__(self, finder, names):
        self.finder, self.names = finder, names
    def find_spec(self, name, path=None, target=None):
        if name in self.names or name.partition(".")[0] in self.names:
            return None
        return self.finder.find_spec(name, path, target)

def uninstall(*names):
    sys.meta_path[:] = [Without(finder, names) for finder in sys.meta_path]
"""

TRAIN = """
uninstall(
    "ray", "mlflow", "optuna", "tyro", "pandas", "pyarrow", "scipy", "matplotlib", "filelock",
    "foretune.search_spaces", "foretune.analysis",
)
import json
from foretune.tuner.training.train import train
from foretune.models import TransformerConfig
from foretune.tuner.config.run import Run, Schedule
from foretune.tuner.data.tokens import Data

rows = []
run = Run(
    steps=3,
    model=TransformerConfig(width=16, depth=1, max_positions=16),
    data=Data(name="text", path=sys.argv[1], sequence_length=16, validation_sequences=4),
    schedule=Schedule(warmup_steps=1),
)
outcome = train(run, lambda step, row: rows.append(step), device="cpu")
print(json.dumps([outcome.outcome, rows]))
"""

MODELS = """
uninstall(
    "ray", "mlflow", "optuna", "tyro", "pandas", "pyarrow", "scipy", "matplotlib", "filelock",
    "numpy", "torchvision", "foretune.tuner", "foretune.search_spaces", "foretune.analysis",
)
import torch
from foretune import models
logits = models.TransformerConfig(width=16, depth=1).build()(torch.zeros(1, 3, dtype=torch.long))
logits.sum().backward()
print(list(logits.shape))
"""

WATCH = """
uninstall(*sys.argv[3:])
import torch
from foretune import Watch
from foretune.models import TransformerConfig

model = TransformerConfig(width=16, depth=1).build()
how = {"out": sys.argv[1], "total_steps": 200, "forecast": sys.argv[2] or None, "quiet": True}
with Watch(model, torch.optim.SGD(model.parameters(), lr=0.1), **how) as watch:
    for step in range(12):
        model(torch.zeros(2, 8, dtype=torch.long)).logsumexp(-1).mean().backward()
        verdict = watch.step(step, 3.0)
print(verdict.status)
"""

LOADED = """
import json, sys
from foretune import tuner
from foretune.tuner.training.train import train
names = {"ray", "mlflow", "optuna", "tyro", "foretune.search_spaces"}
print(json.dumps(sorted(names & set(sys.modules))))
"""

SENDER = """
import json, sys
import foretune.tuner.tracking.process
print(json.dumps(sorted({"torch", "pandas", "ray", "foretune.tuner.records"} & set(sys.modules))))
"""

RAY = """
uninstall("ray")
from importlib.util import find_spec
assert find_spec("mlflow") is not None
assert find_spec("ray") is None
import ray
"""


def python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT + script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_package_taken_away_here_is_as_if_never_installed():
    done = python(RAY)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("ModuleNotFoundError: No module named 'ray'")


def test_training_works_where_all_but_torch_and_numpy_is_missing():
    done = python(TRAIN, __file__)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["finished", [0, 1, 2, 3]]


BESIDE = ("ray", "mlflow", "optuna", "tyro", "pyarrow", "matplotlib", "filelock")
MORE = ("pandas", "scipy", "sklearn", "foretune.search_spaces")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("forecast", "missing", "status"),
    [
        ("", BESIDE, "cannot tell: it was fitted on runs with model.depth 2 to 6, got 1"),
        ("none", BESIDE + MORE, "cannot tell: no forecast was asked for"),
    ],
    ids=["with a forecast", "without"],
)
def test_a_loop_is_watched_where_ray_mlflow_and_optuna_are_missing(
    tmp_path, forecast, missing, status
):
    done = python(WATCH, str(tmp_path), forecast, *missing)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == status


def test_where_ray_and_mlflow_are_installed_training_does_not_load_them():
    done = python(LOADED)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_the_process_that_sends_to_mlflow_stays_light():
    done = python(SENDER)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_models_work_where_all_but_torch_is_missing():
    done = python(MODELS)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [1, 3, 256]


def imports(path: Path) -> set[str]:
    """Top-level names of every import in a file, wherever it stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else (node.module or "").partition(".")[0])
    return names


FILES = {"pathlib", "os", "io"}
EXPORT = {
    "byte_tokens.py": {"gguf"},
    "save.py": FILES,
    "gguf_file.py": FILES | {"gguf"},
    "gguf_blocks.py": {"gguf", "numpy"},
    "reference_decoder.py": FILES | {"numpy"},
    "safetensors_file.py": FILES | {"safetensors"},
}
"""What writes files for other programs may import; nothing else in `models` imports these."""


def test_models_import_torch_and_the_standard_library_alone():
    allowed = {"torch", "foretune"} | set(sys.stdlib_module_names) - FILES
    more = {**EXPORT, "torchvision_nets.py": {"torchvision"}}
    files = sorted((ROOT / "models").rglob("*.py"))
    assert len(files) > 4
    found = {path.name: imports(path) - allowed - more.get(path.name, set()) for path in files}
    assert {name: names for name, names in found.items() if names} == {}


def test_what_training_imports_is_torch_numpy_models_and_itself():
    allowed = {"torch", "numpy", "foretune"} | set(sys.stdlib_module_names)
    # Loaded only by who asks for such data.
    images = {"sklearn", "matplotlib", "PIL", "torchvision", "filelock"}
    for folder in ("config", "data", "optim", "training"):
        for path in (ROOT / "tuner" / folder).glob("*.py"):
            assert imports(path) <= allowed | (images if folder == "data" else set()), path
