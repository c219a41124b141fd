"""All experiments side by side: contraction against calm, unstated choices, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from revlib import experiments, figures, runs
from revlib.orders import named
from revlib.store import results
from revlib.verdicts import findings, fixed_ending, intervals, remedies, section_5, stability

ORDERS = ("forward", "backward")

SHOWN = {
    "paper": ("figure-2", *(f"figure-{n}" for n in range(4, 10))),
    "sample": tuple(f"figure-{n}" for n in range(4, 8)),
}
"""The experiments whose contraction is compared; at preset ``sample`` those that take seconds."""

LOSSES = ("test_loss", "test_loss_by_batch")
"""What the spread is taken of: where there is batch normalisation, both ways to evaluate it."""


def contractions(preset: str = "paper") -> tuple[pd.DataFrame, str]:
    """Return :func:`contraction` of all experiments in :data:`SHOWN`, and what is shown, in words.

    An experiment of which too little is stored is left out. If all are, the preset ``sample``
    stands in for them, and the sentence says so.
    """
    found = {name: contraction(name, preset) for name in SHOWN[preset]}
    there = [name for name, seeds in found.items() if len(seeds)]
    missing = [name for name in found if name not in there]
    if not there:
        table, note = contractions("sample")
        return table, f"{note} This stands in for the preset {preset}: too little of it is stored."
    how = "computed just now" if preset == "sample" else "stored results"
    note = f"Preset {preset}: {how} of {', '.join(there)}."
    if missing:
        note += f" Left out, because too little is stored as yet: {', '.join(missing)}."
    return pd.concat([found[name] for name in there], ignore_index=True), note


def contraction(name: str, preset: str = "paper") -> pd.DataFrame:
    """Return how much the maps of an experiment contract, beside how calm its backward path is.

    Preset ``sample`` is computed on the spot, ``paper`` is what is stored.

    Returns
    -------
    pandas.DataFrame
        One row for each seed of which the last step with motion, and the last window, are there
        for both orders (the last that are there for any seed):

        - ``experiment``, ``seed``, ``step`` (at which motion was measured);
        - ``contraction_rate`` and ``tangent_contraction_rate``: rate along the backward chain
          (:func:`revlib.training.motion.contraction_rate`), a map;
        - ``stretch``: how far consecutive backward iterates lie apart, in lengths of the step
          that sets their chains apart;
        - ``moved`` and ``predictions_moved``: how far one step moves the backward iterate in
          theta, and its predictions, divided by the same for the forward iterate;
        - ``calm``: the spread of the test loss along the forward path divided by that along the
          backward path, in the window.
    """
    have = runs.compute if preset == "sample" else runs.stored
    table, motion = have(name, preset), have(f"motion-{name}", preset)
    complete = _last_window(table, experiments.get(name).size(preset).windows)
    motion = _in_both(motion)
    if complete is None or motion.empty:
        return pd.DataFrame()
    at = motion[motion["step"] == motion["step"].max()]
    forward, backward = (at[at["order"] == order].set_index("seed") for order in ORDERS)
    found = backward[["step", "contraction_rate", "tangent_contraction_rate"]].assign(
        stretch=backward["moved"] / backward["step_length"],
        moved=backward["moved"] / forward["moved"],
        predictions_moved=backward["predictions_moved"] / forward["predictions_moved"],
        calm=stability.compare(complete[0], "test_loss", *complete[1:]).ratios,
    )
    found.insert(0, "experiment", name)
    # A tangent vector's rate may be none: it can grow beyond all numbers.
    known = [column for column in found if column != "tangent_contraction_rate"]
    return found.dropna(subset=known).sort_index().reset_index()


def sensitivity(
    name: str, preset: str = "paper", variants: Iterable[dict[str, str]] | None = None
) -> pd.DataFrame:
    """Return what became of an experiment under each of several choices of what is unstated.

    Preset ``sample`` is computed on the spot, ``paper`` is what is stored.

    Parameters
    ----------
    name, preset
        Which experiment in which size.
    variants
        Each the fields of the setting that differ from the default; by default the default and
        the experiment's own variants.

    Returns
    -------
    pandas.DataFrame
        One row for each variant, and for each of :data:`LOSSES` that was measured: ``experiment``,
        ``variant`` (the values of the fields in question), ``default`` (whether it is that),
        ``quantity`` and

        - ``state``: ``"ran"``; where the ratio is not finite ``"diverged"``, and ``"stood still"``
          where neither order moves; ``"not yet run"`` where no window is stored in full;
        - ``ratio``, ``low``, ``high``, ``calmer`` and ``seeds``: the spread of the forward path
          divided by that of the backward path in the last window that is stored in full, as in
          :func:`revlib.verdicts.stability.ratios`;
        - ``forward_left`` and ``backward_left``: the test loss at the last recorded step divided
          by that at the start (geometric mean over the seeds on which it is finite);
        - ``forward_diverged`` and ``backward_diverged``: on how many of the ``run`` seeds the
          order diverged.
    """
    experiment = experiments.get(name)
    variants = ({}, *experiment.variants) if variants is None else tuple(variants)
    default = experiment.size(preset).setting
    fields = [f for f in vars(default) if any(f in each for each in experiment.variants)]
    rows = []
    for changes in variants:
        chosen = default.changed(**changes)
        words = ", ".join(str(getattr(chosen, field)) for field in fields)
        for outcome in _outcomes(name, preset, changes):
            rows.append({"experiment": name, "variant": words, "default": not changes} | outcome)
    table = pd.DataFrame(rows, columns=["experiment", "variant", "default", *_OUTCOME])
    return table.sort_values(["variant", "quantity"], ignore_index=True)


_OUTCOME = ["quantity", "state", "window", "ratio", "low", "high", "calmer", "seeds", "run"]
_OUTCOME += [f"{order}_{what}" for what in ("left", "diverged") for order in ORDERS]


def _outcomes(name: str, preset: str, changes: dict[str, str]) -> list[dict[str, Any]]:
    """Return what became of one variant: a row for each loss that was measured."""
    size = experiments.get(name).size(preset)
    if preset == "sample":
        table = runs.compute(name, preset, every=size.steps, **changes)
    else:
        table = runs.stored(name, preset, **changes)
    complete = _last_window(table, size.windows)
    if complete is None:
        return [{"quantity": LOSSES[0], "state": "not yet run"}]
    table, first, last = complete
    gone = stability.divergence(table)["order"].value_counts()
    found = stability.ratios(table[["seed", "order", "step", *_measured(table)]], [(first, last)])
    seeds = {"run": table["seed"].nunique()}
    seeds |= {f"{order}_diverged": int(gone.get(order, 0)) for order in ORDERS}
    return [
        {"state": _state(row, diverged=len(gone) > 0)}
        | row
        | seeds
        | {f"{order}_left": _left(table, order, row["quantity"]) for order in ORDERS}
        for row in found.to_dict("records")
    ]


def _state(row: dict[str, Any], diverged: bool) -> str:
    if row["seeds"] and 0 < row["ratio"] < np.inf:
        return "ran"
    return "diverged" if diverged else "stood still"


def _measured(table: pd.DataFrame) -> list[str]:
    return [loss for loss in LOSSES if loss in table]


def _left(table: pd.DataFrame, order: str, quantity: str) -> float:
    """Return what is left of a loss at the last recorded step, as a part of that at the start."""
    path = table[table["order"] == order].pivot(index="seed", columns="step", values=quantity)
    left = path[path.columns.max()] / path[0]
    return stability.geometric_mean(left[np.isfinite(left)])[0]


def _last_window(
    table: pd.DataFrame, windows: list[tuple[int, int]]
) -> tuple[pd.DataFrame, int, int] | None:
    """Return the last window of which all steps are there on some seeds, and the rows of these."""
    both = table[table["order"].isin(ORDERS)]
    for first, last in reversed(windows):
        inside = both[both["step"].between(first, last)]
        points = inside.groupby(["seed", "order"]).size().unstack(fill_value=0)
        whole = points.reindex(columns=ORDERS, fill_value=0).eq(last - first + 1).all(axis=1)
        seeds = list(whole.index[whole])
        if seeds:
            return both[both["seed"].isin(seeds)], first, last
    return None


def _in_both(motion: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of motion whose seed and step were measured in both orders."""
    both = motion[motion["order"].isin(ORDERS)]
    return both[both.groupby(["seed", "step"])["order"].transform("nunique") == len(ORDERS)]


