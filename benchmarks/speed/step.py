"""Claims: a training step here, telemetry and all, is no slower than a plain PyTorch GPT step of
the same shape at every size of the ladder (ratio of tokens per second at least 1.0), and telemetry
at its default interval costs at most 3 % of a step.

Ours is `Training._update` of the lm-tiny preset: the batch, forward, backward, clipping, AdamW, and
the probes when they are due. The peer is nanoGPT's loop written with PyTorch's own modules: its
way of cutting batches, learned positions, `clip_grad_norm_` and fused AdamW, with no schedule, no
check and no logging. The same peer with rotary positions, which ours has, is printed beside it. All
run in this process on one thread, in blocks that alternate; a ratio is the median over rounds of
the ratio inside a round, so that drift of the machine cancels.

    python -m benchmarks.speed.step [--sizes 16 32] [--rounds 30] [--save]
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.record import Record
from foretune.models.nets.transformer import TransformerConfig
from foretune.tuner.config.override import override
from foretune.tuner.config.resolve import resolve
from foretune.tuner.config.run import Run
from foretune.tuner.config.tokens import Data
from foretune.tuner.data.tokens import load_corpus
from foretune.tuner.training.train import Training

SHARE_BOUND = 0.03
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
"""cpu leaves out what other processes take; on a quiet machine both say the same."""


class PeerBlock(nn.Module):
    """nanoGPT's block without biases; `turn_TP`, if there, rotates q and k."""

    def __init__(self, width: int, head_dim: int, turn_TP: Tensor | None):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self.head_dim, self.turn_TP = head_dim, turn_TP

    def forward(self, x: Tensor) -> Tensor:
        batch, positions, width = x.shape
        q, k, v = (
            part.view(batch, positions, -1, self.head_dim).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(width, dim=2)
        )
        if self.turn_TP is not None:
            q, k = self._turned(q), self._turned(k)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, positions, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))

    def _turned(self, x: Tensor) -> Tensor:
        assert self.turn_TP is not None
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * self.turn_TP).flatten(-2)


class Peer(nn.Module):
    """A plain GPT of the same shape: learned positions, or rotary ones."""

    def __init__(self, config: TransformerConfig, *, rotary: bool):
        super().__init__()
        width, head_dim, positions = config.width, config.head_dim, config.max_positions
        angle_TP = torch.outer(
            torch.arange(positions).float(),
            10000.0 ** (-torch.arange(0, head_dim, 2) / head_dim),
        )
        turn_TP = torch.polar(torch.ones_like(angle_TP), angle_TP) if rotary else None
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.positions = None if rotary else nn.Embedding(positions, width)
        self.blocks = nn.ModuleList(
            PeerBlock(width, head_dim, turn_TP) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, config.vocab_size, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def peer_step(run: Run, *, rotary: bool) -> Callable[[], None]:
    """Returns a function that trains the peer by one update."""
    assert isinstance(run.model, TransformerConfig)
    torch.manual_seed(run.seed)
    model = Peer(run.model, rotary=rotary)
    adam = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    assert isinstance(run.data, Data)
    text, length = load_corpus(run.data).train, run.data.sequence_length

    def update() -> None:
        starts = torch.randint(len(text) - length, (run.batch_size,))
        cut = [text[i : i + length + 1].astype(np.int64) for i in starts]
        inputs = torch.stack([torch.from_numpy(c[:-1]) for c in cut])
        targets = torch.stack([torch.from_numpy(c[1:]) for c in cut])
        logits = model(inputs)
        F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)

    return update


def our_training(run: Run) -> Training:
    """Returns a run in progress whose rows go nowhere."""
    return Training(run, lambda step, metrics: None, device="cpu")


def block_ms(update: Callable[[], None], steps: int, clock: Clock) -> float:
    """Returns the mean milliseconds of a step over a block of them."""
    started = clock()
    for _ in range(steps):
        update()
    return (clock() - started) / steps * 1e3


def measure(size: int, rounds: int, block: int, clock: Clock) -> tuple[Run, dict[str, list[float]]]:
    """Returns the run, and milliseconds a step of every contestant, one figure a round."""
    steps = (rounds + 2) * block
    run = resolve("lm-tiny", size=size, overrides={"steps": max(200, steps)})
    silent = override(run, {"telemetry_every": run.steps + 1})
    trainings = our_training(run), our_training(silent)
    contestants = {
        "ours": trainings[0]._update,
        "learned": peer_step(run, rotary=False),
        "silent": trainings[1]._update,
        "rotary": peer_step(run, rotary=True),
    }
    for update in contestants.values():
        block_ms(update, block, clock)  # The warm-up; step 0 is a telemetry step even when silent.
    times: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for turn in range(rounds):
        # Whoever begins takes turns, in both directions: nobody profits from a place in the row.
        order = names[turn % 4 :] + names[: turn % 4]
        for name in order if turn // 4 % 2 else order[::-1]:
            times[name].append(block_ms(contestants[name], block, clock))
    # A run that diverged would have left most of a step out.
    assert all(training.outcome is None for training in trainings)
    return run, times


def paired(above: list[float], below: list[float]) -> float:
    """Returns the median over rounds of the ratio inside a round."""
    return median(a / b for a, b in zip(above, below, strict=True))


def main() -> int:
    """Measures every size; returns 1 if a claim is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--rounds", type=int, default=40, help="rounds of one block each")
    parser.add_argument("--block", type=int, default=20, help="steps a block, a multiple of 10")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu if it is busy")
    parser.add_argument("--save", action="store_true", help="write results/step.txt")
    arguments = parser.parse_args()
    if arguments.block % 10 or arguments.block < 10 or arguments.rounds < 1:
        parser.error("--block must be a multiple of 10 (the telemetry interval), --rounds 1 or up")
    torch.set_num_threads(1)
    clock = CLOCKS[arguments.clock]
    record, verdicts = Record("step"), []
    record.say(
        "size  ours ms  learned ms  rotary ms  tokens/s ours  / learned  / rotary  telemetry"
    )
    for size in arguments.sizes:
        run, times = measure(size, arguments.rounds, arguments.block, clock)
        ms = {name: median(values) for name, values in times.items()}
        ratio, rotary = (paired(times[name], times["ours"]) for name in ("learned", "rotary"))
        share = paired(times["ours"], times["silent"]) - 1
        rate = run.batch_size * run.data.predictions / ms["ours"] * 1e3
        record.say(
            f"{size:4d}  {ms['ours']:7.3f}  {ms['learned']:10.3f}  {ms['rotary']:9.3f}  "
            f"{rate:13,.0f}  {ratio:9.3f}  {rotary:8.3f}  {share:9.2%}"
        )
        verdicts += [
            (f"size {size}: tokens/s against plain PyTorch {ratio:.3f} >= 1.0", ratio >= 1.0),
            (f"size {size}: telemetry {share:.2%} <= {SHARE_BOUND:.0%}", share <= SHARE_BOUND),
        ]
    record.claims(verdicts)
    return record.close(save=arguments.save)


if __name__ == "__main__":
    raise SystemExit(main())
