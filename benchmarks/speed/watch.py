"""Claim: `Watch` costs at most 3 % of a training step at its default interval, of a model of ten
million parameters.

Two copies of one model train by turns on the same batches, one watched, 20 steps a turn; a ratio is
the median over rounds of the ratio within a round, so that drift of the machine cancels. Their
losses must be the same to the bit. What the first pass costs, which looks for attention, is printed
beside.

    python -m benchmarks.speed.watch [--rounds 5] [--threads 1] [--save]
"""

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.record import Record
from foretune import Watch

BOUND, TURN = 1.03, 20
VOCABULARY, CONTEXT, BATCH, WIDTH, DEPTH, HEADS = 1024, 256, 2, 256, 12, 4


class Attention(nn.Module):
    """Causal, by PyTorch's fused function."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to the same."""
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attention = (
            nn.LayerNorm(WIDTH),
            nn.LayerNorm(WIDTH),
            Attention(),
        )
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to the same."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def main() -> int:
    """Measures, prints and judges; returns the exit code."""
    parser = argparse.ArgumentParser(description=f"{__doc__}".partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", action="store_true", help="write results/watch.txt")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    record = Record("watch")
    torch.manual_seed(0)
    blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
    plain = nn.Sequential(nn.Embedding(VOCABULARY, WIDTH), blocks, nn.Linear(WIDTH, VOCABULARY))
    watched = copy.deepcopy(plain)
    count = sum(p.numel() for p in plain.parameters())
    record.say(f"{count:,} parameters, {BATCH} x {CONTEXT} tokens, {arguments.threads} threads\n")
    with tempfile.TemporaryDirectory() as folder:
        optimizer = torch.optim.AdamW(watched.parameters(), lr=1e-3)
        steps = TURN * (arguments.rounds + 1)
        watch = Watch(watched, optimizer, out=folder, total_steps=steps, quiet=True)
        alone = torch.optim.AdamW(plain.parameters(), lr=1e-3)
        rounds = [
            (
                turn(number, plain, alone, lambda step, loss: None),
                turn(number, watched, optimizer, watch.step),
            )
            for number in range(arguments.rounds + 1)
        ]
        watch.finish()
    (first, _), (first_watched, _) = rounds[0]
    record.say(f"the first turn: {first:.1f} s alone, {first_watched:.1f} s watched")
    for (seconds, _), (ours, _) in rounds[1:]:
        record.say(f"{TURN} steps: {seconds:.2f} s alone, {ours:.2f} s watched")
    ratio = median(ours / seconds for (seconds, _), (ours, _) in rounds[1:])
    same = all(losses == others for (_, losses), (_, others) in rounds)
    record.claims(
        [
            (f"a watched step: {ratio:.3f} times <= {BOUND:g}", ratio <= BOUND),
            ("its losses are those of a step that isn't watched, to the bit", same),
        ]
    )
    return record.close(save=arguments.save)


def turn(
    number: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    look: Callable[[int, Tensor], object],
) -> tuple[float, list[float]]:
    """Trains for one turn; returns its seconds and losses."""
    began, losses = time.perf_counter(), []
    for step in range(TURN * number, TURN * (number + 1)):
        draws = torch.Generator().manual_seed(step)
        tokens = torch.randint(VOCABULARY, (BATCH, CONTEXT + 1), generator=draws)
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        look(step, loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return time.perf_counter() - began, losses


if __name__ == "__main__":
    sys.exit(main())
