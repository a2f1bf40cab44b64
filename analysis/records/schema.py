"""The columns of a sweep's two tables: what each holds, and in which unit.

The writer lives in `tuner`; this is the schema that it conforms to, kept beside its reader so that
results outlive the version that wrote them.
"""

from types import MappingProxyType
from typing import Final

FORMAT: Final = 1
"""The value of `format` in `sweep.json` that this reader understands."""

UNFINISHED: Final = "unfinished"
"""The outcome of a run that has no `outcome.json` yet."""

OUTCOMES: Final = MappingProxyType(
    {
        "finished": "ran all its steps",
        "diverged": "a loss, gradient or logit stopped being finite",
        "stopped": "ended early by a scheduler or stopper, so its end is unknown",
        "failed": "ended by an error that has nothing to do with divergence",
        UNFINISHED: "has not ended yet, or was killed before it could say how it ended",
    }
)

TRIAL_COLUMNS: Final = MappingProxyType(
    {
        "run_id": "name of the run, a function of its configuration and seed",
        "size": "the ladder's dial; for transformers the width, or what model.ladder says",
        "n_params": "parameters without embedding and head",
        "n_params_total": "all parameters",
        "tokens_per_step": "tokens (or images) in one step",
        "weight_bytes": "bytes of the stored weights: trits at 1.6 bits, the rest as formats say",
        "flops_per_token": "floating-point operations per token, forward and backward",
        "loss_at_init": "validation loss before the first update, nats",
        "final_val_loss": "newest validation loss, nats; after the last step once finished",
        "final_val_accuracy": "newest share of validation images classified rightly; images only",
        "reference_loss": "loss of a model that knows frequencies only (tokens or classes), nats",
        "objective": "min(newest validation loss, loss at init), nats; always finite",
        "diverged": "whether the run ended because a tensor stopped being finite",
        "outcome": "finished, diverged, stopped, failed or unfinished",
        "reason": "why the run ended, a sentence",
        "forecast_probability": "of ending unstable, where it passed the stopper's threshold",
        "forecast_step": "step of that forecast; 0 for a run that wasn't started",
        "audited": "1 where the run ran on to check that forecast, 0 where it was stopped",
        "tensor": "the tensor that stopped being finite, where one did",
        "last_step": "updates made",
        "seconds": "wall-clock time of the run",
        "data_sha256": "hash of the data that was read",
    }
)
"""Columns of `trials.parquet` beside one per field of the configuration, by dotted path."""

TELEMETRY_COLUMNS: Final = MappingProxyType(
    {
        "run_id": "name of the run",
        "step": "updates made before the batch that was measured",
        "loss": "training loss of that batch, nats",
        "val_loss": "validation loss with the parameters after `step` updates, nats",
        "val_accuracy": "share of validation images classified rightly, measured with `val_loss`",
        "lr": "learning rate of update `step`",
        "grad_norm": "global gradient norm before clipping",
        "tokens_seen": "tokens read so far",
        "seconds": "wall-clock time since the run began",
        "max_attention_logit": "largest attention logit over layers, heads and tokens",
        "attention_entropy": "mean entropy of the attention weights, nats",
        "log_z_mean": "mean log of the output softmax's normaliser, nats",
        "logits_rms": "root mean square of the output logits",
        "zero_fraction": "share of ternary weights that are zero",
        "trit_flip_rate": "share of ternary weights that changed since the last reading",
        "weight_scale": "mean scale of the quantized weights",
        "dead_rows": "share of output rows whose quantized weights are all zero",
        "activation_clipped": "share of quantized activations at the end of their range",
    }
)
"""Columns of `telemetry.parquet` that have one name."""

TELEMETRY_FAMILIES: Final = MappingProxyType(
    {
        "max_attention_logit_layer": "largest attention logit of one layer",
        "output_norm_rms_layer": "root mean square of one block's output",
        "grad_rms_": "root mean square of a parameter kind's gradient after clipping",
        "param_rms_": "root mean square of a parameter kind",
        "update_rms_": "root mean square of a parameter kind's update",
        "zero_fraction_": "share of a parameter kind's quantized weights that are zero",
        "weight_scale_": "mean scale of a parameter kind's quantized weights",
        "dead_rows_": "share of a parameter kind's output rows that are all zero",
        "trit_flip_rate_": "share of a parameter kind's trits that changed since the last reading",
    }
)
"""Telemetry columns that come one per layer or parameter kind, by how they begin."""

REQUIRED_TELEMETRY: Final = ("run_id", "step", "loss", "val_loss", "lr", "grad_norm")
"""Columns that the telemetry frame has even when no row fills them."""


def describe(column: str) -> str:
    """What a column of either table holds, with its unit; empty for an unknown column."""
    known = TRIAL_COLUMNS.get(column) or TELEMETRY_COLUMNS.get(column)
    families = (text for stem, text in TELEMETRY_FAMILIES.items() if column.startswith(stem))
    return known or next(families, "")
