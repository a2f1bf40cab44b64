"""Watching any training loop: what it shows by step, and whether it should go on."""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn
from torch.optim import Optimizer

from foretune.analysis.records.run_files import flatten
from foretune.analysis.stats.status import Status
from foretune.tuner.records.run_json import name_of
from foretune.tuner.training.outcome import Outcome
from foretune.tuner.training.readings import Readings
from foretune.tuner.watch.checks import check_step, check_watched, is_broken, number_of
from foretune.tuner.watch.discovery import look_at
from foretune.tuner.watch.forward_reader import ForwardReader
from foretune.tuner.watch.given_config import plain_config, with_facts
from foretune.tuner.watch.live_forecast import LiveForecast
from foretune.tuner.watch.parameter_reader import ParameterReader
from foretune.tuner.watch.ranks import agreed, is_first
from foretune.tuner.watch.run_folder import RunFolder
from foretune.tuner.watch.seen import facts_of, sentences
from foretune.tuner.watch.step_verdict import StepVerdict

LAST_LOSSES = 20
"""Where no validation loss is given, the final loss is the mean of so many training losses."""


class Watch:
    """Watches one training run, of any model, in any loop.

    `step` is called once per update, after the last backward pass and before the update. Every
    `telemetry_every` steps it reads attention logits, block outputs, logits, gradients, parameters
    and updates, and forecasts whether the run will end unstable. It writes the records of a run to
    DIR/runs/<run_id>/, where `foretune report DIR` and the other commands find them. The numbers of
    the training don't change.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        *,
        out: str | Path,
        total_steps: int,
        telemetry_every: int = 10,
        forecast: str | Path | None = None,
        config: Any = None,
        reference_loss: float | None = None,
        false_stops: float = 0.05,
        quiet: bool = False,
    ):
        """Looks at the model, and reads its first forward passes.

        Args:
            model: the model as it is trained, inside DistributedDataParallel or torch.compile, too.
            optimizer: whose learning rate and updates are read; none leaves those out.
            out: a directory; runs of several configs may share it.
            total_steps: updates that the run will have.
            telemetry_every: updates from one reading to the next.
            forecast: none for the shipped one, as far as its horizon goes; the file of another; or
                "none" for no forecast.
            config: what the run is, in any form: a mapping with any keys (`optimizer.lr`,
                `schedule.warmup_steps`, `seed` mean what they do in a sweep), a dataclass, a
                namespace. A run with the same one goes on where one didn't end, and else
                is kept beside it.
            reference_loss: loss of a model without context in nats, such as the entropy of single
                tokens; forecasts are surer with it.
            false_stops: share of healthy runs that may be stopped; one that the forecast was
                calibrated for.
            quiet: whether it prints nothing of what it found.

        Raises ValueError for what it can't watch, a sweep's directory as `out`, and a forecast that
        isn't one.
        """
        check_watched(model, optimizer, total_steps, telemetry_every)
        self.total_steps, self.telemetry_every = total_steps, telemetry_every
        self.found: tuple[str, ...] = ()
        """What was found in the model, and what wasn't, a sentence each; there from the first step
        on."""
        self._quiet = quiet
        self._parts = look_at(model)
        own = getattr(getattr(model, "config", None), "attention", "softmax")
        self._readings = Readings(softmax=own == "softmax")
        self._forward = ForwardReader(model, self._parts, self._readings)
        optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer or ())
        self._optimizers = optimizers
        self._parameters = ParameterReader(self._parts.root, optimizers)
        self._reference = reference_loss
        self._forecast = LiveForecast(forecast, false_stops=false_stops)
        facts = facts_of(
            self._parts, optimizers, steps=total_steps, telemetry_every=telemetry_every
        )
        self._config = with_facts(plain_config(config), facts)
        self._folder = RunFolder(Path(out), name_of(self._config)) if is_first() else None
        self._known: dict[str, Any] = {}
        self._step = -1
        self._losses: list[float] = []
        self._first_loss: float | None = None
        self._val_loss: float | None = None
        self._ended: Outcome | None = None
        self._verdict = StepVerdict(False, status=Status.cannot_tell("no step was read"))
        self._said = self._verdict
        self._forward.begin()

    @property
    def run_dir(self) -> Path | None:
        """The run's folder; None in the processes beside the first one."""
        return self._folder.path if self._folder else None

    def step(
        self,
        step: int,
        loss: float | Tensor,
        lr: float | None = None,
        val_loss: float | Tensor | None = None,
    ) -> StepVerdict:
        """Takes in an update that is about to be made; returns whether the run should end.

        Args:
            step: updates made before, from 0.
            loss: training loss of the batch, in nats.
            lr: learning rate of the update; none reads it off the optimizer.
            val_loss: validation loss before the update, where it was measured.

        Raises ValueError for a step that isn't the next one, and for a loss that is no number.
        """
        number = number_of("loss", loss)
        val_number = None if val_loss is None else number_of("val_loss", val_loss)
        check_step(step, self._step)
        due = self._step < 0 or step % self.telemetry_every == 0
        reading = self._forward.reading
        self._forward.end()
        if self._step < 0:
            self._open(step)
        self._step = step
        if self._ended is None:
            row = {"loss": number, "lr": self._rate(lr)}
            if val_number is not None:
                row["val_loss"] = val_number
            self._take_in(step, row, reading=reading)
        if (step + 1) % self.telemetry_every == 0 and self._ended is None:
            self._forward.begin()
        self._said = agreed(self._verdict, self._said, now=due)
        return self._said

    def _open(self, step: int) -> None:
        """Writes down what the run is, now that its first pass has shown the rest."""
        seen = self._forward.seen
        self.found = sentences(self._parts, seen, self._optimizers)
        self._config = with_facts(
            self._config,
            {
                "model.head_dim": seen.head_dim or None,
                "model.heads": seen.heads or None,
                "data.sequence_length": seen.sequence_length,
                "batch_size": seen.batch_size,
            },
        )
        self._known = flatten(self._config)
        if self._folder is None:
            return
        self._folder.open(
            step,
            {
                "config": self._config,
                "n_params": self._parts.n_params,
                "n_params_total": self._parts.n_params_total,
                "tokens_per_step": seen.tokens,
                "flops_per_token": 6.0 * self._parts.n_params_at_work,
                "watched": list(self.found),
            },
        )
        if not self._quiet:
            print(f"foretune: {self._folder.path}", *self.found, sep="\n  ", file=sys.stderr)

    def _rate(self, lr: float | None) -> float:
        if lr is not None:
            return number_of("lr", lr)
        groups = [group for one in self._optimizers for group in one.param_groups]
        return float(groups[0]["lr"]) if groups else math.nan

    def _take_in(self, step: int, row: dict[str, float], *, reading: bool) -> None:
        """Writes the row of an update, and judges the run by it."""
        if reading:
            row |= self._readings.columns() | self._parameters.columns()
        row["grad_norm"] = self._parameters.grad_norm()
        row |= {"tokens_seen": float(self._forward.seen.tokens * step)}
        broken = next((name for name in row if is_broken(name, row[name])), "")
        value = row.get(broken, math.nan)
        row = {name: value for name, value in row.items() if math.isfinite(value)}
        if self._folder is not None:
            row["seconds"] = round(self._folder.seconds, 6)
            self._folder.append(step, row, now=reading or bool(broken))
        if broken:
            reason = f"{broken} became {value} at step {step}"
            self._verdict = StepVerdict(True, 1.0, reason)
            self._end("diverged", reason, tensor=broken, value=value)
            return
        self._losses = [*self._losses, row["loss"]][-LAST_LOSSES:]
        self._val_loss = row.get("val_loss", self._val_loss)
        if self._first_loss is None:
            self._first_loss = row.get("val_loss", row["loss"])
        verdict = self._forecast.observe(step, row, self._context(row, step))
        self._verdict = verdict if verdict is not None else self._verdict

    def _context(self, row: Mapping[str, float], step: int) -> dict[str, Any]:
        """What a forecast knows of the run besides its rows."""
        rising = self._forecast.warmup(row.get("lr", math.nan), step)
        return {
            "schedule.warmup_steps": rising,
            **self._known,
            "n_params": float(self._parts.n_params),
            "lr": self._known.get("optimizer.lr", self._forecast.peak),
            "total_steps": self.total_steps,
            "steps": self.total_steps,
            "loss_at_init": self._first_loss,
            "reference_loss": self._reference,
        }

    def finish(self) -> Outcome:
        """Writes how the run ended, and returns it; a second call returns the same."""
        self._forward.end()
        if self._ended is None:
            done = self._step + 1
            if self._verdict.stop:
                self._end("stopped", self._verdict.reason)
            elif done >= self.total_steps:
                self._end("finished", f"all {done} steps done")
            else:
                self._end("stopped", f"its loop ended after {done} of {self.total_steps} steps")
        assert self._ended is not None
        return self._ended

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finishes; an error is the run's end as failed, but an interruption isn't an end."""
        self._forward.end()
        if isinstance(error, Exception):
            self._end("failed", f"{type(error).__name__}: {' '.join(str(error).split())}"[:300])
        elif error is None:
            self.finish()
        elif self._folder is not None:
            self._folder.close()

    def _end(
        self, outcome: str, reason: str, *, tensor: str = "", value: float | None = None
    ) -> None:
        if self._ended is not None:
            return
        final = self._val_loss
        if final is None and self._losses:
            final = math.fsum(self._losses) / len(self._losses)
        self._ended = Outcome(
            outcome=outcome,
            step=max(self._step, 0) if outcome == "diverged" else self._step + 1,
            reason=reason,
            tensor=tensor,
            value=value,
            loss_at_init=self._first_loss,
            final_val_loss=final,
            seconds=self._folder.seconds if self._folder else 0.0,
            reference_loss=self._reference,
            forecast=self._forecast.noted,
        )
        if self._folder is not None:
            self._folder.end(self._ended)
