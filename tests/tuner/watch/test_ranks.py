"""One run in two processes: one record, and the same verdict in both."""

import json
import math

import pytest
import torch
from plain_models import Fused, PlainLM, batches, loss_of
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from foretune import Watch, load

STEPS = 30


def train(rank, folder, watched, broken):
    """Trains on one half of each batch; returns losses and verdicts by a file."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet-{watched}", rank=rank, world_size=2
    )
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = DistributedDataParallel(PlainLM(Fused))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    watch = None
    if watched:
        watch = Watch(model, optimizer, out=f"{folder}/out", total_steps=STEPS, quiet=True)
    said, losses = [], []
    for step, tokens in enumerate(batches(STEPS)):
        loss = loss_of(model, tokens.chunk(2)[rank])
        loss.backward()
        losses.append(loss.item())
        if watch is not None:
            told = loss if step < 13 or rank == 0 or not broken else loss * math.nan
            verdict = watch.step(step, told)
            said.append([verdict.stop, verdict.reason])
            if verdict.stop:
                break
        optimizer.step()
        optimizer.zero_grad()
    if watch is not None:
        watch.finish()
    with open(f"{folder}/{watched}-{rank}.json", "w") as file:
        json.dump([losses, said], file)
    distributed.destroy_process_group()


def both(folder, *, watched, broken=False):
    multiprocessing.spawn(train, (str(folder), watched, broken), nprocs=2)
    found = [json.loads((folder / f"{watched}-{rank}.json").read_text()) for rank in (0, 1)]
    return [losses for losses, _ in found], [said for _, said in found]


@pytest.mark.slow
def test_two_processes_have_one_record_and_their_own_losses(tmp_path):
    losses, said = both(tmp_path, watched=True)
    assert losses == both(tmp_path, watched=False)[0]
    assert said[0] == said[1]
    (trial,) = load(tmp_path / "out").trials.to_dict("records")
    assert (trial["outcome"], trial["model.depth"], trial["model.kind"]) == (
        "finished",
        2,
        "PlainLM",
    )
    rows = load(tmp_path / "out").telemetry
    assert rows["max_attention_logit"].notna().sum() == 3
    assert len(rows) == STEPS


@pytest.mark.slow
def test_what_one_process_sees_ends_both_at_the_same_step(tmp_path):
    _, said = both(tmp_path, watched=True, broken=True)
    assert said[0] == said[1]
    assert [stop for stop, _ in said[0]] == [False] * 20 + [True]
    assert said[0][-1][1] == "loss became nan at step 13"
    assert load(tmp_path / "out").trials["outcome"].tolist() == ["stopped"]
