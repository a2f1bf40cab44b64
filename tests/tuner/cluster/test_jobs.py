"""A submitted command runs on the cluster, streams its output and passes its exit code on."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import requests
from process_tree import kill_below

from foretune.tuner.cluster.connect import PACKAGE
from foretune.tuner.cluster.jobs import STOPPED, submit

ROOT = Path(__file__).parents[3]
TOKEN = "j" * 32

COMMAND = """
import signal, sys, time
def interrupted(number, frame):
    print("ends cleanly", flush=True)
    sys.exit(0)
signal.signal(signal.SIGINT, interrupted)
print("arguments", sys.argv[1:], flush=True)
if sys.argv[1] == "long":
    time.sleep(3600)
sys.exit(int(sys.argv[2]))
"""

DRIVER = """
import os
from pathlib import Path
import ray
import foretune
from foretune.tuner.cluster.connect import connect, slots
from foretune.tuner.records import provenance

def look_around():
    import foretune
    return foretune.__file__, os.environ["OMP_NUM_THREADS"]

root = Path(foretune.__file__).parents[1]
connection = connect("auto", cpus_per_trial=0.5, gpus_per_trial=0, code_root=root)
code, threads = ray.get(ray.remote(look_around).remote())
same = Path(code).parents[1] == root
print("slots", slots(connection, 0.5, 0), "threads", threads, "same", same, end=" ")
print("local", connection.local, "commit", provenance.commit())
connection.close()
"""


SWEEP = ("sweep", "lr", "--out", "/shared/first")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def head():
    """URL and temporary folder of a head started as an administrator would, with a token."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        # Ray can't be made to choose all its ports; another process may take one before it does.
        for _ in range(5):
            process, url = start_head(folder)
            try:
                if answers(url, process):
                    yield url, Path(folder)
                    return
            finally:
                kill_below(process.pid)
                process.kill()
                process.wait()
        pytest.fail("the head has ended five times")


def start_head(folder):
    gcs, dashboard, agent, client = free_ports(4)
    command = [
        str(Path(sys.executable).with_name("ray")),
        *("start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"),
        *(f"--port={gcs}", f"--dashboard-agent-listen-port={agent}"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *(f"--ray-client-server-port={client}", f"--temp-dir={folder}"),
    ]
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=env, **quiet), f"http://127.0.0.1:{dashboard}"


