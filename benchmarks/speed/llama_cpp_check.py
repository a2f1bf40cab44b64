r"""Claim: llama.cpp runs an exported GGUF file with the logits of the trained model, but for fp16
scales and its own rounding of activations (int8 per block of 256 inputs instead of per token).

A finished lm-llama run is exported as TQ1_0 and TQ2_0, and as a control in F32 (trit x scale, not
packed), whose reference is our model with activations=off: what remains there is arithmetic alone,
so it shows that architecture, tensor names and rotary positions agree. llama-cpp-python evaluates
the run's validation sequences with each file on the CPU, with an F32 cache.

The package is no dependency of ours (it compiles for some minutes); it has a Python of its own:

    python -m venv demo/llama-cpp && demo/llama-cpp/bin/pip install llama-cpp-python numpy
    foretune train lm-llama --set quantizer=ternary-mean-bare steps=400 --out runs/llama
    python -m benchmarks.speed.llama_cpp_check runs/llama/runs/<id> \
        --python demo/llama-cpp/bin/python [--save]

With --logits FILE.gguf TOKENS.npy LOGITS.npy it is the other side, which that Python runs; hence
the imports inside functions. (Named llama_cpp.py, it would hide the package.)
"""

import argparse
import importlib
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEQUENCES = 64
MAX_RMS_SHARE, MAX_LOSS_DIFFERENCE = 0.01, 1e-3
"""Bounds for packed files: RMS of the logit difference over that of the logits; nats."""
MAX_CONTROL = 1e-4
"""Largest logit difference of the control."""


def llama_cpp_logits(model: str, tokens_file: str, out: str) -> int:
    """Writes llama.cpp's logits (B, T, V) of tokens (B, T); returns the exit code."""
    llama_cpp: Any = importlib.import_module("llama_cpp")
    tokens_BT = np.load(tokens_file)
    length = tokens_BT.shape[1]
    llm = llama_cpp.Llama(
        model,
        n_ctx=length,
        logits_all=True,
        n_threads=1,
        n_gpu_layers=0,
        flash_attn=False,
        type_k=0,  # GGML_TYPE_F32; llama.cpp's default is a cache in F16.
        type_v=0,
        verbose=False,
    )
    logits = []
    for row in tokens_BT.tolist():
        llm.reset()
        llm.eval(row)
        logits.append(np.array(llm.scores[:length]))
    np.save(out, np.stack(logits))
    text = "def f(x):\n\treturn  x + 1  # naïve, 日本\n"
    ids = llm.tokenize(text.encode(), add_bos=True, special=False)
    assert ids == list(text.encode()), "its tokens must be the bytes of the text"
    print(llama_cpp.__version__)
    return 0


def cross_entropy(logits_BTV: NDArray[np.float32], targets_BT: NDArray[np.int64]) -> float:
    """Returns the mean in nats."""
    z = logits_BTV.astype(np.float64)
    z -= z.max(-1, keepdims=True)
    right = np.take_along_axis(z, targets_BT[..., None], -1)[..., 0]
    return float((np.log(np.exp(z).sum(-1)) - right).mean())


