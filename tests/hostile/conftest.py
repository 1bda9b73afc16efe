"""What hostile tests share: the command line in this process, and an end of whatever has none."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from circuitdsl import cli


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """What never ends is ended."""

    def stop(*_: object) -> None:
        raise AssertionError("this does not end")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(240)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: (status, standard output, standard error)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.leave(arguments)
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call
