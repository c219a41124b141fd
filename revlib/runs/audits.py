"""Is a stored row found again? What rounding may do to it is measured, not assumed.

Another processor, or another version of torch, adds in another order. So a row that is computed
again differs a little, and after many steps of a chaotic training no longer a little. How much is
measured on the spot, where it matters: the row is computed up to three times more, each time from a
start whose every entry is moved by one unit of rounding, up or down, and where there is a fast way
and a plain way by the plain one, which adds in another order. What is stored must lie within ten
times the largest of the differences that this makes. Each audit is a draw of points and can be
repeated: it tells the number that it was drawn with.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

NUDGES = (1, 2, 3)
"""The moved starts from which a row is computed again (:func:`revlib.training.settings.nudged`)."""

EXPLAINED = (
    "Allowed is one unit in the sixth digit of a quantity or of its root, whichever is more (in "
    "the fifth, where some rows come from a graphics card), or "
    "0.002 of an accuracy. Where a difference is larger, ten times the largest that up to three "
    "moves of the start by one unit of rounding make is allowed as well."
)


ON_A_CARD = 1e-5
"""What is allowed of rows from a graphics card, whose sums differ by more than a moved start's."""


def drawn(draw: int | None) -> tuple[int, random.Random]:
    """Return the number of a draw, a new one for None, and what draws."""
    draw = random.SystemRandom().randrange(1_000_000) if draw is None else draw
    return draw, random.Random(draw)


def compared(
    key: Mapping[str, Any],
    stored: Mapping[str, Any],
    again: Mapping[str, Any],
    moved: Iterable[Mapping[str, Any]],
    unit: float = 1e-6,
) -> list[dict[str, Any]]:
    """Compare a stored row with what is found today.

    Parameters
    ----------
    key
        Seed, order and step of the row.
    stored, again
        The quantities as they are stored, and as they are found today.
    moved
        As they are found from starts that are moved by rounding.
    unit
        The relative difference that is allowed in any case.

    Returns
    -------
    list of dict
        For each quantity the key, ``quantity``, ``stored``, ``recomputed``, ``allowed`` (the
        difference that rounding explains) and ``equal``. A quantity that only one of the two has
        is not a number in the other.
    """
    moved = list(moved)
    rows = []
    for quantity in dict.fromkeys([*again, *stored]):
        if quantity in key:
            continue
        old, new, *others = (float(row.get(quantity, np.nan)) for row in (stored, again, *moved))
        # The root of a squared error is the error of an output, which is rounded itself.
        floor = 0.002 if "accuracy" in quantity else unit * max(abs(new), abs(new) ** 0.5)
        with np.errstate(invalid="ignore"):  # both diverged
            differences = np.nan_to_num(np.abs(np.array(others) - new))
        allowed = float(np.nan_to_num(10 * max(differences, default=0.0) + floor))
        rows.append(
            dict(key)
            | {
                "quantity": quantity,
                "stored": old,
                "recomputed": new,
                "allowed": allowed,
                "equal": bool(np.isclose(old, new, rtol=0, atol=allowed, equal_nan=True)),
            }
        )
    return rows
