"""Claim: a training step of a ternary language model, its scale the mean or the median of |W|,
takes at most 1.15 times a full-precision step of the same model, at width 256 and up with at least
2,048 tokens a step, on one CPU thread in fp32.

A step is `Training._update` of the lm-tiny preset on both sides, without telemetry: the batch, the
grids of all weights (computed in every step), forward, backward, clipping, AdamW. The median has no
error: it has the bits of `torch.median` (tests/models/test_quantize_formats.py); nothing is sampled
or tracked. Embedding and head stay in full precision, inputs are int8 per token.

The claim is about the ternary layers alone. It is measured twice: with the int8 product of CPUs
that have AVX512-VNNI, and with fp32 products as on all others ("fp32"). Beside them, in the same
run: full precision with a LayerNorm before every layer (the control); ternary with that norm, which
is what the quantizers ternary-mean and ternary-median train; a naive straight-through layer (w + (q
- w).detach(), x likewise, `F.linear`); and torchao's `bitnet_training` where torchao is importable.
The last two have the mean, and PyTorch's fp32 products without what `models.blocks.matmul` gains
(torchao's forward product is int8, as ours); their first loss must be that of ours, so that all do
the same work. Everyone runs in this process, in blocks that alternate; a ratio is the median over
rounds of the ratio inside a round, so that drift of the machine cancels.

With --device cuda it also prints the peak memory of a step, all that the contestant holds included;
with --compile too, the bound is 1.10. No GPU has run this yet: nothing is claimed of one.

    python -m benchmarks.speed.qat [--sizes 256 512] [--rounds 20] [--save]
"""

import argparse
import importlib
import importlib.util
import math
import time
import warnings
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.record import Record
from foretune.models.blocks.layers import Linear
from foretune.models.quantization import straight_through
from foretune.tuner.config.quantizers import QUANTIZERS
from foretune.tuner.config.resolve import resolve
from foretune.tuner.config.run import Run
from foretune.tuner.training.train import Training

CPU_BOUND, GPU_BOUND = 1.15, 1.10
MIN_TOKENS = 2048
HAS_INTEGER_PRODUCT = straight_through.HAS_INTEGER_PRODUCT
MEAN, MEDIAN = "ternary-mean-bare", "ternary-median-bare"
CLAIMED = {"mean": MEAN, "median": MEDIAN}
if HAS_INTEGER_PRODUCT:
    CLAIMED |= {"mean, fp32": MEAN, "median, fp32": MEDIAN}
QUANTIZER_OF = {
    "full": "none",
    **CLAIMED,
    "control": "control",
    "mean, norm": "ternary-mean",
    "median, norm": "ternary-median",
}
"""Our contestants; `full` is what all are divided by."""
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
"""cpu leaves out what other processes take; on a quiet machine both say the same."""


class NaiveTernary(nn.Module):
    """The layer that one writes first: mean of |W|, int8 tokens, rounding hidden by detach."""

    def __init__(self, weight: nn.Parameter):
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        w, scale = self.weight, self.weight.abs().mean().clamp(min=1e-5)
        w = w + ((w / scale).round().clamp(-1, 1) * scale - w).detach()
        step = x.abs().amax(-1, keepdim=True).clamp(min=1e-5) / 127
        x = x + ((x / step).round().clamp(-128, 127) * step - x).detach()
        return F.linear(x, w)


