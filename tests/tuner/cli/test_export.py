"""`foretune export`: from a finished run to a file that gives its logits, or one sentence."""

import json
import re
import shutil

import pytest
import torch
from commands import DIGITS, TEXT, call, printed_numbers, refused, train

from foretune.models.export.reference_decoder import decode
from foretune.models.export.save import load_model
from foretune.tuner.data.streams import open_stream
from foretune.tuner.records.exported import compare, read_finished, trained_model
from foretune.tuner.records.files import write_json
from foretune.tuner.training.checkpoint import MODEL_FILE

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, text):
    """Returns the folder of a run, trained once for all tests, which mustn't change it."""
    found = {}

    def get(preset, quantizer, **changes):
        key = preset, quantizer, *changes.items()
        if key not in found:
            data = DIGITS if preset == "cnn-tiny" else {**TEXT, "data.name": "text"}
            data = data if preset == "cnn-tiny" else {**data, "data.path": str(text)}
            changes = {**data, "quantizer": quantizer, **changes}
            found[key] = train(tmp_path_factory.mktemp("run"), preset, changes)
        return found[key]

    return get


def compared(run_dir, path):
    """Trained model and file on the run's validation data."""
    finished = read_finished(run_dir)
    run = finished.run
    stream = open_stream(run.data, batch_size=run.batch_size)
    return compare(run, stream, trained_model(finished), load_model(path))


@pytest.mark.parametrize("packing", ["base3", "2bit"])
@pytest.mark.parametrize(
    ("preset", "quantizer", "changes"),
    [
        ("lm-tiny", "ternary-mean", {"model.width": 16}),
        ("lm-llama", "ternary-median-bare", {"model.width": 32}),
        ("lm-tiny", "binary", {"model.width": 16}),
        ("cnn-tiny", "ternary-median", {}),
    ],
)
def test_a_safetensors_file_is_the_trained_model(
    capsys, trained, tmp_path, preset, quantizer, changes, packing
):
    run_dir, path = trained(preset, quantizer, **changes), tmp_path / "m.safetensors"
    line = f"export '{run_dir}' --packing {packing} --out '{path}'"
    code, out, err = call(capsys, line)
    assert (code, err) == (0, "")
    mine, recorded, loaded, difference = printed_numbers(out)
    outcome = json.loads((run_dir / "outcome.json").read_text())
    assert mine == loaded == recorded == pytest.approx(outcome["final_val_loss"], abs=1e-6)
    assert difference <= 1e-5
    found = compared(run_dir, path)
    assert found.largest_difference == 0.0
    assert found.trained_loss == outcome["final_val_loss"]
    bits = float(re.search(r"^ternary .* ([\d.]+)$", out, re.MULTILINE)[1])
    assert bits >= (1.6 if packing == "base3" else 2.0)
    assert f"{path.stat().st_size:,}" in out
    about, _ = decode(path)
    facts = about["facts"]
    assert facts["run_id"] == run_dir.name
    assert facts["data_sha256"] == outcome["data_sha256"]
    assert facts["final_val_loss"] == outcome["final_val_loss"]
    assert facts["command"] == json.loads((run_dir / "run.json").read_text())["command"]


@pytest.mark.parametrize("quantizer", ["ternary-mean-bare", "ternary-median-bare"])
@pytest.mark.parametrize("packing", ["base3", "2bit"])
def test_a_gguf_file_is_the_trained_model(capsys, trained, quantizer, packing):
    """Scales are fp16 from the first step on, as the file holds them."""
    run_dir = trained("lm-llama", quantizer)
    code, out, err = call(capsys, f"export '{run_dir}' --format gguf --packing {packing}")
    assert (code, err) == (0, "")
    path = run_dir / f"{run_dir.name}-{packing}.gguf"
    assert out.endswith(f"written: {path}\n")
    assert "not packed" not in out
    mine, recorded, loaded, _ = printed_numbers(out)
    assert mine == recorded
    assert loaded == mine
    assert compared(run_dir, path).largest_difference == 0.0


def test_scales_in_fp32_leave_a_gguf_file_near_the_trained_model(capsys, trained):
    """Rounded to fp16 (relative error 2^-11), which the int8 rounding of inputs enlarges."""
    run_dir = trained("lm-llama", "ternary-mean-bare", **{"quantization.scale_dtype": "float32"})
    code, out, _ = call(capsys, f"export '{run_dir}' --format gguf")
    mine, _, loaded, _ = printed_numbers(out)
    assert code == 0
    assert loaded == pytest.approx(mine, abs=1e-3)
    found = compared(run_dir, run_dir / f"{run_dir.name}-base3.gguf")
    assert 0 < found.largest_difference <= 0.02 * found.largest_logit


def test_a_file_that_differs_says_why_and_how_to_avoid_it(capsys, trained, tmp_path):
    said = "more than 0.001 is to be expected: "
    changes = {"quantization.scale_dtype": "float32"}
    run_dir = trained("lm-llama", "ternary-mean-bare", **changes)
    _, out, _ = call(capsys, f"export '{run_dir}' --format gguf --out '{tmp_path}/a.gguf'")
    assert printed_numbers(out)[3] > 1e-3
    assert f"{said}GGUF keeps scales in fp16, which can flip int8 roundings of inputs" in out
    assert "training with --set quantization.scale_dtype=float16 avoids it" in out
    _, out, _ = call(capsys, f"export '{run_dir}' --out '{tmp_path}/a.safetensors'")
    assert said not in out
    line = f"export '{run_dir}' --rest-dtype bf16 --out '{tmp_path}/b.safetensors'"
    assert f"{said}--rest-dtype bf16 rounds all that isn't ternary\n" in call(capsys, line)[1]


