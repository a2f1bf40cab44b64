"""A checkpoint that a GPU wrote is read where there is none."""

import zipfile

import pytest
import torch
from short_runs import digest, finish, follow, small

from foretune.tuner.records.journal import past_reports
from foretune.tuner.training.checkpoint import (
    CHECKPOINT_FILE,
    MODEL_FILE,
    checkpoint_step,
    read_model,
)
from foretune.tuner.training.train import Training


def as_from_a_gpu(path):
    """Rewrites a file of torch so that its tensors say they were on a GPU."""
    with zipfile.ZipFile(path) as old:
        members = [(info.filename, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w") as new:
        for name, data in members:
            if name.endswith("/data.pkl"):
                # Text in a pickle: X, its length, itself.
                data = data.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
            new.writestr(name, data)
    assert b"cuda:0" in path.read_bytes()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("quantizer", [{}, {"quantization.format": "ternary"}])
def test_a_run_that_began_on_a_gpu_goes_on_without_one(text, tmp_path, quantizer):
    run = small(text, quantizer)
    _, _, uninterrupted = follow(run)
    begun = Training(run, lambda step, row: None, device="cpu")
    begun.advance()
    begun.advance()
    begun.save(tmp_path / "checkpoint")
    path = tmp_path / "checkpoint" / CHECKPOINT_FILE
    as_from_a_gpu(path)
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(path, weights_only=True)
    assert checkpoint_step(path.parent) == 8
    reports, end = past_reports(tmp_path)
    assert ([report["step"] for report in reports], end) == ([8], None)
    resumed = Training(run, lambda step, row: None, device="cpu", restore=path.parent)
    assert finish(resumed).outcome == "finished"
    assert digest(resumed) == digest(uninterrupted)
    resumed.save_model(path.parent)
    as_from_a_gpu(path.parent / MODEL_FILE)
    mine = resumed.model.state_dict()
    assert all(torch.equal(mine[name], w) for name, w in read_model(path.parent).items())
