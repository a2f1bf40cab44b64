"""Signals end a sweep's block with the note, whatever fails because of them."""

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

from foretune.tuner.cluster.interruption import Interruption


def interruption():
    return Interruption(lambda: "go on with resume")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_keyboard_interrupt_with_the_note(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match="go on with resume"), interruption():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_sigterm_works_where_a_shell_ignores_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt, match="go on with resume"), interruption():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)


def fail_after(number):
    signal.raise_signal(number)
    raise RuntimeError("a worker is gone")


def test_a_failure_after_a_signal_is_an_interruption_and_one_without_is_itself():
    def swallow(number, frame):
        """As Tune's own handler does."""

    before = signal.signal(signal.SIGINT, swallow)
    try:
        with pytest.raises(KeyboardInterrupt, match="go on with resume"), interruption():
            fail_after(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(RuntimeError, match="a worker is gone"), interruption():
        raise RuntimeError("a worker is gone")
    with interruption():
        pass
    assert not [t for t in threading.enumerate() if t.name == "interruption"]


def test_outside_of_the_main_thread_it_does_nothing():
    ended = []

    def work():
        with interruption() as inner:
            inner.watch("127.0.0.1:1")
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended


STUCK = """
import signal, sys, time
from foretune.tuner.cluster.interruption import Interruption

signal.signal(signal.SIGINT, lambda number, frame: None)
with Interruption(lambda: "go on with resume") as interruption:
    interruption.watch(sys.argv[1])
    print("stuck", flush=True)
    while True:  # What Ray's calls do in C: no signal ends it.
        time.sleep(60)
"""


def test_it_leaves_a_call_that_never_ends_once_the_head_is_gone():
    """Two at once, one for each signal, since most of it is waiting."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    with ExitStack() as stack:
        heads, processes = zip(*(stuck(stack) for _ in numbers), strict=True)
        for process, number in zip(processes, numbers, strict=True):
            assert process.stdout.readline() == "stuck\n"
            os.kill(process.pid, number)
        for _ in range(6):  # As often as the head answers, it has all the time.
            for head in heads:
                head.accept()[0].close()
        for head, process in zip(heads, processes, strict=True):
            assert process.poll() is None
            head.close()
        for process in processes:
            out = process.stdout.read()
            assert (process.wait(), out) == (130, "go on with resume\n")


def stuck(stack):
    """Returns a head that listens and a process that watches it; both end with the stack."""
    head = stack.enter_context(socket.socket())
    head.bind(("127.0.0.1", 0))
    head.listen()
    address = f"127.0.0.1:{head.getsockname()[1]}"
    process = stack.enter_context(
        subprocess.Popen([sys.executable, "-c", STUCK, address], stdout=subprocess.PIPE, text=True)
    )
    stack.callback(process.kill)
    return head, process
