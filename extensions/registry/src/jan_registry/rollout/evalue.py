"""Evidence about two failure rates that may be looked at after every report, without that making it weaker.

The test is the e-variable for two streams of yes/no outcomes of R. Turner, A. Ly and P. Grünwald, "Generic E-variables
for exact sequential k-sample tests that allow for optional stopping" (J. Stat. Plan. Inference 230, 2024), with the
null hypotheses of R. Turner and P. Grünwald, "Exact anytime-valid confidence intervals for contingency tables and
beyond" (Stat. Probab. Lett. 198, 2023): the difference of the rates lies on one side of a line.

A block has `n` units in the control arm and `m` in the candidate arm, and is multiplied by
`Π (1 + (y - q) g) · Π (1 + (x - q - d) h)` over the outcomes `y` of the control and `x` of the candidate, where
`n g + m h = 0`. Where the true rates are `a` and `b`, its expectation is `(1 + (a - q) g)^n (1 + (b - q - d) h)^m`,
at most `exp(n g (a - q) + m h (b - q - d)) = exp(m h (b - a - d))`: at most 1 under `b - a >= d` for `h < 0`, and under
`b - a <= d` for `h > 0`, for every `q`. `q` and `h` are chosen from earlier blocks, so the product over blocks is a
non-negative supermartingale that starts at 1, and by Ville's inequality ever reaches `1 / alpha` with probability at
most `alpha`, however often and whenever somebody looks.

What it asks for: given what happened before, units of an arm fail independently with one rate, and how many units a
block has does not depend on how they fared. Numbers are Decimal with a fixed precision, whose logarithm is correctly
rounded on every machine, so that the same counts give the same bits. No clock, no disk, no network.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, localcontext

from msgspec import Struct

__all__ = ["Tally", "inferiority_refuted", "odds", "worse"]

MICRO = 1_000_000
STEADY = Decimal("0.1")
"""The share that stays out of the bet: a block in which everybody fails (an outage) costs at most a factor of 10."""


class Tally(Struct, frozen=True, forbid_unknown_fields=True):
    """`failed` of `units` failed."""

    units: int = 0
    failed: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.units + other.units, self.failed + other.failed)


def inferiority_refuted(control: Tally, candidate: Tally, before: Tally, margin: int) -> int:
    """How strongly one block speaks against "the candidate fails at least `margin` per 10,000 more often".

    The natural logarithm of the e-value, in millionths, rounded down; they add up over blocks. `before`: outcomes of
    the control in earlier blocks, from which the bet is made.
    """
    with _exact():
        difference = Decimal(margin) / 10_000
        rate = _rate(before, difference)
        return _log(control, candidate, rate, rate, difference)


def worse(control: Tally, candidate: Tally, before: Tally, margin: int) -> int:
    """How strongly one block speaks against "the candidate fails no more often", as above; the bet is that it fails
    `margin` per 10,000 more often."""
    with _exact():
        difference = Decimal(margin) / 10_000
        rate = _rate(before, difference)
        return _log(control, candidate, rate, rate + difference, Decimal(0))


def odds(one_in: int) -> int:
    """The threshold for an error of one in `one_in`: its logarithm in millionths, rounded up."""
    with _exact():
        return -int((-Decimal(one_in).ln() * MICRO).to_integral_value(rounding=ROUND_FLOOR))


def _exact() -> AbstractContextManager[Context]:
    return localcontext(Context(prec=28, rounding=ROUND_HALF_EVEN, Emin=-999_999, Emax=999_999))


def _rate(before: Tally, difference: Decimal) -> Decimal:
    """A guess that starts at 1 % and is soon the observed rate; never 0, and never so high that no bet is left."""
    return min(Decimal(before.failed + 1) / (before.units + 100), (1 - difference) * Decimal("0.9"))


def _log(control: Tally, candidate: Tally, a: Decimal, b: Decimal, difference: Decimal) -> int:
    """ln of a block's e-value against rates on the line `b - a = difference`, betting on the rates `a` and `b`."""
    n, m = control.units, candidate.units
    if not n or not m:
        return 0
    # The point of the line that explains the bet's rates best (to the second order; any point would be valid).
    weight_a, weight_b = n / (a * (1 - a)), m / ((a + difference) * (1 - a - difference))
    q = (weight_a * a + weight_b * (b - difference)) / (weight_a + weight_b)
    tiny = Decimal("0.000001")
    q = min(max(q, tiny), 1 - difference - tiny)
    p = q + difference
    h = (b - p) / (p * (1 - p))
    g = -m * h / n
    # No outcome may multiply by less than 1/20: a smaller bet is as valid, and survives a wrong guess.
    loss = max(q * g, (q - 1) * g, p * h, (p - 1) * h)
    scale = min(Decimal(1), Decimal("0.95") / loss)
    g, h = g * scale, h * scale
    total = (
        control.failed * (1 + (1 - q) * g).ln()
        + (n - control.failed) * (1 - q * g).ln()
        + candidate.failed * (1 + (1 - p) * h).ln()
        + (m - candidate.failed) * (1 - p * h).ln()
    )
    hedged = (STEADY + (1 - STEADY) * total.exp()).ln()
    return int((hedged * MICRO).to_integral_value(rounding=ROUND_FLOOR))
