"""What a sweep's directory promises to readers that know nothing of the trainer."""

import json

import pytest

from foretune import analysis
from foretune.tuner.cli.main import main
from foretune.tuner.records.run_json import FORMAT, from_config, run_id
from foretune.tuner.training.outcome import OUTCOMES

STEPS = 20


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three runs by `foretune train`, which writes the same records as a sweep."""
    directory = tmp_path_factory.mktemp("records")
    text = directory / "text"
    text.write_text("a text that is long enough for a batch. " * 2000)
    for lr in ("1e-2", "3e-2", "1e3"):
        with pytest.raises(SystemExit) as end:
            main([
                "train", "lm-tiny", "--size", "16", "--out", str(directory / "out"),
                "--set", f"steps={STEPS}", "data.name=text", f"data.path={text}",
                f"optimizer.lr={lr}", "--device", "cpu",
                *(["--set", "optimizer.epsilon=0.0"] if lr == "1e3" else []),
            ])  # fmt: skip
        assert end.value.code == (4 if lr == "1e3" else 0)  # The last one diverges.
    return directory / "out"


def test_run_json_names_its_folder_and_rebuilds_the_run(trained):
    for path in trained.glob("runs/*/run.json"):
        facts = json.loads(path.read_text())
        assert facts["format"] == FORMAT
        assert facts["run_id"] == path.parent.name == run_id(from_config(facts["config"]))
        assert len(facts["data_sha256"]) == 64


def test_every_line_is_strict_json_of_finite_numbers(trained):
    def refuse(word):
        raise AssertionError(word)

    for path in [*trained.glob("runs/*/metrics.jsonl"), *trained.glob("runs/*/outcome.json")]:
        text = path.read_text()
        assert text.endswith("\n")
        for line in text.splitlines() if path.suffix == ".jsonl" else [text]:
            json.loads(line, parse_constant=refuse)


def test_steps_grow_by_one_and_the_last_row_is_the_validation(trained):
    for path in trained.glob("runs/*/metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(len(rows)))
        outcome = json.loads((path.parent / "outcome.json").read_text())
        assert outcome["outcome"] in OUTCOMES
        if outcome["outcome"] == "finished":
            assert len(rows) == STEPS + 1
            assert rows[-1]["val_loss"] == outcome["final_val_loss"]
            assert rows[0]["val_loss"] == outcome["loss_at_init"]


def test_analysis_collects_runs_that_no_sweep_made(trained):
    records = analysis.collect(trained)
    assert sorted(records.trials["outcome"]) == ["diverged", "finished", "finished"]
    assert (trained / "trials.parquet").exists()
    assert len(analysis.load(trained).trials) == 3


def test_a_finished_run_is_refused_in_the_same_place(trained, capsys):
    text = trained.parent / "text"
    with pytest.raises(SystemExit) as end:
        main([
            "train", "lm-tiny", "--size", "16", "--out", str(trained), "--set", f"steps={STEPS}",
            "data.name=text", f"data.path={text}", "optimizer.lr=1e-2",
        ])  # fmt: skip
    assert end.value.code == 2
    assert "--out must not hold this run already" in capsys.readouterr().err
