"""A record that names code runs none of it, unless the user has asked for that code."""

import importlib
import json
import sys

import pytest

from foretune.models import TransformerConfig
from foretune.tuner.config.override import override
from foretune.tuner.config.presets import lm_tiny
from foretune.tuner.planning.optuna_plan import OpenPlan
from foretune.tuner.planning.optuna_space import unpack_value
from foretune.tuner.records.own_models import check_asked, kind_of, model_class
from foretune.tuner.records.run_json import from_config, to_config

CODE = """
from dataclasses import dataclass
from pathlib import Path
from torch import nn

Path({mark!r}).write_text("it ran")

@dataclass(frozen=True)
class Net:
    width: int = 8

    def build(self):
        return nn.Linear(self.width, self.width)

@dataclass(frozen=True)
class NoModel:
    width: int = 8

def call(**arguments):
    Path({mark!r}).write_text("it was called")
"""


class Planted:
    """A module in a folder that leaves a mark when it is imported."""

    def __init__(self, folder, name):
        self.folder, self.name, self.mark = folder, name, folder / "mark"
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.py"
        self.path.write_text(CODE.format(mark=str(self.mark)))

    def config(self, name="Net"):
        config = to_config(override(lm_tiny(), {"model.width": 16}))
        config["model"] = {"kind": f"{self.name}:{name}", "width": 8}
        return config


@pytest.fixture
def planted(tmp_path, request):
    number = abs(hash(request.node.name)) % 10**8
    planted = Planted(tmp_path / "lib", f"planted_{number}")
    yield planted
    sys.modules.pop(planted.name, None)


def test_a_module_that_could_be_imported_is_not(planted, tmp_path, monkeypatch):
    """Python would find it: it is on the path."""
    monkeypatch.syspath_prepend(str(planted.folder))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"model\.kind must be importable here, got 'planted_"):
        from_config(planted.config())
    assert not planted.mark.exists()


@pytest.mark.parametrize("kind", ["antigravity:Net", "os:system", "subprocess:Popen", "a.b", 3])
def test_nor_is_the_standard_library(planted, kind, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = planted.config()
    config["model"]["kind"] = kind
    with pytest.raises(ValueError, match=r"model\.kind must "):
        from_config(config)
    assert "antigravity" not in sys.modules


def test_a_module_in_the_folder_that_one_starts_from_is(planted, monkeypatch):
    monkeypatch.chdir(planted.folder)
    path = list(sys.path)
    run = from_config(planted.config())
    assert kind_of(run.model) == f"{planted.name}:Net"
    assert planted.mark.read_text() == "it ran"
    assert sys.path == path


def test_a_module_of_a_package_is_found_without_running_the_package_of_another(
    tmp_path, monkeypatch
):
    inner = Planted(tmp_path / "planted_package", "inner")
    (tmp_path / "planted_package" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    try:
        assert model_class("planted_package.inner:Net").__name__ == "Net"
    finally:
        for name in ("planted_package", "planted_package.inner"):
            sys.modules.pop(name, None)
    assert inner.mark.exists()


@pytest.mark.parametrize("name", ["sweep.json", "run.json", "runs/a/run.json"])
def test_a_module_among_records_is_not(planted, monkeypatch, name):
    (planted.folder / name).parent.mkdir(parents=True, exist_ok=True)
    (planted.folder / name).write_text("{}")
    monkeypatch.chdir(planted.folder)
    with pytest.raises(ValueError, match="must not lie among records"):
        from_config(planted.config())
    assert not planted.mark.exists()


def test_a_module_that_is_loaded_is_taken_and_only_its_models(planted, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(planted.folder))
    importlib.import_module(planted.name)
    monkeypatch.chdir(tmp_path)
    assert from_config(planted.config()).model.width == 8
    with pytest.raises(ValueError, match=r"must name a class with build\(\)"):
        from_config(planted.config("NoModel"))
    for name in ("call", "Path", "nn.Linear", "absent", ""):
        with pytest.raises(ValueError, match="must name a dataclass"):
            from_config(planted.config(name))
    assert planted.mark.read_text() == "it ran"


def test_what_somebody_vouches_for_is_taken():
    known = {"mine:Net": TransformerConfig}
    config = to_config(lm_tiny())
    config["model"]["kind"] = "mine:Net"
    assert from_config(config, models=known) == lm_tiny()


def test_a_class_of_sweep_json_is_held_to_the_same(planted, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(planted.folder))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"A class of sweep\.json must be importable here"):
        unpack_value({"class": f"{planted.name}:Net", "fields": {}})
    assert not planted.mark.exists()
    fields = to_config(lm_tiny().optimizer)
    found = unpack_value({"class": "foretune.tuner.config.optimizer:Optimizer", "fields": fields})
    assert found == lm_tiny().optimizer


def test_a_preset_of_sweep_json_is_held_to_the_same(planted, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"The preset of sweep\.json must be importable here"):
        OpenPlan.from_json({"preset": f"{planted.path}:RUN"})
    assert not planted.mark.exists()
    with pytest.raises(ValueError, match=r"sweep\.json must hold what its runs are drawn from"):
        OpenPlan.from_json({"preset": "lm-tiny", "num_samples": 3})
    monkeypatch.chdir(planted.folder)
    check_asked("It", planted.path)


@pytest.mark.parametrize(
    "config", [[], {"model": 3}, {"model": []}, {"model": {"width": 3}}, {"data": {}}, {"seed": {}}]
)
def test_a_config_that_is_none_is_one_sentence(config):
    whole = to_config(lm_tiny())
    with pytest.raises(ValueError, match=r"must (hold|be|have) .+") as refused:
        from_config(json.loads(json.dumps({**whole, **config} if config else config)))
    assert "\n" not in str(refused.value)
