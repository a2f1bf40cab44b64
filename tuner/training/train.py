"""train(run, sink, restore=None) -> Outcome: plain torch, without Ray or any tracker.

`Training` is the same loop in slices, for who needs to pause it (a Ray trial between reports).
Row `step` of the telemetry describes update `step`: its batch's loss before it, its LR; `val_loss`
there is measured before it, so the row of step 0 holds the loss at init, and the last one
(`step == steps`) only the final validation.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch

from foretune.models.nets.parametrize import parametrize
from foretune.models.quantization.layers import refresh
from foretune.models.quantization.replace import quantize
from foretune.tuner.config.images import ImageData
from foretune.tuner.config.run import Run
from foretune.tuner.data.streams import open_stream, validation_parts
from foretune.tuner.optim.flat_optimizer import FlatOptimizer
from foretune.tuner.optim.flat_parameters import FlatParameters
from foretune.tuner.training.checkpoint import (
    MODEL_FILE,
    open_checkpoint,
    write_checkpoint,
    write_whole,
)
from foretune.tuner.training.devices import pick_device
from foretune.tuner.training.losses import cross_entropy, z_loss
from foretune.tuner.training.outcome import Judge, Outcome, objective
from foretune.tuner.training.own_code import build
from foretune.tuner.training.probes import Probes
from foretune.tuner.training.qk_clip import qk_clip
from foretune.tuner.training.state import set_state, state_of

Sink = Callable[[int, Mapping[str, float]], None]
"""Receives (step, metrics); every value is a finite number."""


def train(
    run: Run,
    sink: Sink,
    restore: Path | None = None,
    *,
    device: str = "auto",
    checkpoint: Path | None = None,
    judge: Judge | None = None,
) -> Outcome:
    """Trains one model to its end and returns how it ended.

    sink is called once per step and once at the end. restore is a checkpoint directory to go on
    from, or one of its files; checkpoint a directory to write to after every validation. device is
    auto, cpu, cuda or cuda:N.
    judge may end the run as `stopped`; one of a restored run must have seen the rows before it.
    The same run on the same machine with the same number of threads gives the same bits. Raises
    ValueError for data that isn't there or a checkpoint of another run; a loss, gradient or logit
    that is not finite is an outcome.
    """
    training = Training(run, sink, device=device, restore=restore, judge=judge)
    while training.outcome is None:
        training.advance()
        if checkpoint is not None and training.outcome is None:
            training.save(checkpoint)
    return training.outcome


class Training:
    """A run in progress: `advance` until `outcome` is there."""

    def __init__(
        self,
        run: Run,
        sink: Sink,
        *,
        device: str = "auto",
        restore: Path | None = None,
        judge: Judge | None = None,
        micro_batch_size: int | None = None,
    ):
        """micro_batch_size goes through at once where memory lacks for the run's own."""
        started = time.perf_counter()
        self.run, self.sink, self.judge = run, sink, judge
        self.micro_batch_size = micro_batch_size or run.micro_batch_size
        self.device = pick_device(device)
        self.on_gpu = self.device.type == "cuda"
        self.stream = open_stream(run.data, batch_size=run.batch_size)
        torch.manual_seed(run.seed)
        self.model = build(run.model)
        rules = parametrize(self.model, run.model, run.parametrization)
        self.quantized = quantize(self.model, run.quantization)
        """Names of the layers that compute in another number format, or have a norm for it."""
        self.model.to(self.device)
        self.flat = FlatParameters(self.model)
        self.optimizer = FlatOptimizer(self.flat, run.optimizer, run.schedule, run.steps, rules)
        self.qk_clip = qk_clip(self.model, run)
        self.probes = Probes(self.model, self.flat, run.probes, detail=run.telemetry_detail)
        self.step = 0
        self.outcome: Outcome | None = None
        self.loss_at_init: float | None = None
        self.val_loss: float | None = None
        self.seconds = 0.0
        self.row: dict[str, float] = {}
        """What is known of update `step` so far."""
        if restore is not None:
            self._load(restore)
        self.seconds += time.perf_counter() - started
        self._clock = time.perf_counter() - self.seconds

    @property
    def objective(self) -> float:
        """What a scheduler sees now, in nats; always finite."""
        lost = self.outcome is not None and self.outcome.diverged
        return objective(self.loss_at_init, self.val_loss, lost=lost)

    def advance(self) -> None:
        """Trains to the next validation, that included, or to the end."""
        self._clock = time.perf_counter() - self.seconds
        if self.loss_at_init is None:
            self._validate()
        while self.outcome is None:
            self._update()
            if self.outcome is None and self._is_validation(self.step):
                self._validate()
                break
        if self.outcome is None and self.step == self.run.steps:
            self.end("finished", f"all {self.run.steps} steps done")
        self.seconds = time.perf_counter() - self._clock

    def end(
        self, outcome: str, reason: str, *, tensor: str = "", value: float | None = None
    ) -> None:
        """Sets the outcome and sends the row that still waits for its update."""
        if self.row:
            self._send(self.row)
        self.outcome = Outcome(
            outcome=outcome,
            step=self.step,
            reason=reason,
            tensor=tensor,
            value=value,
            loss_at_init=self.loss_at_init,
            final_val_loss=self.val_loss,
            seconds=time.perf_counter() - self._clock,
            data_sha256=self.stream.corpus.sha256,
            reference_loss=self.stream.corpus.reference_loss,
            forecast=self.judge.forecast if self.judge else None,
        )

    def _is_validation(self, step: int) -> bool:
        return step % self.run.eval_every == 0 or step == self.run.steps

    def _update(self) -> None:
        """One optimizer update and its row."""
        step, row = self.step, self.row
        telemetry = step % self.run.telemetry_every == 0
        with self._watching(telemetry):
            row["loss"] = self._forward_backward(step)
        row["grad_norm"] = self.optimizer.clip(row["loss"])
        if telemetry:
            row |= self.probes.columns() | self.probes.gradients() | self.probes.parameters()
            row |= self.probes.second_moments(self.optimizer)
        if self._diverged(row):
            return
        row["lr"] = self.optimizer.step(step)
        row |= self.optimizer.columns()
        if self.qk_clip is not None:
            row["qk_clipped_heads"] = 0 if self.optimizer.skipping else self.qk_clip.clip()
        if telemetry and not self.optimizer.skipping:
            row |= self.probes.updates(self.optimizer)
            if self._diverged(row):
                return
        self._send(row)
        self.step += 1
        # After the last update there is nothing left to save.
        why = self.judge(step, row) if self.judge and self.step < self.run.steps else ""
        if why:
            self._validate()  # How far it got: the bound that analyses have of its end.
            if self.outcome is None:
                self.end("stopped", why)

    def _watching(self, telemetry: bool) -> ExitStack:
        watching = ExitStack()
        if self.qk_clip is not None:
            watching.enter_context(self.qk_clip.watching())
        if telemetry:
            watching.enter_context(self.probes.watching())
        return watching

    def _forward_backward(self, step: int) -> float:
        """Accumulates the gradients of batch `step`; returns its mean cross-entropy in nats."""
        inputs_B, targets_B = self.stream.batch(self.run.seed, step)
        self._refresh_grids()
        parts = self.run.batch_size // self.micro_batch_size
        total = 0.0
        for inputs, targets in zip(inputs_B.chunk(parts), targets_B.chunk(parts), strict=True):
            logits = self._logits(inputs)
            loss = cross_entropy(logits, targets.to(self.device))
            total += float(loss.detach())
            if self.run.loss.z_loss:
                loss = loss + self.run.loss.z_loss * z_loss(logits)
            (loss / parts if parts > 1 else loss).backward()
        return total / parts

    def _refresh_grids(self) -> None:
        """Puts the weights as they are on their grids, for all forward passes until they change."""
        if self.quantized:
            refresh(self.model, self.run.quantization.strength_at(self.step, self.run.steps))

    def _logits(self, inputs: torch.Tensor) -> torch.Tensor:
        autocast = self.run.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if autocast else nullcontext():
            return self.model(inputs.to(self.device))

    @torch.no_grad()
    def _validate(self) -> None:
        """Puts the mean cross-entropy of the fixed validation samples into the waiting row.

        For images the share that is classified rightly, too.
        """
        self.model.eval()
        self._refresh_grids()
        loss, right, samples = 0.0, 0, len(self.stream.validation[0])
        for some, answers in validation_parts(self.run, self.stream, self.micro_batch_size):
            logits, answers = self._logits(some), answers.to(self.device)
            loss += float(cross_entropy(logits, answers)) * len(some)
            right += int((logits.argmax(-1) == answers).sum())
        self.model.train()
        self.row["val_loss"] = loss / samples
        if isinstance(self.run.data, ImageData):
            self.row["val_accuracy"] = right / samples
        if self._diverged(self.row):
            return
        self.val_loss = self.row["val_loss"]
        if self.loss_at_init is None:
            self.loss_at_init = self.val_loss

    def _diverged(self, row: dict[str, float]) -> bool:
        """Ends the run if a value of the row isn't finite; only finite ones are sent."""
        broken = [name for name in row if not math.isfinite(row[name])]
        if not broken:
            return False
        # The cause before its effects: a probe's column says more than the loss it spoiled.
        tensor = min(broken, key=lambda name: (name in ("loss", "grad_norm"), name == "grad_norm"))
        value = row[tensor]
        for name in broken:
            del row[name]
        where = self.flat.first_broken()
        reason = f"{tensor} became {value} at step {self.step}{where}"
        self.end("diverged", reason, tensor=tensor, value=value)
        return True

    def _send(self, row: dict[str, float]) -> None:
        tokens = self.run.batch_size * self.run.data.predictions * self.step
        seconds = time.perf_counter() - self._clock
        self.sink(self.step, {**row, "tokens_seen": tokens, "seconds": round(seconds, 6)})
        self.row = {}

    def save(self, directory: Path, *, rows: Mapping[str, Any] | None = None) -> None:
        """Writes the newest good state to directory, whole or not at all.

        rows says of the telemetry so far what `MetricsFile.sync` returns, to be held against it
        when the run goes on. The checkpoint before stays beside it.
        """
        # After the end there is nothing to go on with, and a diverged state isn't a good one.
        assert self.outcome is None, f"a run that is {self.outcome.outcome} has no state to save"
        write_checkpoint(directory, state_of(self, rows))

    def save_model(self, directory: Path) -> None:
        """Writes the weights of the finished run to directory, whole or not at all."""
        outcome = self.outcome.outcome if self.outcome else "unfinished"
        assert outcome == "finished", f"a run that is {outcome} has no final weights"
        write_whole(directory / MODEL_FILE, self.model.state_dict())

    def _load(self, restore: Path) -> None:
        path, state = open_checkpoint(restore, self.device)
        set_state(self, state, path)