def check(run_dir: Path, python: str, *, save: bool) -> int:
    """Exports, lets llama.cpp evaluate, prints the differences; returns the exit code."""
    import torch

    from benchmarks.record import Record
    from foretune.models.export.save import export_model
    from foretune.models.quantization.layers import refresh
    from foretune.models.quantization.replace import quantize
    from foretune.tuner.data.streams import open_stream
    from foretune.tuner.records.exported import read_finished, trained_model

    torch.set_num_threads(1)
    finished = read_finished(run_dir)
    run, model = finished.run, trained_model(finished)
    plain = run.model.build()
    quantize(plain, replace(run.quantization, activations="off"))
    plain.load_state_dict(model.state_dict())
    plain.eval()
    refresh(plain, 1.0)
    stream = open_stream(run.data, batch_size=run.batch_size)
    tokens, targets = (part[:SEQUENCES] for part in stream.validation)
    with torch.no_grad():
        ours, control = model(tokens).numpy(), plain(tokens).numpy()

    record = Record("llama_cpp")
    record.say(f"trained with: {finished.record.command or ''}")
    record.say(f"{SEQUENCES} validation sequences of {tokens.shape[1]} tokens\n")
    record.say(
        "file      largest difference   RMS difference  of logits'    same top-1    loss nats"
    )
    record.say(f"{'trained':<10}{'':54}{cross_entropy(ours, targets.numpy()):>13.6f}")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/tokens.npy", tokens.numpy())
        for name, packing, reference in (
            ("TQ1_0", "base3", ours),
            ("TQ2_0", "2bit", ours),
            ("control", "", control),
        ):
            path = Path(folder) / f"{name}.gguf"
            if packing:
                export_model(
                    path, model, run.model, run.quantization, format="gguf", packing=packing
                )
            else:
                export_unpacked(path, plain, run.model, run.quantization)
            theirs, version = evaluate(python, path, Path(folder))
            found[name] = describe(record, name, theirs, reference, targets.numpy())
    record.say(f"\nllama-cpp-python {version}")
    trained = cross_entropy(ours, targets.numpy())
    for name in ("TQ1_0", "TQ2_0"):
        _, share, loss = found[name]
        record.claim(f"{name}: RMS difference {share:.2%} <= 1 %", share <= MAX_RMS_SHARE)
        difference = abs(loss - trained)
        record.claim(f"{name}: loss differs by {difference:.1e} <= 1e-3 nats",
                     difference <= MAX_LOSS_DIFFERENCE)  # fmt: skip
    record.claim(f"control: largest difference {found['control'][0]:.1e} <= 1e-4",
                 found["control"][0] <= MAX_CONTROL)  # fmt: skip
    return record.close(save=save)


def export_unpacked(path: Path, model: Any, config: Any, quantization: Any) -> None:
    """Writes the GGUF file with trit x scale in F32, which export itself never does here."""
    from unittest.mock import patch

    from foretune.models.export.gguf_blocks import Encoded, Type
    from foretune.models.export.save import export_model

    def unpacked(value: NDArray[np.float32], packing: str) -> Encoded:
        return Encoded(part="fallback", type=Type.F32, weights=value.size, data=value)

    with patch("foretune.models.export.gguf_file.encode_ternary", unpacked):
        export_model(path, model, config, quantization, format="gguf")


def evaluate(python: str, model: Path, folder: Path) -> tuple[NDArray[np.float32], str]:
    """Returns llama.cpp's logits and the version of its binding."""
    out = folder / "logits.npy"
    arguments = ["--logits", str(model), str(folder / "tokens.npy"), str(out)]
    done = subprocess.run(
        [python, __file__, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{python} could not run llama.cpp:\n{done.stderr}")
    return np.load(out), done.stdout.strip()


def describe(
    record: Any,
    name: str,
    theirs: NDArray[np.float32],
    ours: NDArray[np.float32],
    targets: NDArray[np.int64],
) -> tuple[float, float, float]:
    """Says one row; returns largest difference, RMS difference over RMS, and loss."""
    difference = theirs.astype(np.float64) - ours
    largest, rms = float(np.abs(difference).max()), float(np.sqrt((difference**2).mean()))
    share = rms / float(np.sqrt((ours.astype(np.float64) ** 2).mean()))
    same = float((theirs.argmax(-1) == ours.argmax(-1)).mean())
    loss = cross_entropy(theirs, targets)
    record.say(f"{name:<10}{largest:>18.2e}{rms:>17.2e}{share:>12.4%}{same:>14.2%}{loss:>13.6f}")
    return largest, share, loss


if __name__ == "__main__":
    if sys.argv[1:2] == ["--logits"]:
        sys.exit(llama_cpp_logits(*sys.argv[2:5]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--python", required=True, help="a Python with llama-cpp-python and numpy")
    parser.add_argument("--save", action="store_true")
    asked = parser.parse_args()
    sys.exit(check(asked.run_dir, asked.python, save=asked.save))
