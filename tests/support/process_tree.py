"""What a process has started, and what that has; where it listens, and when it has ended."""

import contextlib
import ipaddress
import os
import signal
import time
from pathlib import Path


def below(pid: int) -> set[int]:
    """Returns every process below one, by /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def kill_below(pid: int) -> None:
    """Kills every process below one."""
    for one in below(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def alive(pids: set[int]) -> set[int]:
    """Returns those processes that run; one that has ended and isn't waited for doesn't."""
    running = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                running.add(pid)
    return running


def wait_for_end(pids: set[int]) -> None:
    """Waits until none of some processes runs."""
    while alive(pids):
        time.sleep(0.05)


def command_of(pid: int) -> str:
    """Returns the command line of a process, or nothing once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def listening(pids: set[int]) -> set[tuple[int, str]]:
    """Returns (process, ADDRESS:PORT) of every TCP port at which some processes listen.

    By /proc, as `ss -ltnp` does it.
    """
    where = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # LISTEN
                where[f"socket:[{fields[9]}]"] = _address(fields[1])
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for name in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    address = where.get(os.readlink(name))
                    if address:
                        found.add((pid, address))
    return found


def on_loopback(address: str) -> bool:
    """Whether an ADDRESS:PORT can be reached from this machine alone."""
    ip = ipaddress.ip_address(address.rpartition(":")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def _address(text: str) -> str:
    """ADDRESS:PORT of the kernel's hex, in which words are as this machine has them."""
    words, _, port = text.partition(":")
    raw = b"".join(int(words[i : i + 8], 16).to_bytes(4, "little") for i in range(0, len(words), 8))
    return f"{ipaddress.ip_address(raw)}:{int(port, 16)}"
