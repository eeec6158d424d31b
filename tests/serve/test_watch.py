"""The watch over engines that load: real processes, and times that are short."""

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import pytest
from processes import until

from serve import watch
from serve.shared import Shared

SPAWN = multiprocessing.get_context("spawn")


def work(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


class Watched:
    """One engine at a time, which is started and never started anew."""

    def __init__(self) -> None:
        self.shared = Shared(engines=1)
        self.ends: list[tuple[int, str]] = []
        self.processes: list[BaseProcess] = []
        one = watch.Watch(1, self.shared, lambda: self.processes, self._give_up)
        threading.Thread(target=one.run, daemon=True).start()

    def _give_up(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))
        self.shared.stopping.set()

    def start(self, target: Callable[[float], None], seconds: float) -> BaseProcess:
        process = SPAWN.Process(target=target, args=(seconds,), daemon=True)
        process.start()
        self.processes = [process]
        return process

    def is_ready(self, process: BaseProcess) -> None:
        self.shared.loaded[0].set()
        self.shared.ready[0].set(process.pid or 0)
        time.sleep(3 * watch.POLL_SECONDS)


def test_a_first_load_that_works_may_take_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RELOAD_SECONDS", 1.0)
    monkeypatch.setattr(watch, "STILL_SECONDS", 1.0)
    watched = Watched()
    process = watched.start(work, 7)
    process.join()
    assert process.exitcode == 0
    watched.shared.stopping.set()


def test_an_endless_reload_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RELOAD_SECONDS", 1.0)
    watched = Watched()
    watched.is_ready(watched.start(work, 60))
    second = watched.start(work, 60)
    second.join(30)
    assert second.exitcode == -signal.SIGKILL
    assert watched.ends == []
    watched.shared.stopping.set()


def test_an_engine_that_is_not_restarted_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """LitServe's thread for it ends where the system refuses it a process."""
    monkeypatch.setattr(watch, "REPLACEMENT_SECONDS", 1.0)
    watched = Watched()
    first = watched.start(work, 60)
    watched.is_ready(first)
    first.kill()
    until(lambda: watched.ends != [])
    assert watched.ends == [(watch.DIED, "an engine that died was not restarted within 1 s")]


def test_deaths_count_together_until_an_engine_was_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load that hangs may take longer than the time within which deaths are counted."""
    monkeypatch.setattr(watch, "RESTART_WINDOW_SECONDS", 0.5)
    watched = Watched()
    ready = [True, True, False, False, False]
    for one in ready:
        assert watched.ends == []
        process = watched.start(work, 60)
        if one:
            watched.is_ready(process)
        process.kill()
        time.sleep(1)
    ((code, reason),) = watched.ends
    assert code == watch.DIED and reason.startswith("the engine died 4 times in ")
