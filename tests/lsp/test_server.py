"""The language server over standard input and output, asked by a real client."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

pytest.importorskip("pygls")
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from circuitdsl.lsp.document import read
from tests.conftest import ROOT
from tests.drawing import examples
from tests.lsp.editor import Editor, until

TEXT = """circuit small "A small spec"
model "pocket"
task ioi(corrupt = abc, prompts = 32)
heads mover = 2.4 2.5 at END
mover -> logits at END : lowers
expect accuracy >= 90%
"""
#: what holds of the model
TRUE = TEXT.replace("2.4 2.5", "0.3 0.5 0.6").replace("prompts = 32", "prompts = 128")


def run(folder: Path, scenario: Callable[[Editor], Awaitable[None]]) -> Editor:
    """What a client does from start to end; the server must live until then."""
    editor = Editor(folder)

    async def whole() -> None:
        await editor.start()
        await scenario(editor)
        await editor.end()

    asyncio.run(whole())
    return editor


def test_writing_a_spec(tmp_path: Path) -> None:
    async def scenario(editor: Editor) -> None:
        client = editor.client
        small = editor.open(TEXT)
        assert await editor.diagnostics(small) == []

        version = editor.change(small, TEXT.replace("mover ->", "movr ->"))
        (wrong,) = [each for each in await editor.diagnostics(small, version) if each.code == "E040"]
        assert wrong.message == "unknown group 'movr'; did you mean 'mover'?"
        assert (wrong.range.start.line, wrong.range.start.character, wrong.range.end.character) == (4, 0, 4)
        context = types.CodeActionContext([wrong])
        ask = client.text_document_code_action_async
        (action,) = await ask(types.CodeActionParams(small, wrong.range, context))
        assert action.title == "write mover" and action.is_preferred
        (edit,) = action.edit.document_changes
        assert (edit.text_document.version, edit.edits[0].new_text, edit.edits[0].range) == (2, "mover", wrong.range)

        version = editor.change(small, TEXT + "expect att")
        ask = client.text_document_completion_async
        found = await editor.at(ask, types.CompletionParams, small, 6, 10)
        assert [item.label for item in found.items] == ["attention", "attribution"]
        assert found.items[0].text_edit.range == types.Range(types.Position(6, 7), types.Position(6, 10))

        version = editor.change(small, TEXT)
        text = await editor.at(client.text_document_hover_async, types.HoverParams, small, 3, 7)
        assert text.contents.value == "**mover** (heads): 2.4 2.5 at END, role mover"
        options = types.FormattingOptions(2, True)
        (whole,) = await client.text_document_formatting_async(types.DocumentFormattingParams(small, options))
        assert "heads mover = 2.4 2.5      at END" in whole.new_text

        (symbol,) = await client.text_document_document_symbol_async(types.DocumentSymbolParams(small))
        assert symbol.name == "small"
        assert [each.name for each in symbol.children][:3] == ["ioi", "mover", "mover -> logits at END : lowers"]
        folds = await client.text_document_folding_range_async(types.FoldingRangeParams(small))
        assert [(fold.start_line, fold.end_line) for fold in folds] == [(0, 5)]
        tokens = await client.text_document_semantic_tokens_full_async(types.SemanticTokensParams(small))
        assert list(tokens.data[:10]) == [0, 0, 7, 0, 0, 0, 8, 5, 5, 1]

        places = await editor.at(client.text_document_definition_async, types.DefinitionParams, small, 4, 1)
        assert [(each.uri, each.range.start.line) for each in places] == [(small.uri, 3)]
        more = {"context": types.ReferenceContext(include_declaration=True)}
        places = await editor.at(client.text_document_references_async, types.ReferenceParams, small, 4, 1, **more)
        assert [each.range.start.line for each in places] == [3, 4]
        place = await editor.at(client.text_document_prepare_rename_async, types.PrepareRenameParams, small, 4, 1)
        assert place == types.Range(types.Position(4, 0), types.Position(4, 5))
        ask = client.text_document_rename_async
        found = await editor.at(ask, types.RenameParams, small, 4, 1, new_name="last")
        assert [edit.new_text for edit in found.document_changes[0].edits] == ["last", "  role mover", "last"]
        with pytest.raises(JsonRpcException, match="'circuit' is reserved"):
            await editor.at(ask, types.RenameParams, small, 4, 1, new_name="circuit")

        client.text_document_did_close(types.DidCloseTextDocumentParams(small))
        await until(lambda: not editor.published[-1].diagnostics and editor.published[-1].version is None)

    run(tmp_path, scenario)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.circ")

    async def scenario(editor: Editor) -> None:
        small, ask = editor.open('use "pipe.circ"\n' + TEXT + "compare "), editor.client.text_document_completion_async
        found = await asyncio.wait_for(editor.at(ask, types.CompletionParams, small, 7, 8), 60)
        assert "small" in [item.label for item in found.items]
        definition = editor.client.text_document_definition_async
        (place,) = await asyncio.wait_for(editor.at(definition, types.DefinitionParams, small, 0, 6), 60)
        assert place.uri.endswith("/pipe.circ")

    run(tmp_path, scenario)


def test_a_used_file_is_read_again_when_it_is_saved(tmp_path: Path) -> None:
    async def scenario(editor: Editor) -> None:
        main = editor.open('use "roles.circ"\n' + TEXT.replace("at END\n", "at END role looker\n"))
        assert [each.code for each in await editor.diagnostics(main)] == ["E032"]
        roles = editor.open('role looker "looks"\n  expect attention(self, END -> IO) >= 5%\n', "roles.circ")
        before = len(editor.published)
        editor.client.text_document_did_save(types.DidSaveTextDocumentParams(roles))
        await until(lambda: len(editor.published) >= before + 2)
        assert await editor.diagnostics(main) == []
        (tmp_path / "roles.circ").unlink()
        changes = [types.FileEvent(roles.uri, types.FileChangeType.Deleted)]
        editor.client.workspace_did_change_watched_files(types.DidChangeWatchedFilesParams(changes))
        await until(lambda: len(editor.published) >= before + 4)
        assert [each.code for each in await editor.diagnostics(main)] == ["E032"]

    run(tmp_path, scenario)


def test_columns_count_in_the_client_s_units(tmp_path: Path) -> None:
    async def scenario(editor: Editor) -> None:
        head = '\ufeffcircuit small "𝒜 𝓈pec" x\n'
        small = editor.open(head + 'note "𝒜"\n')
        found = await editor.diagnostics(small)
        # the mark is one unit, each of the two letters two
        assert [(each.range.start.line, each.range.start.character) for each in found] == [(0, 26)]
        await editor.at(editor.client.text_document_hover_async, types.HoverParams, small, 0, 99)

    run(tmp_path, scenario)


def test_verifying_in_the_background(tmp_path: Path) -> None:
    async def scenario(editor: Editor) -> None:
        client = editor.client
        small = editor.open(TRUE)
        lenses = await client.text_document_code_lens_async(types.CodeLensParams(small))
        assert [(each.range.start.line, each.command.title) for each in lenses] == [(0, "verify")]
        command = lenses[0].command
        await client.workspace_execute_command_async(types.ExecuteCommandParams(command.command, command.arguments))
        # the server answers while the model runs
        whole = types.Range(types.Position(0, 0), types.Position(99, 0))
        assert await client.text_document_inlay_hint_async(types.InlayHintParams(small, whole)) == ()
        await until(lambda: bool(client.messages))
        assert client.messages[-1].message == "small.circ: small: 2 hold"
        (reports,) = client.progress_reports.values()
        assert isinstance(reports[0], types.WorkDoneProgressBegin) and reports[0].cancellable
        assert isinstance(reports[-1], types.WorkDoneProgressEnd)
        await until(lambda: set(editor.refreshed) == {"hints", "lenses"})

        hints = await client.text_document_inlay_hint_async(types.InlayHintParams(small, whole))
        assert [hint.position.line for hint in hints] == [4, 5]
        assert all(hint.label.startswith("✓ ") and "[" in hint.label for hint in hints)
        text = await editor.at(client.text_document_hover_async, types.HoverParams, small, 5, 0)
        assert "**holds** on ioi" in text.contents.value and "just now, pocket" in text.contents.value
        lenses = await client.text_document_code_lens_async(types.CodeLensParams(small))
        assert lenses[0].command.title == "verify · 2 hold"

        # one claim alone, and what was found before stays; what is asked differently is marked
        editor.change(small, TRUE.replace(">= 90%", ">= 95%").replace("0.3 0.5", "0.3"))
        at = types.Range(types.Position(5, 3), types.Position(5, 3))
        context = types.CodeActionContext([])
        (action,) = await client.text_document_code_action_async(types.CodeActionParams(small, at, context))
        assert action.title == "verify this claim" and action.arguments[1] == [6]
        await editor.verify(small, [6])
        await until(lambda: len(client.messages) == 2)
        hints = await client.text_document_inlay_hint_async(types.InlayHintParams(small, whole))
        assert [hint.label[0] for hint in hints] == ["~", "✓"]

        # what cannot be verified is said
        editor.change(small, TRUE.replace("mover ->", "movr ->"))
        await editor.verify(small)
        await until(lambda: len(client.messages) == 3)
        assert client.messages[-1].type == types.MessageType.Error
        assert client.messages[-1].message == "small.circ: the spec has mistakes, as marked in it"

        # a client that wants no more of it
        many = TRUE.replace("prompts = 128", "prompts = 3000").replace("accuracy >= 90%", "faithfulness >= 0%")
        editor.change(small, many)
        await editor.verify(small)
        await until(lambda: len(client.progress_reports) == 4)
        token = list(client.progress_reports)[-1]
        await until(lambda: len(client.progress_reports[token]) > 1)
        client.window_work_done_progress_cancel(types.WorkDoneProgressCancelParams(token))
        await until(lambda: len(client.messages) == 4)
        assert "interrupted" in client.messages[-1].message or "stopped" in client.messages[-1].message

        # the process is killed while it works; the next one does its work
        await editor.verify(small)
        await until(lambda: len(client.progress_reports) == 5)
        token = list(client.progress_reports)[-1]
        await until(lambda: len(client.progress_reports[token]) > 1)
        (server,) = children(os.getpid(), "lsp")
        (worker,) = children(server, "circuitdsl.lsp.worker")
        os.kill(worker, signal.SIGKILL)
        await until(lambda: len(client.messages) == 5)
        assert client.messages[-1].message == "small.circ: the process that verifies has ended"
        editor.change(small, TRUE)
        await editor.verify(small)
        await until(lambda: len(client.messages) == 6)
        assert client.messages[-1].message == "small.circ: small: 2 hold"

    run(tmp_path, scenario)


def children(process: int, word: str) -> list[int]:
    """The processes that one has started, by a word of their commands."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                command = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if parent == process and word.encode() in command:
                found.append(int(folder.name))
    return found


