"""What is made of a worker that died: a reason, another try or none; and nothing is unpickled."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from clusters import connect
from failing_models import line_of, write_failing
from ray import tune
from ray.air._internal import usage
from ray.air.execution import FixedResourceManager, ResourceRequest
from ray.air.execution._internal import RayActorManager, TrackedActor
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import (
    ActorDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    WorkerCrashedError,
)
from ray.train import SyncConfig
from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Trial as RayTrial

from foretune.tuner.cluster import local_ray
from foretune.tuner.config.run import Run
from foretune.tuner.sweeps.driver import Driver
from foretune.tuner.sweeps.last_words import FAULT_FILE, read_last_words
from foretune.tuner.sweeps.lost_workers import RETRIES, LostWorkers
from foretune.tuner.sweeps.micro_batch import micro_batch_of
from foretune.tuner.sweeps.progress import Progress
from foretune.tuner.sweeps.trainable import Trial
from foretune.tuner.sweeps.tune_hooks import EarlyEnd, quiet_tune, recoveries

DIED = "The actor died unexpectedly before finishing this task.\nconnection error code 2"
RUN = Run()

WORKER = """
import sys
from pathlib import Path
import torch
import failing
from foretune.tuner.sweeps.last_words import FaultFile

file = FaultFile(Path(sys.argv[1]), timeout_s=0.5)
file.goes_on()
failing.fail(sys.argv[2], torch.zeros(4))
"""


@pytest.fixture
def lost(tmp_path):
    (tmp_path / "one").mkdir()
    return LostWorkers(tmp_path, timeout_s=0.5)


@pytest.mark.parametrize(
    ("how", "what", "line"),
    [
        ("segfault", "Segmentation fault", "string_at"),
        pytest.param("abort", "Aborted", "os.abort", marks=pytest.mark.slow),
        pytest.param("hang", "no progress for 0.5 s", "Event().wait", marks=pytest.mark.slow),
        ("hang in C", "no progress for 0.5 s", "pause()"),
    ],
)
def test_a_worker_that_dies_names_the_line_of_a_user_s_code(tmp_path, lost, how, what, line):
    write_failing(tmp_path)
    (tmp_path / "worker.py").write_text(WORKER)
    ended = subprocess.run(
        [sys.executable, "worker.py", str(tmp_path / "one"), how],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode != 0, ended.stderr
    goes_on = lost.goes_on("one", RUN, DIED)
    assert lost.reason("one") == f"{what} in failing.py, line {line_of(line)}"
    assert goes_on == (not how.startswith("hang"))
    assert "failing.py" in (tmp_path / "one" / "error.txt").read_text()
    assert read_last_words(tmp_path / "one") is None  # Room for the next.


def test_losses_count_only_where_a_run_got_no_further(lost):
    for step in range(10, 100, 10):  # Spot nodes.
        lost.reported("one", step)
        assert lost.goes_on("one", RUN, DIED)
    for _ in range(RETRIES - 1):
        lost.reported("one", 50)  # From its checkpoint again, and no further.
        assert lost.goes_on("one", RUN, DIED)
    assert not lost.goes_on("one", RUN, DIED)
    assert "4 times without getting further" in lost.reason("one")
    assert "ended without a word" in lost.reason("one")


def test_a_lost_node_and_lack_of_memory_are_named(lost, tmp_path):
    for _ in range(3 * RETRIES):  # No fault of the run's.
        assert lost.goes_on("one", RUN, "The actor died because its node has died. Node Id: 12")
    assert lost.reason("one") == "the worker's node was lost"
    text = "Task was killed due to the node running low on memory."
    assert lost.goes_on("one", RUN, text)
    assert micro_batch_of(tmp_path / "one", RUN) == RUN.micro_batch_size // 2
    assert not lost.goes_on("one", RUN, text)
    assert lost.reason("one").startswith("out of memory: Ray ended its worker")


def test_rubbish_in_a_fault_file_says_nothing(tmp_path):
    for content in (b"", b"\xff\x00\n\nTimeout", os.urandom(300)):
        (tmp_path / FAULT_FILE).write_bytes(content)
        assert read_last_words(tmp_path) is None


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (self.file, "w")


class Staged(StorageContext):
    """Tune's, without a Ray that says where."""

    def _get_session_path(self):
        return str(Path(self.storage_fs_path) / "session")


@pytest.fixture
def driven(tmp_path):
    """A driver and its one trial, as Tune has it."""
    storage = Staged(
        storage_path=str(tmp_path / "sweep" / ".ray"),
        experiment_dir_name="tune",
        sync_config=SyncConfig(),
        trial_dir_name="one",
    )
    theirs = RayTrial("__fake", stub=True, config={"run_id": "one"}, storage=storage)
    theirs.init_local_path()
    ours = Trial(run_id="one", run=RUN, size=16, directory=str(tmp_path / "sweep/runs/one"))
    driver = Driver(
        tmp_path / "sweep" / "runs",
        progress=Progress({"one": 1.0}),
        trials={"one": ours},
        labels={"one": "one"},
        listeners=(),
        stop_reasons={},
        tick=lambda: None,
    )
    return driver, theirs


