"""Sweeps with a known truth, written to disk in the format that training writes.

The critical learning rate at N parameters is `LR_AT_1E5 * (N / 1e5) ** SLOPE`, times a seed's own
factor. Without qk-layernorm the logit crosses 100 there and the loss begins to suffer; with it
neither happens inside the usual grid.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SLOPE = -0.5
LR_AT_1E5 = 0.018
GRID = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
LOSS_AT_INIT = 6.35
STEPS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """One run: what it was given, and how it ended."""

    width: int = 32
    lr: float = 1e-2
    seed: int = 0
    qk_norm: bool = False
    steps: int = STEPS
    outcome: str | None = "finished"
    last_step: int | None = None
    logits: bool = True
    seed_dex: float = 0.0
    gap: float = 0.0
    """Added to the final loss, nats."""
    extra: tuple[tuple[str, Any], ...] = ()

    @property
    def n_params(self) -> int:
        # qk-layernorm brings gains of its own.
        return 12 * self.width**2 * 3 + (96 if self.qk_norm else 0)

    @property
    def run_id(self) -> str:
        extra = "".join(f"-{value}" for _, value in self.extra)
        norm = "qk" if self.qk_norm else "none"
        return f"w{self.width}-lr{self.lr:g}-s{self.seed}-{norm}{extra}"

    @property
    def critical_lr(self) -> float:
        return critical_lr(self.n_params) * 10**self.seed_dex


def critical_lr(n_params: float) -> float:
    return LR_AT_1E5 * (n_params / 1e5) ** SLOPE


def final_loss(truth: Truth) -> float:
    """Under-training at low learning rates, and damage past the critical one; nats."""
    best = 2.1 * (truth.n_params / 1e5) ** -0.04
    slow = 0.15 * np.log10(max(1e-2 / truth.lr, 1.0)) ** 2
    past = np.log10(truth.lr / truth.critical_lr)
    # 0.1 nats where the logit meets 100.
    damage = 0.9 / (1 + 8 * 10 ** (-1.6 * past)) if not truth.qk_norm else 0.0
    mild = 0.04 * np.log10(max(truth.lr / 1e-2, 1.0)) ** 2
    return float(best + slow + damage + mild + truth.gap)


def logit(truth: Truth, step: int) -> float:
    """Rises over the first quarter of the run and stays."""
    share = min(1.0, step / (0.25 * truth.steps))
    if truth.qk_norm:
        end = 6.0 * (truth.lr / 1e-3) ** 0.35
    else:
        past = np.log10(truth.lr / truth.critical_lr)
        end = 100 * 10 ** (2.4 * past if past > 0 else 1.8 * past)
    return float(3.0 ** (1 - share) * end**share)


def write_run(root: Path, truth: Truth) -> Path:
    """Writes `run.json`, `metrics.jsonl` and, once ended, `outcome.json`."""
    folder = root / "runs" / truth.run_id
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(run_json(truth)))
    last = truth.steps if truth.last_step is None else truth.last_step
    rows = [_row(truth, step) for step in range(last)]
    if truth.outcome == "finished":
        rows.append({"step": truth.steps, "val_loss": final_loss(truth)})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text)
    if truth.outcome is not None:
        (folder / "outcome.json").write_text(json.dumps(_outcome(truth, rows, last)))
    return folder


def run_json(truth: Truth) -> dict[str, Any]:
    config: dict[str, Any] = {
        "seed": truth.seed,
        "steps": truth.steps,
        "batch_size": 8,
        "micro_batch_size": None,
        "eval_every": 10,
        "telemetry_every": 1,
        "precision": "fp32",
        "model": {
            "kind": "transformer",
            "width": truth.width,
            "depth": 3,
            "head_dim": 16,
            "qk_norm": truth.qk_norm,
        },
        "data": {"name": "stdlib", "path": None, "sequence_length": 64},
        "optimizer": {"name": "adamw", "lr": truth.lr, "weight_decay": 1e-4, "clip_norm": 1.0},
        "schedule": {"name": "cosine", "warmup_steps": 2, "final_lr": 0.0},
        "loss": {"z_loss": 0.0},
        "parametrization": {"name": "standard", "base_width": 16},
    }
    for path, value in truth.extra:
        section, _, name = path.rpartition(".")
        (config.setdefault(section, {}) if section else config)[name] = value
    return {
        "run_id": truth.run_id,
        "config": config,
        "size": truth.width,
        "n_params": truth.n_params,
        "n_params_total": truth.n_params + 512 * truth.width,
        "tokens_per_step": 512,
        "flops_per_token": 6.0 * truth.n_params,
    }


def _row(truth: Truth, step: int) -> dict[str, Any]:
    loss = LOSS_AT_INIT + (final_loss(truth) - LOSS_AT_INIT) * step / truth.steps
    row: dict[str, Any] = {
        "step": step,
        "loss": loss,
        "lr": truth.lr * min(1.0, (step + 1) / 2),
        "grad_norm": 1.0,
        "tokens_seen": 512 * (step + 1),
        "seconds": 0.1 * (step + 1),
    }
    if truth.logits:
        row["max_attention_logit"] = logit(truth, step)
        row["max_attention_logit_layer0"] = logit(truth, step)
    if step % 10 == 0:
        row["val_loss"] = loss
    return row


def _outcome(truth: Truth, rows: list[dict[str, Any]], last: int) -> dict[str, Any]:
    newest = next((row["val_loss"] for row in reversed(rows) if "val_loss" in row), None)
    lost = truth.outcome in ("diverged", "failed") or newest is None
    reasons = {
        "diverged": "the loss stopped being finite",
        "stopped": "stopped by the scheduler",
        "failed": "<OutOfMemory> & so on",
    }
    return {
        "run_id": truth.run_id,
        "outcome": truth.outcome,
        "step": last,
        "reason": reasons.get(str(truth.outcome), ""),
        "tensor": "loss" if truth.outcome == "diverged" else "",
        "value": "nan" if truth.outcome == "diverged" else None,
        "loss_at_init": LOSS_AT_INIT if rows else None,
        "final_val_loss": newest,
        "reference_loss": 3.12,
        "objective": LOSS_AT_INIT if lost or newest is None else min(newest, LOSS_AT_INIT),
        "seconds": 0.1 * last,
        "data_sha256": "ab" * 32,
    }


def write_sweep(
    root: Path,
    *,
    widths: tuple[int, ...] = (16, 32, 64),
    lrs: tuple[float, ...] = GRID,
    seeds: tuple[int, ...] = (0,),
    qk_norms: tuple[bool, ...] = (False, True),
    noise: float = 0.0,
    rng: int = 0,
    **settings: Any,
) -> Path:
    """A grid of runs; `noise` is the spread (dex) of each size and seed's own factor."""
    start_sweep(root)
    generator = np.random.default_rng(rng)
    for width in widths:
        for seed in seeds:
            shift = float(generator.normal(0, noise)) if noise else 0.0
            for lr in lrs:
                for norm in qk_norms:
                    run = Truth(
                        width=width, lr=lr, seed=seed, qk_norm=norm, seed_dex=shift, **settings
                    )
                    write_run(root, run)
    return root


def start_sweep(root: Path) -> Path:
    """The directory with its `sweep.json` and no run."""
    (root / "runs").mkdir(parents=True)
    sweep = {
        "format": 1,
        "command": "foretune sweep lr --preset lm-tiny --sizes 16 32 64 --out <DIR>",
        "created": "2026-11-02T10:00:00+00:00",
        "space_name": "lr",
        "space": {"optimizer.lr": list(GRID), "model.qk_norm": [False, True]},
        "preset": "lm-tiny",
        "search": "grid",
        "scheduler": "none",
        "seed": 0,
        "versions": {"foretune": "0.1.0", "torch": "2.14.1", "ray": "2.60.0"},
        "commit": "0123abc",
        "machine": {"cpus": 2, "platform": "linux"},
    }
    (root / "sweep.json").write_text(json.dumps(sweep))
    return root
