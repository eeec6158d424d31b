"""After oneDNN had no memory for a kernel, the model is called in another thread; what cannot start never runs."""

import threading

import pytest

from serve.engine.calls import Calls

KERNEL = RuntimeError("could not create a primitive")


def here() -> int:
    return threading.get_ident()


def fail(error: Exception) -> int:
    raise error


def test_the_thread_is_replaced_only_after_a_kernel_failed() -> None:
    call, mine = Calls(), here()
    with pytest.raises(RuntimeError, match="shapes"):
        call(fail, RuntimeError("shapes cannot be multiplied"))
    assert call(here) == mine
    with pytest.raises(RuntimeError, match="primitive"):
        call(fail, KERNEL)
    second = call(here)
    assert second == call(here) != mine
    for error in (RuntimeError("can't allocate memory"), MemoryError()):
        with pytest.raises(type(error)):
            call(fail, error)
    assert call(here) == second
    with pytest.raises(RuntimeError, match="primitive"):
        call(fail, KERNEL)
    assert call(here) not in (mine, second)


def test_no_thread_is_started_without_memory_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    call, mine = Calls(), here()
    with pytest.raises(RuntimeError):
        call(fail, KERNEL)
    with monkeypatch.context() as patch:
        patch.setattr("serve.engine.calls.THREAD_BYTES", 2**46)  # more than a process can have
        assert call(here) == mine
    assert call(here) != mine


def test_a_call_for_a_thread_that_did_not_start_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    call, mine, done = Calls(), here(), []

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.raises(RuntimeError):
        call(fail, KERNEL)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            call(done.append, "lost")
    assert call(here) != mine
    call(done.append, "kept")
    assert done == ["kept"]
