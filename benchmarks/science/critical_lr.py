r"""Claim: from cheap runs at widths 16 to 64 the critical learning rate at width 128, about 4 times
the parameters of the largest of them, is predicted within 30 % (median over seeds of
|predicted / measured - 1|).

The critical learning rate is where the largest attention logit reaches 100. A sweep of the small
widths without qk-layernorm runs first; the predictions, from each seed's runs alone and from all of
them, are printed before any larger model is trained; then the larger widths are swept and read the
same way. At 16 times N (width 256) the bound is a factor of 1.5 either way, in runs of 500 steps.

    python -m benchmarks.science.critical_lr [--seeds 3] [--sizes 16 32 64] [--predict 128] [--save]
    python -m benchmarks.science.critical_lr --steps 500 --predict 256 \
        --lrs 1e-3 3e-3 1e-2 3e-2 1e-1 3e-1 --name critical_lr_16x --save
"""

import argparse
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from math import isfinite
from pathlib import Path
from statistics import median

import pandas as pd
from ray import tune

from benchmarks.record import Record
from foretune.analysis import Prediction, Records, critical_table, load, predict
from foretune.models import count
from foretune.models.nets.transformer import TransformerConfig
from foretune.tuner.config.resolve import resolve
from foretune.tuner.sweeps.sweep import sweep

LRS = [3e-3, 1e-2, 3e-2, 1e-1, 3e-1]
THRESHOLD = 100.0
ERROR_BOUND, FACTOR_BOUND = 0.30, 1.5
FOUR_TIMES = 4.5
"""Up to this many times N ERROR_BOUND holds, above it FACTOR_BOUND; twice the width is 3.97 to 4.0
times N."""


def n_params(size: int) -> int:
    """Returns N of lm-tiny at a width, without embedding and head."""
    model = resolve("lm-tiny", size=size).model
    assert isinstance(model, TransformerConfig)
    return count(model).n_params


def measure(sizes: Iterable[int], lrs: list[float], seeds: int, steps: int) -> Records:
    """Returns the records of a sweep of these widths without qk-layernorm."""
    space = {
        "optimizer.lr": tune.grid_search(lrs),
        "model.qk_norm": False,
        "model.size": tune.grid_search(list(sizes)),
    }
    with tempfile.TemporaryDirectory() as folder:
        result = sweep(space, out=Path(folder) / "sweep", seeds=seeds, overrides={"steps": steps})
        assert set(result.outcomes) <= {"finished", "diverged"}, result.outcomes
        return load(result.directory)


def of_seed(records: Records, seed: int) -> Records:
    """Returns the records of one seed."""
    trials = records.trials[records.trials["seed"] == seed]
    telemetry = records.telemetry[records.telemetry["run_id"].isin(trials["run_id"])]
    return replace(records, trials=trials, telemetry=telemetry)


def crossings(records: Records) -> pd.DataFrame:
    """Returns the measured critical learning rate by size and seed."""
    return critical_table(records.trials, records.telemetry, threshold=THRESHOLD)


def compare(record: Record, name: str, made: Prediction, measured: list[float]) -> float:
    """Prints a prediction beside the median of what was measured; returns their ratio, or NaN."""
    crossed = [rate for rate in measured if isfinite(rate)]
    if not crossed or not isfinite(made.critical_lr):
        why = "not crossed on the grid" if isfinite(made.critical_lr) else made.status
        record.say(f"{made.size:6.0f}  {name:6s}  cannot tell: {why}")
        return float("nan")
    rate = median(crossed)
    ratio = made.critical_lr / rate
    where = "inside" if made.low <= rate <= made.high else "outside"
    record.say(
        f"{made.size:6.0f}  {name:6s}  {made.critical_lr:9.4g}  {made.low:8.4g} to "
        f"{made.high:<8.4g}  {rate:8.4g}  {ratio:5.2f}  {where}"
    )
    return ratio


def judge(size: int, times: float, ratios: list[float]) -> tuple[str, bool]:
    """Returns the claim about a width, of `times` N, and whether it holds.

    A forecast or a measurement that cannot tell (NaN) is as wrong as can be.
    """
    what = f"width {size} ({times:.1f} x N), median over seeds:"
    if times <= FOUR_TIMES:
        error = median(abs(r - 1) if isfinite(r) else float("inf") for r in ratios)
        return f"{what} error {error:.1%} <= {ERROR_BOUND:.0%}", error <= ERROR_BOUND
    factor = median(max(r, 1 / r) if isfinite(r) else float("inf") for r in ratios)
    return f"{what} factor {factor:.2f} <= {FACTOR_BOUND}", factor <= FACTOR_BOUND


def main() -> int:
    """Predicts, measures and compares; returns 1 if the claim is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--predict", type=int, nargs="+", default=[128])
    parser.add_argument("--steps", type=int, default=200, help="updates of a run")
    parser.add_argument("--lrs", type=float, nargs="+", default=LRS)
    parser.add_argument("--name", default="critical_lr", help="of the file in results/")
    parser.add_argument("--save", action="store_true", help="write results/NAME.txt")
    options = parser.parse_args()
    record, seeds = Record(options.name), range(options.seeds)
    small = measure(options.sizes, options.lrs, options.seeds, options.steps)
    for _, row in crossings(small).iterrows():
        lr = f"{row['critical_lr']:.4g}"
        record.say(f"small runs: width {row['size']:.0f}, seed {row['seed']}: {lr} {row['status']}")
    made: dict[tuple[int, str], Prediction] = {}
    for size in options.predict:
        sources = {f"seed {seed}": of_seed(small, seed) for seed in seeds} | {"pooled": small}
        for name, source in sources.items():
            made[size, name] = predict(
                source, n_params=n_params(size), size=size, threshold=THRESHOLD
            )
            record.say(f"forecast: width {size}, {name}: {made[size, name].critical_lr:.4g}")
    large = crossings(measure(options.predict, options.lrs, options.seeds, options.steps))
    record.say("\n width  runs    predicted  90 % interval         measured  ratio")
    verdicts: list[tuple[str, bool]] = []
    for size in options.predict:
        rates = large[large["size"] == size].set_index("seed")["critical_lr"]
        ratios = [
            compare(record, f"seed {s}", made[size, f"seed {s}"], [float(rates[s])]) for s in seeds
        ]
        compare(record, "pooled", made[size, "pooled"], [float(rates[s]) for s in seeds])
        verdicts.append(judge(size, n_params(size) / n_params(max(options.sizes)), ratios))
    record.claims(verdicts)
    return record.close(save=options.save)


if __name__ == "__main__":
    raise SystemExit(main())
