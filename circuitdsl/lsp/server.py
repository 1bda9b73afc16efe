"""The server: the texts that a client has opened, what is wrong with them, and the verifications that run.

Modules that know specs are imported when they are needed: a client waits for the server's first answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from circuitdsl.circuit.paths import real
from circuitdsl.language.diagnostics import Fix
from circuitdsl.lsp.background import Background
from circuitdsl.lsp.convert import Converter, uri_of
from circuitdsl.ordinary import Unreadable, read_ordinary
from circuitdsl.version import __version__

if TYPE_CHECKING:
    from circuitdsl.language.parse import Read
    from circuitdsl.lsp.document import Document
    from circuitdsl.lsp.navigation import Spot

#: seconds without a key stroke after which the text is checked
PAUSE = 0.02


@dataclass
class Opened:
    """A text that the client has opened: what was read of it last, and for which version."""

    uri: str
    path: str
    before: Read = field(default_factory=dict)
    document: Document | None = None
    converter: Converter | None = None
    version: int | None = None
    waiting: asyncio.TimerHandle | None = None


class Server(LanguageServer):
    """A language server for specs."""

    def __init__(self) -> None:
        super().__init__("circuitdsl", __version__, types.TextDocumentSyncKind.Full)
        self.opened: dict[str, Opened] = {}
        self.background = Background()
        #: verifications that run, each with what stops it
        self.running: dict[asyncio.Task[None], asyncio.Event] = {}

    # --- texts

    def current(self, uri: str) -> tuple[Document, Converter]:
        """What is known of a text as it is now."""
        from circuitdsl.lsp.document import read

        text_document = self.workspace.get_text_document(uri)
        one = self.opened.get(uri) or Opened(uri, to_fs_path(uri) or uri)
        if one.document is None or one.converter is None or one.version != text_document.version:
            text = text_document.source
            one.document = read(one.path, text, one.before)
            one.converter = Converter(text, str(self.workspace.position_encoding))
            one.version = text_document.version
        return one.document, one.converter

    def document_of(self, path: Path) -> Document:
        """A spec as the client has it open, else as it is saved."""
        from circuitdsl.lsp.files import from_disk

        uri = self.uri_of(str(path))
        return self.current(uri)[0] if uri in self.opened else from_disk(path)

    def uri_of(self, path: str) -> str:
        """The client's address of a file."""
        wanted = real(Path(path))
        return next((uri for uri, one in self.opened.items() if real(Path(one.path)) == wanted), uri_of(path))

    def converter_of(self, path: str) -> tuple[str, Converter]:
        """The address of a file, and what converts places in it."""
        from circuitdsl.language.parse import MAX_BYTES

        uri = self.uri_of(path)
        if uri in self.opened:
            return uri, self.current(uri)[1]
        try:
            text = read_ordinary(Path(path), MAX_BYTES).decode("utf-8", "replace")
        except Unreadable:
            text = ""
        return uri, Converter(text, str(self.workspace.position_encoding))

    def folders(self, document: Document) -> list[Path]:
        """Where specs may lie that use one: the client's folders, and its own."""
        known = (to_fs_path(folder.uri) for folder in self.workspace.folders.values())
        return [*(Path(path) for path in known if path), Path(document.path).parent]

    # --- diagnostics

    def changed(self, uri: str) -> None:
        """Check a text once nothing is typed for a moment."""
        one = self.opened[uri]
        if one.waiting:
            one.waiting.cancel()
        one.waiting = asyncio.get_running_loop().call_later(PAUSE, self.check, uri)

    def files_changed(self) -> None:
        """Check all texts again: they may use a file that was saved."""
        for uri, one in self.opened.items():
            one.document = None
            self.check(uri)

    def check(self, uri: str) -> None:
        """Tell what is wrong with a text, with the version that was read."""
        one = self.opened.get(uri)
        if one is None:
            return
        try:
            document, convert = self.current(uri)
            found = [convert.diagnostic(each) for each in document.diagnostics]
        except Exception as error:  # whatever goes wrong with one text, the next is read again
            logging.getLogger(__name__).exception("reading %s", uri)
            self.report_server_error(error, JsonRpcException)
            return
        self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, found, one.version))

    # --- answers

    def locations(self, spots: Iterable[Spot]) -> list[types.Location]:
        """Places in files."""
        found = []
        for spot in spots:
            uri, convert = self.converter_of(spot.path)
            found.append(types.Location(uri, convert.range(spot.span)))
        return found

    def edit(self, edits: dict[str, list[Fix]]) -> types.WorkspaceEdit:
        """Texts to put into files; those that are open, into the version that was read."""
        changes: list[Any] = []
        for path, fixes in edits.items():
            uri, convert = self.converter_of(path)
            version = self.opened[uri].version if uri in self.opened else None
            target = types.OptionalVersionedTextDocumentIdentifier(uri, version)
            changes.append(types.TextDocumentEdit(target, convert.edits(fixes)))
        workspace = self.client_capabilities.workspace
        if workspace and workspace.workspace_edit and workspace.workspace_edit.document_changes:
            return types.WorkspaceEdit(document_changes=changes)
        return types.WorkspaceEdit(changes={each.text_document.uri: list(each.edits) for each in changes})

    # --- verifying

    def start(self, uri: str, claims: list[int] | None) -> None:
        """Begin to verify a spec that is open, or some claims of it, named by their rows."""
        if one := self.opened.get(uri):
            stopped = asyncio.Event()
            task = asyncio.get_running_loop().create_task(self._verify(one, claims, stopped))
            self.running[task] = stopped
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.running.pop(task, None)
        if not task.cancelled() and (error := task.exception()):
            logging.getLogger(__name__).error("verifying", exc_info=error)

    async def _verify(self, one: Opened, claims: list[int] | None, stopped: asyncio.Event) -> None:
        """Verify a text as it is now, and show how far it is."""
        text, name = self.current(one.uri)[0].text, Path(one.path).name
        tell, end = await self._progress(f"verifying {name}", stopped)
        outcome = await self.background.verify(one.path, text, claims, tell, stopped)
        end(outcome.text)
        kind = types.MessageType.Error if outcome.failed else types.MessageType.Info
        self.window_show_message(types.ShowMessageParams(kind, f"{name}: {outcome.text}"))
        self._refresh()

    async def _progress(
        self, title: str, stopped: asyncio.Event
    ) -> tuple[Callable[[str, float], None], Callable[[str], None]]:
        """Functions that tell the client how far work is, and that it has ended; some clients do not want to know."""
        window, token = self.client_capabilities.window, uuid4().hex
        if not (window and window.work_done_progress):
            return lambda text, done: None, lambda text: None
        shown = self.work_done_progress
        await shown.create_async(token)
        shown.begin(token, types.WorkDoneProgressBegin(title, cancellable=True, percentage=0))
        loop = asyncio.get_running_loop()
        shown.tokens[token].add_done_callback(
            lambda made: loop.call_soon_threadsafe(stopped.set) if made.cancelled() else None
        )

        def tell(text: str, done: float) -> None:
            shown.report(token, types.WorkDoneProgressReport(message=text, percentage=int(100 * done)))

        def end(text: str) -> None:
            shown.end(token, types.WorkDoneProgressEnd(message=text))

        return tell, end

    def _refresh(self) -> None:
        """Ask the client to show verdicts anew, if it can be asked."""
        workspace = self.client_capabilities.workspace
        if workspace and workspace.inlay_hint and workspace.inlay_hint.refresh_support:
            self.workspace_inlay_hint_refresh(None)
        if workspace and workspace.code_lens and workspace.code_lens.refresh_support:
            self.workspace_code_lens_refresh(None)

    def stop(self) -> None:
        """End all verifications, and their process."""
        for stopped in self.running.values():
            stopped.set()
        self.background.close()
