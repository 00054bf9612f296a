"""Ctrl-C once asks for an end, a second time interrupts; twice at once is once."""

import os
import signal
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from noisynet.assemble import train
from noisynet.runs import config, open_run
from noisynet.training import interrupts
from noisynet.training.interrupts import INTERRUPTS, on_interrupt


def test_each_signal_acts_and_handlers_come_back() -> None:
    former = [signal.getsignal(number) for number in INTERRUPTS]
    acted: list[int] = []
    with on_interrupt(lambda: acted.append(1)):
        for number in INTERRUPTS:
            signal.raise_signal(number)
    assert len(acted) == len(INTERRUPTS) == 3
    assert [signal.getsignal(number) for number in INTERRUPTS] == former


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """A run under `nohup` goes on when its terminal is closed."""
    acted: list[int] = []
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with on_interrupt(lambda: acted.append(1)):
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)
    assert len(acted) == 1


def test_a_second_interrupt_at_once_is_the_first_one_still() -> None:
    acted: list[int] = []
    with on_interrupt(lambda: acted.append(1)):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert len(acted) == 2


def test_a_later_interrupt_raises_and_a_later_kill_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interrupts, "SAME_SECONDS", -1.0)
    former = signal.getsignal(signal.SIGINT)
    acted: list[int] = []
    with on_interrupt(lambda: acted.append(1)):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert len(acted) == 2
    assert signal.getsignal(signal.SIGINT) is former


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_blocks_may_end_in_any_order(first_to_end: int) -> None:
    """A program can train two runs by turns."""
    former = [signal.getsignal(number) for number in INTERRUPTS]
    acted: list[str] = []

    def block(name: str) -> Generator[None]:
        with on_interrupt(lambda: acted.append(name)) as interrupt:
            while True:
                signal.raise_signal(signal.SIGTERM)
                with interrupt.left_to_caller():
                    yield

    blocks = [block("a"), block("b")]
    for one in (*blocks, *blocks):
        next(one)
    assert acted == ["a", "b", "a", "b"]
    blocks.pop(first_to_end).close()
    next(blocks[0])
    assert acted[4:] == ["ba"[first_to_end]]
    blocks[0].close()
    assert [signal.getsignal(number) for number in INTERRUPTS] == former


def test_a_suspended_block_leaves_signals_to_the_caller() -> None:
    heard: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with on_interrupt(lambda: heard.append(0)) as interrupt:
            with interrupt.left_to_caller():
                signal.raise_signal(signal.SIGTERM)
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM, 0]
    finally:
        signal.signal(signal.SIGTERM, former)


def test_checks_for_a_hang_do_not_reach_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are signals too, whose default would end the process."""
    monkeypatch.setattr(interrupts, "LOOK_SECONDS", 0.01)
    with on_interrupt(lambda: None, hung=lambda _: None) as interrupt:
        signal.raise_signal(signal.SIGTERM)
        with interrupt.left_to_caller():
            time.sleep(0.1)


def test_other_threads_leave_signals_alone() -> None:
    former = signal.getsignal(signal.SIGINT)
    found: list[object] = []

    def inside() -> None:
        with on_interrupt(lambda: None):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [former]


def test_signals_are_listened_to_where_nobody_else_does() -> None:
    """The thread ends with the block; another one's ear and a forked child's are left alone."""
    assert signal.set_wakeup_fd(-1) == -1
    threads = threading.active_count()
    with on_interrupt(lambda: None, hung=lambda _: None):
        ours = signal.set_wakeup_fd(-1)
        assert ours != -1
        signal.set_wakeup_fd(ours)
        if (child := os.fork()) == 0:
            os._exit(signal.set_wakeup_fd(-1) + 1)
        assert os.waitpid(child, 0)[1] == 0
        signal.raise_signal(signal.SIGTERM)
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads

    hear, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    with on_interrupt(lambda: None, hung=lambda _: None):
        signal.raise_signal(signal.SIGTERM)
        assert os.read(hear, 1) == bytes([signal.SIGTERM])
    assert signal.set_wakeup_fd(-1) == tell
    os.close(hear)
    os.close(tell)


def test_a_named_generator_of_train_can_be_left_and_closed(tmp_path: Path) -> None:
    events = train(config.load("cartpole", {"steps": 600, "environments": 1}), tmp_path / "run")
    next(events)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    events.close()
    run = open_run(tmp_path / "run")
    assert run.newest_checkpoint() is not None
