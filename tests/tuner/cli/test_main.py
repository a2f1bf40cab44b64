"""The command line: bad input is one sentence and exit 2 before anything starts."""

from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
from commands import call, refused

from foretune.tuner.cli.main import COMMANDS, MANY, gather


@pytest.fixture
def names(tmp_path):
    (tmp_path / "file").write_text("a regular file")
    (tmp_path / "short.txt").write_text("too short for a batch")
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "sweep.json").write_text("{}")
    (tmp_path / "no_run_for_test_cli.py").write_text("MODEL = 3\n")
    (tmp_path / "broken_for_test_cli.py").write_text("RUN = (\n")
    return {"tmp": str(tmp_path), "out": str(tmp_path / "out")}


SWEEPS = {
    "--set optimizer.lrr=1e-2": "is no field of Optimizer. Did you mean optimizer.lr?",
    "--grid optimizr.lr=1e-2": "Did you mean optimizer.lr?",
    "--sizes 24": "model.width must be a multiple of model.head_dim, got 24 and 16",
    "--set steps=0": "steps must be 1 or more, got 0",
    "--set steps=-5": "steps must be 1 or more, got -5",
    "--set optimizer.lr=abc": "optimizer.lr must be a finite number, got 'abc'",
    "--set optimizer.lr=nan": "optimizer.lr must be a finite number, got 'nan'",
    "--set optimizer.lr=1e999": "optimizer.lr must be a finite number, got inf",
    "--grid optimizer.lr=": "The grid of optimizer.lr must hold at least one value",
    "--set data.name=text --set data.path={tmp}/absent.txt": "data.path must be a file or folder",
    "--set data.name=text --set data.path={tmp}/short.txt": "The text must hold a batch",
    "--set steps": "--set must look like optimizer.lr=1e-3, got 'steps'",
    "--address 127.0.0.1:1": "127.0.0.1:1",
    "--cpus-per-trial 4096": "A trial must fit on one node, got 4096 CPUs",
    "--cpus-per-trial 0": "cpus_per_trial must be above 0",
    "--cpus-per-trial nan": "cpus_per_trial must be above 0",
    "--gpus-per-trial 64": "A trial must fit on one node",
    "--checkpoint-seconds nan": "checkpoint_seconds must be 0 or more",
    "--checkpoint-seconds -1": "checkpoint_seconds must be 0 or more",
    "--max-concurrent -1": "max_concurrent must be 0 or more",
    "--stall-timeout 0": "stall_timeout must be above 0",
    "--stall-timeout inf": "stall_timeout must be above 0",
    "--tracking-uri foo://x": "tracking URI must begin with one of",
    "--preset lm-tinny": "Did you mean lm-tiny?",
    "--preset {tmp}/absent.py:RUN": "must name a file that exists",
    "--preset {tmp}/no_run_for_test_cli.py:MODEL": "no_run_for_test_cli.py:MODEL",
    "--preset {tmp}/broken_for_test_cli.py": "broken_for_test_cli.py",
    "--intervention qk-layernrm": "Did you mean qk-layernorm?",
    "--sizes 16 --set model.size=32": "model.size must be given by one option, got --set and",
    "--set model.sise=32": "Did you mean model.size, the ladder's dial? It is --sizes",
    "--sizes 16 32 --sizes 16": "--sizes must give each value once, got 16 twice; leave one out.",
    "--grid optimizer.lr=1e-2,1e-2": "--grid optimizer.lr must give each value once, got 0.01",
    "--set steps=20 --set steps=30": "--set must name a field once, got steps=20 and steps=30;",
    "--set quantization.start=0.2": "quantization.start=0.2 needs a number format, got format=none",
    "--set optimizer.learning_rate=1": "Did you mean optimizer.lr?",
    "--intervention qk-layernorm": "which the space varies; add --drop model.qk_norm.",
    "--intervention z-loss --set loss.z_loss=1": "sets loss.z_loss, which --set sets to 1.0; leave",
    "--intervention z-loss --grid loss.z_loss=0,1": "loss.z_loss, which --grid varies; leave one",
    "--preset cnn-tiny": "is no field of ConvNetConfig; leave it out with --drop model.qk_norm.",
    "--drop optimizer.l": "--drop must name a field of the space",
    "--seeds 0": "seeds must be 1 or more, got 0",
    "--seed -1": "0",
    "--search random --num-samples 0": "num_samples must be 1 or more, got 0",
    "--scheduler asha --reduction-factor 1": "reduction_factor must be above 1, got 1",
    "--scheduler asha --grace-steps 10000": "grace_steps must be from 1 to",
}


