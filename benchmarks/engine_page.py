"""The page that the benchmark prints, in Markdown."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch

#: (workload, peer, at least so many times as fast as one of its edges)
TARGETS = {"W2": 200, "W3": 20, "W4": 8}
MB = 2**20


@dataclass(frozen=True)
class Machine:
    """Where the numbers are from."""

    processor: str
    cores: int
    threads: int
    system: str
    gpu: str

    @classmethod
    def here(cls, device: str) -> Machine:
        gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
        system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
        return cls(_processor(), os.cpu_count() or 1, torch.get_num_threads(), system, gpu)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        known = {key.strip(): value.strip() for key, value in fields.items()}
        family = f"family {known['cpu family']}, model {known['model']}" if "cpu family" in known else ""
        return f"{known.get('model name', platform.processor())} ({family})" if family else platform.processor()
    return platform.processor()


@dataclass
class Row:
    """A workload: seconds are of all edges on all prompts.

    Attributes:
        peers: by name: seconds an edge, seconds for clean and corrupt passes, largest difference as a share of the
            largest change that a patch makes, edges timed.
    """

    name: str
    says: str
    edges: int
    prompts: int
    tokens: int
    ours: float
    caches: float
    floor: float
    block_positions: int
    peak: int
    peers: dict[str, tuple[float, float, float, int]] = field(default_factory=dict)

    @property
    def each(self) -> float:
        """Milliseconds an edge and prompt."""
        return 1000 * self.ours / self.edges / self.prompts

    def ratio(self, peer: str) -> float:
        """Times as fast as a peer, for one further edge."""
        return self.peers[peer][0] / (self.ours / self.edges)

    def whole(self, peer: str) -> float:
        """The same for the whole workload, clean and corrupt passes included on both sides."""
        each, caches, _, _ = self.peers[peer]
        return (caches + each * self.edges) / (self.caches + self.ours)

    def bound(self, peer: str) -> float:
        """What an engine that runs at the floor would reach against the peer."""
        return self.peers[peer][0] / (self.floor / self.edges)


@dataclass(frozen=True)
class Growth:
    """Cost against one quantity: (its value, seconds an edge and prompt, time over floor)."""

    what: str
    cells: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class Edited:
    """A spec measured again from the cache after an edit: seconds and block-positions, and the first run's seconds."""

    what: str
    prompts: int
    seconds: float
    first: float
    block_positions: int

    @property
    def share(self) -> float:
        return self.seconds / self.first


@dataclass(frozen=True)
class Spec:
    """W5."""

    name: str
    claims: int
    requests: int
    nulls: int
    prompts: int
    prepared: float
    seconds: float
    block_positions: int
    peak: int
    edits: list[Edited]

    @property
    def total(self) -> float:
        """Seconds of the first verification."""
        return self.prepared + self.seconds


@dataclass(frozen=True)
class Precision:
    """Half precision against float32 on the pocket model.

    Attributes:
        gap: clean minus corrupt logit difference, in float32 and in this type.
        per_prompt: largest difference of an edge's change of the logit difference on one prompt.
        effect: largest difference of an edge's effect, as a fraction of the gap.
    """

    dtype: str
    edges: int
    prompts: int
    gap: tuple[float, float]
    per_prompt: float
    effect: float


@dataclass(frozen=True)
class Statistics:
    """CPU seconds of verifying a spec, and how many of them its statistics take; `claims` are counted on every task."""

    name: str
    claims: int
    seconds: float
    spent: float

    @property
    def share(self) -> float:
        return self.spent / self.seconds


@dataclass
class Page:
    """Everything measured in one run."""

    machine: Machine
    shape: str
    dtype: str
    quick: bool
    command: str
    repeats: int
    rows: list[Row] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    rates: dict[tuple[int, int], float] = field(default_factory=dict)
    spec: Spec | None = None
    statistics: list[Statistics] = field(default_factory=list)
    precision: list[Precision] = field(default_factory=list)