def torchao_ternary(weight: nn.Parameter) -> nn.Module:
    """Returns a Linear that torchao made ternary, on the storage of weight and its gradient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchao = importlib.import_module("torchao")
        training = importlib.import_module("torchao.prototype.quantized_training")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = weight
    torchao.quantize_(layer, training.bitnet_training())
    layer.weight.grad = weight.grad
    return layer


FOREIGN: dict[str, Callable[[nn.Parameter], nn.Module]] = {
    "naive": NaiveTernary,
    "torchao": torchao_ternary,
}
"""Layers of others, made from the parameter of ours; mean of |W|, no norm."""


def put_instead(training: Training, make: Callable[[nn.Parameter], nn.Module]) -> None:
    """Replaces the layers that a quantizer would take, the parameters stay in their buffer."""
    model = training.model
    for name, layer in list(model.named_modules()):
        if isinstance(layer, Linear) and name != "head":
            model.set_submodule(name, make(layer.weight))


def contestant(name: str, run: Run, device: str) -> Training:
    """Returns a run in progress whose rows go nowhere."""
    training = Training(run, lambda step, metrics: None, device=device)
    if name in FOREIGN:
        put_instead(training, FOREIGN[name])
    return training


def block_ms(name: str, training: Training, steps: int, clock: Clock) -> float:
    """Returns the mean milliseconds of a step over a block of them."""
    straight_through.HAS_INTEGER_PRODUCT = HAS_INTEGER_PRODUCT and not name.endswith("fp32")
    started = clock()
    for _ in range(steps):
        training._update()
    if training.on_gpu:
        torch.cuda.synchronize()
    return (clock() - started) / steps * 1e3


def first_loss(training: Training) -> float:
    """Trains one step; returns the loss before it."""
    rows: list[float] = []
    training.sink = lambda step, metrics: rows.append(metrics["loss"])
    training._update()
    training.sink = lambda step, metrics: None
    return rows[0]


def start(
    names: list[str], size: int, batch: int, steps: int, arguments: argparse.Namespace
) -> tuple[dict[str, Training], dict[str, float]]:
    """Returns everyone warmed up, and the MiB that each takes at most in a block (0 on a CPU)."""
    trainings: dict[str, Training] = {}
    losses, peak_mib = {}, {}
    for name in names:
        quantizer = QUANTIZER_OF.get(name, "none")
        changes = {"steps": steps, "batch_size": batch, "micro_batch_size": batch}
        changes |= {"telemetry_every": steps + 1, "quantizer": quantizer}
        run = resolve("lm-tiny", size=size, overrides=changes)
        assert run.quantization == QUANTIZERS[quantizer].quantization, run.quantization
        held = allocated_mib(arguments.device)
        trainings[name] = training = contestant(name, run, arguments.device)
        # Step 0 has telemetry whatever the interval, so it is neither timed nor compiled.
        losses[name] = first_loss(training)
        if arguments.compile:
            training.model.compile()
        block_ms(name, training, arguments.block, time.perf_counter)
        peak_mib[name] = 0.0
        if training.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            block_ms(name, training, arguments.block, time.perf_counter)
            peak_mib[name] = torch.cuda.max_memory_allocated() / 2**20 - held
    for name in FOREIGN.keys() & trainings.keys():
        assert math.isclose(losses[name], losses["mean"], rel_tol=1e-4), (name, losses)
    return trainings, peak_mib


def allocated_mib(device: str) -> float:
    """Returns the GPU memory in use, in MiB; 0 on a CPU."""
    return torch.cuda.memory_allocated() / 2**20 if device == "cuda" else 0.0


def measure(
    trainings: dict[str, Training], rounds: int, block: int, clock: Clock
) -> dict[str, list[float]]:
    """Returns milliseconds a step of every contestant, one figure a round."""
    times: dict[str, list[float]] = {name: [] for name in trainings}
    names = list(trainings)
    for turn in range(rounds):
        # Whoever begins takes turns, in both directions: nobody profits from a place in the row.
        first = turn % len(names)
        order = names[first:] + names[:first]
        for name in order if turn % 2 else order[::-1]:
            times[name].append(block_ms(name, trainings[name], block, clock))
    # A run that diverged would have left most of a step out.
    assert all(training.outcome is None for training in trainings.values())
    return times


def paired(above: list[float], below: list[float]) -> list[float]:
    """Returns lower quartile, median and upper quartile over rounds of the ratio in a round."""
    ratios = torch.tensor([a / b for a, b in zip(above, below, strict=True)])
    return [float(ratios.quantile(q)) for q in (0.25, 0.5, 0.75)]


def arguments_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Returns the checked arguments."""
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--tokens", type=int, default=MIN_TOKENS, help="a step, at least 2,048")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of one block each")
    parser.add_argument("--block", type=int, default=2, help="steps a block")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu if it is busy")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile every model")
    parser.add_argument("--save", action="store_true", help="write results/qat.txt")
    arguments = parser.parse_args()
    if min(arguments.sizes) < 256 or arguments.tokens < MIN_TOKENS:
        parser.error(f"the claim is about sizes of 256 and up and --tokens of {MIN_TOKENS} and up")
    if arguments.rounds < 1 or arguments.block < 1:
        parser.error("--rounds and --block must be 1 or up")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU, and there is none here; use cpu")
    if arguments.device == "cuda" and arguments.clock == "cpu":
        parser.error("--clock cpu doesn't see a GPU's time; use wall")
    return arguments


def report(
    record: Record, names: list[str], size: int, arguments: argparse.Namespace
) -> list[tuple[str, bool]]:
    """Measures one size and prints its rows; returns what was claimed and whether it holds."""
    on_gpu = arguments.device == "cuda"
    batch = -(-arguments.tokens // resolve("lm-tiny", size=size).data.predictions)
    steps = 1 + (arguments.rounds + 2) * arguments.block
    trainings, peak_mib = start(names, size, batch, max(steps, 200), arguments)
    times = measure(trainings, arguments.rounds, arguments.block, CLOCKS[arguments.clock])
    tokens = batch * trainings["full"].run.data.predictions
    record.say(f"\nwidth {size}, {tokens:,} tokens a step   step ms   ratio (quartiles)")
    verdicts = []
    for name in names:
        low, ratio, high = paired(times[name], times["full"])
        row = f"  {name:33s} {median(times[name]):8.1f}   {ratio:.3f} ({low:.3f}-{high:.3f})"
        record.say(row + (f"  peak {peak_mib[name]:,.0f} MiB" if on_gpu else ""))
        if name in CLAIMED and (arguments.compile or not on_gpu):
            bound = GPU_BOUND if on_gpu else CPU_BOUND
            text = f"width {size}: ternary, {name}: {ratio:.3f} <= {bound} of full precision"
            verdicts.append((text, ratio <= bound))
    for name in ("mean, norm", "median, norm"):
        ratio = paired(times[name], times["control"])[1]
        record.say(f"  {name + ' / control':33s} {'':8s}   {ratio:.3f}")
    return verdicts


def main() -> int:
    """Measures every size; returns 1 if a claim is missed."""
    arguments = arguments_of(
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    )
    torch.set_num_threads(1)
    record = Record("qat")
    has_torchao = importlib.util.find_spec("torchao") is not None
    names = [*QUANTIZER_OF, "naive", *(["torchao"] if has_torchao else [])]
    if arguments.device == "cuda" or arguments.compile:
        names = [name for name in names if not name.endswith("fp32")]  # They would be the same.
    verdicts: list[tuple[str, bool]] = []
    if not has_torchao:
        record.say("torchao isn't installed, so its row is missing; pip install torchao==0.18.0")
    if arguments.device == "cpu":
        record.say("GPU: not measured, no claim is made of one; run with --device cuda --compile")
    record.say("step ms: median over rounds; ratio: to full, median over rounds of that in a round")
    for size in arguments.sizes:
        verdicts += report(record, names, size, arguments)
    record.claims(verdicts)
    return record.close(save=arguments.save)


if __name__ == "__main__":
    raise SystemExit(main())