def test_nothing_that_is_pickled_in_a_directory_is_loaded(tmp_path, driven):
    driver, theirs = driven
    theirs.handle_error(ActorDiedError())
    proof = tmp_path / "proof"
    planted = tmp_path / "sweep" / ".ray" / "tune" / "one" / "error.pkl"
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_bytes(pickle.dumps(Planted(str(proof))))
    assert driver.goes_on(theirs)
    assert theirs.get_pickled_error() is None  # As Tune asks for its results.
    driver.on_trial_error(0, [theirs], theirs)
    assert not proof.exists()
    assert "ended without a word" in (tmp_path / "sweep/runs/one/outcome.json").read_text()


def test_a_worker_that_could_not_begin_gives_the_error_and_not_rays_words(lost):
    text = (
        "ray.exceptions.ActorDiedError: The actor died because of an error raised in its creation "
        "task, \x1b[36mray::RunTrainable.__init__()\x1b[39m (pid=7, ip=127.0.0.1)\n"
        '  File "a.py", line 3, in <module>\n'
        "ModuleNotFoundError: No module named 'mine'\n\n"
        "During handling of the above exception, another exception occurred:\n"
        "RuntimeError: The actor with name RunTrainable failed to import: No module named 'mine'\n"
    )
    assert lost.goes_on("one", RUN, text)
    assert lost.reason("one").startswith("RuntimeError: The actor with name RunTrainable failed")


def test_no_trial_fails_where_ray_itself_has_ended(tmp_path, driven, monkeypatch):
    """They are unfinished, and the sweep ends; `make faults` kills a raylet for real."""
    driver, theirs = driven
    assert driver.goes_on(theirs)
    end = EarlyEnd(lambda: driver.ray_ended)
    assert not end.stop_all()
    monkeypatch.setattr(local_ray, "has_ended", lambda: True)
    assert not driver.goes_on(theirs)
    driver.on_trial_error(0, [theirs], theirs)
    assert not list(tmp_path.rglob("outcome.json"))
    assert end.stop_all()


class OneCpu(FixedResourceManager):
    """Ray's own would start a Ray to ask it what there is."""

    def __init__(self):
        self._total_resources, self._allow_strict_pack = {"CPU": 1}, False
        self.clear()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OutOfMemoryError("1 worker(s) were killed, the node running low on memory"), "out of mem"),
        (NodeDiedError("Node 12 died"), "the worker's node was lost"),
        (WorkerCrashedError(), "the worker's process ended without a word"),
    ],
)
def test_whatever_ray_says_of_a_lost_worker_ends_no_sweep(lost, error, reason):
    """Tune raises what isn't an actor's or a task's error, and the sweep would end with it."""
    resources, request, said = OneCpu(), ResourceRequest([{"CPU": 1}]), []
    resources.request_resources(request)
    manager = RayActorManager(resource_manager=resources)
    actor = TrackedActor(1, on_error=lambda actor, error: said.append(error))
    held = resources.acquire_resources(request)
    manager._live_actors_to_ray_actors_resources[actor] = (None, held)
    with recoveries(lambda trial: True):
        task = TrackedActorTask(tracked_actor=actor)
        manager._actor_task_failed(tracked_actor_task=task, exception=error)  # As Ray calls it.
        with pytest.raises(RuntimeError, match="unexpected"):  # An error of ours stays one.
            manager._actor_task_failed(tracked_actor_task=task, exception=KeyError("ours"))
    (found,) = said
    assert isinstance(found, RayActorError)
    lost.goes_on("one", RUN, str(found))
    assert lost.reason("one").startswith(reason)


@pytest.mark.slow
@pytest.mark.usefixtures("own_home")
def test_a_worker_that_is_lost_between_two_trials_costs_the_next_one_nothing(tmp_path):
    """Tune hands a trial's worker on to the next, and fails that one without asking."""
    killed = tmp_path / "killed"

    class HandedOn(tune.Trainable):
        def setup(self, config):
            self.number = config["number"]

        def reset_config(self, new_config):
            if not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            self.number = new_config["number"]
            return True

        def step(self):
            return {"number": self.number, "done": True}

    connection = connect(cpus=os.cpu_count())
    asked = []
    try:
        with recoveries(lambda trial: not asked.append(trial.trial_id)), quiet_tune():
            results = tune.Tuner(
                HandedOn,
                param_space={"number": tune.grid_search([1, 2, 3])},
                tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=1),
                run_config=tune.RunConfig(
                    storage_path=str(tmp_path / "ray"),
                    verbose=0,
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            ).fit()
    finally:
        connection.close()
    assert killed.exists()
    assert len(set(asked)) == 1
    assert sorted(result.metrics["number"] for result in results) == [1, 2, 3]


def test_nobody_s_callbacks_are_counted_for_which_ray_would_load_mlflow(monkeypatch):
    counted = []
    monkeypatch.setattr(usage, "_count_callbacks", counted.append)
    callbacks = [tune.Callback()]
    with quiet_tune():
        tune.tune.air_usage.tag_callbacks(callbacks)
    assert counted == []
    tune.tune.air_usage.tag_callbacks(callbacks)
    assert counted == [callbacks]
