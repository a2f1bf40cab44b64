"""Sending to MLflow's own server, to one that dies, and to one that never answers."""

import shlex
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from mlflow_servers import door, served, server_command
from mlflow_sweeps import (
    LONG_S,
    add_run,
    children,
    differing,
    end_run,
    send_all,
    sender_of,
    state_of,
    steps,
    wait_for,
    write_rows,
)
from process_tree import kill_below

from foretune.tuner.tracking.sender import sync, view_hint

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back_loses_nothing(
    sweep_dir: Path, tmp_path: Path, free_port: int
):
    """MLflow's server starts twice."""
    command = server_command(tmp_path, free_port)
    log, url = tmp_path / "server.log", f"http://127.0.0.1:{free_port}"
    first, second = (add_run(sweep_dir, name, lr=0.01, rows=35) for name in "ab")

    sender = sender_of(sweep_dir, tracking_uri=url, experiment="mine")
    with served(command, free_port, log):
        sender.start()
        sender.trial_started("a")
        sender.trial_started("b")
        wait_for(lambda: {"a", "b"} <= state_of(sweep_dir).runs.keys())
        wait_for(lambda: state_of(sweep_dir).runs["b"].step == 34)
        end_run(first)
        wait_for(lambda: state_of(sweep_dir).runs["a"].closed)
    write_rows(second, range(35, 101))
    end_run(second)
    sender.trial_ended("b")
    third = add_run(sweep_dir, "c", lr=0.01, rows=35)
    sender.trial_started("c")
    wait_for(lambda: state_of(sweep_dir).error)
    message = sender.close(LONG_S)  # Which it doesn't use: the server refuses to be connected to.
    assert f"MLflow at {url} has not received 101 rows of 2 trials" in message
    assert f"`foretune sync {shlex.quote(str(sweep_dir))}`" in message
    assert "(connection refused)" in message
    assert "\n" not in message

    write_rows(third, range(35, 101))
    end_run(third)
    (sweep_dir / "trials.parquet").write_bytes(b"PAR1")
    sender.artifact(sweep_dir / "trials.parquet")
    with served(command, free_port, log):
        with pytest.raises(ValueError, match="tracking URI must stay"):
            sync(sweep_dir, "http://127.0.0.1:1")
        assert sync(sweep_dir) == ""
        client = MlflowClient(url)
        found = children(client, sweep_dir)
        assert {name: run.info.status for name, run in found.items()} == dict.fromkeys(
            "abc", "FINISHED"
        )
        assert steps(client, found["a"]) == [0, 10, 20, 30]
        for name in "bc":
            assert steps(client, found[name]) == list(range(0, 101, 10))
        top = state_of(sweep_dir).parent_run_id
        assert client.get_run(top).info.status == "FINISHED"
        assert [f.path for f in client.list_artifacts(top)] == ["trials.parquet"]
        assert view_hint(sweep_dir).startswith(f"{url}/#/experiments/")


