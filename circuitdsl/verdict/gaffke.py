"""The p-value of Gaffke's test of a mean: how likely random weights lift what was seen to the bound.

Gaffke 2005, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable";
Learned-Miller and Thomas 2019, arXiv:1905.06208. See `means.py` for what it is used for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from circuitdsl.verdict.estimates import Array

#: the most steps of Newton's method, and the relative size of a step that ends it
_STEPS, _NEAR = 60, 1e-8
#: for smaller `w` (probabilities near one half) the second-order terms are imprecise, and not needed
_SMALL = 0.2
#: the approximation may be too small by up to 3 %; with this factor it is not
_SAFE = 1.03


def tails(values: ArrayLike) -> Array:
    """P(sum_j values[..., j] E[j] >= 0) for independent standard exponential E[j].

    Random weights that are uniform on the simplex are such variables over their sum. Where the values add up to 0 or
    more, the probability is about one half or more, decides nothing, and is given as 1.
    """
    v = np.asarray(values, float)
    rows = v.reshape(-1, v.shape[-1])
    below = rows.sum(-1) < 0
    found = np.where(below, 0.0, 1.0)
    (here,) = np.nonzero(below & (rows.max(-1) > 0))
    if len(here):
        found[here] = _tails(rows[here])
    return found.reshape(v.shape[:-1])


def _tails(v: Array) -> Array:
    """The tails of rows of values of both signs whose sums are below 0.

    The saddlepoint approximation of Lugannani and Rice (1980, Adv. Appl. Prob. 12) with its second-order term (Daniels
    1987, Int. Stat. Rev. 55), within 3 % of the probability, however small that is (`tests/verdict/test_gaffke.py`),
    and made larger by as much.
    """
    v = v / v.max(-1, keepdims=True)
    s = _saddles(v)
    q = v / (1 - s * v)
    squares = q * q
    spread = squares.sum(-1)
    k3, k4 = 2 * np.vecdot(squares, q) / spread**1.5, 6 * np.vecdot(squares, squares) / spread**2
    w = np.sqrt(np.maximum(2 * np.log1p(-s * v).sum(-1), 1e-24))
    u = np.maximum(s[:, 0] * np.sqrt(spread), 1e-12)
    second = (k4 / 8 - 5 * k3**2 / 24) / u - u**-3.0 - k3 / (2 * u * u) + w**-3.0
    ends = 1 / u - 1 / w + np.where(w > _SMALL, second, 0.0)
    return np.clip(_SAFE * (special.ndtr(-w) + np.exp(-w * w / 2) / np.sqrt(2 * np.pi) * ends), 0.0, 1.0)


def _saddles(v: Array) -> Array:
    """Where `sum_j v[j] / (1 - s v[j])` is 0 in (0, 1), one for each row [m, 1]; the largest of each is 1.

    Newton's method is used on that sum times `1 - s`; where it leaves the bracket of the root, the bracket is halved.
    """
    low, high = np.zeros((len(v), 1)), np.ones((len(v), 1))
    s = np.minimum(-v.sum(-1, keepdims=True) / np.vecdot(v, v)[:, None], 0.9)
    for _ in range(_STEPS):
        q = v / (1 - s * v)
        slope, spread = q.sum(-1, keepdims=True), np.vecdot(q, q)[:, None]
        low, high = np.where(slope < 0, s, low), np.where(slope < 0, high, s)
        step = s - (1 - s) * slope / ((1 - s) * spread - slope)
        step = np.where((low <= step) & (step <= high), step, (low + high) / 2)
        near = np.abs(step - s) <= _NEAR * np.minimum(s, 1 - s)
        s = step
        if np.all(near):
            break
    return s
