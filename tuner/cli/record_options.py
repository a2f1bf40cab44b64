"""Commands that read records: their arguments, and what they are called with.

They import what they need themselves, so that `--help` and `list` answer at once.
"""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg


def collect(directory: Positional[str], /) -> int:
    """Rebuilds trials.parquet and telemetry.parquet from the runs of a sweep.

    Args:
        directory: the sweep's directory.
    """
    from foretune.tuner.cli.report import collect_command

    return collect_command(Path(directory))


def report(
    directory: Positional[str],
    /,
    *,
    checks: Annotated[tuple[str, ...], arg(name="check", metavar="PREDICTION.json:DIR")] = (),
) -> int:
    """Writes DIR/report/index.html with figures and tables, and prints the verdict.

    Args:
        directory: the sweep's directory.
        checks: predictions to hold against sweeps at the size that they speak of.
    """
    from foretune.tuner.cli.report import report_command

    return report_command(Path(directory), checks=checks)


def predict(
    directory: Positional[str],
    /,
    *,
    size: int,
    lr: float | None = None,
    threshold: str = "100",
    level: float = 0.9,
    json: bool = False,
    save: str = "",
    at: tuple[str, ...] = (),
) -> int:
    """The critical LR at a size never run, with interval and horizon; stable or not at an LR.

    Args:
        directory: the sweep's directory.
        size: rung of the sweep's ladder to predict; for transformers the width, or what its
            model.ladder says.
        lr: learning rate to judge at that size.
        threshold: largest attention logit that counts as danger (a number, in nats), or auto to
            calibrate it on the sweep's own runs.
        level: coverage of the interval, 0 to 1.
        json: print JSON instead of sentences.
        save: also write the JSON to this new file (a frozen prediction for `report --check`).
        at: other values of model.depth, model.head_dim, data.sequence_length, batch_size or steps,
            like steps=1000, where the sweep varied them.
    """
    from foretune.analysis.across_scale.arguments import check_question
    from foretune.tuner.cli.predict import predict_command
    from foretune.tuner.records.files import local_path

    local_path("--save", save, file=True)
    check_question(size=size, lr=lr, threshold=threshold, level=level, dashes="--")
    return predict_command(
        Path(directory),
        size=size,
        lr=lr,
        threshold=threshold,
        level=level,
        json=json,
        save=save,
        at=at,
    )


def backtest(directory: Positional[str], /, *, share: float = 0.05) -> int:
    """Holds both forecasts against a finished sweep: inside its runs, and from small to large.

    Args:
        directory: the sweep's directory.
        share: share of each run's steps that forecasts inside it may see, 0 to 1.
    """
    from foretune.tuner.cli.backtest import backtest_command

    return backtest_command(Path(directory), share=share)


def sync(directory: Positional[str], /, *, tracking_uri: str = "") -> int:
    """Sends to MLflow what it has not received yet (after its server was away).

    Args:
        directory: the sweep's directory.
        tracking_uri: MLflow store; empty is the one the sweep used.
    """
    from foretune.tuner.cli.report import sync_command

    return sync_command(Path(directory), tracking_uri=tracking_uri)


def export(
    directory: Positional[str],
    /,
    *,
    format: Literal["safetensors", "gguf"] = "safetensors",
    packing: Literal["base3", "2bit"] = "base3",
    rest_dtype: Literal["fp32", "bf16", "fp16"] = "fp32",
    out: str = "",
) -> int:
    """A finished ternary run as a file with packed weights, read back and evaluated.

    Prints what ternary and full-precision weights take, the validation loss of the trained model
    and of the file, and the largest logit difference.

    Args:
        directory: the run's directory, like OUT/runs/<id>.
        format: safetensors (any model) or gguf (preset lm-llama with a -bare quantizer), which
            llama.cpp runs.
        packing: base3 packs 5 trits a byte (in GGUF TQ1_0), 2bit packs 4 (TQ2_0).
        rest_dtype: number type of all that isn't ternary; bf16 is for safetensors, fp16 for gguf.
        out: new file, ending in the format's name; empty is <run_id>-<packing>.<format> in the
            run's directory.
    """
    from foretune.tuner.cli.export import export_run
    from foretune.tuner.records.files import local_path

    return export_run(
        Path(directory),
        format=format,
        packing=packing,
        rest_dtype=rest_dtype,
        out=local_path("--out", out, file=True) if out else None,
    )


def list_names(
    what: Positional[
        Literal["presets", "spaces", "interventions", "quantizers", "models", "datasets", "figures"]
    ],
    /,
) -> int:
    """What there is, one line each.

    Args:
        what: which names.
    """
    from foretune.tuner.cli.names import list_command

    return list_command(what)
