"""The driver is killed, or is asked to end, at some moment; the sweep is resumed."""

import signal
from collections.abc import Callable

from place import Command, Place
from sweeps import begin

START, TRAINING, CLOSING = "at start-up", "in training", "while closing"
MOMENTS = (START, TRAINING, TRAINING, TRAINING, TRAINING, TRAINING, CLOSING)
"""Of a kill, by its number: five of seven in training."""


def kill(kind: str) -> Callable[[Place], None]:
    """SIGKILL at a random moment to the driver alone, or to all that it has started as well."""

    def run(place: Place) -> None:
        driver = begin(place, kind)
        wait(place, driver, MOMENTS[place.number % len(MOMENTS)])
        if place.random.random() < 0.7:
            driver.send(signal.SIGKILL)
        else:
            driver.send(signal.SIGKILL, group=True)
            for pid in place.processes():
                place.end_process(pid)
        driver.end()
        place.check_left()
        go_on(place, kind)

    return run


def interrupt(number: int, moment: str) -> Callable[[Place], None]:
    """SIGINT or SIGTERM; the command ends as interrupted, or is done if that was faster."""

    def run(place: Place) -> None:
        driver = begin(place)
        wait(place, driver, moment)
        driver.send(number)
        codes = (130,) if moment == TRAINING else (130, 0)
        output = place.finish(driver, codes)
        if driver.process.returncode == 130 and "Interrupted" not in output:
            place.said.append("it didn't say that it was interrupted")
        place.check_left()
        go_on(place)

    return run


def wait(place: Place, driver: Command, moment: str) -> None:
    """Waits for an event at a moment, one of several at random."""
    assert place.expected is not None
    if moment == TRAINING:
        place.in_training(driver)
        return
    trials = len(list(place.expected.glob("runs/*")))
    events: dict[str, Callable[[], object]] = {
        "it has said what it does": lambda: "foretune sweep" in driver.output,
        "Ray is there": lambda: place.processes("raylet/raylet"),
        "it is written down": lambda: (place.out / "sweep.json").exists(),
        "a worker is there": place.workers,
    }
    if moment == CLOSING:
        events = {
            "all have ended": lambda: place.ended() == trials,
            "the tables are there": lambda: (place.out / "trials.parquet").exists(),
            "the last is told": lambda: f"[{trials}/{trials}]" in driver.output,
        }
    name = place.random.choice(sorted(events))
    place.moment = f"{moment}: {name}"
    driver.reaches(events[name])


def go_on(place: Place, kind: str = "grid") -> None:
    """Goes on with the sweep, or begins it where it hadn't been written down."""
    if (place.out / "sweep.json").exists():
        place.resume()
    else:
        place.sync(place.finish(begin(place, kind)))
