"""The tail that Gaffke's test is made of, integrated instead of approximated."""

from __future__ import annotations

import numpy as np
from scipy import optimize

STEP = 0.02
U = np.arange(0, 14, STEP)


def exact_tail(v: np.ndarray) -> float:
    """P(sum_j v[j] E[j] >= 0) for independent standard exponentials, for values that add up to less than 0.

    The inverse Laplace transform of `prod_j 1 / (1 - s v[j]) / s` along the vertical line through its saddle point,
    by the trapezoidal rule in u, t = w sinh(u).
    """
    v = v / v.max()
    room = 1 / (8 * len(v))
    saddle = float(optimize.brentq(lambda s: float(np.sum(v / (1 - s * v))) - 1 / s, room / 100, 1 - room / 100))
    width = 1 / np.sqrt(np.sum((v / (1 - saddle * v)) ** 2) + saddle**-2)
    s = saddle + 1j * width * np.sinh(U)
    height = np.exp(-np.sum(np.log(1 - np.outer(v, s)), axis=0) - np.log(s))
    weights = np.cosh(U) * STEP / np.pi * np.where(U > 0, 1.0, 0.5)
    return float(width * np.sum(weights * height.real))
