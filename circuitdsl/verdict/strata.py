"""Strata: prompts of one template differ by chance; the differences between templates are fixed.

The population is the prompts that the task's own templates (strata) make, in the sample's mix: the mean is
`sum_s (n_s / n) mu_s` and only the spread *within* strata is sampling error (Cochran 1977, *Sampling Techniques*,
ch. 5).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitdsl.verdict.estimates import Array

#: smaller strata are not tested alone
SMALL = 8


def centred(y: Array, strata: ArrayLike | None) -> Array:
    """Values [..., n] moved so that all strata (None: one) have the mean of all: only the spread within them is left.

    Deviations from the mean of k prompts are too small by `sqrt((k - 1) / k)`; they are made larger by as much.
    """
    codes = np.unique(np.zeros(y.shape[-1]) if strata is None else strata, return_inverse=True)[1].ravel()
    stratum, means, larger = _divided(codes.tobytes())
    return (y - (y @ means)[..., stratum]) * larger + y.mean(-1, keepdims=True)


@lru_cache(maxsize=64)
def _divided(codes: bytes) -> tuple[NDArray[np.intp], Array, Array]:
    """The stratum of each prompt, weights [n, strata] that make their means, and the factor of deviations [n].

    A stratum of one prompt says nothing about the spread within it. All such strata are joined into one; if there is
    only one of them, it joins the smallest other stratum.
    """
    stratum = np.frombuffer(codes, np.intp)
    sizes = np.bincount(stratum)
    single = np.flatnonzero(sizes == 1)
    if len(single) and len(sizes) > 1:
        home = single[0] if len(single) > 1 else int(np.argmin(np.where(sizes == 1, len(codes), sizes)))
        stratum = np.unique(np.where(np.isin(stratum, single), home, stratum), return_inverse=True)[1].ravel()
        sizes = np.bincount(stratum)
    means = np.eye(len(sizes))[stratum] / sizes
    return stratum, means, np.sqrt(sizes / np.maximum(sizes - 1, 1))[stratum]
