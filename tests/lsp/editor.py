"""A client that talks to the server over standard input and output, as an editor does."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls.lsp.client import LanguageClient

from tests.conftest import ROOT

CAPABILITIES = types.ClientCapabilities(
    window=types.WindowClientCapabilities(work_done_progress=True),
    workspace=types.WorkspaceClientCapabilities(
        workspace_edit=types.WorkspaceEditClientCapabilities(document_changes=True),
        inlay_hint=types.InlayHintWorkspaceClientCapabilities(refresh_support=True),
        code_lens=types.CodeLensWorkspaceClientCapabilities(refresh_support=True),
    ),
    text_document=types.TextDocumentClientCapabilities(
        completion=types.CompletionClientCapabilities(
            completion_item=types.ClientCompletionItemOptions(documentation_format=[types.MarkupKind.Markdown])
        ),
        hover=types.HoverClientCapabilities(content_format=[types.MarkupKind.Markdown]),
        rename=types.RenameClientCapabilities(prepare_support=True),
        synchronization=types.TextDocumentSyncClientCapabilities(did_save=True),
    ),
    general=types.GeneralClientCapabilities(position_encodings=[types.PositionEncodingKind.Utf16]),
)
Document = types.TextDocumentIdentifier


class Client(LanguageClient):
    """Keeps what the server says: its messages, and how far its work is, by the token of the work."""

    def __init__(self) -> None:
        super().__init__("tests", "1")
        self.messages: list[types.ShowMessageParams] = []
        self.progress_reports: dict[types.ProgressToken, list[Any]] = {}
        self.hears(types.WINDOW_SHOW_MESSAGE, self.messages.append)
        self.hears(types.WINDOW_WORK_DONE_PROGRESS_CREATE, lambda new: self.progress_reports.setdefault(new.token, []))
        self.hears(types.PROGRESS, self._progress)

    def hears(self, name: str, told: Callable[[Any], Any]) -> None:
        """Call a function with each message of a kind."""

        @self.feature(name)
        def _(params: Any) -> None:
            told(params)

    def _progress(self, params: types.ProgressParams) -> None:
        kinds = {
            "begin": types.WorkDoneProgressBegin,
            "report": types.WorkDoneProgressReport,
            "end": types.WorkDoneProgressEnd,
        }
        value = self.protocol._converter.structure(params.value, kinds[params.value["kind"]])
        self.progress_reports[params.token].append(value)

    async def pass_errors_on(self) -> None:
        """What the server writes to standard error is shown with a test that fails."""
        assert self._server and self._server.stderr
        while line := await self._server.stderr.readline():
            sys.stderr.write(line.decode())


class Editor:
    """A client with one folder. `published` has all diagnostics as they came, with the version that they are of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client = Client()
        self.published: list[types.PublishDiagnosticsParams] = []
        self.refreshed: list[str] = []
        self.versions: dict[str, int] = {}
        for name, told in {
            types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS: self.published.append,
            types.WORKSPACE_INLAY_HINT_REFRESH: lambda params: self.refreshed.append("hints"),
            types.WORKSPACE_CODE_LENS_REFRESH: lambda params: self.refreshed.append("lenses"),
        }.items():
            self.client.hears(name, told)

    async def start(self) -> types.InitializeResult:
        env = os.environ | {"CIRCUITDSL_CACHE": str(self.folder / "cache"), "PYTHONPATH": str(ROOT)}
        await self.client.start_io(sys.executable, "-m", "circuitdsl", "lsp", "--stdio", env=env)
        folders = [types.WorkspaceFolder(self.folder.as_uri(), "folder")]
        params = types.InitializeParams(capabilities=CAPABILITIES, workspace_folders=folders)
        asyncio.get_running_loop().create_task(self.client.pass_errors_on())
        answer = await self.client.initialize_async(params)
        self.client.initialized(types.InitializedParams())
        return answer

    async def end(self) -> None:
        await self.client.shutdown_async(None)
        self.client.exit(None)
        await self.client.stop()

    def open(self, text: str, name: str = "small.circ", save: bool = True) -> Document:
        path = self.folder / name
        if save:
            path.write_text(text, encoding="utf-8")
        self.versions[path.as_uri()] = 1
        item = types.TextDocumentItem(path.as_uri(), "circ", 1, text)
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(item))
        return Document(path.as_uri())

    def change(self, document: Document, text: str) -> int:
        """The number of the version that this makes."""
        self.versions[document.uri] += 1
        version = self.versions[document.uri]
        whole = types.TextDocumentContentChangeWholeDocument(text)
        identifier = types.VersionedTextDocumentIdentifier(version, document.uri)
        self.client.text_document_did_change(types.DidChangeTextDocumentParams(identifier, [whole]))
        return version

    async def diagnostics(self, document: Document, version: int = 1) -> list[types.Diagnostic]:
        """Those of a version, once they are there."""

        def found() -> list[types.PublishDiagnosticsParams]:
            return [each for each in self.published if (each.uri, each.version) == (document.uri, version)]

        await until(lambda: bool(found()))
        return list(found()[-1].diagnostics)

    async def at(self, ask: Callable[..., Any], kind: Any, document: Document, line: int, character: int, **more: Any):
        """The answer to a question about a place."""
        return await ask(kind(text_document=document, position=types.Position(line, character), **more))

    async def verify(self, document: Document, claims: list[int] | None = None) -> None:
        params = types.ExecuteCommandParams("circuitdsl.verify", [document.uri, claims])
        await self.client.workspace_execute_command_async(params)


async def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until something is so."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen")
