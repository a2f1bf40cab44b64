"""Nothing is written to object stores, and no folder is made that is named like one."""

from pathlib import Path

import pytest
from commands import refused

from foretune.tuner.cli.train import train_one
from foretune.tuner.records.files import local_path
from foretune.tuner.sweeps.sweep import sweep


@pytest.mark.parametrize(
    "line",
    [
        "train lm-tiny --out s3://bucket/x",
        "sweep lr --out s3://bucket/x",
        "sweep lr --out s3://bucket/x --dry-run",
        "reproduce ternary-width --out s3://bucket/x",
        "reproduce ternary-width --out gs://bucket/x --dry-run",
        "train lm-tiny --out file:///tmp/x",
    ],
)
def test_a_folder_in_an_object_store_is_refused_as_it_was_typed(
    capsys, tmp_path, monkeypatch, line
):
    monkeypatch.chdir(tmp_path)
    named = next(word for word in line.split() if "://" in word)
    error = refused(capsys, line)
    assert f"--out must be a folder (shared by all nodes on a cluster), got {named};" in error
    assert "object stores can't append" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("export somewhere --out s3://bucket/a.safetensors", "--out"),
        ("predict somewhere --size 64 --save s3://bucket/a.json", "--save"),
    ],
)
def test_a_file_in_an_object_store_is_refused_as_it_was_typed(
    capsys, tmp_path, monkeypatch, line, option
):
    monkeypatch.chdir(tmp_path)
    named = line.split()[-1]
    assert f"{option} must be a file, got {named}; object stores" in refused(capsys, line)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_has_lost_its_slash_is_refused_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("s3://bucket/x")
    assert str(path) == "s3:/bucket/x"
    with pytest.raises(ValueError, match=r"got s3:/bucket/x; object stores can't append"):
        sweep({"optimizer.lr": 0.1}, out=path)
    with pytest.raises(ValueError, match=r"got s3:/bucket/x; object stores can't append"):
        train_one("lm-tiny", out=path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["runs/a", "/runs/a", "C:/runs", "a:b", "a b:/c"])
def test_other_names_are_paths(text):
    assert local_path("out", text) == Path(text)
