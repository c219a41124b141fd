"""What the book opens with, and what its front page advises: computed from stored results."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from revlib import experiments, figures, runs
from revlib.orders import named
from revlib.verdicts import findings, fixed_ending, overview, remedies, section_5
from revlib.verdicts.effects import stays

OPENS_WITH = 4
"""The figure of the paper in whose setting the front page shows what going backward does."""

LEVELS = (0.2, 0.1, 0.05, 0.02)
"""The parts of its start below which a training loss is to stay there."""

OPENING_LEVEL = 0.05
"""That one of them which the figure shows."""


def opening() -> str:
    """Return what going backward does in one setting: a paragraph and a figure, in Markdown.

    From the stored results of preset ``paper``, of a study of endings. Where they are missing there
    is no figure, and the paragraph says so. The figure is drawn by :func:`picture`.
    """
    table, tail = _opened()
    study = experiments.get(f"endings-figure-{OPENS_WITH}")
    if table.empty:
        return f"Not yet run: `revlib run {study.name}`.\n"
    steps, what = study.size("paper").steps, study.title.partition(":")[0]
    half, quantity = (steps // 2, steps), "train_loss"
    curve = range(steps + 1)
    costs = {order: named(order).cost(curve) for order in (*overview.ORDERS, tail)}
    times = {order: f"{cost / costs['forward']:,.0f}" for order, cost in costs.items()}
    backward = findings.sentence(
        [
            findings.varies(table, quantity, half, overview.ORDERS),
            findings.stays_below(table, quantity, LEVELS, overview.ORDERS),
        ]
    )
    ending = findings.sentence([findings.varies(table, quantity, half, ("forward", tail))])
    seed, below = _stays(table, tail)
    told = ", ".join(
        f"{order} from step {step:,.0f} on" if np.isfinite(step) else f"{order} not by the end"
        for order, step in below.items()
    )
    words = (
        f"**{what}, one example a step, {steps:,} steps, seeds {table['seed'].min()} to "
        f"{table['seed'].max()}.** {backward} How low such a path ends "
        "is a matter of chance, one draw for each seed: at the end of an epoch no order is "
        "lower in expectation ({prf:ref}`prop-same-law`); between two ends, as here, backward may "
        "be ({doc}`chapters/same-law-at-every-step`). The whole backward curve costs "
        f"{times['backward']} times as many steps. {ending} That order goes forward and always "
        f"applies the same batches last; its whole curve costs {times[tail]} times as many steps "
        "as forward ({doc}`chapters/fixed-ending`)."
    )
    caption = (
        f"{what}. Above: the training loss of seed {seed}. Marks: the step from which each path "
        f"stays below {100 * OPENING_LEVEL:.0f}% of its start, the dotted line ({told}; marks of "
        "one step lie on each other). Below: how many "
        "times less than forward the training loss varies about its trend, over the second half of "
        "the run, against the number of last batches that stay the same; the last marker is the "
        f"backward order. Bars: 95% intervals over seeds. From `book/results/{study.name}`; `make "
        "picture` draws it."
    )
    return f"{words}\n\n{_FIGURE}\n{caption}\n```\n"


_FIGURE = """```{figure} _static/opening.png
:name: fig-intro-opening
:alt: "Above, the training loss of one seed against the step, forward, backward and with a fixed \
ending, with a mark from which step on each stays below the dotted level. Below, how many times \
less than forward the loss varies, against the number of last batches that stay the same."
"""


def picture() -> Figure:
    """Return the figure of the book's front page, from the stored results of preset ``paper``.

    Raises
    ------
    ValueError
        If nothing is stored.
    """
    table, tail = _opened()
    study = experiments.get(f"endings-figure-{OPENS_WITH}")
    if table.empty:
        raise ValueError(f"Nothing to draw yet. `revlib run {study.name}` computes it.")
    steps = study.size("paper").steps
    seed, below = _stays(table, tail)
    path = table[(table["seed"] == seed) & table["order"].isin([*overview.ORDERS, tail])]
    found = fixed_ending.summary(fixed_ending.calm(table, steps // 2, steps, "train_loss"))
    plain = [name for name in found.index if name.startswith("tail(") or name == "backward"]
    ends = found.loc[plain, ["trend", "trend_low", "trend_high"]]
    lasting = [fixed_ending.fixed(named(name), steps) for name in plain]
    return figures.opening(
        path, "train_loss", OPENING_LEVEL, below, ends.set_axis(lasting).sort_index()
    )


def _opened() -> tuple[pd.DataFrame, str]:
    """Return the complete seeds of the front page's study, and the name of its fixed ending."""
    size = experiments.get(f"endings-figure-{OPENS_WITH}").size("paper")
    tail = f"tail({fixed_ending.length(OPENS_WITH, 'paper')})"
    table = runs.looks(f"endings-figure-{OPENS_WITH}")
    counts = table.groupby(["seed", "order"])["step"].nunique().unstack(fill_value=0)
    counts = counts.reindex(columns=[*overview.ORDERS, tail], fill_value=0)
    complete = counts.index[(counts == len(size.recorded())).all(axis=1)]
    return table[table["seed"].isin(complete)], tail


def _stays(table: pd.DataFrame, tail: str) -> tuple[int, dict[str, float]]:
    """Return the first seed, and from which step on each of its paths stays below the level."""
    seed = int(table["seed"].min())
    paths = table[table["seed"] == seed].pivot(index="step", columns="order", values="train_loss")
    return seed, {
        order: stays(paths[order], OPENING_LEVEL * paths[order].iloc[0])
        for order in ("forward", tail, "backward")
    }


def advice() -> str:
    """Return when the order of iteration is worth a thought, and what does as much for less.

    A list in Markdown, with numbers from the stored results of preset ``paper``.
    """
    return f"- {remedies.sentence()}\n{section_5.sentences()}\n"