HALF = (1000, 2000)
"""The second half of the runs of :func:`not_at_rest`."""


def not_at_rest() -> str:
    """Return how far paths of the MLP on Fashion-MNIST move while their law does, in Markdown.

    A row for each of Figures 3, 7 and 10, which share their setting, from what is stored of the
    preset ``paper``: the mean test loss over the seeds at both ends of the second half, and the
    spread over it of the forward path divided by that of the backward one, of the values as they
    are and about a smooth trend.
    """
    lines = [
        f"| | mean test loss at step {HALF[0]} | at step {HALF[1]} | spread, forward / other "
        "| about a trend |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, other in (
        ("figure-3", "backward"),
        ("figure-7", "backward"),
        ("figure-10", "switch(1000)"),
    ):
        table = runs.stored(name)
        table = table[table["order"].isin(("forward", other)) & table["step"].between(*HALF)]
        words = f"{name.replace('-', ' ').capitalize()}, forward and {other}"
        if not set(HALF) <= set(table["step"]):
            lines.append(f"| {words} | not yet run | | | |")
            continue
        means = table.groupby(["step", "order"])["test_loss"].mean().unstack()
        ends = [f"{means.loc[n, 'forward']:.2f} and {means.loc[n, other]:.2f}" for n in HALF]
        orders = ("forward", other)
        found = [
            stability.compare(table, "test_loss", *HALF, statistic, orders)
            for statistic in ("spread", "trend")
        ]
        lines.append(f"| {words} | {ends[0]} | {ends[1]} | {found[0]} | {found[1]} |")
    return "\n".join(lines)


