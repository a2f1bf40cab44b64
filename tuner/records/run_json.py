"""What a run is, as DIR/runs/<run_id>/run.json has it, and its name.

A run with `run.json` and no `outcome.json` is unfinished.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast, get_type_hints

from foretune.models import MODELS, count, count_module, has_ladder, size_of
from foretune.models.nets.parametrize import check_parametrization
from foretune.models.quantization.stored_bytes import FP32_BYTES, weight_bytes
from foretune.redaction import shown
from foretune.tuner.config.images import SOURCES, ImageData
from foretune.tuner.config.kept_secrets import check_given, give_back
from foretune.tuner.config.run import Run
from foretune.tuner.config.tokens import Data
from foretune.tuner.records.files import known_fields, read_json, write_record
from foretune.tuner.records.own_models import kind_of, model_class
from foretune.tuner.training.own_code import build

FORMAT = 1
"""The value of `format` in run.json and sweep.json."""


def to_config(value: Any) -> Any:
    """Returns a Run or one of its parts as nested JSON values; a model carries its `kind`.

    `***` stands for a secret, such as a field `api_key` of a user's model.
    """
    return _config(value, shown)


def _config(value: Any, show: Callable[[str, Any], Any]) -> Any:
    if not is_dataclass(value):
        return list(value) if isinstance(value, tuple) else value
    parts = {f.name: getattr(value, f.name) for f in fields(value)}
    config = {
        name: _config(part if is_dataclass(part) else show(name, part), show)
        for name, part in parts.items()
    }
    return {"kind": kind_of(value), **config} if hasattr(value, "build") else config


def from_config(
    config: Mapping[str, Any], target: type = Run, models: Mapping[str, type] | None = None
) -> Any:
    """Returns the Run of nested JSON values; the inverse of `to_config`.

    A field that is not there, since an older version wrote the values, takes its default. models
    are classes of users' models that may be used, by kind: see `model_class`. Raises ValueError
    where a user's class can't be imported, or lacks a default for such a field, for a field that
    this version doesn't know, and for values that are none of a run.
    """
    try:
        return _from_config(config, target, models)
    except (TypeError, AttributeError, KeyError, OverflowError) as error:
        raise ValueError(
            f"run.json must hold the config of a run, got another one ({type(error).__name__}: "
            f"{error}); restore it."
        ) from None


def _from_config(
    config: Mapping[str, Any], target: type, models: Mapping[str, type] | None = None
) -> Any:
    values: dict[str, Any] = {}
    unknown = config.keys() - {f.name for f in fields(target)} - {"kind"}
    if unknown:
        raise ValueError(
            f"run.json must have the fields of this version of foretune, got {min(unknown)} of "
            f"{target.__name__}; use the version that wrote it."
        )
    types = _types(target)
    for f in fields(target):
        if f.name not in config:
            _check_default(f, target)
            continue
        value = config[f.name]
        if f.name == "model" and target is Run:
            values["model"] = _from_config(value, model_class(value["kind"], models))
        elif f.name == "data" and target is Run:
            values["data"] = _from_config(value, ImageData if value["name"] in SOURCES else Data)
        elif isinstance(value, Mapping):
            values[f.name] = _from_config(value, cast("type", types[f.name]))
        else:
            values[f.name] = _tuples(give_back(target, f, value))
    try:
        return target(**values)
    except Exception:
        check_given(values)  # A user's own check may not like what stands for a secret.
        raise


@cache
def _types(target: type) -> dict[str, Any]:
    return get_type_hints(target)  # Postponed annotations are text in a field's type.


def _check_default(f: "Field[Any]", target: type) -> None:
    if f.default is MISSING and f.default_factory is MISSING:
        raise ValueError(
            f"run.json must hold {f.name} of {target.__name__}, which has no default, got none; "
            f"give the field a default."
        )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def run_id(run: Run) -> str:
    """Returns the name of a run: 12 hexadecimal digits of the hash of its config, seed included.

    A secret isn't part of it.
    """
    return name_of(to_config(run))


def is_named(name: str, run: Run) -> bool:
    """Whether a name is a run's, or what it was when secrets were part of it."""
    return name in (run_id(run), name_of(_config(run, lambda _, value: value)))


