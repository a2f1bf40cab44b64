"""A loop that is watched: the same numbers, its records, and a verdict by step."""

import math
import re
from pathlib import Path

import pytest
import torch
from plain_models import (
    Fused,
    Multihead,
    PlainLM,
    WrittenOut,
    batches,
    fit,
    loss_of,
    made,
    rows,
    watching,
)
from torch import nn
from torch.nn import functional as F

from foretune import Watch, load
from foretune.tuner.config.override import override
from foretune.tuner.config.resolve import resolve
from foretune.tuner.training.train import Training

ATTENTION = {"written out": WrittenOut, "fused": Fused, "a module": Multihead}


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_training_gives_the_same_losses_with_and_without(tmp_path, attention, dropout):
    def model():
        return made(PlainLM, attention=ATTENTION[attention], dropout=dropout)

    assert fit(model(), watch=watching(tmp_path)) == fit(model())


# What dynamo itself does to the input of a compiled block.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(
    "how",
    ["around", *(pytest.param(how, marks=pytest.mark.slow) for how in ("in place", "a block"))],
)
def test_a_compiled_model_too_and_its_random_numbers_and_buffers_stay(tmp_path, how):
    class Counting(PlainLM):
        def __init__(self):
            super().__init__(Fused, dropout=0.1)
            self.calls = nn.BatchNorm1d(32)

        def forward(self, tokens):
            self.calls(self.tokens(tokens).mean(1))
            return super().forward(tokens)

    def model():
        plain = made(Counting)
        if how == "around":
            return torch.compile(plain, backend="eager")
        (plain if how == "in place" else plain.layers[0]).compile(backend="eager")
        return plain

    watched, alone = model(), model()
    assert fit(watched, watch=watching(tmp_path)) == fit(alone)
    assert str(dict(watched.named_buffers())) == str(dict(alone.named_buffers()))
    found = rows(tmp_path)
    assert [r["step"] for r in found if "max_attention_logit" in r] == [0, 10, 20, 30]
    assert all(
        {"max_attention_logit_layer1", "output_norm_rms_layer0"} <= r.keys() for r in found[::10]
    )


def test_parts_of_a_batch_are_read_together(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(made(PlainLM), watch=watching(whole))
    fit(made(PlainLM), watch=watching(parts), parts=4)
    for one, other in zip(rows(whole)[:11:10], rows(parts)[:11:10], strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"seconds"}:
            assert other[name] == pytest.approx(one[name], rel=2e-3), name


def test_a_validation_between_two_updates_is_not_read(tmp_path):
    def loop(out, *, validates):
        model = made(PlainLM)
        optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1))
        with watching(out, 3, telemetry_every=1)(model, optimizer) as watch:
            for step, tokens in enumerate(batches(3)):
                loss = loss_of(model, tokens)
                loss.backward()
                if validates:  # Its logits and norms are others.
                    with torch.no_grad():
                        loss_of(model.eval(), 0 * tokens)
                        loss_of(model.train(), 0 * tokens)
                watch.step(step, loss)
                optimizer.step()
                optimizer.zero_grad()
        return [{**row, "seconds": 0} for row in rows(out)]

    assert loop(tmp_path / "a", validates=True) == loop(tmp_path / "b", validates=False)
    assert load(tmp_path / "a").trials["optimizer.lr"].tolist() == [pytest.approx(0.1)]


def test_our_own_model_has_the_columns_of_its_taps(tmp_path, text):
    run = override(
        resolve("lm-tiny", size=16),
        {"steps": 11, "telemetry_every": 5, "data.name": "text", "data.path": str(text)},
    )
    ours = []
    training = Training(run, lambda step, row: ours.append({"step": step, **row}), device="cpu")
    model = training.model
    watch = Watch(model, out=tmp_path, total_steps=11, telemetry_every=5, quiet=True)
    step_of_ours, seen = training.optimizer.step, []

    def step(number):
        seen.append(watch.step(number, training.row["loss"], lr=0.0))
        return step_of_ours(number)

    training.optimizer.step = step
    while training.outcome is None:
        training.advance()
    watch.finish()
    assert len(seen) == 11
    for one, other in zip(ours, rows(tmp_path), strict=False):
        names = {n for n in one if n.startswith(("max_att", "attention", "output", "log", "param"))}
        assert names or one["step"] % 5
        assert {n: other.get(n) for n in names} == pytest.approx(
            {n: one[n] for n in names}, rel=1e-6
        )


def test_each_layer_has_the_largest_logit_of_its_own_queries_and_keys(tmp_path):
    model = made(PlainLM, attention=Fused)
    held = []
    for layer in model.layers:
        layer.attention.register_forward_pre_hook(
            lambda module, args: held.append(module.split(args[0]).detach())
        )
    watch = watching(tmp_path, 10)(model, None)
    loss = loss_of(model, next(batches(1)))
    loss.backward()
    watch.step(0, loss)
    watch.finish()
    (row,) = rows(tmp_path)
    hidden = torch.ones(32, 32).triu(1).bool()
    for layer, (q, k, _) in enumerate(held):
        largest = (q @ k.mT * 16**-0.5).masked_fill(hidden, -math.inf).amax()
        assert row[f"max_attention_logit_layer{layer}"] == pytest.approx(float(largest), rel=1e-5)


def test_a_doomed_run_is_stopped_early_and_a_healthy_one_is_not(tmp_path):
    steps, how = 200, {"reference_loss": math.log(32)}
    doomed = fit(made(PlainLM), lr=1.0, steps=steps, watch=watching(tmp_path, steps, **how))
    healthy = fit(made(PlainLM), lr=3e-3, steps=steps, watch=watching(tmp_path, steps, **how))
    assert len(doomed) < steps / 4
    assert len(healthy) == steps
    trials = load(tmp_path).trials.set_index("optimizer.lr")
    assert trials["outcome"].to_dict() == {1.0: "stopped", 3e-3: "finished"}
    assert trials.loc[1.0, "forecast_probability"] > 0.5
    assert "largest attention logit" in trials.loc[1.0, "reason"]


def test_what_the_forecast_needs_is_read_off_whatever_the_names(tmp_path):
    model = made(PlainLM)
    with watching(tmp_path, 200)(model, None) as watch:
        loss_of(model, next(batches(1))).backward()
        status = watch.step(0, 3.4, lr=1e-3).status
    assert status.startswith("cannot tell: 1 of 200 steps are too few")


def test_the_ten_lines_of_the_readme_run(tmp_path, monkeypatch):
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    (lines,) = [
        text for text in re.findall(r"```python\n(.*?)```", readme, re.S) if "Watch" in text
    ]
    model = made(PlainLM)
    monkeypatch.chdir(tmp_path)
    names = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "batches": [(tokens[:, :-1], tokens[:, 1:].flatten()) for tokens in batches(3)],
        "loss_of": lambda logits, targets: F.cross_entropy(logits.flatten(0, 1), targets),
    }
    for again in range(2):  # As a notebook's cell.
        exec(lines, names)
        assert len(load(tmp_path / "runs" / "watched").trials) == again + 1
