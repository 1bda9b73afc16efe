"""The pytest plugin: every claim of a `.circ` file, on every task, is a test.

Files are collected wherever pytest looks for tests, and where they are named. When the first claim of a circuit runs,
all of its claims that are selected are verified at once, each at the level that it has among all claims. Numbers that
earlier runs have measured are taken from the cache. A claim that does not hold fails with the report's reason.
Nothing heavy is imported before a claim runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from circuitdsl.circuit.paths import prompt_files
from circuitdsl.errors import UserError
from circuitdsl.limits import positive, seed
from circuitdsl.visible import harmless, line, visible

if TYPE_CHECKING:
    from circuitdsl.api import Spec
    from circuitdsl.circuit.claims import Claim
    from circuitdsl.report.report import ClaimResult, Report

_SESSION = pytest.StashKey[Any]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("circuitdsl", "circuits (.circ files)")
    group.addoption("--circ-model", metavar="MODEL", help="verify on this model instead of the specs' own")
    group.addoption("--circ-device", default="auto", choices=("auto", "cpu", "cuda"), help="where models run")
    group.addoption("--circ-prompts", type=positive, metavar="N", help="prompts per task at most")
    group.addoption("--circ-seed", type=seed, metavar="N", help="seed of the prompts, instead of the specs'")
    group.addoption(
        "--circ-task", action="append", default=[], metavar="NAME=FILE", help="take the prompts of a task from a file"
    )
    group.addoption("--circ-allow-outside", action="store_true", help="let specs name prompt files elsewhere")
    group.addoption("--circ-allow-undecided", action="store_true", help="skip undecided claims, rather than fail them")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix != ".circ":
        return None
    found = CircFile.from_parent(parent, path=file_path)
    if visible(found.nodeid) == found.nodeid:
        return found
    return CircFile.from_parent(parent, path=file_path, name=visible(found.name), nodeid=visible(found.nodeid))


def pytest_unconfigure(config: pytest.Config) -> None:
    if _SESSION in config.stash:
        config.stash[_SESSION].close()


class SpecWarning(pytest.PytestWarning):
    """Something in a spec that is allowed, but likely not meant."""


class ClaimFailed(Exception):
    """A claim does not hold, or holds and was not to."""

    def __init__(self, result: ClaimResult) -> None:
        super().__init__(line(f"{result.spoken}: {result.why}"))
        self.result = result


class CircFile(pytest.File):
    """A spec; its claims on each of their tasks are the items."""

    def collect(self) -> Iterator[pytest.Item]:
        spec = self._spec()
        several, known = len(spec.circuits) > 1, set[str]()
        for circuit in spec.circuits:
            run = Run(replace(spec, circuits=(circuit,)), self.config)
            for claim in circuit.claims:
                for task in claim.tasks or (None,):  # a channel has no task
                    on = f" on {task}" if task and len(circuit.tasks) > 1 and f" on {task}" not in claim.text else ""
                    parts = (circuit.name if several else "", claim.under.text if claim.under else "", claim.text + on)
                    title = ": ".join(part for part in parts if part)
                    name = unique("-".join(slug(part) for part in parts if part), known)
                    yield ClaimItem.from_parent(self, name=name, title=line(title), run=run, claim=claim, task=task)

    def _spec(self) -> Spec:
        """The spec, or its mistakes as an error of collection."""
        from circuitdsl.api import check_prompt_files, load
        from circuitdsl.language.diagnostics import foremost, render, render_foremost

        try:
            option = self.config.getoption
            model, files = option("--circ-model"), prompt_files(option("--circ-task"))
            spec = load(self.path, model, allow_outside=option("--circ-allow-outside"), prompt_files=files)
            wrong = [d for d in spec.diagnostics if d.severity == "error"]
            if wrong:
                raise self.CollectError(harmless(render_foremost(wrong, spec.text, spec.path)))
            check_prompt_files(spec, model)
        except UserError as error:
            raise self.CollectError(_say(error)) from None
        shown, more = foremost(spec.diagnostics)  # warnings all of them
        for text in (*(render(each, spec.text, spec.path) for each in shown), *([more] if more else [])):
            self.warn(SpecWarning(harmless(text)))
        return spec


#: what a test's name has for signs that `-k` or a shell would not take
_SPELLED = {"->": " to ", "<=": " le ", ">=": " ge ", "<": " lt ", ">": " gt "}


def slug(text: str) -> str:
    """A claim's text as one word: `mover -> logits : effect <= -5%` is `mover_to_logits_effect_le_-5pct`.

    It is the same however the text is spaced.
    """
    for sign, word in _SPELLED.items():
        text = text.replace(sign, word)
    text = re.sub(r"\s*%", "pct", re.sub(r"(?<=\w)\s*([+-])\s+(?=\w)|\s+(\+)", r"\1\2", text))
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")


def unique(name: str, known: set[str]) -> str:
    """The name, or the first of `name-2`, `name-3`, … that is not known yet; it is then known."""
    found, number = name, 1
    while found in known:
        number += 1
        found = f"{name}-{number}"
    known.add(found)
    return found


class Run:
    """The verification of one circuit, which is run when its first claim asks for a result.

    Of its claims those are verified that are selected, each at the level that it has among all.
    """

    def __init__(self, spec: Spec, config: pytest.Config) -> None:
        self.spec, self.config = spec, config
        self.selected: Sequence[str] = ()
        self._told: Claim | None = None

    def result(self, item: ClaimItem) -> ClaimResult:
        claim, task = item.claim, item.task
        if not self.selected:
            mine = (each.claim.id for each in item.session.items if isinstance(each, ClaimItem) and each.run is self)
            self.selected = tuple(dict.fromkeys((claim.id, *mine)))
        found = self._outcome
        if isinstance(found, UserError) and self._told is not None:
            raise UserError(f"for the reason given at line {self._told.line}")
        if isinstance(found, Exception):
            self._told = claim
            raise found
        return next(result for result in found.claims if (result.id, result.task) == (claim.id, task))

    @cached_property
    def _outcome(self) -> Report | Exception:
        """The report, or the error that prevented it. The first claim shows the whole error, the others refer to it."""
        from circuitdsl.models.errors import ModelUnavailable
        from circuitdsl.verify.session import Session

        option, stash = self.config.getoption, self.config.stash
        if _SESSION not in stash:
            stash[_SESSION] = Session(option("--circ-model"), option("--circ-device"))
        try:
            given = option("--circ-prompts"), option("--circ-seed")
            (report,) = stash[_SESSION].reports([self.spec], *given, simplest=True, claim=self.selected)
        except UserError as error:
            own = option("--circ-model") is None
            return _Skip(_say(error)) if own and isinstance(error, ModelUnavailable) else error
        if report.interrupted:
            raise KeyboardInterrupt
        return report


class ClaimItem(pytest.Item):
    """One claim on one task.

    Its name is made of the claim's text, so that it is the same wherever the claim stands. Its title is the text.
    """

    def __init__(self, *, title: str, run: Run, claim: Claim, task: str | None, **given: Any) -> None:
        super().__init__(**given)
        self.title = title
        self.run = run
        self.claim = claim
        self.task = task
        self.funcargs = dict[str, Any]()  # no fixtures; pytest-lsp raises an error where an item does not say so

    def runtest(self) -> None:
        try:
            result = self.run.result(self)
        except _Skip as reason:
            pytest.skip(str(reason))
        if result.outcome == "expected":
            pytest.xfail(line(f"{result.expected_to_fail} ({result.verdict}: {result.reason})"))
        if result.outcome == "undecided" and self.config.getoption("--circ-allow-undecided"):
            pytest.skip(f"undecided: {result.reason}")
        if result.outcome != "holds":
            raise ClaimFailed(result)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        error = excinfo.value
        path = line(os.path.relpath(self.path, self.config.invocation_params.dir))
        where = SimpleNamespace(path=path, lineno=self.claim.line, message=str(error))
        if isinstance(error, ClaimFailed):
            from circuitdsl.report.terminal import member_lines

            result = error.result
            on = f" on {result.task}" if result.task else ""
            lines = (result.statement, f"{result.spoken}{on}: {result.why}")
            more = (*member_lines(result), *result.notes, *([f"cited: {result.citation}"] if result.citation else []))
            return Failure((*map(line, lines), *(f"  {line(said)}" for said in more)), where)
        if isinstance(error, UserError):
            return Failure((self.title, f"could not be run: {_say(error)}"), where)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the claim stands and its headline; that is not the name, in which pytest writes `::` for every dot."""
        return self.path, self.claim.line - 1, f"line {self.claim.line}: {self.title}"


@dataclass(frozen=True)
class Failure:
    """The lines of the report on a failed claim; pytest prints them with `toterminal`.

    `reprcrash` says where the claim stands (`path`, `lineno`), and the `message` of pytest's summary and of JUnit.
    """

    lines: tuple[str, ...]
    reprcrash: SimpleNamespace

    def __str__(self) -> str:
        return "\n".join((*self.lines, f"{self.reprcrash.path}:{self.reprcrash.lineno}"))

    def toterminal(self, writer: Any) -> None:
        first, *rest = self.lines
        writer.line(first, bold=True)
        for said in rest:
            writer.line(said, red=not said.startswith("  "))
        writer.line(f"{self.reprcrash.path}:{self.reprcrash.lineno}")


class _Skip(Exception):
    """The circuit cannot be checked here, because its own model is not available."""


def _say(error: UserError) -> str:
    """The error with its hint; options of the command line are given the names that they have in pytest."""
    said = f"{error.message} ({error.hint.replace('--', '--circ-')})" if error.hint else error.message
    return harmless(said)