def write(page: Page) -> str:
    """The page."""
    parts = [_head(page), _costs(page), _peers(page), _targets(page), _growth(page)]
    parts += [_spec(page.spec)] if page.spec else []
    parts += [_statistics(page.statistics)] if page.statistics else []
    parts += [_precision(page)] if page.precision else []
    return "\n\n".join(parts) + "\n"


def _head(page: Page) -> str:
    m = page.machine
    where = m.gpu or f"{m.processor}, {m.cores} cores, {m.threads} thread{'s' * (m.threads > 1)} used"
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "transformer-lens"))
    seconds = (
        "seconds until the GPU is done"
        if m.gpu
        else f"CPU seconds of the process, medians of {page.repeats} runs (W5 and growth: one run)"
    )
    return f"""Written by `{page.command} -o docs/performance.md`; run it to measure your own machine.

Machine: {where}.
{m.system}; {libraries}; {page.dtype}.
Times are {seconds}: the machine was shared with other work, which CPU seconds feel
less than a clock does. Models have published shapes and random weights; what exact patching costs does not depend on
them. Prompts are IOI prompts under GPT-2's tokenizer where that is at hand, else random tokens.

*Floor*: the arithmetic of what must be recomputed (the receiver's head, then everything after it at the positions that
change, and the two logits that are read), at the rate this machine multiplies matrices of those sizes, measured in the
same run: {_rate(page)}. *TransformerLens* is its own `get_act_patch_direct_path`, one forward an edge;
*plain hooks* is what one writes by hand on the Hugging Face model, two forwards an edge. Their cost does not depend
on the edge, so a few edges of each workload were timed and their median taken for every edge; on those edges all
three gave the same logits."""


def _rate(page: Page) -> str:
    rates = [rate for (inputs, _), rate in page.rates.items() if inputs]
    return f"{min(rates) / 1e9:.0f} to {max(rates) / 1e9:.0f} GFLOP/s" if rates else "none"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _costs(page: Page) -> str:
    head = [
        "",
        "workload",
        "prompts × tokens",
        "ms an edge and prompt",
        "floor",
        "time over floor",
        "caches, s",
        "peak, MB",
    ]
    rows = [
        [
            row.name,
            row.says,
            f"{row.prompts} × {row.tokens}",
            f"{row.each:.3g}",
            f"{1000 * row.floor / row.edges / row.prompts:.3g}",
            f"{row.ours / row.floor:.2f}",
            f"{row.caches:.2f}",
            f"{row.peak / MB:.0f}",
        ]
        for row in page.rows
    ]
    return f"""## Ours

W1 is a 4-layer model of width 128, the others have the shape of {page.shape}. *Caches*: the clean and corrupt run,
once for all edges. *Peak*: memory above the model's, caches included.

{_table(head, rows)}"""


def _peers(page: Page) -> str:
    head = [
        "",
        "against",
        "its ms an edge and prompt",
        "ratio, one more edge",
        "ratio, caches included",
        "at the floor",
        "differ by",
    ]
    rows = [
        [
            f"{row.name} ({row.edges})",
            f"{name} ({timed} edges timed)",
            f"{1000 * each / row.prompts:.3g}",
            f"**{row.ratio(name):.3g}**",
            f"{row.whole(name):.3g}",
            f"{row.bound(name):.3g}",
            f"{worst:.0e}",
        ]
        for row in page.rows
        for name, (each, _, worst, timed) in row.peers.items()
    ]
    return f"""## Against others

How many times as fast: for one further edge (clean and corrupt passes left out on both sides), and for the whole
workload with them. *At the floor* is the ratio of an engine that did nothing but the arithmetic of the floor.
*Differ by*: the largest difference of a logit between theirs and ours, as a share of the largest change that the
patches make.

{_table(head, rows)}"""


