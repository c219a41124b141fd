"""The figures of the book, all with one look.

Call `theme` once, then any of the functions that draw. Each of them returns the matplotlib figure
and shows nothing by itself. An order of iteration has the same colour, line style and marker
everywhere, so that it can be told without colour too.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from revlib.figures.colours import BACKWARD, FORWARD, OTHER, PALETTE

_WIDTH = 6.0
"""Width of a figure, in inches: with the theme's font it can be read on a page and on a phone."""

# Forward is thin and solid, backward thick and dashed: whichever lies on top, both are seen.
_STYLES = {
    "forward": {"color": FORWARD, "linestyle": "-", "linewidth": 1.0, "marker": "o"},
    "backward": {"color": BACKWARD, "linestyle": (0, (3, 2)), "linewidth": 1.7, "marker": "s"},
    "exact": {"color": "black", "linestyle": "-", "linewidth": 1.2, "marker": ""},
    "bound": {"color": "black", "linestyle": "--", "linewidth": 1.2, "marker": ""},
    "as forward": {"color": "0.4", "linestyle": ":", "linewidth": 1.2, "marker": ""},
    "no growth": {"color": "0.4", "linestyle": ":", "linewidth": 1.2, "marker": ""},
}
_OTHER_STYLES = [
    {"color": OTHER, "linestyle": "-.", "linewidth": 1.6, "marker": "^"},
    {"color": PALETTE[3], "linestyle": ":", "linewidth": 2.0, "marker": "D"},
    {"color": PALETTE[4], "linestyle": (0, (6, 1, 1, 1, 1, 1)), "linewidth": 1.6, "marker": "v"},
    {"color": "black", "linestyle": (0, (1, 2)), "linewidth": 1.6, "marker": "P"},
]

_MARKED = 70
"""Where no path has more recorded steps, the large panel shows each by a marker."""

_WORDS_FIT = 5
"""Up to so many seeds the title of a small panel has room for a word beside the number."""


_FAR = 30
"""A loss that falls by more than this factor is drawn on a logarithmic axis."""


def theme() -> None:
    """Give all figures from now on the look of the book.

    Figures are drawn as bitmaps of 200 dots per inch, twice what a page shows: for curves of
    thousands of points that is several times smaller than vector graphics, and as crisp.
    """
    sns.set_theme(
        style="ticks",
        palette=PALETTE,
        rc={
            "figure.dpi": 200,
            "savefig.dpi": 200,
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "axes.labelsize": 11,
            "axes.titlesize": 11,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
            "legend.fontsize": 11,
            "legend.frameon": False,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "lines.markersize": 3.5,
        },
    )


