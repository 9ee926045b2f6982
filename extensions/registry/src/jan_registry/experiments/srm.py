"""Sample-ratio mismatch: are there as many in each branch as there should be? If not, nothing else of an experiment can
be believed: something loses machines of one branch, and not of another.

Pure. Two tests of the same counts. `always_valid_p` may be looked at as often as one likes and is what stops an
experiment; `chi_square_p` holds for one look, and is what everybody knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["CONCENTRATION", "STOP", "always_valid_p", "chi_square_p", "log_bayes_factor"]

STOP = 0.001
"""Below this p an experiment is stopped."""
CONCENTRATION = 100.0
"""How near to the intended ratios the test expects a mismatch to be: higher finds small mismatches earlier, and large
ones later. With 100, and a look after every machine, half of the experiments whose 50:50 became 52:48 are stopped after
10,600 machines, 55:45 after 1,570, 60:40 after 430; of 2,000 without a mismatch none within 5,000 machines (simulated).
"""


def log_bayes_factor(observed: Sequence[int], ratios: Sequence[int], concentration: float = CONCENTRATION) -> float:
    """The logarithm of how much better the counts fit some other ratios than the intended ones.

    Its exponential is a martingale with mean 1 as long as each machine is drawn with the intended ratios, so that it
    ever reaches 1/a with a probability of at most a (M. Lindon, A. Malek: Anytime-Valid Inference for Multinomial Count
    Data, NeurIPS 2022, arXiv:2011.03567). The other ratios are mixed by a Dirichlet distribution around the intended
    ones. Raises ValueError for ratios that are not all positive, or counts that are negative or of another number.
    """
    shares = _shares(observed, ratios)
    total = sum(observed)
    log = math.lgamma(concentration) - math.lgamma(concentration + total)
    for count, share in zip(observed, shares, strict=True):
        weight = concentration * share
        log += math.lgamma(weight + count) - math.lgamma(weight) - count * math.log(share)
    return log


def always_valid_p(observed: Sequence[int], ratios: Sequence[int]) -> float:
    """A p-value that holds however often it is looked at. Raises as `log_bayes_factor`."""
    return min(1.0, math.exp(min(700.0, -log_bayes_factor(observed, ratios))))


def chi_square_p(observed: Sequence[int], ratios: Sequence[int]) -> float:
    """Pearson's test, for one look at a number of machines that was decided beforehand; 1.0 without machines.

    The tail of the chi-square distribution in closed form for whole degrees of freedom (Abramowitz and Stegun, 26.4.4
    and 26.4.5). Raises as `log_bayes_factor`.
    """
    shares = _shares(observed, ratios)
    total = sum(observed)
    if not total or len(observed) < 2:
        return 1.0
    statistic = sum((n - total * share) ** 2 / (total * share) for n, share in zip(observed, shares, strict=True))
    return _tail(statistic, len(observed) - 1)


def _tail(statistic: float, freedom: int) -> float:
    half = statistic / 2
    if freedom % 2 == 0:
        first, term, tail = 1, math.exp(-half), 0.0
    else:
        first, tail = 2, math.erfc(math.sqrt(half))
        term = math.sqrt(2 * statistic / math.pi) * math.exp(-half)
    # even: e^-h (1 + h + h^2/2! + ...), odd: sqrt(2x/pi) e^-h (1 + x/3 + x^2/(3*5) + ...)
    divisor = first + 1 if freedom % 2 else 2
    for _ in range(freedom // 2):
        tail += term
        term *= statistic / divisor
        divisor += 2
    return min(1.0, tail)


def _shares(observed: Sequence[int], ratios: Sequence[int]) -> list[float]:
    if not ratios or min(ratios) <= 0:
        raise ValueError(f"ratios must be positive: {list(ratios)}")
    if len(observed) != len(ratios) or min(observed) < 0:
        raise ValueError(f"there must be a count for each of {len(ratios)} branches: {list(observed)}")
    return [ratio / sum(ratios) for ratio in ratios]
