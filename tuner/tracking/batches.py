"""Metrics, params and tags in as few calls to MLflow as its limits allow."""

from collections.abc import Mapping
from typing import Any

from foretune.tuner.tracking.fields import Metric

AT_ONCE, PARAMS_AT_ONCE = 1000, 100  # mlflow.utils.validation: all together, and params.


def log_in_batches(
    client: Any,
    run_id: str,
    *,
    metrics: list[Metric] | None = None,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> int:
    """Logs through an MlflowClient; returns in how many calls. Raises where MLflow does."""
    from mlflow import entities

    metric_list = [entities.Metric(*metric) for metric in metrics or []]
    param_list = [entities.Param(k, v) for k, v in (params or {}).items()]
    tag_list = [entities.RunTag(k, v) for k, v in (tags or {}).items()]
    calls = 0
    while metric_list or param_list or tag_list:
        now = param_list[:PARAMS_AT_ONCE]
        room = AT_ONCE - len(now) - len(tag_list)
        client.log_batch(
            run_id, metrics=metric_list[:room], params=now, tags=tag_list, synchronous=True
        )
        calls += 1
        metric_list, param_list = metric_list[room:], param_list[PARAMS_AT_ONCE:]
        tag_list = []
    return calls
