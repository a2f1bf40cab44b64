"""MLflow's own server is away, slow, asks for a password or starts anew while a sweep trains.

The sweep ends as if nothing were; what waits is sent later, each column once.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from checks import mlflow_complete
from mlflow_servers import Door, door, served, server_command
from place import Lost, Place
from sweeps import begin

PASSWORD = "s3cret-pw"
SLOW_S = 5.0


class Server:
    """A server that can be killed and started again at its port."""

    def __init__(self, folder: Path, port: int):
        self.folder, self.port, self.url = folder, port, f"http://127.0.0.1:{port}"
        self._running = ExitStack()

    def start(self) -> None:
        command = server_command(self.folder, self.port)
        self._running.enter_context(served(command, self.port, self.folder / "server.log"))

    def kill(self) -> None:
        self._running.close()


@contextmanager
def behind_a_door(place: Place) -> Iterator[tuple[Server, Door]]:
    """A server that runs, and the door before it, to which the sweep is sent."""
    folder = place.folder / "server"
    folder.mkdir()
    with socket.socket() as held:  # The port is nobody else's meanwhile.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        server = Server(folder, held.getsockname()[1])
        with door(server.url) as before:
            server.start()
            try:
                yield server, before
            finally:
                server.kill()


def away(*, comes_back: bool) -> Callable[[Place], None]:
    """Killed in training; it comes back in training, or when the sweep has ended."""

    def run(place: Place) -> None:
        with behind_a_door(place) as (server, before):
            sweep = begin(place, "grid", "--tracking-uri", before.url)
            place.in_training(sweep, place.random.uniform(0.1, 0.5))
            server.kill()
            if comes_back:
                place.in_training(sweep, place.random.uniform(0.5, 0.8))
                server.start()
            output = place.finish(sweep)
            if not comes_back:
                if "has not received" not in output:
                    raise Lost(f"it doesn't say what waits: {output[-300:]}")
                server.start()
            place.sync(output)
            judge(place, server)

    return run


def slow(place: Place) -> None:
    """Every answer takes 5 s, until the sweep has ended."""
    with behind_a_door(place) as (server, before):
        before.seconds = SLOW_S
        output = place.finish(begin(place, "grid", "--tracking-uri", before.url))
        before.seconds = 0.0
        place.sync(output)
        judge(place, server)


def unauthorised(place: Place) -> None:
    """The password is another one, until the sweep has ended."""
    with behind_a_door(place) as (server, before):
        before.password = PASSWORD
        place.environment |= {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "no"}
        output = place.finish(begin(place, "grid", "--tracking-uri", before.url))
        if "has not received" not in output or "401" not in output or before.passed:
            raise Lost(f"it doesn't say what waits: {output[-300:]}")
        place.environment["MLFLOW_TRACKING_PASSWORD"] = PASSWORD
        place.sync(output)
        judge(place, server)


def judge(place: Place, server: Server) -> None:
    """Checks what the server has, while it runs."""
    place.store = server.url
    if sentence := mlflow_complete(place):
        raise Lost(f"MLflow's server: {sentence}")
    place.judged = True
