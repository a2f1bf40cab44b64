"""When do source A's claims appear that 300 steps at widths 16 to 64 don't show?

Figures 3 and 4 (z-loss, decay), 6 (form of decay) and 12 (epsilon) again: ten times the steps on
CPU cores (`cpu`), a hundred times at the smallest width (`cpu-long`, without epsilon), and a model
of 2.4M parameters, the smallest of the source, on a GPU (`cuda`). `train` needs neither Ray nor
MLflow, so it runs where there is only torch; `plan` and `judge` run where Foretune is installed.
The text is a copy of this Python's library, so that both machines have the same.

    python -m benchmarks.science.long_runs plan DIR
    python -m benchmarks.science.long_runs train DIR --kind cpu --workers 12 --seconds 500
    python -m benchmarks.science.long_runs train DIR --kind cpu-long --workers 2
    python -m benchmarks.science.long_runs train DIR --kind cuda --workers 4 --seconds 500
    python -m benchmarks.science.long_runs judge DIR [--save]
"""

import argparse
import json
import multiprocessing
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from foretune.tuner.data.tokens import standard_library_files
from foretune.tuner.records.files import MetricsFile, write_json
from foretune.tuner.records.outcome_json import RunEnd
from foretune.tuner.records.run_json import describe, from_config, run_id, to_config
from foretune.tuner.training.train import Training

AGAIN = ("fig3", "fig4", "fig6", "fig12")
SEEDS = {"cpu": 2, "cpu-long": 2, "cuda": 1}
"""Seeds of every run, by kind, which begins with the device."""


def scales() -> dict[str, Any]:
    """What runs where: {kind: scale}."""
    from foretune.tuner.reproduce.wortsman.scales import SMALL, TINY

    slow = {"telemetry_every": 25, "telemetry_detail": True}
    cpu = replace(TINY, steps=3000, sizes=(32,), overrides=slow)
    slower = {**slow, "telemetry_every": 250}
    longest = replace(TINY, steps=30_000, sizes=(16,), overrides=slower)
    cuda = replace(SMALL, steps=3000, sizes=(256,), rates=(1e-2, 3e-2, 1e-1, 3e-1))
    fast = {**cuda.overrides, **slow, "precision": "bfloat16"}
    return {"cpu": cpu, "cpu-long": longest, "cuda": replace(cuda, overrides=fast)}


def sweeps(kind: str) -> dict[str, Any]:
    """The sweeps of the figures at a kind's scale: {name: part}."""
    from foretune.tuner.reproduce.wortsman.gradients import epsilons
    from foretune.tuner.reproduce.wortsman.output_logits import outputs
    from foretune.tuner.reproduce.wortsman.weight_decay import decay_forms

    scale = scales()[kind]
    longest = kind == "cpu-long"
    high = replace(scale, rates=scale.rates[-2 if longest else -3 :])
    found = {**outputs(high), **decay_forms(scale)}
    if not longest:
        found |= epsilons(high)
    return {
        name: replace(part, overrides={**part.overrides, **scale.overrides})
        for name, part in found.items()
    }


def plan(directory: Path) -> None:
    """Writes DIR/plan.json, a list of runs per kind, and DIR/text."""
    from foretune.tuner.reproduce.run import plan_part

    text = directory / "text"
    for name, path in standard_library_files():
        (text / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, text / name)
    source = {"data.name": "text", "data.path": str(text)}
    jobs: dict[str, list[dict[str, Any]]] = {}
    for kind in SEEDS:
        jobs[kind] = [
            {"sweep": name, "config": to_config(run)}
            for name, part in sweeps(kind).items()
            for run in plan_part(part, name, seeds=SEEDS[kind], overrides=source).runs()
        ]
        jobs[kind].sort(key=lambda job: job["config"]["seed"])
        print(f"{kind}: {len(jobs[kind])} runs")
    write_json(directory / "plan.json", jobs)


def train_one(job: dict[str, Any], directory: Path, kind: str, deadline: float) -> str:
    """Trains a run unless time is up, in which case it leaves nothing; returns a line on it."""
    run = from_config(job["config"])
    folder = directory / kind / job["sweep"] / "runs" / run_id(run)
    if (folder / "outcome.json").exists() or time.time() > deadline:
        return ""
    if twin := next((directory / kind).glob(f"*/runs/{folder.name}/outcome.json"), None):
        shutil.copytree(twin.parent, folder)
        return f"{job['sweep']} {folder.name} as in {twin.parts[-4]}"
    torch.set_num_threads(1)
    metrics = MetricsFile(folder / "metrics.jsonl")
    training = Training(run, metrics, device=kind.partition("-")[0])
    while training.outcome is None and time.time() < deadline:
        training.advance()
    metrics.close()
    if training.outcome is None:
        shutil.rmtree(folder)
        return ""
    record = replace(describe(run), data_sha256=training.stream.corpus.sha256)
    record.write(folder)
    RunEnd.of(record.run_id, training.outcome).write(folder)
    return f"{job['sweep']} {folder.name} {training.outcome.outcome} {training.seconds:.0f} s"


def train(directory: Path, kind: str, workers: int, seconds: float) -> None:
    """Trains the runs of a kind in order, as many as end in time."""
    jobs = json.loads((directory / "plan.json").read_text())[kind]
    deadline = time.time() + seconds
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        ended = [pool.apply_async(train_one, (job, directory, kind, deadline)) for job in jobs]
        lines = [line for result in ended if (line := result.get())]
    print("\n".join(lines))
    print(f"{kind}: {len(lines)} of {len(jobs)} runs ended within {seconds:g} s")


def judge(directory: Path, *, save: bool) -> int:
    """Prints every claim of the figures at both scales, and draws them."""
    from benchmarks.record import RESULTS, Record
    from foretune import analysis
    from foretune.tuner.reproduce.catalog import FIGURES

    record = Record("long_runs")
    for kind in SEEDS:
        parts = sweeps(kind)
        for figure in AGAIN:
            mine = {n: parts[n] for n in FIGURES[figure].parts["tiny"] if n in parts}
            if not mine or not all((directory / kind / name).is_dir() for name in mine):
                continue
            records = {name: analysis.load(directory / kind / name) for name in mine}
            done = sum(len(each.trials) for each in records.values())
            scale = scales()[kind]
            record.say(
                f"\n{figure}, widths {', '.join(map(str, scale.sizes))}, {scale.steps} steps, "
                f"{done} runs on {kind}"
            )
            judged = FIGURES[figure].judge
            assert judged is not None
            for answer in judged(records, mine).values():
                answer.figure.savefig(directory / f"{figure}_{kind}.png", dpi=110)
                answer.table.to_csv(directory / f"{figure}_{kind}.csv", index=False)
                for claim in answer.claims:
                    record.say(f"{claim.verdict.at_this_scale:>24}  {claim.name}: {claim.sentence}")
    record.close(save=save)
    print(f"figures and tables: {directory}; results: {RESULTS}")
    return 0


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("plan", "train", "judge"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kind", choices=tuple(SEEDS), default="cpu")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    if given.what == "plan":
        plan(given.directory)
    elif given.what == "train":
        train(given.directory, given.kind, given.workers, given.seconds)
    else:
        return judge(given.directory, save=given.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
