"""The settings of docs/editors.md in a real Neovim; skipped where none is at hand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytest.importorskip("pygls")
PAGE = (ROOT / "docs" / "editors.md").read_text(encoding="utf-8")
(SETTINGS,) = re.findall(r"<!-- neovim -->\n```lua\n(.*?)```", PAGE, re.DOTALL)
TEXT = """circuit small
model "pocket"
task ioi(corrupt = abc)
heads mover = 2.4 2.5 at END
movr -> logits at END
"""
ASK = """
local function wait(what) assert(vim.wait(20000, what, 50), "it did not happen") end
wait(function() return #vim.diagnostic.get(0) > 0 end)
local found = { diagnostics = {} }
for _, each in ipairs(vim.diagnostic.get(0)) do
  table.insert(found.diagnostics, { each.lnum, each.col, each.code })
end
local at = { textDocument = { uri = vim.uri_from_bufnr(0) }, position = { line = 3, character = 7 } }
local function ask(method, params)
  local answers = vim.lsp.buf_request_sync(0, method, params, 20000)
  for _, each in pairs(answers) do return each.result end
end
found.hover = ask("textDocument/hover", at).contents.value
vim.lsp.buf.format({ timeout_ms = 20000 })
found.lines = vim.api.nvim_buf_get_lines(0, 0, -1, false)
local whole = { textDocument = at.textDocument }
found.lenses = #ask("textDocument/codeLens", whole)
wait(function() return vim.inspect(vim.lsp.semantic_tokens.get_at_pos(0, 3, 8) or {}):find("variable") ~= nil end)
io.stdout:write("FOUND" .. vim.json.encode(found) .. "\\n")
vim.cmd("qa!")
"""


def neovim() -> str:
    """The program, if it is recent enough for the settings of the page."""
    program = os.environ.get("NVIM") or shutil.which("nvim")
    if not program:
        pytest.skip("there is no Neovim here (NVIM names one)")
    said = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    version = re.search(r"NVIM v(\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < (0, 11):
        pytest.skip("Neovim is older than 0.11")
    return program


def test_the_settings_of_the_page_work(tmp_path: Path) -> None:
    program = neovim()
    command = json.dumps([sys.executable, "-m", "circuitdsl", "lsp"])[1:-1]
    assert '"circuitdsl", "lsp"' in SETTINGS
    (tmp_path / "init.lua").write_text(SETTINGS.replace('"circuitdsl", "lsp"', command))
    (tmp_path / "ask.lua").write_text(ASK)
    (tmp_path / "small.circ").write_text(TEXT)
    env = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    line = [program, "--headless", "-u", "init.lua", "small.circ", "-c", "luafile ask.lua"]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert "FOUND" in done.stdout, done.stdout + done.stderr
    found = json.loads(done.stdout.split("FOUND")[1].splitlines()[0])
    assert [4, 0, "E040"] in found["diagnostics"]
    assert found["hover"] == "**mover** (heads): 2.4 2.5 at END, role mover"
    assert found["lines"][3] == "heads mover = 2.4 2.5      at END"
