"""Lines of the language whose verdict is known: true ones hold, false ones do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from circuitdsl.circuit.nodes import LOGITS, Edge, Input, Position, Site
from circuitdsl.engine.experiment import Experiment
from circuitdsl.report.report import Report
from tests.drawing import examples
from tests.known_answers.hand_set_claims import Population, node
from tests.known_answers.hand_set_runs import sample_bench, verified
from tests.known_answers.hand_set_tasks import draw_indices

HEAD = """circuit known
model "{model}"
task known = file("known.jsonl", prompts = 256)
heads duplicate  = 0.2       at S2
heads inhibition = 1.1 1.5   at END
heads mover      = 2.3 2.4   at END
"""


@pytest.fixture
def chain(known_model: Callable[[str, int], Population]) -> Population:
    return known_model("chain", 96)


def run(whole: Population, *lines: str, n: int = 256) -> Report:
    return verified(HEAD.format(model=whole.model.name) + "\n".join(lines) + "\n", sample_bench(whole, 5, n=n))


def verdicts(whole: Population, *lines: str) -> list[str]:
    return [claim.verdict for claim in run(whole, *lines).claims]


def test_a_known_gap_passes_until_it_holds(chain: Population) -> None:
    lines = (
        'mover -> logits at END : raises  expected to fail "movers lower it"',
        'mover -> logits at END : lowers  expected to fail "movers lower it"',
        'mover -> logits at OTHER : lowers  expected to fail "nothing is read there"',
    )
    found = run(chain, *lines[:2])
    assert [claim.outcome for claim in found.claims] == ["expected", "unexpected"]
    assert found.exit_status() == 1


def test_all_but_the_circuit_does_nothing_and_all_but_a_part_of_it_does(chain: Population) -> None:
    lines = (
        "heads rest = all - duplicate - inhibition - mover   at END  outside",
        "heads more = all - duplicate - inhibition - 2.3     at END  outside",
        "expect knockout(rest) : effect in [-15%, 15%]",
        "expect knockout(more) : effect in [-15%, 15%]",
        "2.* - mover -> logits at END : effect in [-3%, 3%]",
        "2.* -> logits at END : effect in [-3%, 3%]",
        "2.* -> logits at END : lowers",
        "each 2.* -> logits at END : lowers",
    )
    assert verdicts(chain, *lines) == ["holds", "fails", "holds", "fails", "holds", "fails"]


def test_a_claim_about_some_strata_is_about_their_prompts_alone(chain: Population) -> None:
    """Strata named after what the model does on their prompts: what is true of some is false of the others."""
    middle = float(np.median(chain.clean))
    sides = ["high" if value > middle else "low" for value in chain.clean]
    pairs = tuple(replace(pair, stratum=name) for pair, name in zip(chain.data.pairs, sides, strict=True))
    whole = Population(chain.model, replace(chain.data, pairs=pairs))
    lines = (
        f'expect logit_diff >= {middle:.6f} where stratum "high"',
        f'expect logit_diff >= {middle:.6f} where stratum "low"',
        f'expect logit_diff <= {middle:.6f} where stratum "l*"',
        'mover -> logits at END : lowers where stratum "high", "low"',
        'mover -> logits at END : matters where stratum "*"',
        'mover -> logits at END : lowers where stratum "none", "low"',
    )
    found = run(whole, *lines).claims
    assert [claim.verdict for claim in found] == ["holds", "fails", "holds", "holds", "holds", "error"]
    assert found[-1].reason == "no stratum of known is called none (it has high, low)"
    bench = sample_bench(whole, 5, n=256)
    high = bench.strata == "high"
    assert [claim.measured.n for claim in found[:3] if claim.measured] == [high.sum(), (~high).sum(), (~high).sum()]
    assert found[0].measured and found[0].measured.value == pytest.approx(bench.clean[high].mean())
    assert [claim.protocol.get("strata") for claim in found[:4]] == ["high", "low", "l*", "high, low"]


def test_the_effect_on_some_strata_is_a_share_of_their_own_gap(chain: Population) -> None:
    """By brute force: the prompts of the strata alone, in the numerator and in the denominator."""
    (claim,) = run(chain, 'mover -> logits at END : effect <= -10% where stratum "9-*"').claims
    patched = Experiment(edges=frozenset(Edge(node(h), Input(LOGITS, "in"), Position("END")) for h in ("2.3", "2.4")))
    at = draw_indices(len(chain.data.pairs), 256, 5)
    mine = [i for i in at if chain.data.pairs[i].stratum.startswith("9-")]
    change = chain.brute.logit_diffs(patched)[mine] - chain.clean[mine]
    assert claim.measured
    n = claim.measured.n
    assert claim.measured.value == pytest.approx(change[:n].mean() / chain.gap[mine][:n].mean(), abs=1e-4)


def test_edges_with_the_mean_of_the_sender(chain: Population) -> None:
    """The movers' means say nothing of the answer: the edge is as strong as with corrupt terms; an idle one is not."""
    lines = (
        "mover -> logits at END ablate mean : lowers",
        "mover -> logits at END ablate mean : raises",
        "(2.0 2.7) -> logits at END ablate mean : effect in [-3%, 3%]",
        "mover -> logits at END ablate mean : effect in [-3%, 3%]",
        "edges ablate mean",
        "mover -> logits at END : effect <= -50%",
        "mover -> logits at END ablate corrupt : effect <= -50%",
    )
    found = run(chain, *lines).claims
    assert [claim.verdict for claim in found] == ["holds", "fails", "holds", "fails", "holds", "holds"]
    assert [claim.protocol["ablate"] for claim in found] == ["mean"] * 5 + ["corrupt"]


