"""What must hold after each try, each check with its name: what is wrong in a sentence, or nothing.

Numbers are compared to the bit, as text; seconds are the clock's.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mlflow.tracking import MlflowClient
from mlflow_sweeps import differing, state_of
from place import Lost, Place

DOCUMENTED = {0, 2, 3, 130}
"""Exit codes of `foretune sweep`, `resume` and `sync`, as foretune/tuner/cli/main.py has them."""


def wrong(place: Place) -> list[str]:
    """Returns what is wrong after a try, each with the name of its check."""
    found = []
    for name, check in CHECKS.items():
        try:
            sentence = check(place)
        except Lost as error:
            sentence = str(error)
        if sentence:
            found.append(f"{name}: {sentence}")
    return found


def accounted_for(place: Place) -> str:
    if place.expected is None:
        return ""
    folders = [path.parent for path in place.out.glob("runs/*/run.json")]
    ended = [folder for folder in folders if (folder / "outcome.json").is_file()]
    trials = place.trials()
    if (trials, trials) == (len(folders), len(ended)):
        return ""
    return f"{trials} trials, {len(folders)} with a run.json, {len(ended)} with an outcome"


def none_twice(place: Place) -> str:
    if place.expected is None:
        return ""
    ids = [json.loads(p.read_text())["run_id"] for p in place.out.glob("runs/*/run.json")]
    twice = [run_id for run_id, count in Counter(ids).items() if count > 1]
    theirs = set(numbers(place.expected))
    others = set() if place.alike else set(ids) ^ theirs
    return f"twice {twice}, not as undisturbed {others}" if twice or others else ""


def equal(place: Place) -> str:
    if place.expected is None:
        return ""
    ours, theirs = numbers(place.out), numbers(place.expected)
    different = []
    for run_id, (rows, end) in ours.items():
        twin = place.alike.get(run_id, "" if place.alike else run_id)
        if not twin:
            continue
        if twin not in theirs:
            different.append(run_id)
        elif (rows, end) != theirs[twin] and not (
            place.scheduled and stopped_early(place.out / "runs" / run_id, rows, theirs[twin][0])
        ):
            at = next(
                (n for n, (a, b) in enumerate(zip(rows, theirs[twin][0], strict=False)) if a != b),
                f"of {len(rows)}, not {len(theirs[twin][0])}",
            )
            different.append(f"{run_id} from row {at}, end {end} not {theirs[twin][1]}")
    return "; ".join(different)


def stopped_early(folder: Path, rows: list[str], whole: list[str]) -> bool:
    """Whether a run was stopped by ASHA, with the rows of the undisturbed one up to there.

    The last may be a part of one: what was known when it was stopped.
    """
    end = json.loads((folder / "outcome.json").read_text())
    if end["outcome"] != "stopped" or not end["reason"].startswith("ASHA") or not rows:
        return False
    last, full = json.loads(rows[-1]), json.loads(whole[len(rows) - 1])
    return rows[:-1] == whole[: len(rows) - 1] and last.items() <= full.items()


def mlflow_complete(place: Place) -> str:
    if place.expected is None or place.judged:
        return ""
    client = client_of(place.store or f"sqlite:///{place.out}/mlflow.db")
    state = state_of(place.out)
    ours = f"tags.mlflow.parentRunId = '{state.parent_run_id}'"
    found = client.search_runs([state.experiment_id], ours)
    ids = [run.data.tags["foretune.run_id"] for run in found]
    there = {path.parent.name for path in place.out.glob("runs/*/run.json")}
    if sorted(ids) != sorted(there):
        return f"{len(ids)} children of {len(set(ids))} runs, {len(there)} trials"
    for run in found:
        folder = place.out / "runs" / run.data.tags["foretune.run_id"]
        if run.info.status not in ("FINISHED", "FAILED", "KILLED"):
            return f"{folder.name} is {run.info.status}"
        columns = differing(client, run, folder, clock=False)
        if columns:
            return f"{folder.name}: {len(columns)} columns differ, {', '.join(columns[:3])}"
    return ""


def client_of(uri: str) -> MlflowClient:
    return MlflowClient(uri)


def nothing_left(place: Place) -> str:
    place.check_left()
    return ""


def no_traceback(place: Place) -> str:
    for command in place.commands:
        if "Traceback" in command.output:
            text = command.output
            return text[text.index("Traceback") :][-300:].replace("\n", " | ")
    return ""


def documented_code(place: Place) -> str:
    codes = {command.process.poll() for command in place.commands} - DOCUMENTED
    codes -= {-9}  # Killed by the fault; one that shouldn't have been is lost by its exit code.
    return f"exit codes {sorted(map(str, codes))}" if codes else ""


CHECKS: dict[str, Callable[[Place], str]] = {
    "every trial accounted for": accounted_for,
    "none twice": none_twice,
    "bit-equal to the undisturbed sweep": equal,
    "MLflow complete to the last column": mlflow_complete,
    "nothing left running": nothing_left,
    "no traceback": no_traceback,
    "a documented exit code": documented_code,
}


def numbers(directory: Path) -> dict[str, tuple[list[str], str]]:
    """{run id: rows of metrics.jsonl, how it ended}, without what is the clock's."""
    found = {}
    for path in sorted(directory.glob("runs/*/outcome.json")):
        text = (path.parent / "metrics.jsonl").read_text()
        rows = re.sub(r'"seconds": [\d.e+-]+', '"seconds": 0', text).splitlines()
        o = json.loads(path.read_text())
        names = ("outcome", "step", "reason", "loss_at_init", "final_val_loss", "objective")
        found[path.parent.name] = (rows, str([o.get(name) for name in names]))
    return found
