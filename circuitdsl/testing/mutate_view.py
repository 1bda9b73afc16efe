"""Mutation testing on the screen: the share killed, and every survivor with the number that let it live."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.text import Text

from circuitdsl.report.numbers import percent
from circuitdsl.testing.mutate import Mutation, Outcome


def show_mutation(found: Mutation, console: Console, verbose: bool = False) -> None:
    """Print what became of a circuit's mutants; `verbose` lists the killed ones too."""
    console.print(Text.assemble((found.circuit, "bold"), f" · {found.path} · {len(found.outcomes)} mutants"))
    console.print()
    if verbose:
        _list(found.of("killed"), "killed", "green", console)
    _list(found.of("survived"), "survived: nothing that the spec claims is against these", "bold red", console)
    _list(found.of("open"), "open: what they change does not hold to begin with", "yellow", console)
    if verbose:
        _list(found.of("equivalent"), "equivalent: they say the same", "dim", console)
        _list(found.of("impossible"), "impossible: no such spec", "dim", console)
    for what, (killed, judged) in _by_operator(found).items():
        console.print(Text.assemble(f"  {what:<18}", (f" {killed} of {judged} killed", "dim")))
    counts = [f"{len(found.of(fate))} {fate}" for fate in ("equivalent", "impossible", "open") if found.of(fate)]
    left_out = f" ({', '.join(counts)}, left out)" if counts else ""
    style = "green" if found.share >= 0.9 else "yellow"
    console.print()
    share = Text(f"{len(found.of('killed'))} of {found.judged} killed, {percent(found.share)}", style)
    console.print(Text.assemble("  ", share, (left_out, "dim")))


def _by_operator(found: Mutation) -> dict[str, tuple[int, int]]:
    killed = Counter(outcome.mutant.what for outcome in found.of("killed"))
    judged = killed + Counter(outcome.mutant.what for outcome in found.of("survived"))
    return {what: (killed[what], judged[what]) for what in sorted(judged)}


def _list(outcomes: tuple[Outcome, ...], title: str, style: str, console: Console) -> None:
    if not outcomes:
        return
    console.print(Text(f"      {title}", style))
    for outcome in outcomes:
        mutant = outcome.mutant
        console.print(Text.assemble((f"{mutant.line:>4}  ", "dim"), mutant.after, (f"   {mutant.what}", "cyan")))
        console.print(Text(f"        was: {mutant.before}", "dim"))
        where = (
            f"{outcome.by} on {outcome.task}: "
            if outcome.by and (outcome.claims > 1 or outcome.by != mutant.after)
            else ""
        )
        console.print(Text(f"        {where}{outcome.reason}", "dim"))
    console.print()
