"""Claims: a sweep's wall time is at most 1.25 times the ideal (the sum of its trials' training
seconds over the cores); a trial that reuses an actor starts in less than 50 ms beside building its
model; and its overhead is at least 20 times below that of a plain Ray Tune function trainable that
runs the same `train`.

The sweep is the one users run, space `lr` with MLflow on. Wall time runs from the first trial's
opening to the last outcome, on both sides, so that neither starting Ray nor the first processes
count: that is to the peer's advantage, whose every trial is such a process, and so is that the
peer's training seconds include reading the text anew in each. The peer keeps no files, checkpoints
or records, and reports as often as ours. Overhead of a trial = (wall x cores - training seconds) /
trials. Training seconds are measured in the workers while all cores are busy; ours contain the
writing of metrics.jsonl (the sink).

    python -m benchmarks.speed.overhead [--sizes 16] [--steps 50] [--save]
"""

import argparse
import heapq
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import ray
import torch
from ray import tune

from benchmarks.record import Record
from foretune.search_spaces import lr
from foretune.tuner.config.resolve import resolve
from foretune.tuner.config.run import Run
from foretune.tuner.planning.plan import Plan
from foretune.tuner.records.files import read_json
from foretune.tuner.sweeps.sweep import sweep
from foretune.tuner.training.train import Training, train

CORES = os.cpu_count() or 1
WALL_BOUND, START_BOUND_MS, PEER_BOUND = 1.25, 50.0, 20.0
Ended = list[dict[str, Any]]
"""Per trial: opened, started (its model is built), ended, seconds, width."""


def our_sweep(space: Mapping[str, Any], steps: int) -> Ended:
    """Returns what every trial of a real sweep left in outcome.json, in the order of opening."""
    with tempfile.TemporaryDirectory() as folder:
        result = sweep(dict(space), out=Path(folder) / "sweep", overrides={"steps": steps})
        assert set(result.outcomes) <= {"finished", "diverged"}, result.outcomes
        trials = [
            read_json(path)
            | {"width": read_json(path.parent / "run.json")["config"]["model"]["width"]}
            for path in result.directory.glob("runs/*/outcome.json")
        ]
    return sorted(trials, key=lambda trial: trial["opened"])


class Clock(tune.Callback):
    """Notes when the driver hears of a trial's end, as ours does."""

    def __init__(self) -> None:
        self.ended: dict[str, float] = {}

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial ended."""
        self.ended[trial.trial_id] = time.time()


def peer_sweep(runs: list[Run]) -> Ended:
    """Returns the same of the same runs under a plain function trainable."""

    def trainable(config: dict[str, Any]) -> None:
        opened, run = time.time(), runs[config["index"]]
        torch.set_num_threads(1)

        def sink(step: int, metrics: Mapping[str, float]) -> None:
            if "val_loss" in metrics and 0 < step < run.steps:
                tune.report({"loss": metrics["val_loss"]})

        outcome = train(run, sink, device="cpu")
        tune.report({"loss": outcome.objective, "opened": opened, "seconds": outcome.seconds})

    ray.init(address="local", num_cpus=CORES, include_dashboard=False, logging_level=logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            clock = Clock()
            results = tune.Tuner(
                tune.with_resources(trainable, {"cpu": 1}),
                param_space={"index": tune.grid_search(list(range(len(runs))))},
                run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[clock]),
            ).fit()
            assert not results.num_errors, results.errors
            rows = [result.metrics or {} for result in results]
    finally:
        ray.shutdown()
    return [
        {"opened": r["opened"], "ended": clock.ended[r["trial_id"]], "seconds": r["seconds"]}
        for r in rows
    ]


def wall(trials: Ended) -> float:
    """Returns the seconds from the first opening to the last end."""
    return max(t["ended"] for t in trials) - min(t["opened"] for t in trials)


def overhead_ms(trials: Ended) -> float:
    """Returns the milliseconds of a core that a trial costs beside its training."""
    busy = sum(trial["seconds"] for trial in trials)
    return (wall(trials) * CORES - busy) / len(trials) * 1e3


def build_seconds(widths: set[int], steps: int) -> dict[int, float]:
    """Returns how long a `Training` takes to build in this process, by width."""
    torch.set_num_threads(1)
    seconds: dict[int, float] = {}
    for width in widths:
        run, times = resolve("lm-tiny", size=width, overrides={"steps": steps}), []
        for _ in range(12):
            started = time.perf_counter()
            Training(run, lambda step, metrics: None, device="cpu")
            times.append(time.perf_counter() - started)
        seconds[width] = median(times[2:])
    return seconds


def gaps(trials: Ended) -> list[float]:
    """Returns the seconds between a trial's end and the next opening on the same slot.

    Which slot a trial ran on isn't recorded: the one that has waited longest takes the next.
    """
    free: list[float] = []
    found = []
    for number, trial in enumerate(trials):
        if number >= CORES:
            found.append(trial["opened"] - heapq.heappop(free))
        heapq.heappush(free, trial["ended"])
    return found


def report_start(record: Record, trials: Ended, steps: int) -> None:
    """Says what it costs to start a trial on an actor that is there."""
    build = build_seconds({trial["width"] for trial in trials}, steps)
    reused = trials[CORES:]
    opening = median(t["started"] - t["opened"] - build[t["width"]] for t in reused) * 1e3
    between = median(gaps(trials)) * 1e3
    record.say(f"builds: {', '.join(f'{w}: {build[w] * 1e3:.1f} ms' for w in sorted(build))}")
    record.say(f"start with reuse: {opening:.1f} ms in the worker, {between:.1f} ms between trials")
    cost = opening + between
    text = f"start of a trial with reuse {cost:.1f} < {START_BOUND_MS:g} ms"
    record.claim(text, cost < START_BOUND_MS)


def main() -> int:
    """Runs the sweeps; returns 1 if a claim is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--steps", type=int, default=200, help="updates of a trial")
    parser.add_argument("--peer-size", type=int, default=16, help="width of the peer's runs")
    parser.add_argument("--save", action="store_true", help="write results/overhead.txt")
    arguments = parser.parse_args()
    steps, record = arguments.steps, Record("overhead")
    logging.getLogger("ray").setLevel(logging.ERROR)
    space = {**lr.SPACE, "model.size": tune.grid_search(arguments.sizes)}
    trials = our_sweep(space, steps)
    ideal = sum(trial["seconds"] for trial in trials) / CORES
    record.say(f"sweep: {len(trials)} trials, wall {wall(trials):.2f} s, ideal {ideal:.2f} s")
    ratio = wall(trials) / ideal
    record.claim(f"wall / ideal {ratio:.3f} <= {WALL_BOUND}", ratio <= WALL_BOUND)
    report_start(record, trials, steps)
    same = {**space, "model.size": tune.grid_search([arguments.peer_size])}
    ours = our_sweep(same, steps)
    theirs = peer_sweep(Plan(same, overrides={"steps": steps}).runs())
    for name, side in (("ours", ours), ("Ray Tune function", theirs)):
        record.say(
            f"{name}: {len(side)} trials, wall {wall(side):.2f} s, training "
            f"{sum(t['seconds'] for t in side):.2f} s, overhead {overhead_ms(side):.1f} ms a trial"
        )
    ratio = overhead_ms(theirs) / overhead_ms(ours)
    record.claim(f"overhead against Ray Tune {ratio:.1f} >= {PEER_BOUND:g}", ratio >= PEER_BOUND)
    return record.close(save=arguments.save)


if __name__ == "__main__":
    raise SystemExit(main())
