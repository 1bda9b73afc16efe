"""The process in which specs are verified, as the server sees it: started when it is needed, and started anew."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

#: seconds that a verification has to end after it was stopped, before its process is ended
_PATIENCE = 10.0
#: bytes of a line at the most
_LINE = 2**20
STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a verification: what was found in a line, or why nothing was."""

    text: str
    failed: bool = False


class Background:
    """Runs one verification after the other."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def verify(
        self,
        path: str,
        text: str,
        claims: list[int] | None,
        progress: Callable[[str, float], None],
        cancelled: asyncio.Event,
    ) -> Outcome:
        """Verify a text as the spec of that path; `claims` are the rows of some.

        Args:
            progress: called with what is going on, and the share that is done.
            cancelled: set it to stop.
        """
        async with self._turn:
            if cancelled.is_set():
                return Outcome(STOPPED)
            process = await self._started()
            assert process.stdin and process.stdout
            request = json.dumps({"path": path, "text": text, "claims": claims})
            stopping = asyncio.create_task(self._stop_when(cancelled, process))
            try:
                process.stdin.write(request.encode() + b"\n")
                await process.stdin.drain()
                while line := await process.stdout.readline():
                    news: dict[str, Any] = json.loads(line)
                    if "said" in news:
                        progress(news["said"], news["done"])
                    elif "found" in news:
                        return Outcome(news["found"])
                    else:
                        hint = f" ({news['hint']})" if news["hint"] else ""
                        return Outcome(f"{news['error']}{hint}", failed=True)
            except (ConnectionError, ValueError):
                pass
            finally:
                stopping.cancel()
            self.close()
            return (
                Outcome(STOPPED) if cancelled.is_set() else Outcome("the process that verifies has ended", failed=True)
            )

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "circuitdsl.lsp.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LINE,
            )
        return self._process

    async def _stop_when(self, cancelled: asyncio.Event, process: asyncio.subprocess.Process) -> None:
        """An interrupt lets the run report what it has found by then; a process that goes on is ended."""
        await cancelled.wait()
        with suppress(ProcessLookupError):
            if sys.platform != "win32":
                process.send_signal(signal.SIGINT)
                await asyncio.sleep(_PATIENCE)
            process.kill()

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
        self._process = None
