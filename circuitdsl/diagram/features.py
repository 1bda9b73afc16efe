"""The features in which clean and corrupt prompts differ most, at the positions that have names, as a heat map."""

from __future__ import annotations

from circuitdsl.diagram.heatmap import Cell, HeatMap
from circuitdsl.diagram.heatmap import picture as heat_map
from circuitdsl.report.dictionaries import Described, Dictionaries, Feature
from circuitdsl.report.numbers import percent, plain

#: how many times as large as the other a side is, to be outlined, and the least share of the feature's largest mean
_MORE, _SEEN = 2.0, 0.1


def picture(found: Dictionaries) -> str:
    """A row for each feature of each dictionary, as SVG."""
    features = [(one, each) for one in found.found for each in one.strongest]
    names = tuple(dict.fromkeys(name for _, each in features for name in each.clean))
    named = "; ".join(f"{one.name} explains {percent(one.reconstruction)} of {one.writes}" for one in found.found)
    about = "Mean activation in the clean prompts, under it that in their corrupt partners."
    return heat_map(
        HeatMap(
            title=f"Features on {found.task}, {found.model}",
            subtitle=f"{about} {named}; {found.prompts} prompts of seed {found.seed}.",
            rows=tuple(_name(one, each, len(found.found) > 1) for one, each in features),
            columns=names,
            row_title="feature",
            column_title="position",
            cells=tuple(tuple(_cell(one, each, name) for name in names) for one, each in features),
            outline="one of the two is less than half of the other",
            unit="mean activation in clean prompts",
        )
    )


def _name(one: Described, each: Feature, several: bool) -> str:
    return f"{one.name.rpartition('/')[2] if several else ''}[{each.index}]"


def _cell(one: Described, each: Feature, name: str) -> Cell:
    clean, corrupt = each.clean[name], each.corrupt[name]
    story = f"{one.name}[{each.index}] at {name}: {plain(clean, 3)} clean, {plain(corrupt, 3)} corrupt"
    small, large = sorted((clean, corrupt))
    seen = large > _SEEN * max((*each.clean.values(), *each.corrupt.values()))
    return Cell(clean, plain(corrupt), story, outlined=seen and large > _MORE * small)
