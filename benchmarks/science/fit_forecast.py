"""Fits the forecast inside a run on the `fit` split of the bank and stores it beside the code.

python -m benchmarks.science.fit_forecast [--bank benchmarks/bank] [--out analysis/forecast.json]
"""

import argparse
from pathlib import Path

from foretune.analysis.evaluation.cures import write_cures
from foretune.analysis.evaluation.fitting import fit_cures, fit_forecast
from foretune.analysis.inside_run.landmark import SHIPPED
from foretune.analysis.records.bank import read_bank

BANK = Path(__file__).resolve().parents[1] / "bank"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    bank = read_bank(arguments.bank)
    facts = {
        "bank_sha256": bank.facts["sha256"],
        "command": "python -m benchmarks.science.fit_forecast",
    }
    model = fit_forecast(bank.trials, bank.telemetry, facts=facts)
    arguments.out.write_text(model.to_json())
    about = model.about
    print(
        f"fitted on {about['runs']} runs, {about['unstable']} of them unstable; thresholds from "
        f"{about['healthy_configurations']} healthy configurations: {about['thresholds']}"
    )
    print(f"written: {arguments.out}")
    cures = fit_cures(bank.trials, bank.telemetry)
    write_cures(cures, arguments.out.with_name("cures.json"))
    for cure in cures:
        print(
            f"{cure.fix}: {cure.twins} twins, worth it in {cure.worth_it}; P > {cure.threshold:.2f}"
        )
    print(f"written: {arguments.out.with_name('cures.json')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
