"""MLflow's own server, and a door in front of it that is slow, shut, or asks for a password."""

import base64
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mlflow_sweeps import wait_for


def server_command(folder: Path, port: int) -> list[str]:
    """The command of a server that keeps all that it has in a folder."""
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    return [*command, "--artifacts-destination", str(folder / "kept")]


@contextmanager
def served(command: list[str], port: int, log: Path) -> Iterator[str]:
    """A server of MLflow's own, killed without warning at the end."""
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return urllib.request.urlopen(f"{url}/health", timeout=30).status == 200
        except OSError:
            return False

    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        wait_for(answers)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Door(ThreadingHTTPServer):
    """Passes requests on to a server, as long as they bring the password, and after a while."""

    daemon_threads = True

    def __init__(self, behind: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.password, self.seconds = behind, "", 0.0
        self.refused = self.passed = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Door
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(self.server.seconds)
        wanted = f"Basic {base64.b64encode(f'me:{self.server.password}'.encode()).decode()}"
        if self.server.password and self.headers.get("Authorization") != wanted:
            self.server.refused += 1
            self._send(401, "text/plain", b"You are not authenticated.")
            return
        self.server.passed += 1
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
        request = urllib.request.Request(
            self.server.behind + self.path, body or None, headers, method=self.command
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                found = answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            found = error.code, error.headers["Content-Type"], error.read()
        except OSError:
            found = 502, "text/plain", b"Nobody is behind the door."
        with suppress(ConnectionError):  # A client whose patience is over, or that was ended.
            self._send(*found)

    def _send(self, status: int, kind: str | None, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer


@contextmanager
def door(behind: str) -> Iterator[Door]:
    """A door before a server, open until the block ends."""
    with Door(behind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
