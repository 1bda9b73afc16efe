"""From prompts to a draft: nodes, roles, groups, edges, and a check of every line on prompts that were held back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from circuitdsl.circuit.nodes import Position, Site
from circuitdsl.discover.asked import refuse_undone
from circuitdsl.discover.complete import completed
from circuitdsl.discover.discovery import ENDED, Discovery, Found, said_of
from circuitdsl.discover.draft import Draft, attention_of, behaviour_of, claim_of, knockouts_of
from circuitdsl.discover.feature_search import Features, groups_of
from circuitdsl.discover.given import Given
from circuitdsl.discover.groups import Named, looks, named
from circuitdsl.discover.needed import Needed, Where, needed
from circuitdsl.discover.places import named_places, places
from circuitdsl.discover.roles import Placed, remaining, roles_of
from circuitdsl.discover.search import Sending, sendings, siblings, worth_saying
from circuitdsl.discover.stability import Stability, stability
from circuitdsl.discover.watch import Watch
from circuitdsl.engine.prompts import Prompts
from circuitdsl.report.numbers import percent
from circuitdsl.report.report import ClaimResult, Report

#: claims of a draft, unless more are wanted
CLAIMS = 30
#: verifies a text
Check = Callable[[str], Report]


@dataclass(frozen=True, slots=True)
class Search:
    """How to search.

    Attributes:
        threshold: effects this small, as a share of the gap, are of no interest.
        prompts: how many of the prompts say where heads attend.
        claims: of a draft, at most, but for what every group needs.
        resamples: of the prompts, on which everything is searched again.
        features: dictionaries whose features are searched besides.
    """

    threshold: float = 0.02
    prompts: int = 96
    claims: int = CLAIMS
    resamples: int = 0
    features: Features | None = None


@dataclass(frozen=True)
class Drafting:
    """What a draft is made with.

    Attributes:
        prompts: those that are searched.
        opening: the lines that open the spec.
        check: verifies a text on prompts that the search has not seen.
        seen: likewise on those that it has.
        given: what a person has written already.
    """

    prompts: Prompts
    opening: Sequence[str]
    check: Check
    seen: Check
    watch: Watch
    settings: Search = field(default_factory=Search)
    given: Given = field(default_factory=Given)

    @property
    def indices(self) -> np.ndarray:
        return np.arange(len(self.prompts.pairs))

    def discover(self) -> Discovery:
        """Search for a circuit, ask which roles its heads play, and write it down.

        Raises:
            UserError: the model does not do the task, so that there is nothing to search for.
        """
        refuse_undone(self.prompts)
        self.watch.counts(self.prompts.tally)
        where = Where(places(self.prompts), self.given.sites, self.given.forbidden, self.given.mlps)
        circuit = self._needed(where)
        new = circuit.sites - self.given.sites
        positions = {name for pair in self.prompts.pairs for name in pair.positions}
        heads = [(site.node, site.position) for site in sorted(new) if site.node.kind == "head"]
        self.watch.tell("asking which roles heads play")
        roles = roles_of(heads, positions, self.opening, self.seen)
        made, found, dropped = self._settled(where, circuit, roles)
        ended = self.watch.ended
        made, complete = completed(made, str(self.prompts.metric), self.seen, self.check)
        if self.settings.features:
            made, more = self._with_features(made, self.settings.features, where)
            dropped += more
        made = _limited(self._every_group_named(made), self.settings.claims)
        steady, shares = None, dict[str, float]()
        if self.settings.resamples:
            steady, shares, comments = self._again(where, found, made)
            made, ended = replace(made, comments=comments), self.watch.ended
        held = "on the prompts on which it was found" if self.check is self.seen else "on prompts held back"
        notes = [f"{held}, {complete}"] if complete else []
        notes += [*(said_of(steady) if steady else ()), *([ENDED] if ended else ())]
        return Discovery(self.given.noted(made, notes), found, dropped, complete, steady, shares, ended)

    def _needed(self, where: Where) -> Needed:
        """The circuit's nodes: those without which the behaviour is not whole, and heads that cover for them."""

        def told(left: int, value: float) -> bool:
            return self.watch.tell(f"{left} parts do {value:.0%} of the behaviour")

        found = needed(self.prompts, self.indices, where, told)
        self.watch.tell("which heads act on these")
        more = siblings(self.prompts, self.indices, found.sites, where.forbidden, self.settings.threshold)
        return replace(found, sites=found.sites | more)

    def _settled(
        self, where: Where, circuit: Needed, roles: Mapping[Placed, str]
    ) -> tuple[Draft, Found, tuple[str, ...]]:
        """A draft all of whose lines hold on other prompts, and the lines that were taken out for it.

        Heads that do not pass their role's checks there lose it; that makes other groups, and so another draft.
        """
        new = circuit.sites - self.given.sites
        targets = looks(self.prompts, new, where.places)
        groups = (*self.given.groups, *named(new, roles, targets, self.given.names))
        self.watch.tell("what groups send to each other")
        sent, edges = sendings(
            self.prompts, self.indices, [each.group for each in groups], where.places, self.settings.threshold
        )
        sent = [one for one in worth_saying(sent) if not set(one.edges) <= self.given.edges]
        made, dropped = self._draft(groups, sent, targets), list[str]()
        while bad := self._not_holding(made):
            lost = {placed for group in groups if (claim := bad.get(group.claim)) for placed in _failing(group, claim)}
            if lost:
                return self._settled(where, circuit, remaining(roles, lost))
            dropped += bad
            made = made.without(set(bad))
        return made, Found(circuit, tuple(sent), edges, where.places), tuple(dropped)

    def _draft(self, groups: Sequence[Named], sent: Sequence[Sending], targets: Mapping[Site, Position]) -> Draft:
        settings, new = self.settings, [group for group in groups if not group.given]
        strengths: dict[str, float] = {}
        for one in sent:
            strengths.setdefault(claim_of(one, groups, settings.threshold) + self.given.on, abs(one.effect))
        expectations = (
            *(() if self.given.text else behaviour_of(self.prompts)),
            *(line for group in new for line in attention_of(self.prompts, group, targets, settings.prompts)),
            *(group.claim for group in new if group.role),
        )
        return Draft(tuple(self.opening), tuple(groups), tuple(strengths), expectations, strengths)

    def _with_features(self, made: Draft, features: Features, where: Where) -> tuple[Draft, tuple[str, ...]]:
        """The draft with features that matter and what they send, and the lines of these that do not hold."""
        prompts, threshold = self.prompts, self.settings.threshold
        self.watch.tell("which features matter")
        new = groups_of(prompts, self.indices, features, named_places(where.places), threshold)
        groups = (*made.groups, *new)
        sent, _ = sendings(
            prompts,
            self.indices,
            [each.group for each in groups],
            where.places,
            threshold,
            of=[each.group for each in new],
        )
        claims = {claim_of(one, groups, threshold): abs(one.effect) for one in worth_saying(sent)}
        knocked = [lines[0] for lines in knockouts_of(prompts, new, self.settings.prompts).values()]
        more = replace(
            made,
            groups=groups,
            claims=(*made.claims, *claims),
            expectations=(*made.expectations, *knocked),
            strengths={**made.strengths, **claims},
        )
        dropped: tuple[str, ...] = ()
        while bad := self._not_holding(more):
            dropped, more = (*dropped, *bad), more.without(set(bad))
        said = more.names(more.lines)
        kept = tuple(each for each in more.groups if each not in new or each.name in said)
        used = {str(node).partition("[")[0] for each in kept for node in each.group.nodes}
        unused = tuple(f"dictionary {name} =" for name in features.named if name not in used)
        head = tuple(line for line in more.head if not line.startswith(unused)) if unused else more.head
        return replace(more, head=head, groups=kept), dropped

    def _not_holding(self, made: Draft) -> dict[str, ClaimResult]:
        """The lines that do not hold, with their claims, which have the line's text, blanks apart."""
        lines = {"".join(line.split()): line for line in made.lines}
        claims = [(lines.get("".join(claim.text.split())), claim) for claim in self.check(made.text()).claims]
        return {line: claim for line, claim in claims if line and claim.verdict != "holds"}

    def _every_group_named(self, made: Draft) -> Draft:
        """The draft with a claim about each group that has none: what it does where the model is without it."""
        bare = [group for group in made.groups if not group.given and group.name not in made.names(made.lines)]
        if not bare:
            return made
        lines = knockouts_of(self.prompts, bare, self.settings.prompts)
        tried = replace(made, expectations=(*made.expectations, *(line for some in lines.values() for line in some)))
        bad = self._not_holding(tried)
        kept = (next((line for line in some if line not in bad), None) for some in lines.values())
        return replace(made, expectations=(*made.expectations, *(line for line in kept if line)))

    def _again(self, where: Where, found: Found, made: Draft) -> tuple[Stability, dict[str, float], dict[str, str]]:
        """How often everything is found again: of all parts, of each line, and in words beside lines."""
        circuit, settings = found.needed, self.settings
        steady = stability(
            self.prompts, where, circuit, found.sendings, settings.threshold, settings.resamples, self.watch.tell
        )
        shares = dict[str, float]()
        for one in found.sendings:
            line = claim_of(one, made.groups, settings.threshold) + self.given.on
            if line in made.claims and (share := steady.again.of_edges(one.edges)) is not None:
                shares[line] = share
        comments = {line: f"found in {percent(share)} of resamples" for line, share in shares.items()}
        for group in made.groups:
            each = [steady.again.of_node(node, group.group.positions) for node in group.group.nodes]
            known = [share for share in each if share is not None]
            if known:
                comments[group.definition] = f"found in {_listed(known)} of resamples"
        return steady, shares, comments


