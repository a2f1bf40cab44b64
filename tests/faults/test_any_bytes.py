"""Whatever stands in a file of a sweep: no traceback, no wrong number, no data of another run.

Each file of a sweep that was interrupted is filled with random bytes, truncated, flipped, edited,
removed or exchanged. Then the tables are built and the sweep goes on: each run is as undisturbed to
the bit, or a sentence says that it is lost.
"""

import json
import shutil

import pytest
import sweep_by_hand as by_hand
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretune import analysis
from foretune.tuner.records.journal import count_outcomes, read_runs
from foretune.tuner.sweeps.trainable import RunTrainable

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, text):
    """A sweep of an ended run and one with two checkpoints, the numbers of the whole, its files."""
    whole, begun = tmp_path_factory.mktemp("whole") / "s", tmp_path_factory.mktemp("begun") / "s"
    by_hand.run_sweep(whole, text)
    shutil.copytree(whole, begun)
    folder = sorted((begun / "runs").glob("*/"))[0]
    (folder / "outcome.json").unlink()
    (folder / "metrics.jsonl").unlink()
    shutil.rmtree(folder / "checkpoint")
    (waiting,), _ = read_runs(begun)
    trial = object.__new__(RunTrainable)
    trial.setup({"run_id": folder.name}, trials=by_hand.trial_files(begun, [waiting.run]))
    trial.step()
    trial.step()
    trial.cleanup()
    analysis.collect(begun)
    files = sorted(p.relative_to(begun) for p in begun.rglob("*") if p.is_file())
    return begun, by_hand.numbers(whole), [p for p in files if p.name != ".writer.lock"]


def random_bytes(path, data):
    path.write_bytes(data.draw(st.binary(max_size=200)))


def truncated(path, data):
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, max(0, len(content) - 1)))])


def flipped(path, data):
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)


def removed(path, data):
    path.unlink()


def inserted(path, data):
    content, more = path.read_bytes(), data.draw(st.binary(min_size=1, max_size=20))
    at = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:at] + more + content[at:])


def edited(path, data):
    """Another value for a key, at any depth, in a file that stays JSON."""
    if path.suffix not in (".json", ".jsonl"):
        return flipped(path, data)
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    number = data.draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[number])
    inner = value
    while isinstance(inner, dict) and inner:
        key = data.draw(st.sampled_from(sorted(inner)))
        if not isinstance(inner[key], dict) or data.draw(st.booleans()):
            inner[key] = data.draw(JSON_VALUES)
            break
        inner = inner[key]
    lines[number] = json.dumps(value)
    path.write_text("\n".join(lines) + "\n")


CHANGES = (random_bytes, truncated, flipped, removed, inserted, edited)


def go_on_after(sweep, text, tmp_path, data):
    begun, numbers, files = sweep
    directory = tmp_path / "s"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(begun, directory)
    name = data.draw(st.sampled_from(files))
    change = data.draw(st.sampled_from([*CHANGES, "exchanged"]))
    if change == "exchanged":
        content = (directory / data.draw(st.sampled_from(files))).read_bytes()
        (directory / name).write_bytes(content)
    else:
        change(directory / name, data)
    records = analysis.load(directory)
    assert set(records.trials["run_id"]) <= set(numbers)
    assert all("\n" not in sentence for sentence in records.left_out)
    try:
        said = by_hand.run_sweep(directory, text)
    except ValueError:
        if name.name != "sweep.json":  # Which says what the sweep is.
            raise
        return
    counts = count_outcomes(directory)
    lost = counts.pop("lost", 0)
    assert counts == {"finished": len(numbers) - lost}
    found = by_hand.numbers(directory)
    assert found == {run_id: numbers[run_id] for run_id in found}
    assert set(analysis.collect(directory).trials["run_id"]) == set(found)
    assert len(found) == len(numbers) - lost
    assert bool(lost) <= bool(said)


@settings(
    max_examples=6, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(data=st.data())
def test_a_file_of_a_sweep_may_hold_anything(sweep, text, tmp_path_factory, data):
    go_on_after(sweep, text, tmp_path_factory.getbasetemp() / "any", data)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_file_of_a_sweep_may_hold_anything_often(sweep, text, tmp_path_factory, data):
    go_on_after(sweep, text, tmp_path_factory.getbasetemp() / "often", data)