def answers(url, process):
    """Waits for the dashboard; False where the head has ended."""
    while process.poll() is None:
        try:
            return requests.get(f"{url}/api/version", timeout=30) is not None
        except requests.RequestException:
            time.sleep(0.2)
    return False


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    # The client would prefer it to the address that it is given.
    monkeypatch.setenv("RAY_ADDRESS", "rubbish:1")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose command prints, sleeps and exits as asked, with a virtual environment."""
    root = tmp_path / "checkout"
    (root / PACKAGE).mkdir(parents=True)
    (root / PACKAGE / "__init__.py").touch()
    (root / PACKAGE / "__main__.py").write_text(COMMAND)
    (root / ".venv").mkdir()
    (root / ".venv" / "large").write_bytes(bytes(1 << 20))
    return root


@pytest.mark.slow
def test_our_own_command_runs_from_the_shipped_checkout(head, capfd):
    url, folder = head
    assert submit(["list", "presets"], address=url, working_dir=ROOT) == 0
    assert "lm-tiny" in capfd.readouterr().out
    copies = list(folder.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/tuner"))
    assert copies
    shipped = [path for path in copies[0].parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in shipped) < 16 << 20
    assert not (copies[0].parent / ".venv").exists()


@pytest.mark.slow
def test_the_exit_code_of_the_command_comes_back_and_auto_is_added(head, checkout, capfd):
    url, _ = head
    command = ["sweep", "2", "--out", "/shared/first"]
    address = url.removeprefix("http://")
    assert submit(["foretune", *command], address=address, working_dir=checkout) == 2
    assert f"arguments {[*command, '--address', 'auto']}" in capfd.readouterr().out
    assert "RAY_AUTH_MODE" not in os.environ


@pytest.mark.slow
def test_a_driver_inside_of_a_job_joins_and_its_workers_import_the_same_copy(head, checkout, capfd):
    url, _ = head
    shutil.copytree(ROOT / PACKAGE, checkout / PACKAGE, dirs_exist_ok=True, symlinks=True)
    for link in (ROOT / PACKAGE).iterdir():
        if link.is_symlink():
            shutil.copytree(link, checkout / link.name)
    (checkout / PACKAGE / "__main__.py").write_text(DRIVER)
    head_commit = committed(checkout)
    assert submit(["driver"], address=url, working_dir=checkout) == 0
    assert f"slots 4 threads 1 same True local False commit {head_commit}" in capfd.readouterr().out


def committed(root):
    """Makes a folder a git checkout without changes; returns its commit as we write it."""
    git = ["git", "-C", str(root), "-c", "user.name=test", "-c", "user.email=test@test"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    rev = [*git, "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(rev, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.slow
def test_ctrl_c_stops_the_job_cleanly_and_says_so(head, checkout, capfd):
    url, _ = head
    output, ended = [], threading.Event()

    def interrupt_once_it_runs():
        while "arguments" not in "".join(output) and not ended.is_set():
            output.append(capfd.readouterr().out)
            time.sleep(0.1)
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    user = threading.Thread(target=interrupt_once_it_runs)
    user.start()
    try:
        assert submit(["long"], address=url, working_dir=checkout) == STOPPED
    finally:
        ended.set()  # Also where the command failed before it ran.
        user.join()
    assert "arguments ['long']" in "".join(output)
    assert "is stopped; a sweep goes on with foretune submit -- resume DIR" in (
        capfd.readouterr().err
    )


@pytest.mark.slow
def test_without_waiting_the_job_is_named(head, checkout, capfd):
    url, _ = head
    assert submit(["short", "1"], address=url, working_dir=checkout, wait=False) == 0
    assert "follow it with ray job logs --follow raysubmit_" in capfd.readouterr().out


@pytest.mark.slow
def test_a_token_that_the_head_does_not_know_is_refused_in_a_sentence(head, checkout, monkeypatch):
    url, _ = head
    monkeypatch.setenv("RAY_AUTH_TOKEN", "w" * 32)
    with pytest.raises(ValueError, match=r"must be a Ray dashboard that takes our jobs.*token"):
        submit(["list", "presets"], address=url, working_dir=checkout)


def test_a_dashboard_that_is_not_there_is_one_sentence(checkout):
    (port,) = free_ports(1)
    with pytest.raises(ValueError, match=r"must be a running Ray dashboard.*ssh -N -L"):
        submit(["list", "presets"], address=f"127.0.0.1:{port}", working_dir=checkout)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ([], "must be given a command"),
        (["sweep", "lr", "--out", "first"], "absolute path that all nodes share, got 'first'"),
        (["sweep", "lr", "--out=first"], "write it like /shared/sweeps/first"),
        (["resume", "first"], "absolute path that all nodes share"),
        ([*SWEEP, "--tracking-uri", "sqlite:///mlflow.db"], "write it like http://HOST:5000"),
        ([*SWEEP, "--tracking_uri=sqlite:///a/mlflow.db"], "tracking_uri of a job must name a"),
        ([*SWEEP, "--tracking-uri", "http://me:pw@host"], "must hold no secret"),
        ([*SWEEP, "--set", "model.api_key=pw"], "must hold no secret"),
        ([*SWEEP, "--tracking-uri=mlruns"], "absolute path that all nodes share, got 'mlruns'"),
        ([*SWEEP, "--tracking-uri", "file:mlruns"], "tracking_uri of a job must name a server"),
    ],
)
def test_a_command_that_would_lose_its_results_is_refused(checkout, command, sentence):
    with pytest.raises(ValueError, match=sentence):
        submit(command, working_dir=checkout)


@pytest.mark.parametrize(
    "uri", ["", "http://host:5000", "databricks", "sqlite:////shared/mlflow.db", "file:///shared/m"]
)
def test_a_store_that_every_node_reaches_is_not_refused(checkout, uri):
    # No dashboard answers there: the next thing that `submit` looks at.
    with pytest.raises(ValueError, match="must be a running Ray dashboard"):
        submit([*SWEEP, "--tracking-uri", uri], address="127.0.0.1:1", working_dir=checkout)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be a Foretune checkout"):
        submit(["list", "presets"], working_dir=tmp_path)
