"""An ended sweep whose law across sizes is known, from records by hand."""

from pathlib import Path

from foretune.tuner.config.resolve import resolve
from foretune.tuner.records.files import MetricsFile
from foretune.tuner.records.journal import describe_all
from foretune.tuner.records.outcome_json import RunEnd
from foretune.tuner.training.outcome import Outcome

LRS = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
STEPS = 20


def described(text, cells, **changes):
    """run.json of (size, LR) cells."""
    data = {"data.name": "text", "data.path": str(text), "data.validation_sequences": 8}
    fields = {"steps": STEPS, "eval_every": 10, **data, **changes}
    runs = [
        resolve("lm-tiny", size=size, overrides={**fields, "optimizer.lr": lr})
        for size, lr in cells
    ]
    return describe_all(runs)


def write_learnt(directory: Path, text, *, critical=0.05, lrs=LRS, **changes) -> Path:
    """Widths 16 to 48 without qk-layernorm, whose largest logit passes 100 at an LR of critical
    (N / 1e4)^-0.5; seed noise none."""
    for run in described(text, [(size, lr) for size in (16, 32, 48) for lr in lrs], **changes):
        _end(directory / "runs" / run.run_id, run, critical)
    return directory


def _end(folder, run, critical):
    lr, steps = run.run.optimizer.lr, run.run.steps
    logit = 100 * (lr / (critical * (run.n_params / 1e4) ** -0.5)) ** 2
    run.write(folder)
    rows = MetricsFile(folder / "metrics.jsonl")
    for step in range(0, steps, steps // 4):
        rows(step, {"loss": 3.0, "max_attention_logit": 3.0 if step == 0 else logit})
    rows.close()
    ends = {"loss_at_init": 6.0, "final_val_loss": 2.5 + 0.001 * logit**0.5}
    outcome = Outcome(outcome="finished", step=steps, reason="all done", **ends)
    RunEnd.of(run.run_id, outcome).write(folder)