def test_what_is_broken_ends_nothing(tmp_path: Path) -> None:
    """Files that are no specs, requests about what is not open, and messages that are none."""

    async def scenario(editor: Editor) -> None:
        client = editor.client
        small = editor.open(TEXT)
        for text in ("\0\0\0", "\ud800 -> b", "(" * 3000, "é\r\x0b\u2028heads a = 1.0\r\n" * 50, "x" * 1_100_000, ""):
            version = editor.change(small, text)
            await editor.diagnostics(small, version)
            await client.text_document_semantic_tokens_full_async(types.SemanticTokensParams(small))
        other = types.TextDocumentIdentifier((tmp_path / "no such file.circ").as_uri())
        with pytest.raises(JsonRpcException):
            await client.text_document_document_symbol_async(types.DocumentSymbolParams(other))
        untitled = types.TextDocumentItem("untitled:Untitled-1", "circ", 1, TEXT)
        client.text_document_did_open(types.DidOpenTextDocumentParams(untitled))
        found = await editor.diagnostics(types.TextDocumentIdentifier(untitled.uri))
        assert found == []
        client.protocol.writer.write(b"Content-Length: 9\r\n\r\nnot JSON!")
        client.protocol.notify("no/such/notification", {})
        version = editor.change(small, TEXT)
        assert await editor.diagnostics(small, version) == []

    run(tmp_path, scenario)