def test_two_conditions_in_one_run(known_model: Callable[[str, int], Population]) -> None:
    """Without the mover the backup answers, unless it is not told where to look; either alone changes little."""
    backup = known_model("backup", 96)
    lines = (
        "heads helper = 3.5 at END",
        "when 2.3 is knocked out",
        "  expect accuracy >= 80%",
        "when 2.3 is knocked out and 1.1 -> helper.q at END is patched",
        "  expect attention(helper, END -> IO) falls",
        "  expect accuracy >= 80%",
        "when helper -> logits at END is patched and 2.3 is knocked out",
        "  expect logit_diff falls by >= 1",
        "  expect logit_diff rises",
        "  expect logit_diff >= -100",
    )
    head = HEAD.replace("heads inhibition = 1.1 1.5   at END\n", "").replace("mover      = 2.3 2.4", "mover      = 2.3")
    text = head.format(model=backup.model.name) + "\n".join(lines) + "\n"
    found = verified(text, sample_bench(backup, 5, n=256)).claims
    assert [claim.verdict for claim in found][3:5] == ["holds", "fails"]
    edges = frozenset({Edge(node("3.5"), Input(LOGITS, "in"), Position("END"))})
    both = Experiment(edges=edges, sites=frozenset({Site(node("2.3"), Position("END"))}))
    at = draw_indices(len(backup.data.pairs), 256, 5)
    assert found[-1].measured
    exact = backup.brute.logit_diffs(both)[at][: found[-1].measured.n].mean()
    assert found[-1].measured.value == pytest.approx(exact, abs=1e-4)


def test_knockouts_and_edges_are_compared_by_a_factor(chain: Population) -> None:
    """The true factor, of brute force, lies between two written ones; with both sides exchanged, nothing holds."""
    late, early = (frozenset(Site(node(h), Position("END")) for h in heads) for heads in (("2.3", "2.4"), ("2.3",)))
    at = draw_indices(len(chain.data.pairs), 256, 5)
    both, one = (abs((chain.brute.logit_diffs(Experiment(sites=s)) - chain.clean)[at].mean()) for s in (late, early))
    ratio = both / one
    assert ratio > 1.2
    lines = (
        "expect knockout(mover) : stronger than knockout(2.3 at END)",
        "expect knockout(2.3 at END) : stronger than knockout(mover)",
        f"expect knockout(mover) : stronger than knockout(2.3 at END) by {0.9 * ratio:.4f} times",
        f"expect knockout(mover) : stronger than knockout(2.3 at END) by {1.1 * ratio:.4f} times",
        f"mover -> logits at END : stronger than 2.3 -> logits by {0.9 * ratio:.4f} times",
        f"mover -> logits at END : stronger than 2.3 -> logits by {1.1 * ratio:.4f} times",
        f"expect knockout(2.3 at END) : stronger than knockout(mover) by {0.9 / ratio:.4f} times",
        f"expect knockout(2.3 at END) : stronger than knockout(mover) by {1.1 / ratio:.4f} times",
    )
    found = run(chain, *lines).claims
    assert [claim.verdict for claim in found] == ["holds", "fails"] * 4
    assert f"is stronger than {0.9 * ratio:.4f}"[:21] in found[2].reason
    assert found[2].reason.endswith(" of knockout(2.3 at END)")
    assert found[0].against == "knockout(2.3 at END)"


