"""A score for every edge of a model's whole graph, by one of several methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from circuitdsl.api import as_task
from circuitdsl.circuit.nodes import EVERYWHERE, Edge
from circuitdsl.discover.asked import prompts_of, refuse_jumps
from circuitdsl.discover.ranking import Ranking
from circuitdsl.discover.stability import drawn
from circuitdsl.discover.watch import Budget, budget_of, watched
from circuitdsl.engine.edge_attribution import attributions
from circuitdsl.engine.prompts import Prompts
from circuitdsl.engine.whole_runs import WholeRuns
from circuitdsl.errors import UsageError
from circuitdsl.interop.mib import Scored
from circuitdsl.measurements.requests import EdgeRequest
from circuitdsl.verify.measure import measure
from circuitdsl.verify.session import Session
from circuitdsl.version import __version__

Array = np.ndarray
#: a circuit that does this share of the behaviour is one that is handed out
FAITHFUL = 0.9
#: runs between the corrupt and the clean one; methods that take some, and those that search
STEPS = 5
STEPPED, SEARCHES = ("attribution_ig", "attribution_ig_activations"), ("hybrid",)


@dataclass(frozen=True)
class Asked:
    """How edges are to be scored.

    Attributes:
        steps: of integrated gradients.
        tell: called with what is going on; returns whether to go on.
    """

    runs: WholeRuns
    steps: int
    tell: Callable[[str], bool]


#: scores, which edges make a circuit (if the method says), and whether the search came to its end
Found = tuple[Float[Array, " edges"], Bool[Array, " edges"] | None, bool]


def _hybrid(asked: Asked) -> Found:
    ranking = Ranking(asked.runs, lambda left, value: asked.tell(f"{left} edges do {value:.0%} of the behaviour"))
    scores = ranking.search()
    faithful = [point.kept for point in ranking.chain if abs(1 - point.value) <= 1 - FAITHFUL]
    return scores, asked.runs.graph.connected(faithful[-1]), ranking.complete


def _exact(asked: Asked) -> Found:
    """What the metric loses when an edge alone is patched, at every position."""
    runs, graph = asked.runs, asked.runs.graph
    requests = [EdgeRequest((Edge(sender, to, EVERYWHERE),)) for sender, to in graph.edges]
    asked.tell(f"patching {len(requests)} edges")
    found = measure(runs.prompts, requests, runs.indices)
    clean = runs.ends[1]
    return np.asarray([clean - found[request].values.mean() for request in requests]) / runs.gap, None, True


def _attribution(between: Any, asked: Asked) -> Found:
    asked.tell("taking gradients")
    return attributions(asked.runs, between, asked.steps) / asked.runs.gap, None, True


#: what `--method` may name
METHODS: Mapping[str, Callable[[Asked], Found]] = {
    "hybrid": _hybrid,
    "exact": _exact,
    "attribution": partial(_attribution, None),
    "attribution_ig": partial(_attribution, "inputs"),
    "attribution_ig_activations": partial(_attribution, "activations"),
}


def scored(
    session: Session,
    task: str,
    metric: str = "logit_diff",
    prompts: int = 96,
    seed: int = 0,
    method: str = "hybrid",
    steps: int | None = None,
    budget: Budget | float | str | None = None,
    resamples: int | None = None,
) -> Scored:
    """Score every edge of the session's model (by default `pocket`) by what it does for a task.

    Args:
        task, metric: as in a spec; the task may be the path of a prompt file.
        method: `hybrid` (`ranking.py`), `exact`, `attribution`, `attribution_ig` or `attribution_ig_activations`.
        steps: runs between the corrupt and the clean one, for integrated gradients (by default 5).
        budget: after which `hybrid` stops: seconds, `5m`, `2e6 blocks`; edges that it has not told apart then are
            ranked by their gradients.
        resamples: bootstrap resamples of the prompts, within strata, on which `hybrid` searches again; each edge then
            has the share of them in which it is one of the circuit (semantics §8).

    Returns:
        Scores in shares of the gap, but for `hybrid`: there a score is one over the rank.

    Raises:
        UsageError: there is no such method, task or option, or an option means nothing to the method.
        UserError: the model cannot be read, or does not do the task.
    """
    if method not in METHODS:
        raise UsageError(f"there is no method {method}", hint=f"there are {', '.join(METHODS)}")
    if method != "exact":
        refuse_jumps(metric, method)
    limit, resamples = budget_of(budget), resamples or 0
    for name, value, of in (
        ("steps", steps, STEPPED),
        ("budget", budget, SEARCHES),
        ("resamples", resamples, SEARCHES),
    ):
        if value and method not in of:
            raise UsageError(
                f"{name} means nothing to the method {method}", hint=f"leave it out, or take {' or '.join(of)}"
            )
    found = prompts_of(session, task, metric, prompts, seed)
    with watched(session, "scoring edges", limit) as watch:
        watch.counts(found.tally)
        runs = WholeRuns(found, np.arange(len(found.pairs)))
        scores, kept, complete = METHODS[method](Asked(runs, steps or STEPS, watch.tell))
        again = tuple(_again(found, watch.tell, resamples))
    how = {"method": method, "seconds": round(watch.seconds, 1), "complete": complete}
    how |= {"resamples": len(again)} if resamples else {}
    inside = np.zeros(len(scores), bool) if kept is None else kept
    shares = np.mean(again, axis=0) if again else ()
    about = _about(found, as_task(task)) | how
    return Scored(runs.graph, scores, inside, d_model=runs.model.d_model, about=about, found=shares)


def _again(prompts: Prompts, tell: Callable[[str], bool], resamples: int) -> Iterator[Bool[Array, " edges"]]:
    """The circuits of resamples of the prompts, of those that were searched to the end."""
    for number, indices in enumerate(drawn(prompts.strata, resamples)):

        def told(what: str, number: int = number) -> bool:
            return tell(f"resample {number + 1} of {resamples}: {what}")

        _, kept, complete = _hybrid(Asked(WholeRuns(prompts, indices), STEPS, told))
        if complete and kept is not None:
            yield kept


def _about(prompts: Prompts, task: str) -> dict[str, Any]:
    """What scores are of."""
    return {
        "circuitdsl": __version__,
        "model": prompts.model.name,
        "task": task,
        "metric": str(prompts.metric),
        "prompts": len(prompts.pairs),
        "seed": prompts.data.seed,
        "dtype": prompts.source.dtype,
        "weights": prompts.source.sha256,
    }