def test_no_diagnostic_is_older_than_its_version_says(tmp_path: Path) -> None:
    """A row is added with every key stroke; the last row is wrong, so that each version has its own diagnostics."""

    async def scenario(editor: Editor) -> None:
        small = editor.open(TEXT)
        for number in range(60):
            editor.change(small, TEXT + "#\n" * number + "movr -> logits at END")
            await asyncio.sleep(0.01 * (number % 3))
        await editor.diagnostics(small, 61)

    editor = run(tmp_path, scenario)
    for each in editor.published[1:-1]:
        (wrong,) = each.diagnostics
        assert wrong.range.start.line == each.version + 4
    assert [each.version for each in editor.published] == sorted(each.version for each in editor.published)


def test_a_spec_is_typed_into_the_server(tmp_path: Path) -> None:
    """Whatever is published is what is wrong with the text of its version, and the last text is the last to be read."""
    whole = (ROOT / "specs" / "pocket" / "ioi.circ").read_text(encoding="utf-8")
    step = examples(41, 1)
    texts = {version: whole[:length] for version, length in enumerate(range(step, len(whole) + step, step), 2)}

    async def scenario(editor: Editor) -> None:
        typed = editor.open("", "typed.circ")
        for text in texts.values():
            editor.change(typed, text)
            await asyncio.sleep(0.004)
        assert await editor.diagnostics(typed, max(texts)) == []

    editor = run(tmp_path, scenario)
    path = str(tmp_path / "typed.circ")
    for each in editor.published:
        wrong = read(path, texts.get(each.version, "")).diagnostics
        found = [(one.code, one.range.start.line + 1) for one in each.diagnostics]
        assert found == [(one.code, one.span.line) for one in wrong]