def curves(table: pd.DataFrame, columns: Sequence[str] | None = None) -> Figure:
    """Draw learning curves, one line per order: one seed large, the others small below it.

    Seeds are never averaged: how calm a single path is would be lost in the mean. All panels of a
    quantity have the same axes. Where few steps are recorded, each is marked; a run of consecutive
    steps is not joined with the grid around it, nor are the two sides of a wide gap. Of two paths
    the one that moves less from step to step lies on top. A path is not drawn where it is not
    finite; a vertical line marks the first step at which a loss was not finite, and a cross at the
    top every such step. The height of a panel then suits the paths that stayed finite. A loss that
    falls far has a logarithmic axis.

    Parameters
    ----------
    table
        One row per seed, order and step, as `revlib.trajectory` returns it: columns ``seed``,
        ``order``, ``step`` and the quantities. Several tables can be concatenated.
    columns
        The quantities to draw, two beside each other. The default is all of the training and
        test loss and accuracy that the table has.

    Raises
    ------
    ValueError
        If the table is empty, or a column is not in it.
    """
    if columns is None:
        known = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
        columns = [column for column in known if column in table]
    missing = [name for name in ("seed", "order", "step", *columns) if name not in table]
    if missing or not len(table) or not len(columns):
        raise ValueError(
            f"There is nothing to draw: the table has {len(table)} rows and the columns "
            f"{', '.join(map(str, table.columns))}; needed are seed, order, step and "
            f"{', '.join(columns) or 'at least one quantity'}."
        )
    # Large is the first of the seeds with the most orders, and with the most steps of these.
    there = table.groupby("seed")["order"].agg(["nunique", "size"])
    seeds = list(there.sort_values(["nunique", "size"], ascending=False, kind="stable").index)
    marked = table.groupby(["seed", "order"]).size().max() <= _MARKED
    styles = _styles(table["order"].unique())
    losses = [column for column in table if column.endswith("_loss")]
    table = table.sort_values("step", ignore_index=True)
    judged = [c for c in {*columns, *losses} if not c.startswith("batch_")]  # none at the start
    table["finite"] = np.isfinite(table[judged].to_numpy(float)).all(axis=1)

    wide, heights = min(2, len(columns)), (3, 1)[: len(seeds)]
    rows = -(-len(columns) // wide)
    figure = plt.figure(figsize=(_WIDTH, 0.4 + rows * (0.5 + 0.6 * sum(heights))))
    grid = figure.add_gridspec(rows, wide)
    for place, column in enumerate(columns):
        cells = grid[place].subgridspec(
            len(heights), max(1, len(seeds) - 1), height_ratios=heights, wspace=0.1
        )
        large = figure.add_subplot(cells[0, :])
        large.set(xlabel="step $n$", ylabel=column.replace("_", " "))
        large.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        for number, seed in enumerate(seeds):
            ax = large
            if number:
                ax = figure.add_subplot(cells[1, number - 1], sharex=large, sharey=large)
                ax.tick_params(length=0, labelbottom=False, labelleft=False)
            told = number < (2 if len(seeds) <= _WORDS_FIT else 1)
            ax.set_title(f"seed {seed}" if told else f"{seed}")
            for order, style in styles.items():
                path = table[(table["seed"] == seed) & (table["order"] == order)]
                if len(path):
                    style = style if marked and ax is large else style | {"marker": ""}
                    _curve(ax, path, column, order, style, ax is large)
        if not table["finite"].all():
            large.set_ylim(_limits(table, column))
        elif column.endswith("loss") and 0 < _FAR * table[column].min() < table[column].max():
            _logarithmic(large.yaxis)
    return _with_legend(figure, _handles(figure.axes) | _handles(figure.axes[:1]))


def paths(
    iterates: Mapping[str, np.ndarray],
    band: float | None = None,
    limits: np.ndarray | None = None,
) -> Figure:
    """Draw iterates of a scalar problem against n, one panel per realisation of the noise.

    Parameters
    ----------
    iterates
        For each order the iterates 0 to N, shape (N + 1,), or (N + 1, R) for R realisations of the
        noise. All orders see the same noise.
    band
        Half-width of a grey band around zero, for example a standard deviation.
    limits
        Shape (R,): a point for each realisation, drawn as a horizontal line.
    """
    columns = {order: np.asarray(path).reshape(len(path), -1) for order, path in iterates.items()}
    count = next(iter(columns.values())).shape[1]
    figure, axes = plt.subplots(
        count,
        figsize=(_WIDTH, 0.9 + 1.6 * count),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for r, ax in enumerate(axes.flat):
        if band is not None:
            ax.axhspan(-band, band, color="0.92", zorder=0)
        if limits is not None:
            ax.axhline(limits[r], color="0.3", linewidth=1.0, linestyle=":")
        for order, style in _styles(columns).items():
            style = style | {"marker": ""}
            ax.plot(columns[order][:, r], label=order, **style)
        ax.set_ylabel(r"$\theta^{(n)}$")
        if count > 1:
            ax.set_title(f"noise {r + 1}", loc="right")
    axes.flat[-1].set_xlabel("step $n$")
    return _with_legend(figure)


def laws(samples: Mapping[str, np.ndarray], std: float) -> Figure:
    """Draw histograms of the iterates of each order over the normal density of mean zero.

    They have 40 bars over 4 standard deviations to each side.

    Parameters
    ----------
    samples
        For each order one number per realisation.
    std
        Standard deviation of the normal law that they are compared with; drawn as "exact".
    """
    figure, ax = plt.subplots(figsize=(_WIDTH, 3.2))
    edges = np.linspace(-4 * std, 4 * std, 41)
    styles = _styles([*samples, "exact"])
    for name, values in samples.items():
        color, linestyle = styles[name]["color"], styles[name]["linestyle"]
        ax.hist(
            values,
            edges,
            density=True,
            histtype="stepfilled",
            facecolor=(color, 0.15),
            edgecolor=color,
            linestyle=linestyle,
            linewidth=1.8,
            label=name,
        )
    x = np.linspace(-4 * std, 4 * std, 401)
    density = np.exp(-((x / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))
    ax.plot(x, density, label="exact", **styles["exact"])
    ax.set(xlabel=r"$\theta$", ylabel="density")
    return _with_legend(figure)


def comparison(
    exact: Mapping[str, tuple[np.ndarray, np.ndarray]],
    measured: Mapping[str, tuple[np.ndarray, ...]],
    xlabel: str,
    ylabel: str,
    log: bool = False,
) -> Figure:
    """Draw formulas as lines, and what was measured as markers on top of them.

    Parameters
    ----------
    exact, measured
        For each order the x and y values. A formula that belongs to no order is called
        ``"exact"``. What was measured may have standard errors too, one of them drawn to each side.
    xlabel, ylabel
        What the axes show.
    log
        Whether the y axis is logarithmic.
    """
    figure, ax = plt.subplots(figsize=(_WIDTH, 3.2))
    styles = _styles([*exact, *measured])
    handles = {}
    for name, (x, y) in exact.items():
        handles[name] = tuple(ax.plot(x, y, label=name, **(styles[name] | {"marker": ""})))
    for name, (x, y, *error) in measured.items():
        style = styles[name] | {"linestyle": "", "markersize": 6, "markerfacecolor": "none"}
        handles[name] = (*handles.get(name, ()), *ax.plot(x, y, label=name, **style))
        if error:
            ax.errorbar(x, y, *error, fmt="none", ecolor=style["color"], capsize=3)
    if log:
        ax.set_yscale("log")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return _with_legend(figure, handles)  # a line and its markers make one entry


def ratios(table: pd.DataFrame) -> Figure:
    """Draw how many times faster than the plain loop each contender of a benchmark is.

    The table is that of :func:`revlib.runs.benchmark.table`.
    """
    shown = table[table["contender"] != "plain"].reset_index(drop=True)
    names = list(shown["contender"].unique())
    workloads = list(shown["workload"].unique())
    figure, ax = plt.subplots(figsize=(_WIDTH, 0.9 + 0.75 * len(workloads)))
    for name, colour, marker in zip(names, PALETTE, "osD^v", strict=False):
        own = shown[shown["contender"] == name]
        shift = 0.22 * (names.index(name) - (len(names) - 1) / 2)
        ax.errorbar(
            own["ratio"],
            [workloads.index(workload) + shift for workload in own["workload"]],
            xerr=[own["ratio"] - own["lowest"], own["highest"] - own["ratio"]],
            fmt=marker,
            markersize=6,
            capsize=3,
            color=colour,
            label=name,
        )
    targets = shown.drop_duplicates("workload").dropna(subset="target")
    rows = [workloads.index(workload) for workload in targets["workload"]]
    ax.scatter(targets["target"], rows, marker="|", s=700, color="0.4", zorder=1)
    ax.axvline(1, color="0.5", linewidth=1.0, linestyle=":")
    ax.set_xscale("log")
    ticks = [0.5, 1, 2, 5, 10, 20]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_yticks(range(len(workloads)), workloads)
    ax.invert_yaxis()
    ax.set_xlabel("times as fast as the plain loop")
    return _with_legend(figure)


def live_parameters(table: pd.DataFrame) -> Figure:
    """Draw how many parameters of each layer meet data, and how many never do.

    The table is that of :func:`revlib.training.convolutions.census`.
    """
    figure, ax = plt.subplots(figsize=(_WIDTH, 0.9 + 0.2 * len(table)))
    places = range(len(table))
    ax.barh(places, table["live"] / 1e6, label="meet data")
    rest = (table["parameters"] - table["live"]) / 1e6
    ax.barh(places, rest, left=table["live"] / 1e6, label="meet padding only", hatch="//")
    ax.set_yticks(places, table["layer"])
    ax.invert_yaxis()
    ax.set_xlabel("million parameters")
    return _with_legend(figure)


def opening(
    paths: pd.DataFrame,
    quantity: str,
    level: float,
    below: Mapping[str, float],
    calm: pd.DataFrame,
) -> Figure:
    """Draw what going backward does: a loss along the paths of one seed, and calm against endings.

    Parameters
    ----------
    paths
        Rows of one seed: ``order``, ``step`` and the quantity.
    quantity
        Its column.
    level
        A part of its first value, drawn as a line.
    below
        For each order that is drawn the step from which it stays below; not a number for none.
    calm
        How many times less than forward it varies, with the ends of an interval: three columns,
        indexed by the number of last maps that stay the same.
    """
    figure, (above, under) = plt.subplots(2, 1, figsize=(_WIDTH, 5.6), height_ratios=(3, 2))
    styles = _styles(below)
    start = paths.sort_values("step")[quantity].iloc[0]
    for order, step in below.items():
        path = paths[paths["order"] == order].sort_values("step")
        style = styles[order] | {"marker": ""}
        above.plot(path["step"], path[quantity], label=order, **style)
        mark = {"marker": styles[order]["marker"], "color": style["color"], "zorder": 5}
        above.plot([step], [level * start], markersize=9, markeredgecolor="black", **mark)
    above.axhline(level * start, color="black", linestyle=":", linewidth=1.0)
    _logarithmic(above.yaxis)
    above.set(xlabel="step $n$", ylabel=quantity.replace("train_", "training ").replace("_", " "))
    x, (y, low, high) = calm.index.to_numpy(), calm.to_numpy().T
    bars = np.nan_to_num(np.stack([y - low, high - y]))
    under.errorbar(x, y, bars, color="black", marker="o", markersize=6, linestyle="", capsize=3)
    under.axhline(1, color="black", linestyle=":", linewidth=1.0)
    under.set_xscale("log")
    under.set_xticks(x, [f"{tick:g}" for tick in x])
    under.xaxis.minorticks_off()
    _logarithmic(under.yaxis)
    under.set(xlabel="last batches that stay the same", ylabel="times less than\nforward")
    return _with_legend(figure)


def growth(table: pd.DataFrame) -> Figure:
    """Draw the ``seconds`` that whole runs of each ``order`` took, against their ``steps``."""
    lines = {
        order: (own["steps"].to_numpy(), own["seconds"].to_numpy())
        for order, own in table.groupby("order", sort=False)
    }
    return scaling(lines, lines, "steps $N$, all of them recorded", "seconds")


def clouds(
    samples: Mapping[str, np.ndarray],
    centre: np.ndarray,
    covariance: np.ndarray,
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Draw :func:`points`, one panel per order, over the ellipses of a covariance.

    Parameters
    ----------
    samples, xlabel, ylabel
        As for :func:`points`.
    centre, covariance
        Mean, shape (2,), and covariance, shape (2, 2), of the law that the points are compared
        with; its ellipses at 1, 2 and 3 standard deviations are drawn.
    """
    figure = points(samples, xlabel, ylabel)
    turn = np.linspace(0, 2 * np.pi, 201)
    ellipse = np.linalg.cholesky(covariance) @ np.stack([np.cos(turn), np.sin(turn)])
    for ax in figure.axes:
        for radius in (1, 2, 3):
            ax.plot(*(centre[:, None] + radius * ellipse), **_STYLES["exact"])
        ax.set_aspect("equal")
    return figure


def scaling(
    exact: Mapping[str, tuple[np.ndarray, np.ndarray]],
    measured: Mapping[str, tuple[np.ndarray, ...]],
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Draw how quantities grow, on two logarithmic axes, where a power is a straight line.

    The parameters are those of `comparison`. The x axis has a tick at each of the measured x
    values, as far as there is room.
    """
    figure = comparison(exact, measured, xlabel, ylabel, log=True)
    (ax,) = figure.axes
    ax.set_xscale("log")
    ticks: list[float] = []
    values = sorted({value for x, *_ in measured.values() for value in x}, reverse=True)
    for value in values:
        if not ticks or np.log(ticks[0] / value) > 0.08 * np.log(values[0] / values[-1]):
            ticks.insert(0, value)
    ax.set_xticks(ticks, [f"{float(f'{tick:.4g}'):g}" for tick in ticks])
    ax.xaxis.minorticks_off()
    return figure


def structure(found: pd.DataFrame) -> Figure:
    """Draw a structure function of the test loss (:func:`revlib.verdicts.stability.structure`)."""
    known = {order: own.dropna() for order, own in found.iterrows()}
    lines = {order: (own.index.to_numpy(float), own.to_numpy()) for order, own in known.items()}
    return scaling(lines, lines, "lag τ, in steps", "change of the test loss in τ steps")


def plane(cloud: np.ndarray, forward: np.ndarray, backward: Sequence[np.ndarray]) -> Figure:
    """Draw iterates in the plane over the set they belong to: one forward, some backward paths.

    Parameters
    ----------
    cloud
        Points of the set, shape (M, 2), drawn as a grey ground in both panels.
    forward
        The iterates of one forward path, shape (N + 1, 2), in the left panel.
    backward
        Backward paths, each of shape (N + 1, 2), in the right panel. A star marks where a path
        ends, and its marker tells the paths apart.
    """
    spans = np.ptp(np.concatenate([cloud, forward, *backward]), axis=0)
    height = min(_WIDTH, 0.6 + _WIDTH / 2 * spans[1] / spans[0])
    figure, axes = plt.subplots(1, 2, figsize=(_WIDTH, height), sharex=True, sharey=True)
    for ax, name in zip(axes, ("forward", "backward"), strict=True):
        ax.scatter(*cloud.T, s=0.8, color="0.7", linewidths=0)
        ax.set_title(name, color=_STYLES[name]["color"])
        ax.set(aspect="equal", xlabel="first coordinate")
    axes[0].set_ylabel("second coordinate")
    axes[0].plot(*forward.T, **(_STYLES["forward"] | {"linewidth": 0.6}))
    for path, marker in zip(backward, itertools.cycle("s^Dv"), strict=False):
        axes[1].plot(*path.T, **(_STYLES["backward"] | {"linewidth": 0.9, "marker": marker}))
        end = axes[1].scatter(*path[-1], s=130, marker="*", color="black", zorder=3)
        end.set_edgecolor("white")
    return figure


def distributions(
    panels: Mapping[str, Mapping[str, np.ndarray]],
    log: Iterable[str] = (),
    values: str = "",
) -> Figure:
    """Draw empirical distribution functions: at x, the share of the values that are at most x.

    Parameters
    ----------
    panels
        For each panel, under its title, the samples that are drawn in it: for each order one
        number per run.
    log
        The titles of the panels whose x axis is logarithmic.
    values
        What the values are: the label of the x axes.
    """
    log = set(log)
    figure, axes = plt.subplots(1, len(panels), figsize=(_WIDTH, 3.2), sharey=True, squeeze=False)
    styles = _styles([name for samples in panels.values() for name in samples])
    for ax, (title, samples) in zip(axes.flat, panels.items(), strict=True):
        for name in (name for name in styles if name in samples):
            ax.ecdf(samples[name], label=name, **(styles[name] | {"marker": ""}))
        if title in log:
            ax.set_xscale("log")
        ax.set(title=title, xlabel=values)
    axes.flat[0].set_ylabel("share of runs")
    return _with_legend(figure)


def points(
    samples: Mapping[str, np.ndarray],
    xlabel: str,
    ylabel: str,
    styles: Mapping[str, str] | None = None,
) -> Figure:
    """Draw samples of points in a plane, one panel each and all on the same axes.

    Parameters
    ----------
    samples
        For each panel, under its title, the points, shape (R, 2).
    xlabel, ylabel
        What the axes show.
    styles
        For each panel the order whose colour and marker its points have. The default is the
        panel's title.
    """
    styles = styles or {title: title for title in samples}
    known = _styles(styles.values())
    columns = min(2, len(samples))
    rows = -(-len(samples) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(_WIDTH, 0.5 + 2.6 * rows), sharex=True, sharey=True, squeeze=False
    )
    for ax in axes.flat[len(samples) :]:
        ax.remove()
    for ax, (title, cloud) in zip(axes.flat, samples.items(), strict=False):
        style = known[styles[title]]
        ax.plot(*cloud.T, style["marker"], color=style["color"], markersize=1.5, alpha=0.5)
        ax.set_title(title)
    for ax in axes[-1]:
        ax.set_xlabel(xlabel)
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel)
    return figure


def weights(table: pd.DataFrame, baselines: Sequence[str], regularised: Sequence[str]) -> Figure:
    """Draw the losses of regularised trainings and of their baselines, one column for each c.

    Every seed is a line of its own. The axes hold what stays below the loss at the start; what
    climbs higher leaves the panel.

    Parameters
    ----------
    table
        As `revlib.verdicts.order_averaging.shown` returns it.
    baselines
        Trainings drawn in black and grey, each with a line style of its own.
    regularised
        Trainings drawn from a light colour to a dark one, in this order.
    """
    pieces, quantities = sorted(table["c"].unique()), ("train_loss", "test_loss")
    figure, axes = plt.subplots(
        len(quantities),
        len(pieces),
        figsize=(_WIDTH, 5.4),
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    dashes = ["-", (0, (4, 1)), (0, (1, 1))]
    styles = {
        name: {"color": str(0.25 * i), "linestyle": dashes[i % len(dashes)], "linewidth": 1.6}
        for i, name in enumerate(baselines)
    }
    _, *shades = sns.color_palette("flare", len(regularised) + 1)  # the lightest is too pale
    for name, color in zip(regularised, shades, strict=True):
        styles[name] = {"color": color, "linestyle": "-", "linewidth": 1.0}
    for row, quantity in zip(axes, quantities, strict=True):
        row[0].set_ylabel(quantity.replace("_", " "))
        for ax, c in zip(row, pieces, strict=True):
            for name, style in styles.items():
                own = table[(table["c"] == c) & (table["order"] == name)].sort_values("step")
                for _, path in own.groupby("seed"):
                    ax.plot(path["step"], path[quantity], label=name, **style)
        start = table.loc[table["step"] == 0, quantity].max()
        low = table.loc[table["order"].isin(styles), quantity].min()
        row[0].set_ylim(low - 0.05 * (start - low), start + 0.15 * (start - low))
    for ax, c in zip(axes[0], pieces, strict=True):
        ax.set_title(f"$c = {c}$")
    for ax in axes[-1]:
        ax.set_xlabel("step $n$")
    return _with_legend(figure)


def intervals(table: pd.DataFrame, label: str, xlabel: str, group: str) -> Figure:
    """Draw ratios with their confidence intervals, one line each, on a logarithmic axis around 1.

    Parameters
    ----------
    table
        Columns ``ratio``, ``low`` and ``high`` (not a number where there is no interval), and
        those named by the next parameters.
    label
        The column that names the lines, from top to bottom (underscores become spaces).
    xlabel
        What the ratios are of.
    group
        A column that parts the ratios of a line, each part with a colour and marker of its own.
    """
    lines, groups = (list(dict.fromkeys(table[column])) for column in (label, group))
    figure, ax = plt.subplots(figsize=(_WIDTH, 1.1 + 0.3 * max(len(lines), 2)))
    ax.axvline(1, color="0.5", linewidth=1)
    for position, name in enumerate(groups):
        part = table[table[group] == name]
        y = np.array([lines.index(line) for line in part[label]], float)
        y += 0.3 * ((position + 0.5) / len(groups) - 0.5)
        ends = part[["low", "high"]].to_numpy(float)
        ax.hlines(y, ends[:, 0], ends[:, 1], color=f"C{position}", linewidth=2)
        ax.plot(part["ratio"], y, "os^Dv"[position % 5], color=f"C{position}", label=name)
    _around_one(ax, table["ratio"])
    ax.set_yticks(range(len(lines)), [str(line).replace("_", " ") for line in lines])
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.set_xlabel(xlabel)
    return _with_legend(figure)


def motion(table: pd.DataFrame) -> Figure:
    """Draw what :func:`revlib.training.motion.motion` measures: one line a seed and order.

    On the left the contraction rate, with a line at zero; in the middle how far a step moves the
    iterate, in lengths of the first step of its chain; on the right how far it moves the
    predictions.
    """
    table = table.assign(moved_in_steps=table["moved"] / table["step_length"])
    panels = {
        "contraction_rate": "contraction rate",
        "moved_in_steps": r"one step in $\theta$",
        "predictions_moved": "in predictions",
    }
    figure, axes = plt.subplots(1, 3, figsize=(_WIDTH, 2.9))
    styles = _styles(table["order"].unique())
    for ax, (column, words) in zip(axes, panels.items(), strict=True):
        for order, style in styles.items():
            own = table[table["order"] == order].sort_values("step")
            for _, path in own.groupby("seed"):
                ax.plot(path["step"], path[column], label=order, **(style | {"marker": "o"}))
        ax.set_title(words, fontsize="medium")
        ax.set_xlabel("step $n$")
        if column == "contraction_rate":
            ax.axhline(0, color="0.5", linewidth=1)
        elif (table[column] > 0).any():
            _logarithmic(ax.yaxis)
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    return _with_legend(figure)


def quadrants(table: pd.DataFrame, x: str, y: str, xlabel: str, ylabel: str, logx: bool) -> Figure:
    """Draw one quantity against another: for each experiment its seeds, small, and their mean.

    The y axis is logarmithic and has a line at 1. On a logarithmic axis the mean is the geometric.

    Parameters
    ----------
    table
        One row per experiment and seed: ``experiment`` and the columns `x` and `y`.
    x, y
        The two quantities.
    xlabel, ylabel
        What the axes show.
    logx
        Whether the x axis is logarithmic too, with a line at 1, or has one at 0.
    """
    figure, ax = plt.subplots(figsize=(_WIDTH, 3.8))
    ax.axhline(1, color="0.5", linewidth=1)
    ax.axvline(1 if logx else 0, color="0.5", linewidth=1)
    for i, (name, seeds) in enumerate(table.groupby("experiment", sort=False)):
        color, marker = f"C{i}", "os^DvP*"[i]
        ax.plot(seeds[x], seeds[y], marker, color=color, markersize=4, alpha=0.5)
        ax.plot(
            _mean(seeds[x]) if logx else seeds[x].mean(),
            _mean(seeds[y]),
            marker,
            color=color,
            markersize=9,
            markeredgecolor="white",
            label=name.replace("-", " "),
        )
    for axis in (ax.xaxis, ax.yaxis) if logx else (ax.yaxis,):
        _logarithmic(axis)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return _with_legend(figure)


def variants(table: pd.DataFrame, xlabel: str) -> Figure:
    """Draw a ratio for each variant of each experiment, on a logarithmic axis around 1.

    Parameters
    ----------
    table
        As `revlib.verdicts.overview.sensitivity` returns it; several can be concatenated. Each
        experiment has a panel and each variant a line in it, the default in bold, with a marker for
        each quantity and statistic. Where a variant has no ratio, its state is written instead.
    xlabel
        What the ratios are of.
    """
    how = table["statistic"].map({"trend": ", about a trend", "change": ", step to step"})
    table = table.assign(series=table["quantity"].str.replace("_", " ") + how)
    panels = {name: part for name, part in table.groupby("experiment", sort=False)}
    series = list(dict.fromkeys(table["series"]))
    lines = {name: list(dict.fromkeys(part["variant"])) for name, part in panels.items()}
    figure, axes = plt.subplots(
        len(panels),
        figsize=(_WIDTH, 1.0 + sum(0.35 + 0.26 * len(names) for names in lines.values())),
        gridspec_kw={"height_ratios": [len(names) for names in lines.values()]},
        sharex=True,
        squeeze=False,
    )
    for ax, (name, part) in zip(axes.flat, panels.items(), strict=True):
        ax.axvline(1, color="0.5", linewidth=1)
        ax.set_title(name.replace("-", " "), loc="left")
        ax.set_yticks(range(len(lines[name])), lines[name])
        ax.set_ylim(len(lines[name]) - 0.5, -0.5)
        for label, default in zip(
            ax.get_yticklabels(), part.groupby("variant", sort=False)["default"].any(), strict=True
        ):
            label.set_fontweight("bold" if default else "normal")
        for position, label in enumerate(series):
            own = part[(part["series"] == label) & (part["state"] == "ran")]
            y = np.array([lines[name].index(variant) for variant in own["variant"]], float)
            y += 0.5 * ((position + 0.5) / len(series) - 0.5)
            color = f"C{position}"
            ax.hlines(y, own["low"], own["high"], color=color, linewidth=2)
            ax.plot(own["ratio"], y, "os^D"[position], color=color, label=label)
        place = ax.get_yaxis_transform()  # x in parts of the panel's width
        for variant, own in part.groupby("variant"):
            if "ran" not in set(own["state"]):
                states = [state for state in own["state"] if state != "not recorded"]
                state, height = (states or ["not recorded"])[0], lines[name].index(variant)
                ax.text(0.99, height, state, transform=place, ha="right", va="center")
    axes.flat[-1].set_xlabel(xlabel)
    _around_one(axes.flat[-1], table["ratio"])
    return _with_legend(figure) if len(series) > 1 else figure


def sweeps(
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]], ylabel: str
) -> Figure:
    """Draw how a quantity depends on parameters that were swept, two panels to a row.

    Parameters
    ----------
    panels
        For each panel, under the label of its x axis, its lines: the parameter (positive, on a
        logarithmic axis), and mean and standard deviation of the quantity, drawn as an error bar.
        A line that stands in several panels looks the same in all of them.
    ylabel
        What the quantity is.
    """
    rows = -(-len(panels) // 2)
    figure, axes = plt.subplots(
        rows, 2, figsize=(_WIDTH, 0.9 + 2.3 * rows), sharey=True, squeeze=False
    )
    names = dict.fromkeys(name for lines in panels.values() for name in lines)
    looks = {name: (f"C{i}", "os^Dv"[i % 5]) for i, name in enumerate(names)}
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    for ax, (xlabel, lines) in zip(axes.flat, panels.items(), strict=False):
        for name, (x, mean, spread) in lines.items():
            color, marker = looks[name]
            ax.errorbar(
                x, mean, spread, color=color, marker=marker, markersize=5, capsize=2, label=name
            )
        _logarithmic(ax.xaxis)
        ax.set_xlabel(xlabel)
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel)
    return _with_legend(figure)


def costs(table: pd.DataFrame, quantities: Mapping[str, str]) -> Figure:
    """Draw what trainings reach and what they cost: a row for each, a marker for each task.

    A quantity is divided by that of the forward run of the same task. Its marker stands at the
    geometric mean over the seeds, its line goes from the lowest seed to the highest. A cost has its
    marker at the last steps, and a line to the whole path, where that is more. All axes are
    logarithmic; a training that diverged on a seed, or does not move, is not drawn.

    Parameters
    ----------
    table
        One row per task, training and seed: ``task``, ``training``, ``last`` and ``path`` (costs,
        in forward runs) and the quantities.
    quantities
        The columns that are drawn, from left to right, with their words.
    """
    trainings, tasks = (list(dict.fromkeys(table[name])) for name in ("training", "task"))
    figure, axes = plt.subplots(
        1,
        len(quantities) + 1,
        figsize=(_WIDTH, 1.2 + 0.32 * len(trainings)),
        sharey=True,
    )
    for place, task in enumerate(tasks):
        look = {"color": PALETTE[place], "marker": "os^Dv"[place % 5], "markersize": 5}
        own = table[table["task"] == task].set_index(["training", "seed"])
        for row, name in enumerate(trainings):
            y = row + 0.6 * ((place + 0.5) / len(tasks) - 0.5)
            if name not in own.index:
                continue
            for ax, quantity in zip(axes, quantities, strict=False):
                ratios = own.loc[name, quantity] / _mean(own.loc["forward", quantity])
                if np.isfinite(ratios).all() and (ratios > 0).all():
                    ax.plot([ratios.min(), ratios.max()], [y, y], color=look["color"], linewidth=1)
                    ax.plot(_mean(ratios), y, label=task, **look)
            last, path = own.loc[name, ["last", "path"]].iloc[0]
            axes[-1].plot([last, path], [y, y], color=look["color"], linewidth=1)
            axes[-1].plot(last, y, **look)
    for ax, words in zip(axes, (*quantities.values(), "cost, in\nforward runs"), strict=True):
        ax.axvline(1, color="0.5", linewidth=1, zorder=0)
        ax.grid(axis="y", color="0.9")
        ax.set_xlabel(words)
        _logarithmic(ax.xaxis, ticks=3)
    axes[0].set_yticks(range(len(trainings)), trainings)
    axes[0].set_ylim(len(trainings) - 0.5, -0.5)
    return _with_legend(figure, columns=4)


def _mean(values: pd.Series) -> float:
    """Return the geometric mean."""
    return float(np.exp(np.log(values).mean()))


def cases(panels: Mapping[str, tuple[pd.DataFrame, str, str, str]]) -> Figure:
    """Draw the cases of several studies, a panel each: one line for each case and seed.

    Parameters
    ----------
    panels
        For each panel, under its title: the rows of a study, the column that is drawn, the words
        for the x axis, and the scales of the two axes, ``"linear linear"`` or ``"symlog log"``,
        say. The y axis says the column's name.
    """
    rows = -(-len(panels) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(_WIDTH, 3.4 * rows), squeeze=False)
    lines = ["-", (0, (4, 1)), ":", "-."]
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    for ax, (title, (table, quantity, words, scales)) in zip(
        axes.flat, panels.items(), strict=False
    ):
        for place, (name, case) in enumerate(table.groupby("order", sort=False)):
            style = {"color": PALETTE[place], "linestyle": lines[place], "linewidth": 1.2}
            for _, path in case.groupby("seed"):
                ax.plot(path["step"], path[quantity], **style)
            ax.plot([], [], label=name, **style)
        x, y = scales.split()
        ax.set(xscale=x, yscale=y, title=title, xlabel=words, ylabel=quantity)
        ax.legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.1))
    return figure


