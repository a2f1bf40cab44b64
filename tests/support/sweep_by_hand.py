"""A sweep of seconds as its driver and workers run it, in this process and without Ray.

The journal, the trainable and the records are the product's own; what Tune does between them stands
here in ten lines. So a fault can be put at any write of a whole sweep.
"""

import re
import time
from pathlib import Path

import torch
from ray import tune

from foretune import analysis
from foretune.tuner.config.run import Run
from foretune.tuner.planning.plan import Plan
from foretune.tuner.records.damage import own_record
from foretune.tuner.records.journal import describe_all, holds_sweep, read_runs, write_down
from foretune.tuner.records.outcome_json import RunEnd, Times
from foretune.tuner.records.own_models import kind_of
from foretune.tuner.records.run_json import RunRecord
from foretune.tuner.records.sweep_json import SweepRecord
from foretune.tuner.sweeps.trainable import RunTrainable
from foretune.tuner.sweeps.trial_files import TrialFiles

STEPS = 12


class Unfinished(Exception):
    """The storage failed, as the sentence says: the sweep goes on when it is called again."""


def plan_of(text: Path) -> Plan:
    """Two runs of 12 updates with validations after 0, 4, 8 and 12."""
    return Plan(
        {"optimizer.lr": tune.grid_search([1e-2, 3e-2])},
        overrides={
            "steps": STEPS, "eval_every": 4, "telemetry_every": 4, "batch_size": 4,
            "micro_batch_size": 4, "model.width": 16, "model.depth": 1, "data.name": "text",
            "data.path": str(text), "data.sequence_length": 16, "data.validation_sequences": 4,
        },
    )  # fmt: skip


def run_sweep(directory: Path, text: Path) -> list[str]:
    """Begins the sweep in a directory or goes on with it; returns what is said of damage.

    Raises what a disk raises, and leaves what is there.
    """
    torch.set_num_threads(1)
    if not holds_sweep(directory):
        plan = plan_of(text)
        records = describe_all(plan.runs())
        record = SweepRecord(
            command="by hand",
            plan=plan.describe(),
            execution={},
            versions={},
            machine={},
            trials=len(records),
        )
        write_down(directory, records, record)
    said: list[str] = []
    waiting, ended = read_runs(directory, repair=said.append)
    files = trial_files(directory, [record.run for record in (*waiting, *ended)])
    for record in waiting:
        run_trial(files, record, directory)
    analysis.collect(directory)
    return said


def trial_files(directory: Path, runs: list[Run]) -> TrialFiles:
    return TrialFiles(
        runs_dir=str(directory / "runs"),
        threads=1,
        gpus=0,
        checkpoint_seconds=0,
        keep_models=False,
        stop=None,
        secrets={},
        models={kind_of(run.model): type(run.model) for run in runs},
    )


def run_trial(files: TrialFiles, record: RunRecord, directory: Path) -> None:
    """Trains a run to its end as a worker and its driver do."""
    trial = object.__new__(RunTrainable)
    trial.setup({"run_id": record.run_id}, trials=files)
    try:
        result = trial.step()
        while not result["done"]:
            result = trial.step()
    finally:
        trial.cleanup()
    if result["storage"]:
        raise Unfinished(result["storage"])
    times = Times(opened=None, started=None, ended=time.time())
    end = RunEnd.of(record.run_id, result["outcome"], times, result["rows"])
    end.write(directory / "runs" / record.run_id)


def numbers(directory: Path) -> dict[str, tuple[str, str]]:
    """{run id: metrics.jsonl and the end of the run, without what is the clock's}.

    Of all runs that can be read.
    """
    found = {}
    for folder in sorted((directory / "runs").glob("*/")):
        try:
            if own_record(folder) is None:
                continue
        except ValueError:
            continue
        end = RunEnd.read(folder)
        assert end is not None, f"{folder} has no outcome"
        rows = (folder / "metrics.jsonl").read_text()
        rows = re.sub(r'"seconds": [\d.e-]+', '"seconds": 0', rows)
        o = end.outcome
        found[folder.name] = (
            rows,
            f"{o.outcome} {o.step} {o.loss_at_init} {o.final_val_loss} {end.objective}",
        )
    return found
