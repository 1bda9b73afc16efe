"""`metric surprise`: how little the model expects the answers, in bits. It falls when things go well."""

from __future__ import annotations

from math import log

from circuitdsl.circuit.vocabulary import MetricShape

#: bits that an answer takes at the most: without an end, one prompt of a thousand could carry the mean
MOST = 20
SURPRISE = MetricShape("plain", "bits", "own_measures.surprise:scorer", low=0, high=MOST, falls=True)


def scorer(options, pairs, clean):
    """What scores runs: it is called once for some prompts, and given logits of their runs at END."""
    from circuitdsl.engine.metrics import on_sides  # imports torch, which reading a spec does not need

    def bits(answers, distractors, logp):
        return (-answers.probability().log() / log(2)).clamp(0, MOST)

    return on_sides(pairs, None, True, bits)
