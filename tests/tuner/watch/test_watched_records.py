"""What a watched run leaves on disk, and what is refused."""

import math

import pytest
import torch
from plain_models import (
    Gru,
    PlainLM,
    batches,
    fit,
    loss_of,
    made,
    rows,
    watching,
)
from torch import nn

from foretune import Watch, load


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
    loop(0, 9)
    names = sorted(load(tmp_path).trials["run_id"])
    assert names[1] == f"{names[0]}-2"
    assert load(tmp_path).telemetry.groupby("run_id").size().tolist() == [9, 9]


def test_a_sweep_s_directory_is_refused(tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ValueError, match=r"^out must be a directory for watched runs, got .*"):
        Watch(PlainLM(), out=tmp_path, total_steps=9)
    assert not (tmp_path / "runs").exists()


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
