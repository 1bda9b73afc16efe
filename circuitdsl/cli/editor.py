"""`lsp`: the language server that editors start."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from circuitdsl.cli.arguments import Verbs
from circuitdsl.errors import UserError

#: what the server is made with, beside this package
_NEEDS = ("pygls", "lsprotocol")


def register(verbs: Verbs) -> None:
    verb = verbs.verb(_lsp, "lsp", "serve an editor while a spec is written (docs/editors.md)")
    verb.add_argument("--stdio", action="store_true", help="over standard input and output, as it always does")


def _lsp(given: argparse.Namespace) -> int:
    if not all(map(find_spec, _NEEDS)):
        raise UserError("the language server needs pygls, which is not installed", "pip install 'circuitdsl[lsp]'")
    from circuitdsl.lsp.features import main

    main()
    return 0