def _logarithmic(axis: XAxis | YAxis, ticks: int = 6) -> None:
    """Make an axis logarithmic, with plain numbers on it, at most so many."""
    (axis.axes.set_xscale if isinstance(axis, XAxis) else axis.axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(numticks=ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _around_one(ax: Axes, values: pd.Series) -> None:
    """Make the x axis logarithmic, with 1 on it, and as long as the values need."""
    _logarithmic(ax.xaxis)
    found = values[np.isfinite(values) & (values > 0)]
    if len(found):  # an interval from two seeds can be wider than any axis
        ax.set_xlim(min(found.min(), 1) / 4, max(found.max(), 1) * 4)


def _styles(orders: Iterable[str]) -> dict[str, dict]:
    """Return a style for each order, forward and backward first and the others as they come."""
    orders = list(dict.fromkeys(orders))
    others = [order for order in orders if order not in _STYLES]
    fixed = {order: style for order, style in _STYLES.items() if order in orders}
    return fixed | {order: _OTHER_STYLES[i % len(_OTHER_STYLES)] for i, order in enumerate(others)}


def _apart(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the grid of a path and then each run of consecutive steps, not a number between.

    The grid is taken apart where a gap in it is ten times as wide as others.
    """
    runs = np.split(np.arange(len(steps)), np.flatnonzero(np.diff(steps) > 1) + 1)
    grid = np.array([place for run in runs if len(run) < 3 for place in run], dtype=int)
    gaps = np.diff(steps[grid])
    grids = np.split(grid, np.flatnonzero(gaps > 10 * np.median(gaps)) + 1) if len(gaps) else [grid]
    pieces = [piece for piece in (*grids, *(run for run in runs if len(run) > 2)) if len(piece)]
    return tuple(
        np.concatenate([part for piece in pieces for part in ([np.nan], along[piece])])[1:]
        for along in (np.asarray(steps), np.asarray(values))
    )


def _curve(ax: Axes, path: pd.DataFrame, column: str, order: str, style: dict, named: bool) -> None:
    """Draw one quantity of one path, and where it is not finite."""
    steps, values = path["step"].to_numpy(), path[column].where(path["finite"])
    moved = np.nan_to_num(values.diff().abs().mean())
    ax.plot(*_apart(steps, values), label=order, zorder=2 + 1 / (1 + moved), **style)

    lost = steps[~path["finite"]]
    if not len(lost):
        return
    color, height = style["color"], 0.95 - 0.27 * len(ax.texts)
    top = ax.get_xaxis_transform()  # x in steps, y in parts of the panel's height
    ax.axvline(lost[0], color=color, linestyle=style["linestyle"], linewidth=1.0)
    ax.plot(lost, [height] * len(lost), "x", color=color, transform=top)
    late = lost[0] > steps[-1] / 2
    ax.annotate(
        f"{order} not\nfinite at {lost[0]}" if named else "",
        (lost[0], height),
        xycoords=top,
        xytext=(-4 if late else 4, -3),
        textcoords="offset points",
        ha="right" if late else "left",
        va="top",
        fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


def _limits(table: pd.DataFrame, column: str) -> tuple[float, float]:
    """Return the height of a row some of whose paths grow without bound.

    It holds the paths that stayed finite whole, and the others up to twice their start.
    """
    values = table.loc[table["finite"], ["seed", "order", column]]
    kept = table.groupby(["seed", "order"])["finite"].transform("all")[values.index]
    first = values.groupby(["seed", "order"])[column].transform("first")
    shown = values.loc[kept | (values[column] <= 2 * first), column]
    if shown.empty:
        return (0.0, 1.0)
    low, high = shown.min(), shown.max()
    margin = 0.05 * (high - low) or 1.0
    return (low - margin, high + margin)


def _handles(axes: Iterable[Axes]) -> dict[str, Artist]:
    """Return what the axes draw under a label, each label once."""
    return {
        label: handle
        for ax in axes
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }


def _with_legend(
    figure: Figure, handles: Mapping[str, Artist | tuple] | None = None, columns: int = 3
) -> Figure:
    """Put one legend above the whole figure, in fewer columns where its words are long."""
    handles = _handles(figure.axes) if handles is None else handles
    fitting = max(1, 66 // (6 + max(map(len, handles), default=0)))
    place = "outside upper center"
    figure.legend(handles.values(), handles, loc=place, ncols=min(columns, fitting))
    return figure
