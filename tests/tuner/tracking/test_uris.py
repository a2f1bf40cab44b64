"""Which tracking URIs are taken, and that a sweep keeps the one it began with."""

from pathlib import Path

import pytest

from foretune.redaction import redacted
from foretune.tuner.planning.execution import Execution
from foretune.tuner.tracking.outbox import State
from foretune.tuner.tracking.sender import MLflowSender
from foretune.tuner.tracking.stores import agreed_uri, check_tracking_uri, own_uri


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "databricks",
        "databricks://me",
        "http://host:5000",
        "https://host",
        "sqlite:////x/m.db",
        "postgresql+psycopg2://u:p@h/db",
        "mysql+pymysql://u@h/db",
        "mssql+pyodbc://u@h/db",
    ],
)
def test_schemes_that_mlflow_has_a_store_for(uri: str):
    check_tracking_uri(uri)


@pytest.mark.parametrize(
    "uri", ["localhost:5000", "foo://x", "http://", "redis://u:secret@h", "uc:catalog", "s3://b"]
)
def test_an_unknown_scheme_is_refused_in_one_sentence(uri: str):
    with pytest.raises(ValueError, match=r"^tracking URI must begin with one of .*sqlite") as error:
        check_tracking_uri(uri)
    assert redacted(uri) in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns"])
def test_a_folder_is_refused_unless_mlflow_is_told_to_take_it(
    uri: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    with pytest.raises(ValueError, match="MLFLOW_ALLOW_FILE_STORE"):
        check_tracking_uri(uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check_tracking_uri(uri)


def test_a_sweep_keeps_its_store_and_experiment(sweep_dir: Path, monkeypatch: pytest.MonkeyPatch):
    uri = "postgresql://me:secret@host/db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    MLflowSender(sweep_dir, tracking_uri=uri)
    assert State.load(sweep_dir) is None
    State(sweep_key="k", tracking_uri=redacted(uri), experiment="mine").save(sweep_dir)
    assert "secret" not in (sweep_dir / "mlflow.json").read_text()
    MLflowSender(sweep_dir, tracking_uri=uri, experiment="mine")
    with pytest.raises(ValueError, match="password isn't kept"):
        MLflowSender(sweep_dir)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    MLflowSender(sweep_dir)
    with pytest.raises(ValueError, match="tracking URI must stay"):
        MLflowSender(sweep_dir, tracking_uri="http://elsewhere")
    with pytest.raises(ValueError, match="experiment must stay"):
        MLflowSender(sweep_dir, tracking_uri=uri, experiment="other")


def test_a_new_sweep_takes_mlflows_own_variables_where_nothing_is_named(
    monkeypatch: pytest.MonkeyPatch, sweep_dir: Path
):
    assert Execution().with_store() == Execution(experiment="foretune")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    named = Execution().with_store()
    assert (named.tracking_uri, named.experiment) == ("http://me:secret@host:5000", "mine")
    own = Execution(tracking_uri="http://other", experiment="yours")
    assert own.with_store() == own
    State(sweep_key="k").save(sweep_dir)  # One that has begun keeps its own database.
    MLflowSender(sweep_dir)
    assert agreed_uri(sweep_dir, "") == (own_uri(sweep_dir), False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "host:5000")
    with pytest.raises(ValueError, match="tracking URI must begin with one of"):
        Execution().with_store()
