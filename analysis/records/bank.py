"""A bank of finished runs: several sweeps as two tables, frozen, with where they came from.

`trials.parquet` and `telemetry.parquet` as `analysis.records.load` has them, with a column `part`
(the sweep's name) in the first, the second to five digits; `bank.json` holds command, versions,
hashes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from foretune.analysis.records.load import load
from foretune.whole_files import atomic_write

FILES = ("trials.parquet", "telemetry.parquet")
DROPPED = ("seconds", "tokens_seen", "lr")
"""Telemetry that says nothing about stability or follows from the configuration."""
MANTISSA_BITS, KEPT_BITS = 23, 15
"""Of float32, and of what is kept: a relative error of 2^-16."""
MOST_BYTES = 40 * 2**20
"""A bank that is larger doesn't belong into a repository."""


@dataclass(frozen=True, slots=True)
class Bank:
    """What a bank holds."""

    trials: pd.DataFrame
    """One row per run, with the column `part`."""
    telemetry: pd.DataFrame
    """One row per run and step, sorted by both."""
    facts: dict[str, Any]
    """The content of `bank.json`."""


def freeze(parts: Mapping[str, Path], out: Path, *, command: str = "") -> str:
    """Writes the bank of several sweeps to a folder; returns a sentence on what it holds.

    Raises ValueError where a run has no outcome yet, or the bank is too large.
    """
    records = {name: load(directory) for name, directory in parts.items()}
    trials = pd.concat([r.trials.assign(part=name) for name, r in records.items()])
    waiting = trials["outcome"].eq("unfinished")
    if waiting.any():
        raise ValueError(
            f"a bank must hold ended runs, got {int(waiting.sum())} without an outcome in "
            f"{', '.join(trials.loc[waiting, 'part'].unique())}; give the same command again."
        )
    # The same run can belong to two sweeps; the first one keeps it.
    trials = trials.drop_duplicates("run_id").reset_index(drop=True)
    telemetry = pd.concat([r.telemetry for r in records.values()])
    telemetry = telemetry.drop_duplicates(["run_id", "step"]).drop(columns=[*DROPPED])
    telemetry = telemetry.sort_values(["run_id", "step"]).reset_index(drop=True)
    out.mkdir(parents=True, exist_ok=True)
    for name, frame in zip(FILES, (trials, _shortened(telemetry)), strict=True):
        with atomic_write(out / name, shared=True) as partial:
            _write(frame, partial)
    sweeps = {name: r.sweep for name, r in records.items()}
    facts = {
        "command": command,
        "runs": len(trials),
        "by_part": {k: int(v) for k, v in trials["part"].value_counts(sort=False).items()},
        "created": {name: s.get("created") for name, s in sweeps.items()},
        "commit": sorted({str(s.get("commit")) for s in sweeps.values()}),
        "versions": next(iter(sweeps.values())).get("versions"),
        "seed": {name: s.get("seed") for name, s in sweeps.items()},
        "data_sha256": sorted({str(h) for h in trials["data_sha256"].unique()}),
        "sha256": {name: _hash(out / name) for name in FILES},
    }
    (out / "bank.json").write_text(json.dumps(facts, indent=1) + "\n")
    size = sum((out / name).stat().st_size for name in FILES)
    if size > MOST_BYTES:
        raise ValueError(f"a bank must take at most {MOST_BYTES:,} bytes, got {size:,} in {out}.")
    return f"{len(trials)} runs of {len(parts)} sweeps frozen in {out}, {size / 2**20:.1f} MB"


def read_bank(directory: Path) -> Bank:
    """Returns a bank; ValueError where a file is missing or isn't the one that was frozen."""
    for name in (*FILES, "bank.json"):
        if not (directory / name).is_file():
            raise ValueError(
                f"a bank must hold {', '.join(FILES)} and bank.json, got {directory} without "
                f"{name}; foretune reproduce bank makes one."
            )
    facts = json.loads((directory / "bank.json").read_text())
    for name in FILES:
        if _hash(directory / name) != facts["sha256"][name]:
            raise ValueError(
                f"{directory / name} must be the file that was frozen, got another content; "
                f"restore it, or make the bank again."
            )
    trials, telemetry = (pd.read_parquet(directory / name) for name in FILES)
    return Bank(trials, telemetry, facts)


def _shortened(telemetry: pd.DataFrame) -> pd.DataFrame:
    """The numbers in float32 with `KEPT_BITS` of mantissa, which compress to a third."""
    wide = telemetry.select_dtypes("float64").columns
    frame = telemetry.astype({name: "float32" for name in wide} | {"run_id": "category"})
    dropped = MANTISSA_BITS - KEPT_BITS
    for name in wide:
        bits = frame[name].to_numpy().view(np.uint32)
        rounded = (bits + np.uint32(1 << (dropped - 1))) & ~np.uint32((1 << dropped) - 1)
        finite = np.isfinite(frame[name].to_numpy())
        frame[name] = np.where(finite, rounded.view(np.float32), frame[name].to_numpy())
    return frame


def _write(frame: pd.DataFrame, path: Path) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    single = [field.name for field in table.schema if pa.types.is_float32(field.type)]
    others = [name for name in table.column_names if name not in single]
    # Bytes of equal weight lie together: exponents hardly change from row to row.
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=9,
        use_dictionary=others,
        use_byte_stream_split=single,
    )


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