# What the book opens with

OPENS_WITH = 4
"""The figure of the paper in whose setting the front page shows what going backward does."""

LEVELS = (0.2, 0.1, 0.05, 0.02)
"""The parts of its start below which a training loss is to stay there."""

OPENING_LEVEL = 0.05
"""That one of them which the figure shows."""


def opening_page() -> Path:
    """Return the file with which the book's front page opens: :func:`opening`, written down."""
    return results.root().with_name("opening.md")


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
    costs = {order: named(order).cost(curve) for order in (*ORDERS, tail)}
    times = {order: f"{cost / costs['forward']:,.0f}" for order, cost in costs.items()}
    backward = findings.sentence(
        [
            findings.varies(table, quantity, half, ORDERS),
            findings.stays_below(table, quantity, LEVELS, ORDERS),
        ]
    )
    ending = findings.sentence([findings.varies(table, quantity, half, ("forward", tail))])
    seed, below = _stays(table, tail)
    told = ", ".join(
        f"{order} from step {step:,.0f} on" if np.isfinite(step) else f"{order} not by the end"
        for order, step in below.items()
    )
    words = (
        f"**{what}, one example a step, {steps:,} steps.** {backward} How low such a path comes to "
        "stand is chance, one draw for each seed: at the end of an epoch no order is lower in "
        "expectation ({prf:ref}`prop-same-law`). The whole backward curve costs "
        f"{times['backward']} times as many steps. {ending} That order goes forward and always "
        f"applies the same batches last; its whole curve costs {times[tail]} times as many steps "
        "as forward ({doc}`chapters/fixed-ending`)."
    )
    caption = (
        f"{what}. Above: the training loss of seed {seed}. Marks: from where it stays below "
        f"{OPENING_LEVEL:.0%} of its start, the dotted line ({told}). Below: how many times less "
        "than forward the training loss varies about its trend, over the second half of the run, "
        "against the number of last batches that stay the same; the last marker is the backward "
        f"order. Bars: 95 % intervals over seeds. From `book/results/{study.name}`; `make picture` "
        "draws it."
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
    path = table[(table["seed"] == seed) & table["order"].isin([*ORDERS, tail])]
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
    length = experiments.get(f"rivals-figure-{OPENS_WITH}").size("paper").parameters.length
    tail = f"tail({length})"
    table = runs.stored(f"endings-figure-{OPENS_WITH}")
    counts = table.groupby(["seed", "order"])["step"].nunique().unstack(fill_value=0)
    counts = counts.reindex(columns=[*ORDERS, tail], fill_value=0)
    complete = counts.index[(counts == len(size.recorded())).all(axis=1)]
    return table[table["seed"].isin(complete)], tail


def _stays(table: pd.DataFrame, tail: str) -> tuple[int, dict[str, float]]:
    """Return the first seed, and from which step on each of its paths stays below the level."""
    seed = int(table["seed"].min())
    paths = table[table["seed"] == seed].pivot(index="step", columns="order", values="train_loss")
    below = {}
    for order in ("forward", tail, "backward"):
        above = ~(paths[order] <= OPENING_LEVEL * paths[order].iloc[0])
        after = paths.index[np.flatnonzero(above)[-1] + 1 :]
        below[order] = float(after[0]) if len(after) else np.nan
    return seed, below


# What to do


def page() -> Path:
    """Return the file that the book's front page includes: :func:`advice`, written down."""
    return results.root().with_name("advice.md")


def advice() -> str:
    """Return when the order of iteration is worth a thought, and what does as much for less.

    A list in Markdown, with numbers from the stored results of preset ``paper``.
    """
    return f"{section_5.sentences()}\n- {remedies.sentence()}\n"


# What the pilot found


class Finding(NamedTuple):
    """A finding of the pilot runs, each of them on one to five seeds.

    Parameters
    ----------
    words
        What was found.
    judge
        Returns whether the stored results confirm it, or None where they leave it open, and what
        they say; or None if they are missing.
    """

    words: str
    judge: Callable[[], tuple[bool | None, str] | None]


def pilot() -> pd.DataFrame:
    """Return whether the stored results of the paper's setting confirm what the pilot found.

    Returns
    -------
    pandas.DataFrame
        ``finding``, ``verdict`` (``"confirmed"``, ``"refuted"``, ``"undecided"`` where an interval
        over seeds leaves it open or one seed gives none, or ``"not yet run"``) and ``evidence``,
        one row for each of :data:`FINDINGS`.
    """
    rows = []
    for finding in FINDINGS:
        found = finding.judge()
        holds, evidence = found or (None, "")
        verdict = {True: "confirmed", False: "refuted", None: "undecided"}[holds]
        rows.append(
            {
                "finding": finding.words,
                "verdict": verdict if found else "not yet run",
                "evidence": evidence,
            }
        )
    return pd.DataFrame(rows)


def _run(name: str, **changes: str) -> dict[str, Any] | None:
    """Return what became of a variant at preset paper, or None if it was not run."""
    found, *_ = _outcomes(name, "paper", changes)
    return None if found["state"] == "not yet run" else found


def _regressions_calmer() -> tuple[bool | None, str] | None:
    found = {name: _run(name) for name in ("figure-4", "figure-5", "figure-6")}
    if None in found.values():
        return None
    sides = [_below(_NOT_CALMER, run) for run in found.values()]
    return _all(sides), "; ".join(f"{name}: {_calmer(run)}" for name, run in found.items())


def _normal_weights_diverge() -> tuple[bool | None, str] | None:
    found = {init: _run("figure-4", init=init) for init in ("lecun", "he")}
    if None in found.values():
        return None
    holds = all(run["forward_diverged"] == run["run"] for run in found.values())
    return holds, "; ".join(f"{init}: {_diverged(run)}" for init, run in found.items())


def _backward_survives() -> tuple[bool | None, str] | None:
    run = _run("figure-4", init="lecun")
    return run and (run["backward_diverged"] == 0, _diverged(run))


def _nothing_learned() -> tuple[bool | None, str] | None:
    run = _run("figure-7", init="pytorch")
    return run and (run["forward_left"] > 0.99, f"{run['forward_left']:.1%} of the loss is left")


def _mlp_calmer() -> tuple[bool | None, str] | None:
    run = _run("figure-7")
    return run and (_below(_NOT_CALMER, run), _calmer(run))


def _mlp_no_better() -> tuple[bool | None, str] | None:
    complete = _last_window(
        runs.stored("figure-7"), experiments.get("figure-7").size("paper").windows
    )
    if complete is None:
        return None
    per_seed = stability.fluctuation(complete[0], "test_loss", *complete[1:])
    level = per_seed.pivot(index="seed", columns="order", values="mean")
    lower = int((level["backward"] < level["forward"]).sum())
    return lower < len(level), f"lower backward on {lower} of {len(level)} seeds"


def _slower_and_weaker() -> tuple[bool | None, str] | None:
    found = {init: _run("figure-7", init=init) for init in ("he", "lecun", "glorot")}
    if None in found.values():
        return None
    he, *others = found.values()
    slower = all(run["forward_left"] > he["forward_left"] for run in others)
    weaker = [_below(run, he) for run in others]
    return _all([slower, *weaker]), "; ".join(
        f"{init}: {run['forward_left']:.0%} of the loss left, {_calmer(run)}"
        for init, run in found.items()
    )


def _standardised_stronger() -> tuple[bool | None, str] | None:
    found = {scaling: _run("figure-7", scaling=scaling) for scaling in ("unit", "standardised")}
    if None in found.values():
        return None
    return _below(found["unit"], found["standardised"]), "; ".join(
        f"{scaling}: {_calmer(run)}" for scaling, run in found.items()
    )


def _resnet_not_calm() -> tuple[bool | None, str] | None:
    run = _run("figure-2")
    return run and (_below(run, _NOT_CALMER), _calmer(run))


def _resnet_moves_further() -> tuple[bool | None, str] | None:
    apart = _apart()
    if apart is None:
        return None
    ratio = (apart["backward"] / apart["forward"]).groupby("seed").apply(_mean)
    return _above_one(ratio), f"backward divided by forward: {_told(ratio)}"


def _group_moves_less() -> tuple[bool | None, str] | None:
    batch, group = _apart(), _apart(normalisation="group")
    if batch is None or group is None:
        return None
    means = [each["backward"].groupby("seed").apply(_mean) for each in (batch, group)]
    ratio = (means[0] / means[1]).dropna()
    return _above_one(ratio), f"distance with batch divided by group normalisation: {_told(ratio)}"


def _group_calmer() -> tuple[bool | None, str] | None:
    run = _run("figure-2", normalisation="group")
    return run and (_below(_NOT_CALMER, run), _calmer(run))


FINDINGS = (
    Finding(
        "The three regressions are calmer backward, with PyTorch's initialisation.",
        _regressions_calmer,
    ),
    Finding(
        "With LeCun's or He's normal weights the forward run on x² diverges.",
        _normal_weights_diverge,
    ),
    Finding("With LeCun's weights the backward run on x² does not.", _backward_survives),
    Finding(
        "The MLP on Fashion-MNIST learns nothing from PyTorch's initialisation.", _nothing_learned
    ),
    Finding("From He's, it is calmer backward on every seed.", _mlp_calmer),
    Finding("Its level is no better for it: not lower backward on every seed.", _mlp_no_better),
    Finding(
        "From LeCun's and Glorot's it learns more slowly, and backward is less of a gain in calm.",
        _slower_and_weaker,
    ),
    Finding("With standardised inputs it is more of a gain.", _standardised_stronger),
    Finding("The ResNet-18 with batch normalisation is no calmer backward.", _resnet_not_calm),
    Finding(
        "Its consecutive backward iterates lie further apart in θ than the forward ones.",
        _resnet_moves_further,
    ),
    Finding("With group normalisation they lie less far apart.", _group_moves_less),
    Finding("With group normalisation the ResNet-18 is calmer backward.", _group_calmer),
)
"""What the pilot found, in the order in which it was looked at."""


def _apart(**changes: str) -> pd.DataFrame | None:
    """Return how far apart consecutive iterates of Figure 2 lie in theta: a column an order."""
    motion = _in_both(runs.stored("motion-figure-2", **changes))
    if motion.empty:
        return None
    return motion.pivot(index=["seed", "step"], columns="order", values="moved")


_NOT_CALMER = {"low": 1, "high": 1, "seeds": intervals.FEWEST}
"""A ratio of spreads that says nothing."""


def _below(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool | None:
    """Return whether a ratio of spreads is below another.

    None where their intervals overlap, or the seeds of one are too few.
    """
    if min(one["seeds"], other["seeds"]) < intervals.FEWEST:
        return None
    if one["high"] < other["low"]:
        return True
    return False if one["low"] > other["high"] else None


def _all(sides: list[bool | None]) -> bool | None:
    """Return whether all hold; None where none of them fails, but some are open."""
    return None if None in sides and False not in sides else all(sides)


def _mean(values: pd.Series) -> float:
    return stability.geometric_mean(values)[0]


def _above_one(ratios: pd.Series) -> bool | None:
    """Return whether ratios are above 1, one for each seed; None where the seeds leave it open."""
    verdict = intervals.judge({"": intervals.of_seeds(np.log(ratios))}).verdict
    return {"reproduced": True, "contradicted": False}.get(verdict)


def _told(ratios: pd.Series) -> str:
    mean, *ends = stability.geometric_mean(ratios)
    words = f"{stability.rounded(mean)}{stability.interval(*ends)}"
    return f"{words}, {stability.counted(len(ratios), 'seed')}"


def _calmer(run: dict[str, Any]) -> str:
    if not run["seeds"]:
        return f"diverged on all of {run['run']} seeds"
    interval = f" ({run['low']:.2g} to {run['high']:.2g})" if np.isfinite(run["low"]) else ""
    return f"calmer {run['ratio']:.2g} times{interval}, on {run['calmer']} of {run['run']} seeds"


def _diverged(run: dict[str, Any]) -> str:
    counts = ", ".join(f"{order} on {run[f'{order}_diverged']}" for order in ORDERS)
    return f"diverged {counts} of {run['run']} seeds"
