"""Verifies specs in a process of its own, so that the server answers while a model runs.

    python -m circuitdsl.lsp.worker

Each line of standard input is a request, `{"path": …, "text": …, "claims": …}`. Standard output has a line for each
piece of news: `{"said": …, "done": …}` while work goes on (`done` from 0 to 1), then `{"found": …}`, or `{"error": …,
"hint": …}`. An interrupt ends the request; the process goes on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from circuitdsl.api import SpecError, loads
from circuitdsl.errors import UserError
from circuitdsl.report.report import Reports

#: seconds between two lines about work that goes on
_EVERY = 0.1
Tell = Callable[[dict[str, Any]], None]


def main() -> None:
    """Answer requests until standard input ends."""
    from circuitdsl.verify.session import Session

    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer

    def tell(news: dict[str, Any]) -> None:
        out.write(json.dumps(news) + "\n")
        out.flush()

    news = _News(tell)
    with Session(progress=news.progress, busy=news.busy, warn=lambda text: None) as session:
        session.keep_prompts()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # between two requests there is nothing to stop
        for line in sys.stdin:
            request, answer = json.loads(line), dict[str, Any]()
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                spec = loads(request["text"], request["path"])
                reports = Reports(session.reports([spec], claim=request["claims"]))
                answer = {"found": said_of(reports)}
            except SpecError:  # its message is for a terminal; the editor shows each of them at its place
                answer = {"error": "the spec has mistakes, as marked in it", "hint": None}
            except UserError as error:
                answer = {"error": error.message, "hint": error.hint}
            except KeyboardInterrupt:
                answer = {"found": "stopped"}
            except Exception as error:  # the server says it; the next request may go well
                answer = {"error": f"{type(error).__name__}: {error}", "hint": None}
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            tell(answer)  # once, whatever comes now: a second answer would be taken for that to the next request


def said_of(reports: Reports) -> str:
    """What a run has found, in a line: `ioi: 24 hold, 1 fails`."""
    return "; ".join(f"{one.spec.circuit}: {', '.join(words for _, words in one.counts())}" for one in reports)


class _News:
    """Tells what a session does, not too often."""

    def __init__(self, tell: Tell) -> None:
        self.tell, self.last = tell, 0.0

    def progress(self, done: float, total: float, text: str) -> None:
        now = time.monotonic()
        if now - self.last >= _EVERY:
            self.last = now
            self.tell({"said": text, "done": min(done / max(total, 1e-9), 1.0)})

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        self.tell({"said": text, "done": 0.0})
        yield


if __name__ == "__main__":
    main()
