"""The coordinate check on real models: what is read, that a broken rule fails, the command."""

import pandas as pd
import pytest
import torch
from commands import call, refused
from short_runs import small

from foretune.analysis.claims.mup_theory import COLUMNS, FAILS, FITS, LAYERS, judge
from foretune.models import TransformerConfig, ViTConfig
from foretune.models.nets.parametrize import Rule
from foretune.tuner.config.override import override
from foretune.tuner.config.presets import lm_tiny, vit_tiny
from foretune.tuner.training.coordinates import coordinates, own_effect, read_signals, rms

torch.set_num_threads(1)

TOKENS = torch.randint(0, 256, (4, 16), generator=torch.Generator().manual_seed(0))


def built(config, seed=0):
    torch.manual_seed(seed)
    return config.build()


def test_every_layer_of_every_block_is_read():
    model = built(TransformerConfig(width=32, depth=2, mlp="swiglu"))
    found = read_signals(model, TOKENS)
    inside = set(LAYERS) - {"embedding", "patch_embedding", "logits"}
    outside = {("embedding", -1), ("logits", -1)}
    assert set(found) == outside | {(layer, block) for layer in inside for block in (0, 1)}
    assert torch.equal(found["logits", -1].output, model(TOKENS).flatten(0, 1))
    q, k, v = (found[part, 1] for part in "qkv")
    qkv = model.blocks[1].attention.qkv
    assert torch.equal(torch.cat((q.weight, k.weight, v.weight)), qkv.weight)
    assert torch.allclose(q.input @ q.weight.T, q.output, atol=1e-6)
    # Sixteen positions see 1 to 16 keys, in 4 sequences and 2 heads.
    assert found["attention_logits", 0].output.shape == (4 * 2 * 16 * 17 // 2,)
    assert found["attention_logits", 0].output.std() == pytest.approx(1.0, rel=0.3)


def test_an_image_transformer_is_read_from_its_patches_on():
    images = torch.rand(2, 1, 32, 32)
    found = read_signals(built(ViTConfig(width=32, depth=1)), images)
    assert {layer for layer, _ in found} == set(LAYERS) - {"embedding", "mlp_gate"}
    assert found["attention_logits", 0].output.shape == (2 * 2 * 64 * 64,)


def test_reading_leaves_no_trace():
    model = built(TransformerConfig(width=32, depth=1))
    before = model(TOKENS)
    random = torch.get_rng_state()
    read_signals(model, TOKENS)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(model(TOKENS), before)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(tap.watch is None for tap in (model.tap, model.blocks[0].tap))


def test_an_own_effect_is_of_the_weights_and_not_of_the_size_of_the_input():
    model = built(TransformerConfig(width=32, depth=1))
    first = read_signals(model, TOKENS)
    with torch.no_grad():
        model.blocks[0].mlp.mlp_in.weight.mul_(1.5)
        model.blocks[0].mlp_norm.weight.mul_(7.0)
    now = read_signals(model, TOKENS)
    key = ("mlp_in", 0)
    assert rms(now[key].output) == pytest.approx(7 * 1.5 * rms(first[key].output), rel=1e-4)
    assert own_effect(first[key], now[key]) == pytest.approx(0.5 * rms(first[key].output), rel=1e-4)


def short(text, **changes):
    """lm-tiny with two blocks on few and short texts."""
    data = {"data.name": "text", "data.path": str(text), "data.sequence_length": 32}
    few = {"batch_size": 4, "micro_batch_size": 4, "model.depth": 2}
    return override(lm_tiny(), {**data, **few, **changes})


def check(run, change_rules=None, widths=(16, 32, 64, 128), **how):
    how = {"parametrizations": ["mup-intermediate"], "seeds": 2, "steps": 3, **how}
    rows = coordinates(run, widths=widths, change_rules=change_rules, **how)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def failing(table):
    judged = judge(table)
    wrong = judged[judged["verdict"] == FAILS]
    return set(zip(wrong["layer"], wrong["quantity"], strict=True))


@pytest.mark.parametrize(
    ("parameter", "failures"),
    [
        ("", set()),
        ("mlp_out.weight", {("mlp_out", "update")}),
        ("head.weight", {("logits", "update")}),
    ],
)
def test_a_multiplier_left_at_one_fails_on_exactly_that_layer(text, parameter, failures):
    def broken(rules):
        return {n: r for n, r in rules.items() if not (parameter and n.endswith(parameter))}

    assert failing(check(short(text), broken)) == failures


def test_the_first_step_of_adam_moves_an_embedding_by_the_learning_rate(text):
    """Those of the tokens that it has seen; all others stay."""
    table = check(short(text), lambda rules: {"embedding.weight": Rule(lr=3.0)}, widths=(16, 32))
    first = table[(table["step"] == 1) & (table["layer"] == "embedding")]
    assert first["change"].to_numpy() == pytest.approx(3 * 1e-2, rel=0.1)
    assert (first["change"] == first["update"]).all()


def test_an_image_transformer_follows_theory_where_it_can_be_told():
    digits = {"data.name": "digits", "model.image_size": 8, "model.patch_size": 2}
    run = override(vit_tiny(), {**digits, "data.augment": False, "model.depth": 1})
    assert failing(check(run, parametrizations=["standard", "mup-full"])) == set()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model.norm_placement": "post"}, "model.norm_placement must be pre for coord-check"),
        ({"model.sigma_reparam": True}, "model.sigma_reparam must be False"),
        ({"optimizer.name": "muon"}, "optimizer.name must be adamw for coord-check"),
        ({"optimizer.lr_scale": "rms"}, "optimizer.lr_scale must be none"),
        ({"quantization.format": "ternary"}, "quantization.format must be none"),
    ],
)
def test_what_there_is_no_theory_for_is_refused(text, changes, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        check(override(small(text), changes))


def test_the_command_writes_tables_and_picture_and_exits_by_the_verdict(text, tmp_path, capsys):
    line = (
        f"coord-check --parametrization mup-simple --widths 16 32 --steps 2 --seeds 2 --out "
        f"{tmp_path}/out --set data.name=text data.path={text} --set model.depth=1"
    )
    code, out, _ = call(capsys, line)
    slopes = pd.read_csv(tmp_path / "out" / "slopes.csv")
    assert code == int(not slopes["verdict"].isin([FITS, "-"]).all())
    assert "mup-simple\n" in out
    coordinates = pd.read_csv(tmp_path / "out" / "coords.csv")
    assert len(coordinates) == 2 * 2 * (2 + 1) * 10
    assert (tmp_path / "out" / "coords.png").stat().st_size > 10_000
    assert set(slopes["parametrization"]) == {"mup-simple"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--parametrization mup-ful", "Did you mean mup-full?"),
        ("--parametrization standard standard", "--parametrization must give each value once"),
        ("--widths 16", "--widths must name 2 or more, got 1."),
        ("--widths 16 40", "model.width must be a multiple of model.head_dim, got 40"),
        ("--seeds 0", "--seeds must be 1 or more, got 0."),
        ("--steps 0", "--steps must be 1 or more, got 0."),
        ("--lr 0", "optimizer.lr must be above 0"),
        ("--set model.width=32", "--set must leave model.width out, which --widths gives."),
        ("--set optimizer.clip_norm=1", "--set must leave optimizer.clip_norm out, which is 0.0"),
        (
            "--set optimizer.decay=coupled",
            "optimizer.decay out, since a coordinate check is without",
        ),
        (
            "--set intervention=no-clipping",
            "--set must leave optimizer.clip_norm out, which is 0.0",
        ),
        ("--set intervention=decay-linear", "optimizer.decay_on out, since a coordinate check is"),
        ("cnn-tiny", "coord-check needs a transformer, whose theory it knows, got ConvNetConfig"),
    ],
)
def test_bad_arguments_are_one_sentence(tmp_path, capsys, options, sentence):
    assert sentence in refused(capsys, f"coord-check {options} --out {tmp_path}/out")
    assert not (tmp_path / "out").exists()


def test_a_base_width_is_taken_where_it_means_something(text, tmp_path, capsys):
    data = f"--set data.name=text data.path={text} model.depth=1 parametrization.base_width=64"
    line = f"coord-check --widths 64 128 --steps 1 --seeds 1 --out {tmp_path}/out {data}"
    err = refused(capsys, f"{line} --parametrization standard")
    assert "parametrization.base_width=64 needs a rule for width" in err
    code, out, _ = call(capsys, f"{line} --parametrization standard mup-simple")
    assert code == 1  # One seed and one block have no interval.
    assert "cannot tell; more --seeds or --widths narrow the intervals" in out
    table = pd.read_csv(tmp_path / "out" / "coords.csv")
    at_base = table[(table["width"] == 64) & (table["layer"] == "mlp_in")]
    assert (at_base.groupby("step")["update"].nunique() == 1).all()  # There nothing differs.