def test_the_server_starts_at_once_and_needs_no_torch(tmp_path: Path) -> None:
    """What is imported before the first answer, and before the first verification."""
    heavy = "{'torch', 'transformers', 'numpy', 'scipy', 'rich', 'networkx', 'hypothesis'}"
    code = f"""
import sys
from circuitdsl.cli import command_line
from circuitdsl.lsp.features import make
command_line(); make()
print(len(sys.modules), 'circuitdsl.api' in sys.modules, sorted({heavy} & set(sys.modules)))
from circuitdsl.lsp import colours, completion, document, hover, outline, rename, verdicts
from circuitdsl.verify.last import last_verdicts
found = document.read('x.circ', {TEXT!r})
completion.complete(found, 5, 10), hover.hover(found, 5, 2, last_verdicts('x.circ')), colours.colours(found)
print(len(sys.modules), sorted({heavy} & set(sys.modules)))
"""
    env = os.environ | {"CIRCUITDSL_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    first, second = done.stdout.splitlines()
    modules, knows_specs, *_ = first.split()
    assert int(modules) < 420 and knows_specs == "False" and first.endswith("[]")
    assert int(second.split()[0]) < 520 and second.endswith("[]")


def test_without_its_library_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['pygls'] = None; from circuitdsl import cli; sys.exit(cli.run(['lsp']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: the language server needs pygls, which is not installed",
        "  help: pip install 'circuitdsl[lsp]'",
    ]
