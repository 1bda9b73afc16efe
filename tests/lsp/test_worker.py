"""The process that verifies specs for the language server."""

from __future__ import annotations

import json
import signal
from contextlib import nullcontext
from types import SimpleNamespace

from circuitdsl.lsp import worker


def test_an_interrupt_that_comes_late_makes_no_second_answer(monkeypatch) -> None:
    """A second answer would be taken for that to the next request."""
    written = []
    out = SimpleNamespace(
        write=lambda line: written.append((line, signal.getsignal(signal.SIGINT))), flush=lambda: None
    )
    session = SimpleNamespace(keep_prompts=lambda: None, reports=lambda *_, **__: [])
    monkeypatch.setattr("circuitdsl.verify.session.Session", lambda **_: nullcontext(session))
    monkeypatch.setattr(worker, "os", SimpleNamespace(fdopen=lambda *_, **__: out, dup=id, dup2=lambda *_: None))
    stdin = [json.dumps({"path": "x.circ", "text": "", "claims": None})] * 2
    stdout = stderr = SimpleNamespace(fileno=lambda: 0)
    monkeypatch.setattr(worker, "sys", SimpleNamespace(stdin=stdin, stdout=stdout, stderr=stderr))
    before = signal.getsignal(signal.SIGINT)
    try:
        worker.main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert written == [('{"found": ""}\n', signal.SIG_IGN)] * 2