@pytest.mark.parametrize("options", SWEEPS)
def test_a_bad_sweep_is_one_sentence_before_anything_starts(capsys, names, options):
    assert SWEEPS[options] in refused(capsys, "sweep lr --out {out} " + options, **names)
    assert not Path(names["out"]).exists()


def test_a_refused_sweep_takes_the_folders_that_it_made_away_and_no_others(capsys, names):
    (Path(names["tmp"]) / "mine").mkdir()
    line = "sweep lr --out {tmp}/mine/a/b --address 127.0.0.1:1"
    assert call(capsys, line, **names)[0] == 2
    assert list((Path(names["tmp"]) / "mine").iterdir()) == []
    line = "sweep lr --out {tmp}/mine --cpus-per-trial 4096"
    assert call(capsys, line, **names)[0] == 2
    assert (Path(names["tmp"]) / "mine").is_dir()


def test_an_out_below_a_file_is_one_sentence(capsys, names):
    err = refused(capsys, "sweep lr --out {tmp}/file/out", **names)
    assert "--out must be a directory that can be written" in err


def test_an_out_with_another_sweep_is_refused_before_ray_starts(capsys, names):
    # Were Ray asked first, the sentence would be about the address.
    err = refused(capsys, "sweep lr --out {tmp}/held --address 127.0.0.1:1", **names)
    assert "--out must be a new directory" in err
    assert "foretune resume" in err


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("sweep lrr --out {out}", "space must be one of"),
        ("sweep {tmp}/absent.py --out {out}", "must name a file that exists"),
        ("resume {tmp}", "DIR must hold a sweep"),
        ("resume {tmp}/absent", "DIR must hold a sweep"),
        ("collect {tmp}", ""),
        ("report {tmp}", ""),
        ("sync {tmp}", ""),
        ("predict {tmp} --size 64", ""),
        ("predict {tmp} --size 64 --threshold word", ""),
        ("train lm-tiny --out {out} --threads 0", "--threads must be 1 or more"),
        ("train lm-tiny --out {out} --device gpu", "device must be auto, cpu, cuda or cuda:N"),
        ("train lm-tiny --out {tmp}/file/out --set steps=1", "--out must be a directory"),
        ("train lm-tiny --out {out} --set steps=0", "steps must be 1 or more, got 0"),
        ("train lm-tinny --out {out}", "Did you mean lm-tiny?"),
        (
            "train cnn-tiny --out {out} --intervention qk-layernorm",
            "qk-layernorm needs a field model.qk_norm, which ConvNetConfig doesn't have.",
        ),
        (
            "train lm-tiny --out {out} --set quantization.scale=median",
            "quantization.scale=median needs a number format, got format=none; add --set",
        ),
        (
            "sweep ternary-vision --out {out} --preset resnet-tiny --sizes 12 13",
            "which round to the same channels; the nearest other size is 14.",
        ),
        ("submit", "submit must be given a command"),
    ],
)
def test_other_bad_commands_are_one_sentence(capsys, names, line, sentence):
    assert sentence in refused(capsys, line, **names)
    assert not Path(names["out"]).exists()


def test_a_threshold_that_is_a_word_is_named(capsys, names):
    run = "train lm-tiny --size 16 --out {out} --set steps=1 data.name=text data.path={tmp}/long"
    (Path(names["tmp"]) / "long").write_text("a text that is long enough. " * 2000)
    assert call(capsys, run, **names)[0] == 0
    err = refused(capsys, "predict {out} --size 64 --threshold word", **names)
    assert "--threshold must be a number or auto, got 'word'" in err