@pytest.mark.slow
def test_a_server_that_refuses_or_is_slow_or_starts_anew_gets_all_to_the_last_column(
    sweep_dir: Path, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
):
    """One sweep through them all: without the password, half a second late, killed in the middle.

    The password comes from MLflow's own variables, which reach the sender's process.
    """
    command, log = server_command(tmp_path, free_port), tmp_path / "server.log"
    first, second = (add_run(sweep_dir, name, lr=0.01, rows=35) for name in "ab")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not-this")
    with door(f"http://127.0.0.1:{free_port}") as before:
        before.password = "s3cret-pw"
        with served(command, free_port, log):
            sender = sender_of(sweep_dir, tracking_uri=before.url)
            sender.start()
            wait_for(lambda: state_of(sweep_dir).error)
            message = sender.close(LONG_S)
            assert "has not received 70 rows of 2 trials" in message
            assert "401" in message
            assert before.refused
            assert not before.passed

            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret-pw")
            before.seconds = 0.5
            sender = sender_of(sweep_dir)  # It was named before.
            sender.start()
            sender.trial_started("a")
            sender.trial_started("b")
            wait_for(lambda: {"a", "b"} <= state_of(sweep_dir).runs.keys())
            wait_for(lambda: state_of(sweep_dir).runs["b"].step == 34)
            write_rows(first, range(35, 101))
            end_run(first)
        wait_for(lambda: state_of(sweep_dir).error)
        write_rows(second, range(35, 101))
        end_run(second)
        before.seconds = 0.0
        with served(command, free_port, log):
            wait_for(lambda: all(mark.closed for mark in state_of(sweep_dir).runs.values()))
            assert sender.close(LONG_S) == ""
            client = MlflowClient(f"http://127.0.0.1:{free_port}")
            found = children(client, sweep_dir)
            assert found.keys() == {"a", "b"}
            for name, run in found.items():
                assert run.info.status == "FINISHED"
                assert differing(client, run, sweep_dir / "runs" / name) == []
    written = [path for path in sweep_dir.rglob("*") if path.is_file()]
    assert not [path for path in written if b"s3cret-pw" in path.read_bytes()]


@pytest.fixture
def black_hole() -> Iterator[socket.socket]:
    """A server that never answers; it accepts when it is asked to."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server


def url_of(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_never_answers_costs_nothing(sweep_dir: Path, black_hole: socket.socket):
    end_run(add_run(sweep_dir, "a", lr=0.01, rows=101))
    sender = sender_of(sweep_dir, tracking_uri=url_of(black_hole))
    sender.trial_started("a")  # Nobody listens yet.
    sender.start()
    connection, _ = black_hole.accept()
    with connection:
        assert connection.recv(4)  # It hangs in its first request, and these don't:
        for _ in range(10_000):  # More than its pipe would hold.
            sender.trial_started("a")
        sender.trial_ended("a")
        message = sender.close(0.5)
        black_hole.setblocking(False)
        with pytest.raises(BlockingIOError):  # Closing ended the one request, not its retry.
            black_hole.accept()
    assert "101 rows of 1 trials" in message
    assert "foretune sync" in message


@pytest.mark.slow
def test_a_process_that_forgot_to_close_exits_at_once(sweep_dir: Path, black_hole: socket.socket):
    """It ends while its sender is in a request that is never answered; nothing is retried."""
    add_run(sweep_dir, "a", lr=0.01, rows=11)
    code = (
        "import sys; from pathlib import Path\n"
        "from foretune.tuner.tracking.sender import MLflowSender\n"
        "sender = MLflowSender(Path(sys.argv[1]), tracking_uri=sys.argv[2]); sender.start()\n"
        "sys.stdin.readline(); assert 'mlflow' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, str(sweep_dir), url_of(black_hole)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, text=True) as process:
        try:
            connection, _ = black_hole.accept()
            with connection:
                assert connection.recv(4)
                process.communicate("\n")
                assert process.returncode == 0
                black_hole.setblocking(False)
                with pytest.raises(BlockingIOError):
                    black_hole.accept()
        finally:
            kill_below(process.pid)
            process.kill()


@pytest.mark.slow
def test_the_hint_opens_the_sweep(sweep_dir: Path, tmp_path: Path, free_port: int):
    end_run(add_run(sweep_dir, "a", lr=0.01, rows=11))
    assert send_all(sweep_dir) == ""
    hint = view_hint(sweep_dir)
    assert f"--backend-store-uri 'sqlite:///{sweep_dir}/mlflow.db'" in hint
    command = shlex.split(hint.replace("--port 5000", f"--port {free_port}"))
    with served(command, free_port, tmp_path / "server.log") as url:
        assert b"<html" in urllib.request.urlopen(url).read()
        assert children(MlflowClient(url), sweep_dir).keys() == {"a"}