def name_of(config: Any) -> str:
    """Returns 12 hexadecimal digits of the hash of a config's JSON values."""
    text = json.dumps(config, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A draw of Optuna's that gave no new run."""

    params: Mapping[str, Any]
    run_id: str
    """The run that was there already; empty where there can't be one."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How a search came to a run."""

    number: int
    """How many runs were drawn before."""
    params: Mapping[str, Any]
    """Of Optuna's trial."""
    rejected: tuple[Rejected, ...]
    """What was drawn in vain before it."""

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "Draw":
        """Returns the draw of `draw` in run.json."""
        known = known_fields(facts, cls, "run.json")
        rejected = [known_fields(each, Rejected, "run.json") for each in known["rejected"]]
        return cls(**{**known, "rejected": tuple(Rejected(**each) for each in rejected)})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The content of `run.json`: a run and what it is known to cost."""

    run_id: str
    run: Run
    """`config` in the file."""
    size: int
    """Its rung; 0 without a ladder."""
    n_params: int
    """N, without embeddings, stem and head."""
    n_params_total: int
    weight_bytes: float | None = None
    """Of the stored weights; none in files of before it was counted."""
    tokens_per_step: int
    """Tokens, or images."""
    flops_per_token: float
    """Forward and backward."""
    command: str | None = None
    """The command line of `foretune train`; none for the runs of a sweep, which has it."""
    data_sha256: str = ""
    """Hash of the tokens or images that it reads; empty where none were opened."""
    draw: Draw | None = None
    """How a search came to it; none where the runs were listed."""

    @property
    def config(self) -> dict[str, Any]:
        """The run as nested JSON values."""
        return to_config(self.run)

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON values of the file; what is none isn't written."""
        facts: dict[str, Any] = {"format": FORMAT}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "run":
                facts["config"] = self.config
            elif value is not None:
                facts[f.name] = asdict(value) if f.name == "draw" else value
        return facts

    @classmethod
    def from_json(
        cls, facts: Mapping[str, Any], models: Mapping[str, type] | None = None
    ) -> "RunRecord":
        """Returns the record of the JSON values of a file.

        Unknown keys are passed over; models are as for `from_config`. Raises ValueError where some
        are missing, and as `from_config` does.
        """
        known = known_fields(facts, cls, "run.json", run="config")
        known["run"] = from_config(known["run"], models=models)
        if "draw" in known:
            known["draw"] = Draw.from_json(known["draw"])
        return cls(**known)

    @classmethod
    def read(cls, run_dir: Path, models: Mapping[str, type] | None = None) -> "RunRecord":
        """Returns the record of a run's folder, as `from_json`; ValueError for a damaged file."""
        return cls.from_json(read_json(run_dir / "run.json"), models)

    def write(self, run_dir: Path) -> None:
        """Writes run.json into the run's folder."""
        write_record(run_dir / "run.json", self.to_json())


_check_ours = lru_cache(maxsize=1024)(check_parametrization)
"""Once for the runs of a grid that differ in learning rate or seed alone, since it builds models.

Of our own configs, which can't change: a user's may."""


def describe(run: Run) -> RunRecord:
    """Returns the record of a run: id, rung, counts; its data isn't opened.

    Raises ValueError where the run's parametrization doesn't fit its model, and ModelError where a
    user's own model can't be built.
    """
    check = _check_ours if kind_of(run.model) in MODELS else check_parametrization
    check(run.model, run.parametrization)
    counts = count(run.model) if has_ladder(run.model) else count_module(build(run.model))
    return RunRecord(
        run_id=run_id(run),
        run=run,
        size=size_of(run.model),
        n_params=counts.n_params,
        n_params_total=counts.n_params_total,
        weight_bytes=weight_bytes(run.model, run.quantization)
        if run.quantization.active
        else FP32_BYTES * counts.n_params_total,
        tokens_per_step=run.batch_size * run.data.predictions,
        flops_per_token=counts.flops_per_token,
    )


def cost(record: RunRecord) -> float:
    """Returns the training cost of a run in floating-point operations, for order and time left."""
    return float(record.flops_per_token) * (record.tokens_per_step * record.run.steps)