def test_the_rest_may_be_smaller(capsys, trained, tmp_path):
    run_dir = trained("lm-llama", "ternary-mean-bare")
    sizes = {}
    for format, dtype in (("safetensors", "bf16"), ("gguf", "fp16")):
        for rest in ("fp32", dtype):
            path = tmp_path / f"{rest}.{format}"
            line = f"export '{run_dir}' --format {format} --rest-dtype {rest} --out '{path}'"
            assert call(capsys, line)[0] == 0
            sizes[rest] = path.stat().st_size
        # Embedding and head, 256 x 256 each, are nearly all of the rest.
        assert sizes["fp32"] - sizes[dtype] == pytest.approx(2 * 2 * 256 * 256, rel=0.02)


def test_weights_that_a_gguf_block_cannot_hold_are_named(capsys, trained, tmp_path):
    changes = {"quantization.granularity": "group"}
    run_dir = trained("lm-llama", "ternary-mean-bare", **changes)
    path = tmp_path / "m.gguf"
    code, out, _ = call(capsys, f"export '{run_dir}' --format gguf --out '{path}'")
    assert code == 0
    assert "ternary, not packed" in out
    assert "instead of TQ1_0, since its scale changes inside blocks of 256" in out


REFUSALS = {
    ("lm-tiny", "none", ""): "quantization.format=none; train with --set quantizer=ternary-mean",
    ("lm-tiny", "int8", ""): "export needs a run with ternary weights, got quantization.format=int",
    ("lm-tiny", "ternary-mean", "--format gguf"): "quantizer=ternary-mean-bare or ternary-median-b",
    ("lm-tiny", "ternary-mean-bare", "--format gguf"): "model.norm=rmsnorm model.mlp=swiglu",
    ("cnn-tiny", "ternary-mean-bare", "--format gguf"): "got convnet; export it as safetensors",
    (
        "lm-tiny",
        "ternary-mean",
        "--rest-dtype fp16",
    ): "--rest-dtype must be fp32 or bf16 for --form",
    ("lm-tiny", "ternary-mean", "--out {tmp}/m.gguf"): "--out must end in .safetensors for --form",
    ("lm-tiny", "ternary-mean", "--out {tmp}/held.safetensors"): "must be a new file, got",
    (
        "lm-tiny",
        "ternary-mean",
        "--out {tmp}/file/m.safetensors",
    ): "must be in a folder, got",
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_exported_is_one_sentence(capsys, trained, tmp_path, case):
    preset, quantizer, options = case
    for name in ("held.safetensors", "file"):
        (tmp_path / name).write_text("mine")
    run_dir = trained(preset, quantizer)
    before = sorted(run_dir.rglob("*"))
    line = f"export '{run_dir}' {options.format(tmp=tmp_path)}"
    assert REFUSALS[case] in refused(capsys, line)
    assert sorted(run_dir.rglob("*")) == before
    assert (tmp_path / "held.safetensors").read_text() == "mine"


def test_a_width_that_gguf_cannot_pack_names_one_that_it_can(capsys, trained):
    run_dir = trained("lm-llama", "ternary-mean-bare", **{"model.width": 32})
    error = refused(capsys, f"export '{run_dir}' --format gguf")
    assert "model.width to be a multiple of 256" in error
    assert "got 32; train at 256, or export as safetensors" in error


def test_weights_below_full_strength_are_refused(capsys, trained):
    run_dir = trained("lm-tiny", "ternary-mean", **{"quantization.strength": 0.5})
    assert "strength=1, got 0.5 in" in refused(capsys, f"export '{run_dir}'")


def test_a_folder_that_is_no_finished_run_is_one_sentence(capsys, trained, tmp_path):
    run_dir = tmp_path / "copy"
    shutil.copytree(trained("lm-tiny", "ternary-mean"), run_dir)
    line = f"export '{run_dir}'"
    assert "RUN_DIR must be the folder of one run" in refused(capsys, f"export '{tmp_path}'")
    model = run_dir / "checkpoint" / MODEL_FILE
    model.write_bytes(model.read_bytes()[:1000])
    assert "got a damaged file" in refused(capsys, line)
    torch.save({"embedding.weight": torch.zeros(3)}, model)
    assert "must hold the weights of the model in run.json" in refused(capsys, line)
    model.unlink()
    error = refused(capsys, line)
    assert "without checkpoint/model.pt" in error
    assert "foretune train, or its sweep with --keep-models" in error
    outcome = json.loads((run_dir / "outcome.json").read_text())
    write_json(run_dir / "outcome.json", {**outcome, "outcome": "diverged", "reason": "loss nan"})
    assert "got one that is diverged (loss nan); such runs keep no" in refused(capsys, line)
    (run_dir / "outcome.json").unlink()
    assert "which has no outcome yet" in refused(capsys, line)


def test_changed_data_and_records_are_refused(capsys, tmp_path, text):
    copy = tmp_path / "text.txt"
    copy.write_bytes(text.read_bytes())
    changes = {**TEXT, "data.name": "text", "data.path": str(copy), "quantizer": "ternary-mean"}
    run_dir = train(tmp_path, "lm-tiny", changes)
    outcome = json.loads((run_dir / "outcome.json").read_text())
    write_json(run_dir / "outcome.json", {**outcome, "data_sha256": "another"})
    assert "must be those that the run saw, got others" in refused(capsys, f"export '{run_dir}'")
    facts = json.loads((run_dir / "run.json").read_text())
    facts["config"]["quantization"]["rounding"] = "up"
    write_json(run_dir / "run.json", facts)
    assert "run.json must have the fields of this version" in refused(capsys, f"export '{run_dir}'")
