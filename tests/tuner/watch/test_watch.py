"""A loop that is watched: the same numbers, its records, and a verdict by step."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from plain_models import Fused, Gru, Multihead, PlainLM, WrittenOut, batches, fit, loss_of
from torch import nn
from torch.nn import functional as F

from foretune import Watch, load
from foretune.tuner.config.override import override
from foretune.tuner.config.resolve import resolve
from foretune.tuner.training.train import Training

LOSS_FREE = {"schedule.warmup_steps": 10, "seed": 0}


def made(model, seed=0, **how):
    torch.manual_seed(seed)
    return model(**how)


def watching(out, steps=40, **how):
    how = {"config": LOSS_FREE, "quiet": True, **how}
    return lambda model, optimizer: Watch(model, optimizer, out=out, total_steps=steps, **how)


def rows(out):
    (path,) = out.glob("runs/*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


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
    model = made(PlainLM)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = watching(tmp_path, telemetry_every=1)(model, optimizer)
    for step, tokens in enumerate(batches(3)):
        loss = loss_of(model, tokens)
        loss.backward()
        model.eval()
        with torch.no_grad():
            val_loss = loss_of(model, 0 * tokens)  # Its logits and norms are others.
            loss_of(model.train(), 0 * tokens)
        watch.step(step, loss, val_loss=val_loss)
        optimizer.step()
        optimizer.zero_grad()
    watch.finish()
    alone = tmp_path / "alone"
    model = made(PlainLM)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = watching(alone, telemetry_every=1)(model, optimizer)
    for step, tokens in enumerate(batches(3)):
        loss = loss_of(model, tokens)
        loss.backward()
        watch.step(step, loss)
        optimizer.step()
        optimizer.zero_grad()
    watch.finish()
    for one, other in zip(rows(tmp_path), rows(alone), strict=True):
        assert one.pop("val_loss") > 0
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


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


def test_what_is_read_off_the_model_and_its_data_stands_in_its_config(tmp_path):
    fit(made(PlainLM, depth=3), watch=watching(tmp_path))
    (trial,) = load(tmp_path).trials.to_dict("records")
    wanted = {
        "model.kind": "PlainLM", "model.depth": 3, "model.head_dim": 16,
        "data.sequence_length": 32, "batch_size": 8, "steps": 40, "optimizer.name": "adamw",
        "optimizer.beta2": 0.999, "schedule.warmup_steps": 10, "seed": 0, "outcome": "finished",
    }  # fmt: skip
    assert {name: trial[name] for name in wanted} == wanted
    head_and_embedding = 2 * 32 * 32
    whole = sum(p.numel() for p in PlainLM(depth=3).parameters())
    assert (trial["n_params"], trial["n_params_total"]) == (whole - head_and_embedding, whole)
    assert trial["size"] == trial["n_params"]
    assert trial["tokens_per_step"] == 8 * 32


def test_a_config_in_any_form_is_kept_and_wins_over_what_is_read_off(tmp_path):
    config = {"model": "mine", "lr": 1, "note": object, "api_key": "s3cret", "optimizer.lr": 0.5}
    fit(made(PlainLM), watch=watching(tmp_path, config=config), steps=2)
    (trial,) = load(tmp_path).trials.to_dict("records")
    assert trial["model"] == "mine"
    assert trial["model.depth"] == 2
    assert trial["optimizer.lr"] == 0.5
    assert trial["api_key"] == "***"
    assert "s3cret" not in next(tmp_path.glob("runs/*/run.json")).read_text()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_any_more_is_a_divergence(tmp_path, value):
    model = made(PlainLM)
    with Watch(model, out=tmp_path, total_steps=20, quiet=True) as watch:
        for step, tokens in enumerate(batches(20)):
            loss = loss_of(model, tokens)
            loss.backward()
            verdict = watch.step(step, loss if step < 7 else loss * value)
            if verdict.stop:
                break
    assert (step, verdict.stop) == (7, True)
    assert verdict.reason == f"loss became {value} at step 7"
    (trial,) = load(tmp_path).trials.to_dict("records")
    assert (trial["outcome"], trial["tensor"], trial["last_step"]) == ("diverged", "loss", 7)
    assert len(rows(tmp_path)) == 8
    assert watch.step(8, 1.0).stop  # It stays so.


@pytest.mark.parametrize(
    ("error", "kept"),
    [(RuntimeError("no\nmemory"), "failed"), (KeyboardInterrupt(), "unfinished")],
)
def test_an_error_in_the_loop_is_a_failure_and_ctrl_c_is_no_end(tmp_path, error, kept):
    model = made(PlainLM)

    def loop():
        with Watch(model, out=tmp_path, total_steps=9, quiet=True) as watch:
            loss_of(model, next(batches(1))).backward()
            watch.step(0, 3.0)
            raise error

    with pytest.raises(type(error)):
        loop()
    assert load(tmp_path).trials["outcome"].tolist() == [kept]
    assert not model._forward_pre_hooks


def test_a_run_goes_on_where_its_loop_does(tmp_path):
    def loop(first, last):
        model = made(PlainLM)
        with Watch(model, out=tmp_path, total_steps=9, quiet=True, telemetry_every=3) as watch:
            for step in range(first, last):
                loss_of(model, next(batches(1))).backward()
                watch.step(step, 3.0 + step)
            if last < 9:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop(0, 6)
    loop(4, 9)
    assert [(r["step"], r["loss"]) for r in rows(tmp_path)] == [(s, 3.0 + s) for s in range(9)]
    with pytest.raises(ValueError, match=r"^out must not have this run already.*which has ended"):
        loop(0, 1)


def test_a_model_without_attention_is_recorded_and_told_what_is_missing(tmp_path, capsys):
    fit(made(Gru), watch=watching(tmp_path, quiet=False))
    said = capsys.readouterr().err
    assert "blocks: none found" in said
    assert "attention: none found; a forecast that reads its logits can't tell" in said
    row = rows(tmp_path)[10]
    assert {"logits_rms", "grad_rms_gru", "update_rms_gru", "grad_norm"} <= row.keys()
    assert not [name for name in row if "attention" in name]


WRONG = {
    "model must be the torch.nn.Module": lambda: {"model": print},
    "model must not be inside nn.DataParallel": lambda: {"model": nn.DataParallel(PlainLM())},
    "optimizer must be a torch optimizer": lambda: {"optimizer": "adamw"},
    "total_steps must be a whole number from 1, got 0": lambda: {"total_steps": 0},
    "telemetry_every must be a whole number": lambda: {"telemetry_every": 2.5},
    "config must be a mapping": lambda: {"config": 3},
    "the forecast's model must be there": lambda: {"forecast": "nowhere.json"},
    "false_stops must be one of the rates": lambda: {"false_stops": 0.5},
}


@pytest.mark.parametrize("rule", WRONG)
def test_what_it_cannot_watch_is_refused_in_a_sentence(tmp_path, rule):
    given = {"model": PlainLM(), "out": tmp_path, "total_steps": 9, **WRONG[rule]()}
    with pytest.raises(ValueError, match=f"^{rule}"):
        Watch(given.pop("model"), **given)
    assert list(tmp_path.iterdir()) == []


STEPS = {
    "loss must be one number, got a tensor of shape": (0, torch.ones(3)),
    "loss must be a number, got str 'high'": (0, "high"),
    "step must be a whole number": (0.5, 1.0),
    "step must count updates one by one, got 0 after 0": (0, 1.0),
}


@pytest.mark.parametrize("rule", STEPS)
def test_a_step_that_is_none_is_refused_in_a_sentence(tmp_path, rule):
    with Watch(PlainLM(), out=tmp_path, total_steps=9, quiet=True) as watch:
        watch.step(0, 1.0)
        with pytest.raises(ValueError, match=f"^{rule}"):
            watch.step(*STEPS[rule])


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
    exec(lines, names)
    assert len(rows(tmp_path / "runs" / "mine")) == 3
