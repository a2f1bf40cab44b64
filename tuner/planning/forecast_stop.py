"""The forecast as a stopper: what a worker must know of it, and the judge of one run.

A judge sees the rows of its run and nothing else, so it decides where the run is trained, at the
very step, and the rows of an interrupted run restore it. `analysis` (1.3 s) is loaded only where a
stopper is asked for.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.argument_error import spelled
from foretune.models import MODELS, Tap
from foretune.tuner.config.run import Run
from foretune.tuner.data.streams import load_source
from foretune.tuner.planning.execution import Stopping
from foretune.tuner.records.run_json import describe, run_id, to_config
from foretune.tuner.training.outcome import Judge
from foretune.whole_files import atomic_write

if TYPE_CHECKING:
    from foretune.analysis.inside_run.stopping import StopRule

FORECAST_FILE = "forecast.json"
"""A sweep's own copy of the fitted model: a resume must not judge by a newer one."""
TESTED = 16.0
"""Times the fitted sizes up to which the forecast was scored on runs held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastStop:
    """How a forecast may end runs."""

    model: str
    """File of the fitted model."""
    false_stops: float
    """Share of healthy runs that may be stopped; the model must be calibrated for it."""
    audit: float
    """Share of the runs to be stopped that run on to their end, to check the forecast."""

    def rule(self, run: Run) -> "StopRule":
        """Returns the rule for one run; ValueError where the model isn't calibrated for it."""
        from foretune.analysis.inside_run.landmark import read_landmarks
        from foretune.analysis.inside_run.stopping import StopRule

        model = read_landmarks(Path(self.model))
        return StopRule(context_of(run), false_stops=self.false_stops, model=model)

    def problem(self, run: Run) -> str:
        """Returns why the forecast can tell nothing of a run, a clause; nothing where it can."""
        if not has_attention(run.model):
            return "it reads attention logits, which the model doesn't have"
        if run.telemetry_every >= run.steps:
            return (
                f"telemetry_every={run.telemetry_every} reads the attention logits of {run.steps} "
                f"steps once, before the first update"
            )
        return self.rule(run).horizon_problem()

    def judge(self, run: Run, past: Iterable[Mapping[str, Any]] = ()) -> Judge | None:
        """Returns the judge of a run, past being its rows so far; None where it can't tell."""
        if self.problem(run):
            return None
        judge = ForecastJudge(self.rule(run), audited=is_audited(run_id(run), self.audit))
        for row in past:
            judge(row["step"], row)
        return judge


def judge_in(run_dir: Path, run: Run, stop: ForecastStop | None) -> Judge | None:
    """Returns the judge of a run that begins or goes on in its directory; None for none."""
    if stop is None:
        return None
    from foretune.analysis.records.run_files import read_metrics

    return stop.judge(run, read_metrics(run_dir / "metrics.jsonl"))


class ForecastJudge:
    """Ends a run where the forecast passes its threshold, or only notes it where it is audited."""

    def __init__(self, rule: "StopRule", *, audited: bool):
        self.forecast: dict[str, Any] | None = None
        self._rule, self._audited = rule, audited

    def __call__(self, step: int, row: Mapping[str, float]) -> str:
        """Takes in a row; returns the reason to end the run, or nothing."""
        from foretune.analysis.inside_run.stopping import noted

        if step == 0:
            self._rule.context["loss_at_init"] = row["val_loss"]
        if self.forecast is None:
            found = self._rule.observe(step, row)
            if found is not None:
                self.forecast = noted(
                    found, threshold=self._rule.threshold, step=step, audited=self._audited
                )
        return "" if self.forecast is None or self._audited else self.forecast["reason"]


def context_of(run: Run) -> dict[str, Any]:
    """Returns what a forecast knows of a run: `analysis.evaluation.backtest.context_of`, before
    its end."""
    from foretune.analysis.records.run_files import flatten

    record = describe(run)
    return {
        **flatten(record.config),
        "n_params": record.n_params,
        "lr": run.optimizer.lr,
        "total_steps": run.steps,
        "reference_loss": load_source(run.data).reference_loss,
    }


def is_audited(name: str, share: float) -> bool:
    """Whether a run is among the share that runs on; the same at every call, whatever the sweep."""
    digits = hashlib.sha256(f"audit {name}".encode()).hexdigest()[:12]
    return int(digits, 16) < share * 16**12


def has_attention(model: Any) -> bool:
    """Whether a model shows attention logits to probes."""
    from foretune.analysis.measures.signal import WITHOUT_ATTENTION

    kind = to_config(model)["kind"]
    if kind in MODELS:
        return kind not in WITHOUT_ATTENTION
    return any(m.kind == "attention" for m in model.build().modules() if isinstance(m, Tap))


def stopper_of(stopping: Stopping, directory: Path | None = None) -> ForecastStop | None:
    """Returns the stopper of a sweep, None for none.

    A directory is given a copy of the model, if it has none yet, and its copy judges. Raises
    ValueError where the model isn't calibrated for so few false stops.
    """
    if stopping.stopper == "none":
        return None
    from foretune.analysis.inside_run.landmark import SHIPPED, read_landmarks
    from foretune.analysis.inside_run.stopping import threshold_of

    path = SHIPPED if directory is None else directory / FORECAST_FILE
    if not path.exists():
        with atomic_write(path) as partial:
            partial.write_bytes(SHIPPED.read_bytes())
    threshold_of(read_landmarks(path), stopping.false_stops)
    return ForecastStop(model=str(path), false_stops=stopping.false_stops, audit=stopping.audit)


def limits(stop: ForecastStop, runs: list[Run]) -> list[str]:
    """Returns a sentence for each reason why some runs can't be judged, or hardly."""
    problems = [stop.problem(run) for run in runs]
    option = f"{spelled('stopper')} forecast"
    sentences = [
        f"{option} cannot tell for {problems.count(why)} of {len(runs)} runs, which run "
        f"without it: {why}."
        for why in dict.fromkeys(problems)
        if why
    ]
    judged = [run for run, why in zip(runs, problems, strict=True) if not why]
    times = [factor for run in judged if (factor := stop.rule(run).extrapolation) > 1]
    if times:
        far = f", and beyond {TESTED:g} times was never tested" if max(times) > TESTED else ""
        sentences.append(
            f"{option} extrapolates for {len(times)} of {len(runs)} runs: their sizes "
            f"are up to {max(times):.3g} times beyond those that it was fitted on{far}."
        )
    return sentences
