"""One bad file costs one run at most, and is said: the rest of the sweep is as it was."""

import json
import shutil

import pytest
import sweep_by_hand as by_hand
from commands import call

from foretune import analysis
from foretune.tuner.records.journal import check_new, count_outcomes, read_runs, write_down
from foretune.tuner.records.outcome_json import RunEnd
from foretune.tuner.records.sweep_json import SweepRecord, change_of


@pytest.fixture(scope="module")
def ended(tmp_path_factory, text):
    out = tmp_path_factory.mktemp("ended") / "s"
    by_hand.run_sweep(out, text)
    return out, by_hand.numbers(out)


@pytest.fixture
def sweep(ended, tmp_path):
    shutil.copytree(ended[0], tmp_path / "s")
    return tmp_path / "s", sorted((tmp_path / "s" / "runs").glob("*/")), ended[1]


def garbage_line(folder):
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], b"\x00\xff garbage\n", *lines[5:]]))


def lost_rows(folder):
    path = folder / "metrics.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:7]))


def lost_rows_of_before(folder):
    """As of a version that noted no checksum."""
    facts = json.loads((folder / "outcome.json").read_text())
    del facts["rows"]
    (folder / ".checksums.json").unlink()
    (folder / "outcome.json").write_text(json.dumps(facts))
    lost_rows(folder)


def changed_digit(name, key):
    def change(folder):
        path = folder / name
        text = path.read_text()
        head, _, rest = text.partition(f'"{key}": ')
        path.write_text(f'{head}"{key}": {(int(rest[0]) + 1) % 10}{rest[1:]}')

    return change


def torn(name):
    def tear(folder):
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return tear


def anothers_outcome(folder):
    other = next(p for p in folder.parent.glob("*/") if p != folder)
    shutil.copyfile(other / "outcome.json", folder / "outcome.json")
    (folder / ".checksums.json").unlink()


def anothers_rows(folder):
    other = next(p for p in folder.parent.glob("*/") if p != folder)
    shutil.copyfile(other / "metrics.jsonl", folder / "metrics.jsonl")


@pytest.mark.parametrize(
    "damage",
    [
        garbage_line,
        lost_rows,
        changed_digit("metrics.jsonl", "loss"),
        changed_digit("outcome.json", "final_val_loss"),
        torn("outcome.json"),
        anothers_outcome,
        anothers_rows,
    ],
)
def test_an_end_that_cannot_be_believed_is_left_out_and_trained_again(sweep, text, damage):
    directory, (bad, good), numbers = sweep
    damage(bad)
    records = analysis.collect(directory)
    assert records.trials["run_id"].tolist() == [good.name]
    assert "1 damaged run left out" in records.status
    assert len(records.left_out) == 1
    assert records.left_out[0].startswith(f"run {bad.name} is left out: ")
    said = by_hand.run_sweep(directory, text)
    assert said[0].startswith(f"Run {bad.name} is trained again: ")
    assert by_hand.numbers(directory) == numbers
    assert analysis.load(directory).left_out == ()


def test_a_finished_run_with_a_gap_is_trained_again_though_nothing_noted_its_rows(sweep, text):
    directory, (bad, _), numbers = sweep
    lost_rows_of_before(bad)
    assert by_hand.run_sweep(directory, text)[0] == (
        f"Run {bad.name} is trained again: it has finished with 7 of 13 rows."
    )
    assert by_hand.numbers(directory) == numbers


@pytest.mark.parametrize(
    "damage",
    [torn("run.json"), changed_digit("run.json", "steps"), changed_digit("run.json", "n_params")],
)
def test_a_run_that_nobody_knows_is_left_out_and_counted(sweep, text, damage, capsys):
    directory, (bad, good), _ = sweep
    damage(bad)
    assert analysis.collect(directory).trials["run_id"].tolist() == [good.name]
    said = []
    waiting, ended = read_runs(directory, repair=said.append)
    assert ([r.run_id for r in waiting], [r.run_id for r in ended]) == ([], [good.name])
    assert len(said) == 1
    assert said[0].startswith(f"Run {bad.name} is left out: {bad / 'run.json'} must ")
    assert count_outcomes(directory) == {"finished": 1, "lost": 1}
    code, out, err = call(capsys, f"collect '{directory}'")
    assert (code, out.partition(" ->")[0]) == (0, "1 runs")
    assert err.startswith(f"foretune: run {bad.name} is left out: ")
    assert err.count("\n") == 1


def test_a_run_that_is_gone_is_missed(sweep):
    directory, (bad, good), _ = sweep
    (bad / "run.json").unlink()
    said = []
    read_runs(directory, repair=said.append)
    assert said == [
        f"Run {bad.name} is left out: {bad / 'run.json'} must be there, got none; restore it, or "
        f"start a new sweep."
    ]
    shutil.rmtree(bad)
    said.clear()
    _, ended = read_runs(directory, repair=said.append)
    assert [record.run_id for record in ended] == [good.name]
    assert said == [
        f"Of the 2 runs that sweep.json counts 1 can't be found in {directory / 'runs'}; restore "
        f"what is missing, or start a new sweep."
    ]
    assert count_outcomes(directory) == {"finished": 1, "lost": 1}


def test_a_run_twice_counts_once(sweep):
    directory, (first, second), _ = sweep
    shutil.copytree(first, directory / "runs" / "copy")
    records = analysis.collect(directory)
    assert sorted(records.trials["run_id"]) == sorted([first.name, second.name])
    (sentence,) = records.left_out
    assert "must be of a run of its own" in sentence


@pytest.mark.parametrize("content", ["[1]", '{"a": 1', "", "\x00\x01", "[" * 100_000])
def test_a_sweep_json_that_is_none_leaves_the_tables(sweep, content):
    directory, runs, _ = sweep
    (directory / "sweep.json").write_text(content)
    records = analysis.collect(directory)
    assert len(records.trials) == len(runs)
    assert "sweep.json is left out" in records.left_out[0]
    with pytest.raises(ValueError, match=r"sweep\.json must (be JSON|hold a JSON object)"):
        SweepRecord.read(directory)


def test_a_sweep_json_that_was_changed_is_said_and_taken(sweep):
    directory, _, _ = sweep
    assert change_of(directory) == ""
    path = directory / "sweep.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"note": "mine"}))
    assert change_of(directory).startswith(f"{path} has changed since foretune wrote it; ")
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"draws": {"space": {}}}))
    with pytest.raises(ValueError, match="must be as foretune wrote it"):
        change_of(directory)


def test_what_was_written_down_before_a_sweep_began_gives_way_to_another(tmp_path, text):
    """A kill before sweep.json leaves runs that have never begun."""
    directory = tmp_path / "s"
    by_hand.run_sweep(directory, text)
    began = sorted((directory / "runs").glob("*/"))
    for folder in began:
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.name not in ("run.json", ".checksums.json"):
                path.rmdir() if path.is_dir() else path.unlink()
    (began[1] / "run.json").rename(began[1] / "run.json.partial")
    record = SweepRecord.read(directory)
    (directory / "sweep.json").unlink()
    check_new(directory)
    write_down(directory, [], record)
    assert list((directory / "runs").iterdir()) == []


def test_an_outcome_is_read_by_its_types(sweep):
    _, (run, _), _ = sweep
    facts = json.loads((run / "outcome.json").read_text())
    for key, value in (("step", "12"), ("reason", 3), ("outcome", "lost"), ("value", "much")):
        with pytest.raises(ValueError, match=r"outcome(\.json)? must (hold|be one of)"):
            RunEnd.from_json({**facts, key: value})
