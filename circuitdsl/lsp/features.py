"""The requests of the protocol, each answered by the module that knows; it is imported by its first request."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.uris import to_fs_path

from circuitdsl.errors import UserError
from circuitdsl.lsp.convert import COMPLETIONS
from circuitdsl.lsp.legend import MODIFIERS, TYPES
from circuitdsl.lsp.server import Opened, Server

VERIFY = "circuitdsl.verify"


def main() -> None:
    """Serve a client over standard input and output."""
    server = make()
    log = logging.getLogger("pygls.protocol.json_rpc")
    log.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], _Refused)))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    try:
        server.start_io(stdout=answers)
    finally:
        server.stop()


def make() -> Server:
    """A server that knows every request; `start_io` runs it."""
    server = Server()
    _texts(server)
    _writing(server)
    _finding(server)
    _looking(server)
    _verifying(server)
    return server


def _texts(server: Server) -> None:
    @server.feature(types.INITIALIZED)
    def _(ls: Server, params: types.InitializedParams) -> None:
        for module in ("document", "completion", "hover", "colours", "outline", "verdicts"):
            import_module(f"circuitdsl.lsp.{module}")  # while nothing is asked

    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def _(ls: Server, params: types.DidOpenTextDocumentParams) -> None:
        uri = params.text_document.uri
        ls.opened[uri] = Opened(uri, to_fs_path(uri) or uri)
        ls.check(uri)

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    def _(ls: Server, params: types.DidChangeTextDocumentParams) -> None:
        ls.changed(params.text_document.uri)

    @server.feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES)
    @server.feature(types.TEXT_DOCUMENT_DID_SAVE)
    def _(ls: Server, params: types.DidSaveTextDocumentParams | types.DidChangeWatchedFilesParams) -> None:
        ls.files_changed()

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def _(ls: Server, params: types.DidCloseTextDocumentParams) -> None:
        if one := ls.opened.pop(params.text_document.uri, None):
            if one.waiting:
                one.waiting.cancel()
            ls.text_document_publish_diagnostics(types.PublishDiagnosticsParams(one.uri, []))

    @server.feature(types.SHUTDOWN)
    def _(ls: Server, params: None) -> None:
        ls.stop()


def _writing(server: Server) -> None:
    @server.feature(
        types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(trigger_characters=[" ", ".", "(", ",", '"', ">"])
    )
    def _(ls: Server, params: types.CompletionParams) -> types.CompletionList:
        from circuitdsl.lsp.completion import complete

        document, convert = ls.current(params.text_document.uri)
        row, column = convert.place(params.position)
        items = []
        for number, offer in enumerate(complete(document, row, column)):
            span = types.Range(convert.position(row, offer.start + 1), params.position)
            item = types.CompletionItem(
                label=offer.text,
                kind=COMPLETIONS[offer.sort],
                documentation=types.MarkupContent(types.MarkupKind.Markdown, offer.says) if offer.says else None,
                sort_text=f"{number:05}",
                filter_text=offer.text,
                text_edit=types.TextEdit(span, offer.text),
            )
            items.append(item)
        return types.CompletionList(is_incomplete=False, items=items)

    @server.feature(types.TEXT_DOCUMENT_FORMATTING)
    def _(ls: Server, params: types.DocumentFormattingParams) -> list[types.TextEdit]:
        from circuitdsl.language.format import NotFormatted, format_text

        document, convert = ls.current(params.text_document.uri)
        try:
            formatted = format_text(document.text, document.path)
        except NotFormatted:
            return []
        everything = types.Range(types.Position(0, 0), convert.position(len(convert.rows) + 1, 1))
        return [] if formatted == document.text else [types.TextEdit(everything, convert.mark + formatted)]

    @server.feature(
        types.TEXT_DOCUMENT_CODE_ACTION, types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix])
    )
    def _(ls: Server, params: types.CodeActionParams) -> list[types.CodeAction | types.Command]:
        from circuitdsl.lsp.verdicts import claim_at

        uri = params.text_document.uri
        document, convert = ls.current(uri)
        start, end = convert.place(params.range.start), convert.place(params.range.end)
        found: list[types.CodeAction | types.Command] = [
            types.CodeAction(
                title=f"write {fix.text.strip()}",
                kind=types.CodeActionKind.QuickFix,
                diagnostics=[convert.diagnostic(each)],
                is_preferred=len(each.fixes) == 1,
                edit=ls.edit({document.path: [fix]}),
            )
            for each in document.diagnostics
            for fix in each.fixes
            if each.span[:2] <= end and start <= each.span[2:]
        ]
        if (row := claim_at(document, start[0])) and not params.context.only:
            found.append(types.Command("verify this claim", VERIFY, arguments=[uri, [row]]))
        return found


def _finding(server: Server) -> None:
    @server.feature(types.TEXT_DOCUMENT_DEFINITION)
    def _(ls: Server, params: types.DefinitionParams) -> list[types.Location]:
        from circuitdsl.lsp.navigation import definitions

        document, convert = ls.current(params.text_document.uri)
        return ls.locations(definitions(document, *convert.place(params.position), ls.document_of))

    @server.feature(types.TEXT_DOCUMENT_REFERENCES)
    def _(ls: Server, params: types.ReferenceParams) -> list[types.Location]:
        from circuitdsl.lsp.navigation import references

        document, convert = ls.current(params.text_document.uri)
        place, declared = convert.place(params.position), params.context.include_declaration
        return ls.locations(references(document, *place, ls.document_of, ls.folders(document), declared))

    @server.feature(types.TEXT_DOCUMENT_PREPARE_RENAME)
    def _(ls: Server, params: types.PrepareRenameParams) -> types.Range:
        from circuitdsl.lsp.rename import renamed

        document, convert = ls.current(params.text_document.uri)
        try:
            return convert.range(renamed(document, *convert.place(params.position)).span)
        except UserError as reason:
            raise _Refused(reason) from None

    @server.feature(types.TEXT_DOCUMENT_RENAME)
    def _(ls: Server, params: types.RenameParams) -> types.WorkspaceEdit:
        from circuitdsl.lsp.rename import rename

        document, convert = ls.current(params.text_document.uri)
        place = convert.place(params.position)
        try:
            return ls.edit(rename(document, *place, params.new_name, ls.document_of, ls.folders(document)))
        except UserError as reason:
            raise _Refused(reason) from None


class _Refused(JsonRpcException):
    """Why a request cannot be met, for the user."""

    def __init__(self, reason: UserError) -> None:
        super().__init__(reason.message, types.LSPErrorCodes.RequestFailed.value)


def _looking(server: Server) -> None:
    @server.feature(types.TEXT_DOCUMENT_HOVER)
    def _(ls: Server, params: types.HoverParams) -> types.Hover | None:
        from circuitdsl.lsp.hover import hover
        from circuitdsl.verify.last import last_verdicts

        document, convert = ls.current(params.text_document.uri)
        found = hover(document, *convert.place(params.position), last_verdicts(document.path))
        if found is None:
            return None
        return types.Hover(types.MarkupContent(types.MarkupKind.Markdown, found.text), convert.range(found.span))

    @server.feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
    def _(ls: Server, params: types.DocumentSymbolParams) -> list[types.DocumentSymbol]:
        from circuitdsl.lsp.outline import outline

        document, convert = ls.current(params.text_document.uri)
        return convert.symbols(outline(document))

    @server.feature(types.TEXT_DOCUMENT_FOLDING_RANGE)
    def _(ls: Server, params: types.FoldingRangeParams) -> list[types.FoldingRange]:
        from circuitdsl.lsp.outline import folds

        comment = types.FoldingRangeKind.Comment
        return [
            types.FoldingRange(fold.first - 1, fold.last - 1, kind=comment if fold.comment else None)
            for fold in folds(ls.current(params.text_document.uri)[0])
        ]

    @server.feature(types.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, types.SemanticTokensLegend(list(TYPES), list(MODIFIERS)))
    def _(ls: Server, params: types.SemanticTokensParams) -> types.SemanticTokens:
        from circuitdsl.lsp.colours import colours

        document, convert = ls.current(params.text_document.uri)
        return convert.tokens(colours(document))


def _verifying(server: Server) -> None:
    @server.feature(types.TEXT_DOCUMENT_INLAY_HINT)
    def _(ls: Server, params: types.InlayHintParams) -> list[types.InlayHint]:
        from circuitdsl.lsp.verdicts import hints
        from circuitdsl.verify.last import last_verdicts

        document, convert = ls.current(params.text_document.uri)
        first, last = params.range.start.line + 1, params.range.end.line + 1
        return [
            types.InlayHint(
                position=convert.position(hint.row, len(document.rows[hint.row - 1]) + 1),
                label=hint.text,
                tooltip=types.MarkupContent(types.MarkupKind.Markdown, hint.more),
                padding_left=True,
            )
            for hint in hints(document, last_verdicts(document.path))
            if first <= hint.row <= last
        ]

    @server.feature(types.TEXT_DOCUMENT_CODE_LENS)
    def _(ls: Server, params: types.CodeLensParams) -> list[types.CodeLens]:
        from circuitdsl.lsp.verdicts import lenses
        from circuitdsl.verify.last import last_verdicts

        uri = params.text_document.uri
        document, convert = ls.current(uri)
        return [
            types.CodeLens(
                range=types.Range(convert.position(lens.row, 1), convert.position(lens.row, 1)),
                command=types.Command(lens.title, VERIFY, arguments=[uri, lens.claims]),
            )
            for lens in lenses(document, last_verdicts(document.path))
        ]

    @server.command(VERIFY)
    def _(ls: Server, uri: str, claims: list[int] | None) -> None:
        ls.start(uri, claims)  # the answer comes at once: some clients do not wait as long as a model runs
