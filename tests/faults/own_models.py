"""A user's model that fails in one trial of two; then it is mended, and tried again when asked.

The trial beside it must be as undisturbed, and so must the mended one. What can't be built stays
failed. Undisturbed is the same model where it doesn't fail.
"""

import json
from collections.abc import Callable
from pathlib import Path

import psutil
from failing_models import sweep_of, write_failing
from place import Command, Lost, Place

TIMEOUT_S = 20
LEAK = "leak 4 GB"
MONITOR = ("RAY_memory_usage_threshold", "RAY_memory_monitor_refresh_ms")
"""Ray's variables: the share of memory at which it ends workers, and how often it looks."""
REASONS = {
    "hang": f"no progress for {TIMEOUT_S} s in failing.py",
    "segfault": "Segmentation fault in failing.py",
    "sys.exit": "SystemExit: 3 in failing.py",
    LEAK: "out of memory",
    "build": "fails at failing.py",
    "forward": "RuntimeError: out of order in failing.py",
    "save": "not for keeping",
}
"""How a model fails, and what its trial's reason says of it."""


def failing(kind: str) -> Callable[[Place], None]:
    """A sweep of a model that fails as the kind says, and of one that doesn't."""

    def run(place: Place) -> None:
        write_failing(place.folder)
        place.expected = place.references.sweep("own model", sweep_of("none"), write_failing)
        healed = place.folder / "healed"
        kinds = (kind,) if kind == LEAK else ("none", kind)  # Ray may end any when memory is short.
        output = place.finish(begin(place, kinds, healed), (3,))
        failed = failures(place.out)
        if len(failed) != 1 or REASONS[kind] not in failed[0]:
            raise Lost(f"the reasons are {failed}: {output[-300:]}")
        place.check_left()
        healed.touch()
        for name in MONITOR:  # The machine may be fuller by now, of others' doing.
            place.environment.pop(name, None)
        (twin,) = (path.name for path in place.expected.glob("runs/*"))
        final = (3,) if kind == "build" else (0,)
        place.sync(place.run("resume", place.out, "--retry-failed", codes=final))
        ends = {path.parent.name: path for path in place.out.glob("runs/*/outcome.json")}
        wanted = {n for n, p in ends.items() if json.loads(p.read_text())["outcome"] != "failed"}
        if len(wanted) != len(kinds) - (kind == "build"):
            raise Lost(f"{len(wanted)} of {len(kinds)} have ended well")
        place.alike = dict.fromkeys(wanted, twin)

    return run


def begin(place: Place, kinds: tuple[str, ...], healed: Path) -> Command:
    words = (*sweep_of(*kinds), "--set", f"model.healed={healed}")
    if "hang" in kinds:
        words = (*words, "--trial-timeout", str(TIMEOUT_S))
    if LEAK in kinds:  # Long before the machine is short of memory: a GiB more than now.
        memory = psutil.virtual_memory()
        used = (memory.total - memory.available + (1 << 30)) / memory.total
        place.environment |= {
            MONITOR[0]: f"{min(used, 0.95):.3f}",
            MONITOR[1]: "50",
        }
    return place.start(*words)


def failures(out: Path) -> list[str]:
    """Reasons of the runs that failed."""
    ends = [json.loads(path.read_text()) for path in out.glob("runs/*/outcome.json")]
    return [end["reason"] for end in ends if end["outcome"] == "failed"]
