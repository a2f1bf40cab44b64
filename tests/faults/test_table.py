"""The table of `make faults`: a bad night in short, each fault once where that takes long; and the
checks see what is lost."""

import json
import shutil
import signal

import pytest

# A shell's background job has it ignored, and so would the commands.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from checks import CHECKS, wrong
from damage import flip
from place import Place, References
from processes import here
from sweeps import GRID, begin, command, expect
from table import FAULTS

# Of the table, `make test` runs test_short_night.py and the slices of test_disk.py and
# test_any_bytes.py; signals in this process are test_interruption.py's.
pytestmark = pytest.mark.slow

TRIED_ELSEWHERE = (
    "disk: ",  # At every place, in test_disk.py.
    *(f"a model with {how}" for how in ("hang", "segfault", "sys.exit", "build", "forward")),
    *("SIGINT in training", "SIGTERM in training"),  # In test_resume.py.
    *(f"MLflow's server {how}" for how in ("restarted", "slow", "without")),  # In test_servers.py.
    "kill a worker",  # In the bad night below, as the next two are.
    *("kill -9 the driver, grid", "damaged newest checkpoint"),
    "kill -9 the driver, optuna",  # In test_optuna_sweep.py.
)
"""By tests of their own, several in one sweep; `make faults` has them all."""


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """Sweeps that nothing disturbs; the grid's in this process, which costs least."""
    made = References(tmp_path_factory.mktemp("undisturbed"))
    folder = made.folder / GRID
    folder.mkdir()
    here(*command(GRID, made.text), cwd=folder)
    made.made[GRID] = folder / "sweep"
    return made


@pytest.fixture
def place(references, tmp_path):
    """A place, of which nothing is left."""
    made = Place(references, tmp_path / "place", seed=3)
    yield made
    made.close()


def test_a_bad_night(place):
    """A worker is killed, then the driver, and a bit flips in the newest checkpoint."""
    sweep = begin(place)
    place.in_training(sweep, 0.1)
    place.kill("worker")
    place.in_training(sweep, 0.4)
    sweep.send(signal.SIGKILL)
    sweep.end()
    place.check_left()
    for path in place.out.glob("runs/*/checkpoint/state.pt"):
        if not (path.parents[1] / "outcome.json").exists():
            flip(path, place.random)
    place.sync(here("resume", str(place.out), cwd=place.folder))
    assert wrong(place) == []


def copied(place):
    """The undisturbed sweep as if this place had made it."""
    expect(place)
    shutil.copytree(place.expected, place.out)
    return sorted((place.out / "runs").glob("*"))[0]


def test_the_checks_find_nothing_where_nothing_is_wrong(place):
    copied(place)
    assert wrong(place) == []


def changed_number(folder):
    rows = (folder / "metrics.jsonl").read_text().replace('"loss": 3.', '"loss": 4.', 1)
    (folder / "metrics.jsonl").write_text(rows)
    return "bit-equal to the undisturbed sweep"


def lost_end(folder):
    (folder / "outcome.json").unlink()
    return "every trial accounted for"


def two_of_one(folder):
    twin = shutil.copytree(folder, folder.with_name("another"))
    assert twin.exists()
    return "none twice"


def lost_column(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows[-1]["new"] = 1.0
    rows[-1]["val_loss"] = 1.0
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "MLflow complete to the last column"


@pytest.mark.parametrize("lose", [changed_number, lost_end, two_of_one, lost_column])
def test_the_checks_see_what_is_lost_on_disk(place, lose):
    name = lose(copied(place))
    assert [sentence for sentence in wrong(place) if sentence.startswith(name)]


def test_the_checks_see_what_a_command_prints_and_how_it_ends(place):
    place.run("list", "spaces")
    assert wrong(place) == []
    place.commands[0].log.write_text("Traceback (most recent call last):\n")
    place.commands[0].process.returncode = 7
    names = ["no traceback", "a documented exit code"]
    assert [sentence.partition(":")[0] for sentence in wrong(place)] == names
    assert names == [name for name in CHECKS if name in names]


@pytest.mark.parametrize(
    "fault", [f for f in FAULTS if not f.name.startswith(TRIED_ELSEWHERE)], ids=lambda f: f.name
)
def test_a_fault_costs_nothing(references, tmp_path, fault):
    made = Place(references, tmp_path / "place", seed=7, number=int(fault.group == "driver"))
    try:  # A driver's first kill is at start-up, its second in training.
        fault.run(made)
        assert [*made.said, *wrong(made)] == []
    finally:
        made.close()
