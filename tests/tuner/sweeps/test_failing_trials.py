"""Whole sweeps in which workers die: those trials alone fail, with a reason, and can be retried."""

import re

import pytest
from failing_models import line_of, sweep_of, write_failing
from processes import metrics, outcomes, start

from foretune.analysis import load

KINDS = ("none", "forward", "build", "sys.exit", "segfault", "hang", "os._exit", "leak")


@pytest.mark.slow
def test_each_trial_fails_by_itself_with_a_reason_and_is_tried_again_when_asked(tmp_path):
    write_failing(tmp_path)
    whole = start(*sweep_of("none", out="whole"), cwd=tmp_path)
    healed = tmp_path / "healed"
    words = (*sweep_of(*KINDS), "--set", f"model.healed={healed}", "--trial-timeout", "5")
    sweep = start(*words, cwd=tmp_path)
    output, _ = sweep.communicate()
    assert sweep.returncode == 3, output
    assert "Traceback" not in output
    assert "raylet" not in output
    reasons = by_kind(tmp_path / "sweep")
    assert reasons["none"] == "all 40 steps done"
    assert reasons["leak"].startswith("all 40 steps done; at a micro-batch of 2 instead of 4")
    assert "fails at failing.py, line" in reasons["build"]
    line = line_of("out of order")
    assert reasons["forward"] == f"RuntimeError: out of order in failing.py, line {line}"
    assert reasons["sys.exit"] == f"SystemExit: 3 in failing.py, line {line_of('sys.exit(3)')}"
    assert f"Segmentation fault in failing.py, line {line_of('string_at')}" in reasons["segfault"]
    line = line_of("Event().wait")
    assert reasons["hang"] == f"no progress for 5 s in failing.py, line {line}"
    assert "ended without a word" in reasons["os._exit"]
    healed.touch()
    again = start("resume", "sweep", "--retry-failed", cwd=tmp_path)
    output, _ = again.communicate()
    assert again.returncode == 3, output  # What can't be built still can't.
    assert [k for k, r in by_kind(tmp_path / "sweep").items() if "steps done" not in r] == ["build"]
    assert len(list(tmp_path.glob("sweep/runs/*/error.1.txt"))) == 5
    whole.communicate()
    (expected,) = metrics(tmp_path / "whole").values()
    found = metrics(tmp_path / "sweep")
    for name, kind in kinds(tmp_path / "sweep").items():
        assert kind in ("build", "leak") or found[name] == expected, kind


def kinds(out):
    trials = load(out).trials
    return dict(zip(trials["run_id"], trials["model.how"], strict=True))


def by_kind(out):
    """{how it is made to fail: its reason}, as paths of this machine apart."""
    ends = outcomes(out)
    return {k: re.sub(r"\s+", " ", ends[n]["reason"]) for n, k in kinds(out).items() if n in ends}