@pytest.mark.parametrize("line", ["nonsense", "sweep lr", "sweep lr --out a --nonsense 3", ""])
def test_what_tyro_refuses_ends_with_2(capsys, line):
    assert call(capsys, line)[0] == 2


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_of_every_command(capsys, command):
    code, out, _ = call(capsys, f"{command} --help")
    assert code == 0
    assert "foretune" in out


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("presets", "lm-tiny"),
        ("spaces", "random-lr"),
        ("interventions", "qk-layernorm"),
        ("models", "transformer"),
        ("datasets", "stdlib"),
    ],
)
def test_list_tells_every_family(capsys, what, name):
    code, out, _ = call(capsys, f"list {what}")
    assert code == 0
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert name in lines
    assert all(lines.values()), "every name has a description"


def test_a_dry_run_prints_trials_and_writes_nothing(capsys, names, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    line = (
        "sweep lr --out {out} --dry-run --sizes 16 --set steps=20 --grid optimizer.lr=1e-2,3e-2 "
        "--set optimizer.beta1=0.8 --sizes 32 --set seed=3 --grid optimizer.beta2=0.9"
    )
    code, out, err = call(capsys, line, **names)
    assert (code, err) == (0, "")
    trials, costs = out.splitlines()[:8], out.splitlines()[8:]
    assert all("beta2=" not in line and "lr=0.0" in line for line in trials)
    assert [line.split()[0] for line in costs[:4]] == ["size", "16", "32", "all"]
    assert costs[4].startswith("8 trials, ")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_space_is_swept_over_the_models_that_it_is_about(capsys, names):
    line = "sweep ternary-vision --out {out} --dry-run --sizes 8 --set steps=20"
    code, out, err = call(capsys, line, **names)
    assert (code, err) == (0, "")
    assert "quantizer=ternary-median lr=" in out
    (listed,) = (
        row for row in call(capsys, "list spaces")[1].splitlines() if row.startswith("ternary-v")
    )
    assert listed.endswith("(preset cnn-tiny)")
    assert "space's own" in " ".join(call(capsys, "sweep --help")[1].replace("│", "").split())


def test_every_repeated_option_counts():
    line = "sweep lr --set steps=20 --out x --set optimizer.lr=1 --sizes 16 32 --sizes=64 --dry-run"
    assert gather(line.split()) == (
        [
            "sweep",
            "lr",
            "--out",
            "x",
            "--dry-run",
            "--set",
            "steps=20",
            "optimizer.lr=1",
            "--sizes",
            "16",
            "32",
            "64",
        ]
    )


def several(function):
    """The flags of a command that take several values."""
    found = []
    for name, hint in get_type_hints(function, include_extras=True).items():
        own, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if is_dataclass(own):
            found += several(own)
        elif get_origin(own) is tuple:
            named = [mark.name for mark in marks if getattr(mark, "name", None)]
            found.append(f"--{named[0] if named else name}")
    return found


def test_every_option_of_several_values_is_gathered():
    found = {flag for command in COMMANDS.values() for flag in several(command)}
    assert found - {"--figures"} == set(MANY)  # Which has no dashes.


@pytest.mark.parametrize("option", MANY)
@pytest.mark.parametrize(
    "line",
    [
        "sweep lr --dry-run --out {{out}} {0}",
        "sweep lr {0} --dry-run --out {{out}}",
        "sweep lr {0} a=1 {0} --out {{out}} --dry-run",
    ],
)
def test_an_option_of_several_values_needs_one(capsys, names, line, option):
    code, out, err = call(capsys, line.format(option), **names)
    sentence = f"{option} must be given a value, got none; leave it out for its default."
    assert (code, out, err) == (2, "", f"foretune: {sentence}\n")


def test_repeated_sets_reach_the_run(capsys, names):
    line = "sweep lr --out {out} --dry-run --sizes 16 --set steps=0 --set optimizer.lr=0.5"
    assert "steps must be 1 or more" in call(capsys, line, **names)[2]
    line = "sweep lr --out {out} --dry-run --sizes 16 --set steps=20 --set optimizer.lr=-1"
    assert "optimizer.lr must be above 0" in call(capsys, line, **names)[2]