def test_paths_are_compared_by_a_factor(chain: Population) -> None:
    mine, other = (f"path {first} -> mover.q at END -> logits" for first in ("inhibition", "1.1"))
    both, one = (claim.measured.value for claim in run(chain, mine, other).claims if claim.measured)
    ratio = abs(both / one)
    lines = [f"{mine} : stronger than {other} by {factor * ratio:.4f} times" for factor in (0.7, 1.4)]
    assert verdicts(chain, *lines) == ["holds", "fails"]


def test_figures_are_compared_on_either_side_of_the_true_difference(chain: Population) -> None:
    """Attention and knock-outs by brute force: claims a little less than the truth hold, a little more fail."""
    at = draw_indices(len(chain.data.pairs), 256, 5)
    mine, other = (chain.brute.attentions([node(h)], "END", "ANSWER")[at].mean() for h in ("2.3", "1.1"))
    late, early = (frozenset(Site(node(h), Position("END")) for h in heads) for heads in (("2.3", "2.4"), ("2.3",)))
    both, one = ((chain.brute.logit_diffs(Experiment(sites=s)) - chain.clean)[at] for s in (late, early))
    by, effect, room = 100 * (mine - other), 100 * (one - both).mean() / chain.gap[at].mean(), 8
    assert by > 2 * room and effect > 2 * room
    looks = "expect attention({}, END -> ANSWER) {} attention({}, END -> ANSWER) by {:.4f} points"
    out = "expect knockout({}) {} knockout({}) by {:.4f}%"
    lines = (
        looks.format("2.3", ">", "1.1", by - room),
        looks.format("2.3", ">", "1.1", by + room),
        looks.format("1.1", "<", "2.3", by - room),
        looks.format("1.1", "<=", "2.3", by + room),
        out.format("mover", "<", "2.3 at END", effect - room),
        out.format("mover", "<", "2.3 at END", effect + room),
        "expect attention(2.3, END -> ANSWER) > attention(1.1, END -> ANSWER)",
        "expect attention(1.1, END -> ANSWER) > attention(2.3, END -> ANSWER)",
        f"expect attention(2.3, END -> ANSWER) > attention(2.4, END -> ANSWER) by {mine + 0.01:.4f} points",
        "expect attribution(2.0) > attribution(mover)",
        "expect copying(2.0) > copying(mover)",
    )
    found = run(chain, *lines).claims
    assert [claim.verdict for claim in found[:8]] == ["holds", "fails"] * 4
    assert all(claim.verdict != "holds" for claim in found[8:])
    assert found[0].measured and found[0].measured.value == pytest.approx(by / 100, abs=1e-4)
    assert found[4].measured and (n := found[4].measured.n)
    assert found[4].measured.value == pytest.approx((both - one)[:n].mean() / chain.gap[at][:n].mean(), abs=1e-4)


def test_false_comparisons_hold_no_more_often_than_promised(chain: Population) -> None:
    """Claims that lie exactly on the truth of the population, on sample after sample: 2.5 % at the most each way."""
    values = [chain.brute.attentions([node(h)], "END", "ANSWER") for h in ("2.3", "2.4")]
    first, second = (value.mean() for value in values)
    by, times = 100 * abs(first - second), max(first, second) / min(first, second)
    more, less = ("2.3", "2.4") if first > second else ("2.4", "2.3")
    looks = f"expect attention({more}, END -> ANSWER) {{}} attention({less}, END -> ANSWER) by {{}}"
    samples, wrong = examples(6, 200), 0
    for seed in range(samples):
        for line in (looks.format(">", f"{by:.12f} points"), looks.format(">", f"{times:.12f} times")):
            text = HEAD.format(model=chain.model.name) + line + "\n"
            (claim,) = verified(text, sample_bench(chain, seed, n=64, balanced=False)).claims
            wrong += claim.verdict == "holds"
    assert wrong <= 2 * samples * 0.025 + 3 * np.sqrt(2 * samples * 0.025 * 0.975)
