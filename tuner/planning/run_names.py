"""Short names of runs: the fields in which they differ."""

from collections.abc import Mapping
from typing import Any

from foretune.tuner.config.override import dotted
from foretune.tuner.config.quantizers import QUANTIZERS, nearest_name
from foretune.tuner.config.resolve import QUANTIZER
from foretune.tuner.config.run import Run
from foretune.tuner.records.run_json import run_id
from foretune.tuner.tracking.short_names import usual_values


def name_runs(runs: list[Run]) -> dict[str, str]:
    """Returns a short name for every run, by run id: the fields in which they differ.

    A number format goes by its quantizer's name and what is unlike that quantizer. Where runs
    differ in many fields, what nearly all have is left out of a name.
    """
    flat = {run_id(run): _named_fields(run) for run in runs}
    paths = list(next(iter(flat.values()))) if flat else []
    varying = [p for p in paths if len({repr(f.get(p)) for f in flat.values()}) > 1]
    shown = [p for p in varying if not all(_is_in_name(f, p) for f in flat.values())]
    usual = usual_values({p: [repr(f.get(p)) for f in flat.values()] for p in shown})
    return {
        name: " ".join(
            f"{p.rpartition('.')[2]}={short(fields.get(p))}"
            for p in shown
            if repr(fields.get(p)) != usual.get(p)
        )
        or name
        for name, fields in flat.items()
    }


def _named_fields(run: Run) -> dict[str, Any]:
    return {QUANTIZER: nearest_name(dotted(run.quantization)), **dotted(run)}


def _is_in_name(fields: Mapping[str, Any], path: str) -> bool:
    """Whether a field of the quantization is that of the quantizer that was named."""
    group, _, field = path.partition(".")
    own = QUANTIZERS[fields[QUANTIZER]].fields
    return group == "quantization" and own[field] == fields[path]


def short(value: Any) -> str:
    """Returns a value in a run's short name."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
