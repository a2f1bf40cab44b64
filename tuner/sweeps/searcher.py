"""A searcher for Ray Tune that hands out runs that Optuna chooses."""

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from foretune.tuner.planning.optuna_draws import Draws, Skipped, number
from foretune.tuner.records.run_json import RunRecord


class RunSearcher(Searcher):
    """Gives Tune the runs that wait, then those that are drawn, as {"run_id": ...}."""

    def __init__(
        self,
        draws: Draws,
        waiting: list[RunRecord],
        *,
        enter: Callable[[RunRecord], None],
        skipped: Skipped | None = None,
    ):
        """enter is called with a run before Tune gets it; skipped with those that never begin."""
        super().__init__(metric="objective", mode="min")
        self._draws, self._enter, self._skipped = draws, enter, skipped
        self._waiting = sorted(waiting, key=number)

    def __getstate__(self) -> dict[str, object]:
        return {}  # Tune pickles it for a restore that is never asked for.

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Returns the next run's id, or that there is none."""
        if self._waiting:
            return {"run_id": self._waiting.pop(0).run_id}
        record = self._draws.draw(self._skipped)
        if record is None:
            return Searcher.FINISHED  # pyright: ignore[reportReturnType] # Ray's own convention.
        self._enter(record)
        return {"run_id": record.run_id}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Does nothing: right after it the driver writes outcome.json, and `Draws` reads it."""

    def save(self, checkpoint_path: str) -> None:
        """Writes nothing: the sweep's directory has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Not used."""