def _targets(page: Page) -> str:
    rows = []
    for row in page.rows:
        goal = TARGETS.get(row.name)
        if goal and "TransformerLens" in row.peers:
            ratio, bound = row.ratio("TransformerLens"), row.bound("TransformerLens")
            verdict = "reached" if ratio >= goal else f"missed; the floor allows {bound:.3g}"
            rows.append([row.name, f"{goal} × TransformerLens an edge", f"{ratio:.3g} ×", verdict])
        if goal:
            over = row.ours / row.floor
            verdict = "reached" if over <= 2 else "missed"
            rows.append([f"{row.name} ({row.edges} edges)", "at most 2 × the floor", f"{over:.2f} ×", verdict])
    if page.spec:
        total = page.spec.total
        rows.append(["W5", "under 90 s", f"{total:.0f} s", "reached" if total < 90 else "missed"])
        for one in page.spec.edits:
            verdict = "reached" if one.share < 0.1 else "missed"
            what = f"W5, {one.what} edited, {one.prompts} prompts"
            rows.append([what, "under 10 % of the first run", f"{100 * one.share:.1f} %", verdict])
    return f"## Aims\n\n{_table(['', 'aim', 'measured', ''], rows)}"


def _growth(page: Page) -> str:
    parts = []
    for one in page.growth:
        rows = [
            ["ms an edge and prompt", *(f"{1000 * seconds:.3g}" for _, seconds, _ in one.cells)],
            ["time over floor", *(f"{over:.2f}" for _, _, over in one.cells)],
        ]
        parts.append(_table([one.what, *(str(step) for step, _, _ in one.cells)], rows))
    return "## How cost grows\n\nOne run each.\n\n" + "\n\n".join(parts)


def _spec(spec: Spec) -> str:
    edited = [
        [one.what, str(one.prompts), f"{one.first:.1f}", f"{one.seconds:.2f}", str(one.block_positions)]
        for one in spec.edits
    ]
    return f"""## W5: a whole spec

`{spec.name}` on random weights of its model's shape: {spec.claims} claims.
That is {spec.requests} measurements on {spec.prompts} prompts and {spec.nulls} nulls on 32, as verification takes
them, with none stopped early. A random model has no gap, at which verification would stop with an error, so that the
claims were planned and measured and not judged.

{spec.prepared:.1f} s to make the prompts and run them all, {spec.seconds:.1f} s to measure,
{spec.block_positions} block-positions; memory peaked {spec.peak / MB:.0f} MB above the model.

Measured again from the cache after one line was edited, where claims take all prompts, and where each is settled at
the first look; a new edge needs the clean and the corrupt run of its prompts anew:

{_table(["edited", "prompts", "first run, s", "again, s", "block-positions"], edited)}"""


def _statistics(specs: list[Statistics]) -> str:
    rows = [
        [f"`{one.name}`", str(one.claims), f"{one.seconds:.1f}", f"{1000 * one.spent:.0f}", f"{100 * one.share:.1f} %"]
        for one in specs
    ]
    head = ["", "claims × tasks", "CPU seconds", "of these statistics, ms", "share"]
    return f"""## What statistics cost

p-values, intervals, verdicts and the figures of the report, as a share of verifying a whole spec on the pocket model:
prompts, runs and patches included, imports and the cache left out. Larger models take longer over their patches, and
as long over this.

{_table(head, rows)}"""


def _precision(page: Page) -> str:
    rows = [
        [
            one.dtype,
            f"{one.gap[0]:.3f} → {one.gap[1]:.3f}",
            f"{one.per_prompt:.3f} logits",
            f"{100 * one.effect:.2f} points",
        ]
        for one in page.precision
    ]
    head = ["", "gap, float32 → this", "largest error of a change on one prompt", "largest error of an effect"]
    what = f"{page.precision[0].edges} edges on {page.precision[0].prompts} IOI prompts" if page.precision else ""
    return f"""## Half precision

`--dtype bfloat16` and `float16` halve memory. On a processor with instructions for their products (AVX512-BF16, AMX)
they are faster than float32; on others products are made in float32, and `plan` says how long they take. At load a
view is held to the model in single precision on the rounded weights, so that rounding hides no error of ours; what it
computes in half precision may be off eight times as far as the model's own logits are. What costs nothing stays in
float32: the insides of norms and of attention's softmax, the final norm and the logits of the few tokens that a metric
reads, and metrics. What all layers add to the residual stream is summed in the model's format.

What half precision costs in exactness, on the pocket model
({what}):

{_table(head, rows)}"""
