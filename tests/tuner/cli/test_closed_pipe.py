"""A reader that has gone, as in `foretune list spaces | head -1`, ends a command quietly."""

import os
import subprocess
import sys

import pytest
from processes import ROOT


def command(*words, cwd, **streams):
    return subprocess.Popen(
        [sys.executable, "-m", "foretune", *words], cwd=cwd, text=True, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, **streams,
    )  # fmt: skip


@pytest.mark.parametrize("words", [["list", "spaces"], ["--help"]])
def test_a_command_whose_output_nobody_reads_says_nothing(tmp_path, words):
    reader, writer = os.pipe()
    os.close(reader)
    process = command(*words, cwd=tmp_path, stdout=writer)
    os.close(writer)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (141, "")


@pytest.mark.slow
def test_a_sweep_whose_reader_has_gone_says_how_to_go_on(tmp_path):
    words = ["steps=40", "eval_every=10", "data.name=text", f"data.path={os.__file__}"]
    line = ["sweep", "lr", "--out", "sweep", "--sizes", "16", "--grid", "optimizer.lr=1e-2,3e-2"]
    process = command(*line, "--set", *words, cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == "foretune sweep lr -> sweep\n"
    process.stdout.close()
    with process.stderr:
        errors = process.stderr.read()
    sentence = f"foretune: Interrupted; continue with: foretune resume {tmp_path / 'sweep'}\n"
    assert (process.wait(), errors) == (130, sentence)