def _listed(shares: Sequence[float]) -> str:
    """`100, 95, 40 %`; those that are all alike once."""
    *more, last = shares[:1] if len(set(shares)) == 1 else shares
    return ", ".join((*(percent(share, sign=False) for share in more), percent(last)))


def _failing(group: Named, claim: ClaimResult) -> list[Placed]:
    """The heads of a group that do not pass their role's checks; all of them where these could not be measured."""
    failing = {member.sender for member in claim.members if member.verdict != "holds"}
    places = group.group.positions
    return [(node, at) for node in group.group.nodes for at in places if str(node) in failing or not failing]


def _limited(made: Draft, most: int) -> Draft:
    """The draft with so many lines: what is said of the whole, then a line for every group, then the strongest edges.

    What every group needs stays, whatever the limit.
    """
    by_strength = sorted(made.claims, key=lambda line: -made.strengths.get(line, 0.0))
    whole = [line for line in made.expectations if "(" not in line or "completeness" in line or "faithfulness" in line]
    rest = [line for line in made.expectations if line not in whole]
    kept, named_so_far = dict.fromkeys(whole), set[str]()
    for line in (*by_strength, *rest):
        if new := made.names([line]) - named_so_far:
            named_so_far |= new
            kept[line] = None
    for line in (*(line for line in rest if line.startswith("expect role")), *by_strength, *rest):
        if len(kept) < most:
            kept[line] = None
    return made.without(set(made.lines) - set(kept))
