"""A real browser for tests of pages; they are skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run --disable-quic"
)


@contextmanager
def chromium(folder: Path) -> Iterator[Any]:
    """A context of Chromium with nothing in its profile."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs Chromium, which is not installed")
    with sync_api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(folder), executable_path=path, args=_FLAGS.split(), viewport={"width": 1440, "height": 900}
        )
        context.set_default_timeout(10_000)
        yield context
        context.close()


class Noise:
    """What a page does that it should not: requests, dialogs, errors, words on the console."""

    def __init__(self, page: Any) -> None:
        self.heard: list[str] = []
        page.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or self.heard.append(r.url))
        page.on("console", lambda message: self.heard.append(message.text))
        page.on("pageerror", lambda error: self.heard.append(str(error)))
        page.on("dialog", lambda dialog: (self.heard.append("a dialog"), dialog.dismiss()))
