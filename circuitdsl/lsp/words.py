"""What each word of the language means, in a sentence: what hovering over it shows."""

from __future__ import annotations

import re

from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.measurements import KINDS

KEYWORD_SAYS = {
    "path": "a claim on a whole path: `path A -> B.v at S2 -> C.q at END -> logits`. Nothing else sees the change.",
    "circuit": "opens a circuit: `circuit NAME \"title\"`. Claims below it belong to it.",
    "source": "where the hypothesis comes from, such as a paper.",
    "note": "a remark that reports repeat.",
    "license": "under which terms the spec may be used.",
    "language": "the version of the language that the file is written in.",
    "model": "the model that claims are about: a name on the Hugging Face hub, or a directory.",
    "direction": "a vector of the residual stream, from a file; `8.6[u]` is the part of a node along it.",
    "task": "the prompts on which claims are checked: `task ioi(corrupt = abc, prompts = 256)`.",
    "metric": "what effects are measured in; without it `logit_diff`.",
    "margin": "how small an effect is negligible; without it 1 % of the gap.",
    "edges": "how edges below this line are patched: `edges via mlps` or `edges direct`.",
    "heads": "defines a group of attention heads: `heads NAME = 9.6 9.9 at END`.",
    "mlps": "defines a group of MLPs: `mlps NAME = m1 m2 at END`.",
    "nodes": "defines a group of any nodes: `nodes NAME = 9.9 m9 resid6 at END`.",
    "features": "defines a group of features of dictionaries: `features NAME = t1[17] t1[203] at END`.",
    "dictionary": "names a sparse autoencoder or a transcoder: `dictionary t1 = transcoder(\"DIR\")`.",
    "at": "the position at which a node acts, or at which an edge is patched.",
    "role": "what a group is said to do; on a line of its own it defines a role by its checks.",
    "outside": "the group is a control: it is not part of the circuit.",
    "each": "the claim is about every pair of the edge, and each must hold.",
    "via": "`via mlps`: what the sender writes also travels through the MLPs in between.",
    "direct": "the edge is patched alone: no MLP in between sees the change.",
    "on": "restricts the claim to one task.",
    "expect": "a claim on something that is measured: `expect MEASUREMENT RELATION`.",
    "when": "a condition: the lines below it are measured under it, and compared with the run without it.",
    "is": "part of `when EDGE is patched` and `when GROUP is knocked out`.",
    "patched": "the edge is taken from the corrupt run.",
    "knocked": "`knocked out`: what the nodes write is replaced by what they write in the corrupt run.",
    "out": "part of `knocked out` and of `project out`.",
    "use": "takes the roles and circuits of another file.",
    "channel": "a claim about weights alone: how strongly a head's output reaches another head's input.",
    "trace": "a claim about what decides a head's attention (sparse attention decomposition).",
    "includes": "the nodes that are among the causes in at least half of the prompts.",
    "intervention": "a change of the model; the lines below it say what follows.",
    "set": "`set attention(GROUP, FROM -> TO) = x%`: FROM's attention to TO is set to this share.",
    "scale": "what nodes write is multiplied: `scale GROUP by 2`.",
    "by": "by how much: after `rises`, `falls` and `scale`, and behind two figures: `> FIGURE by 30 points`.",
    "replace": "what nodes write is replaced: `replace GROUP with mean | corrupt | zero`.",
    "with": "what stands in the place of another, or what is compared with it.",
    "project": "`project out 8.6[2]`: a singular component of a head is removed.",
    "property": "must hold on every prompt, not only on average.",
    "for": "`for 99% of prompts`: on how many prompts a property must hold.",
    "of": "part of `for 99% of prompts`.",
    "compare": "claims on two circuits: how many heads they share, and whether these play the same roles.",
    "matters": "the effect is beyond the margin, and rarer than those of matched random edges.",
    "negligible": "the effect lies within the margin on both sides of 0.",
    "lowers": "patching it lowers the metric by more than the margin.",
    "raises": "patching it raises the metric by more than the margin.",
    "effect": "the change of the metric as a share of the gap between clean and corrupt prompts.",
    "delta": "the change of the metric in its own unit.",
    "stronger": "`stronger than EDGE by 2 times`: the effect is larger in size than that of another edge, path or "
    "knock-out (twice as large, here), prompt by prompt.",
    "than": "part of `stronger than`.",
    "and": "joins claims: all of them must hold.",
    "in": "an interval: `in [-30%, 5%]`.",
    "rises": "under the condition the figure is higher than without it.",
    "falls": "under the condition the figure is lower than without it.",
    "above": "`above chance`: more than by chance.",
    "chance": "part of `above chance`.",
    "points": "the unit of differences of shares.",
    "agree": "shared heads play the same role in both circuits.",
    "embed": "the embedding: what the tokens write before the first layer.",
    "logits": "the output: what reads the residual stream last.",
    "self": "in the checks of a role, the head that is checked.",
    "none": "`role none`: the group has no role, whatever its name.",
    "ablate": "`ablate mean`: what stands in for the sender's term on an edge: its mean, or its corrupt one.",
    "where": "`where stratum \"ABBA*\"`: the claim is about the prompts of these strata alone; `*` is any text.",
    "stratum": "part of `where stratum`.",
    "expected": "`expected to fail \"why\"`: a known gap; the claim counts as passed until it holds.",
    "to": "part of `expected to fail`.",
    "fail": "part of `expected to fail`.",
    "times": "part of `stronger than EDGE by 2 times`, and of `> FIGURE by 2 times`.",
    "knockout": "`stronger than knockout(GROUP)`: what a knock-out is compared with.",
}  # fmt: skip

ALL_SAYS = "every node that can stand here: `all - mover` is what is left without a group."
LAYER_SAYS = "every head of layer {}"

_USAGE = re.compile(r"`(\w+)[(`]")


def measurement_says(word: str) -> str:
    """How a measurement is written, what it is and what it takes, as the table of the language page has it."""
    kind = KINDS.word(word)
    rows = [row for row in kind.usage if word in _USAGE.findall(row)] if kind else []
    return "; ".join(" · ".join(part.strip() for part in row.split(" | ")) for row in rows)


def metric_says(word: str) -> str:
    shape = METRICS[word]
    low, high = (f"{end:g}" if end is not None else "" for end in (shape.low, shape.high))
    between = f", from {low or '−∞'} to {high or '∞'}" if low or high else ""
    options = [f"{key} = {' | '.join(values)}" if values else key for key, values in shape.options.items()]
    takes = f"; options: {', '.join(options)}" if options else ""
    return f"a metric in {shape.shown}{between}, better when {'lower' if shape.falls else 'higher'}{takes}"
