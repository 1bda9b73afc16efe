"""How much of a behaviour circuits of growing size do: the curve of MIB's circuit track, and its areas CPR and CMD.

At a share `p` of all edges (or nodes) the circuit is made of those with the highest scores, without edges that are on
no way from the embedding to the logits. Its faithfulness is `(m(C) - m(0)) / (m(M) - m(0))`: `m` is the mean of the
metric, `0` the circuit without edges, which is the corrupt run, and `M` the model. CPR is the area under the curve of
the highest scores, CMD the area between 1 and the curve of the largest ones, whatever their sign; both by trapezoids,
linear in `p` (Mueller et al., MIB, 2025; `evaluation.py`). Intervals are those of 95 % of bootstrap resamples of the
prompts, within strata.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from circuitdsl.api import as_task
from circuitdsl.discover.asked import prompts_of
from circuitdsl.discover.ranking import SHARES
from circuitdsl.discover.stability import drawn
from circuitdsl.engine.whole_runs import WholeRuns
from circuitdsl.errors import UsageError
from circuitdsl.interop.mib import Scored, read
from circuitdsl.report.curves import Area, Curve, Curves, Step
from circuitdsl.verify.session import Session

Array = np.ndarray
#: resamples that intervals are made of, and the share of them that lies inside
RESAMPLES, INSIDE = 1000, 0.95


def curves(
    session: Session,
    files: Sequence[str | Path],
    task: str,
    metric: str = "logit_diff",
    prompts: int = 256,
    seed: int = 1,
) -> Curves:
    """The curves of files of scores, on prompts of a seed of their own.

    Args:
        files: as `discover --scores`, EAP-IG or MIB write them.
        task, metric: as in a spec; the task may be the path of a prompt file.

    Raises:
        UsageError: a file cannot be read, is of another model, or has no scores.
        UserError: the model cannot be read, or does not do the task.
    """
    found = prompts_of(session, task, metric, prompts, seed)
    runs = WholeRuns(found, np.arange(len(found.pairs)))
    read_ones = [(str(file), read(Path(file), found.model.name, runs.graph)) for file in files]
    for name, one in read_ones:
        if not (one.scores.any() if one.edges_scored else any(one.nodes.values())):
            none = "every score is 0" if one.edges_scored or one.nodes else "neither edges nor nodes have a score"
            raise UsageError(
                f"{name}: {none}, so that none comes first", hint="verify what it says with `circuitdsl import`"
            )
    made = []
    with session.busy("running circuits") as spinner:
        for name, one in read_ones:
            if spinner:
                spinner.update(f"running circuits of {name}")
            made.append(curve_of(runs, one, name))
    about = found.data
    same = (as_task(task), found.model.name, about.seed)
    seen = [name for name, one in read_ones if tuple(map(one.about.get, ("task", "model", "seed"))) == same]
    notes = [f"{name} was scored on prompts of seed {seed} too: they say less of others" for name in seen]
    size = len(found.pairs)
    return Curves(found.model.name, about.task, str(found.metric), size, about.seed, tuple(made), tuple(notes))


def curve_of(runs: WholeRuns, scores: Scored, name: str = "") -> Curve:
    """The curves of some scores on some prompts."""
    weights = _resamples(runs.prompts.strata[runs.indices])
    clean, corrupt = (weights @ side[runs.indices] for side in (runs.prompts.clean, runs.prompts.corrupt))

    def steps(absolute: bool) -> tuple[tuple[Step, ...], Float[Array, "shares resamples"]]:
        found, rows = list[Step](), []
        for share in SHARES:
            kept = scores.top(int(share * scores.items), absolute)
            values = (weights @ runs.scores(kept) - corrupt) / (clean - corrupt)
            found.append(Step(share, int(kept.sum()), _area(values)))
            rows.append(values)
        return tuple(found), np.asarray(rows)

    (highest, above), (largest, near) = steps(False), steps(True)
    cpr = _area(np.trapezoid(above, SHARES, axis=0))
    return Curve(name, highest, largest, cpr, _area(np.trapezoid(np.abs(1 - near), SHARES, axis=0)))


def _resamples(strata: Array) -> Float[Array, "resamples n"]:
    """The weights of the prompts: as they are in the first row, then in bootstrap resamples within strata."""
    n = len(strata)
    often = (np.bincount(indices, minlength=n) for indices in drawn(strata, RESAMPLES))
    found: Array = np.asarray([np.ones(n), *often]) / n
    return found


def _area(values: Float[Array, " resamples"]) -> Area:
    low, high = np.quantile(values[1:], [(1 - INSIDE) / 2, (1 + INSIDE) / 2])
    return Area(float(values[0]), float(low), float(high))
