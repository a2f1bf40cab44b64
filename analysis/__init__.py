"""Foretune's analysis: from a sweep's files to sensitivities, laws, forecasts and a page.

Reads files only; torch, Ray and MLflow are never needed. Drawing is loaded when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from analysis.attenuation import attenuation
from analysis.critical import critical_table, read_signal, window_check
from analysis.critical_law import CriticalLaw, fit_critical_lr
from analysis.crossing import Crossing, critical_lr, excess_crossing
from analysis.divergence import PREDICTORS
from analysis.families import factors, families
from analysis.forecast import Forecast, Predictor
from analysis.laws import FORMS, Estimate, Law, fit
from analysis.prediction import Prediction, predict, read_prediction
from analysis.records import Records, collect, load
from analysis.scale_backtest import scale_backtest
from analysis.sensitivity import Sensitivity, lr_sensitivity, sensitivity_table
from analysis.thresholds import Threshold, calibrate
from analysis.verification import Verdict, verify

if TYPE_CHECKING:
    from analysis.report import write_report

__all__ = [
    "FORMS",
    "PREDICTORS",
    "CriticalLaw",
    "Crossing",
    "Estimate",
    "Forecast",
    "Law",
    "Prediction",
    "Predictor",
    "Records",
    "Sensitivity",
    "Threshold",
    "Verdict",
    "attenuation",
    "calibrate",
    "collect",
    "critical_lr",
    "critical_table",
    "excess_crossing",
    "factors",
    "families",
    "fit",
    "fit_critical_lr",
    "load",
    "lr_sensitivity",
    "predict",
    "read_prediction",
    "read_signal",
    "scale_backtest",
    "sensitivity_table",
    "verify",
    "window_check",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name == "write_report":
        from analysis.report import write_report

        return write_report
    raise AttributeError(f"module 'analysis' has no attribute {name!r}")
