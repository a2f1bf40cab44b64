"""The table that a sweep ends with: LR sensitivity by number format, other factors and size."""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from foretune import analysis
from foretune.tuner.config.quantizers import QUANTIZERS, nearest_name

GROUP: Final = "quantization."
NUMBERS: Final = ["sensitivity", "low", "high", "best_lr", "best_loss", "high_side"]
UNSHOWN: Final = ["family", "n_seeds", "n_lr", "status"]
HEAD: Final = "LR sensitivity in nats (0: the LR doesn't matter), low-high its 90 % interval"


def end_table(trials: pd.DataFrame) -> str:
    """Returns the LR-sensitivity table as text, with what its gaps mean; nothing without trials."""
    table = _with_names(analysis.sensitivity_table(trials), trials)
    known = table[table[NUMBERS].notna().any(axis=1)]
    lines = []
    if len(known):
        shown = known.drop(columns=UNSHOWN).rename(columns={"high_side": "from the best LR up"})
        text = shown.to_string(index=False, float_format=lambda x: f"{x:.3g}", na_rep="-")
        lines += [HEAD, text]
    if known[NUMBERS].isna().any(axis=None):
        lines.append("-: this takes two learning rates or more.")
    if len(known) < len(table):
        lines.append(f"Left out: {_left_out(table.drop(index=known.index))}.")
    return "\n".join(lines)


def stops(trials: pd.DataFrame) -> str:
    """Returns what the forecasts did, as lines; nothing where they did nothing."""
    fired = trials[trials["forecast_probability"].notna()]
    kept = fired[fired["audited"] == 1]
    ended = fired[(fired["audited"] == 0) & (fired["outcome"] == "stopped")]
    begun, skipped = ended[ended["last_step"] > 0], ended[ended["last_step"] == 0]
    saved, total = (ended["steps"] - ended["last_step"]).sum(), trials["steps"].sum()
    lines = []
    if len(fired):
        unbegun = f", {len(skipped)} not started" if len(skipped) else ""
        lines.append(
            f"forecast: {len(begun)} stopped{unbegun}; {saved:,.0f} of {total:,.0f} steps "
            f"({saved / total:.0%}) saved"
        )
    if len(kept):
        losses = f"{kept['final_val_loss'].min():.3f} to {kept['final_val_loss'].max():.3f}"
        lines.append(
            f"audit: {len(kept)} more would have been stopped and ran on, to losses of {losses} "
            f"(the best of the sweep: {trials['final_val_loss'].min():.3f})"
        )
    return "\n".join(lines)


def _left_out(rows: pd.DataFrame) -> str:
    where = " ".join(f"{size:g}" for size in sorted(rows["size"].unique()))
    count = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    return f"{count} without a trial that has a loss, of size {where}"


def _with_names(table: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """One column with the quantizer's name instead of the fields that it tells."""
    varying = [name for name in table if name.startswith(GROUP)]
    if not varying:
        return table
    constant = [name for name in trials if name.startswith(GROUP) and name not in varying]
    rows = [
        _fields({**trials.iloc[0][constant], **row}) for row in table[varying].to_dict("records")
    ]
    names = [nearest_name(row) for row in rows]
    named = table.drop(columns=[name for name in varying if _is_told(name, names, rows)])
    named.insert(0, "quantizer", names)
    return named


def _fields(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(GROUP): value for name, value in columns.items()}


def _is_told(column: str, names: list[str], rows: list[dict[str, Any]]) -> bool:
    """Whether each row has in this column what the quantizer of its name has."""
    field = column.removeprefix(GROUP)
    own = [QUANTIZERS[name].fields.get(field) for name in names]
    return own == [row[field] for row in rows]
