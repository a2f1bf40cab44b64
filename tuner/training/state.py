"""The state of a run in progress: all that it needs to go on to the same bits."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from foretune.tuner.config.kept_secrets import without_secrets

if TYPE_CHECKING:
    from foretune.tuner.training.train import Training


def state_of(training: "Training", rows: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns what a checkpoint holds; rows says of the telemetry so far what
    `MetricsFile.sync` returns."""
    return {
        "run": without_secrets(training.run),
        "step": training.step,
        "row": training.row,
        "loss_at_init": training.loss_at_init,
        "val_loss": training.val_loss,
        "seconds": training.seconds,
        "data_sha256": training.stream.corpus.sha256,
        **({"rows": dict(rows)} if rows is not None else {}),
        "model": training.model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "levels": training.probes.flips.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state(training.device) if training.on_gpu else None,
    }


def set_state(training: "Training", state: Mapping[str, Any], path: Path) -> None:
    """Puts a run that was just built where its checkpoint at path was.

    Raises ValueError for a checkpoint of another run or of another text.
    """
    run = (without_secrets(training.run), repr(training.run))  # The second is an older version's.
    for what, mine in (("run", run), ("data_sha256", (training.stream.corpus.sha256,))):
        if state[what] not in mine:
            raise ValueError(
                f"restore must be a checkpoint of this run on this text, got another {what} in "
                f"{path}; remove the checkpoint to start again."
            )
    training.step, training.row = state["step"], dict(state["row"])
    training.loss_at_init, training.val_loss = state["loss_at_init"], state["val_loss"]
    training.seconds = state["seconds"]
    training.model.load_state_dict(state["model"])
    training.optimizer.load_state_dict(state["optimizer"])
    training.probes.flips.load_state_dict(state["levels"])
    torch.set_rng_state(state["random"].cpu())
    if training.on_gpu and state["random_cuda"] is not None:
        torch.cuda.set_rng_state(state["random_cuda"].cpu(), training.device)
