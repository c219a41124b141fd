"""What the figures draw: the data in the lines, not the pixels."""

import io
import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.text import Text

from revlib import figures
from revlib.figures.colours import BACKWARD, FORWARD, OTHER, PALETTE

QUANTITIES = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


@pytest.fixture(autouse=True)
def look():
    """Draw with the book's look, off screen, and leave no trace of it."""
    plt.switch_backend("agg")
    with mpl.rc_context():
        figures.theme()
        yield
        plt.close("all")


def learning(seeds=(0, 1), orders=("forward", "backward"), steps=range(0, 101, 10)):
    """Return a table of made-up learning curves, every value of them different."""
    index = pd.MultiIndex.from_product(
        [seeds, orders, list(steps)], names=["seed", "order", "step"]
    )
    table = index.to_frame(index=False)
    values = np.random.default_rng(0).uniform(0.5, 2, (len(table), len(QUANTITIES)))
    return table.join(pd.DataFrame(values, columns=QUANTITIES))


def lines(ax):
    """Return the lines of a panel that show an order, by its name."""
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def contrast(colour, page):
    """Return the contrast of two colours, from 1 to 21 (WCAG 2.2)."""
    values = np.array([to_rgb(colour), to_rgb(page)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    low, high = np.sort(linear @ [0.2126, 0.7152, 0.0722])
    return (high + 0.05) / (low + 0.05)


def turned(colour, page="#121212"):
    """Return what a dark page makes of a colour: CSS's invert, hue-rotate by half, and screen."""
    grey = np.array([0.213, 0.715, 0.072])
    inverted = 1 - np.array(to_rgb(colour))
    rotated = np.clip(2 * grey @ inverted - inverted, 0, 1)
    return 1 - (1 - rotated) * (1 - np.array(to_rgb(page)))


def render(figure):
    """Draw the figure as the notebooks do; a figure that cannot be drawn raises here.

    Nor may it be wider than can be read on a phone, or paler than can be seen on either page.
    """
    assert figure.get_figwidth() <= 6
    for part in figure.findobj(lambda each: isinstance(each, Line2D | Text)):
        least = 4.5 if isinstance(part, Text) else 3
        if part.get_visible() and part.get_alpha() is None and part.axes is not None:
            in_grid = part in {*part.axes.get_xgridlines(), *part.axes.get_ygridlines()}
            assert in_grid or contrast(part.get_color(), "white") >= least, part
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    assert plt.imread(io.BytesIO(buffer.getvalue())).shape[1] <= 6.6 * 200, "nothing sticks out"
    return buffer.getvalue()


def test_curves_draw_the_table():
    table = learning()
    figure = figures.curves(table.sample(frac=1, random_state=0))
    render(figure)
    assert len(figure.axes) == 4 * 2, "a large panel for each quantity, and a small one below it"
    grid = np.reshape(figure.axes, (4, 2))
    for row, column in zip(grid, QUANTITIES, strict=True):
        assert row[0].get_ylabel() == column.replace("_", " ")
        large, small = (ax.get_position() for ax in row)
        assert large.height > 2 * small.height
        assert large.y0 > small.y1
        for ax, seed in zip(row, (0, 1), strict=True):
            assert set(lines(ax)) == {"forward", "backward"}
            for order, line in lines(ax).items():
                path = table[(table["seed"] == seed) & (table["order"] == order)]
                np.testing.assert_array_equal(line.get_xdata(), path["step"])
                np.testing.assert_array_equal(line.get_ydata(), path[column])
            assert not ax.texts
            assert ax.get_title() == f"seed {seed}"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["forward", "backward"]


def test_curves_draw_the_columns_that_are_there_or_asked_for():
    table = learning(seeds=(3,)).drop(columns=["train_accuracy", "test_accuracy"])
    labels = [ax.get_ylabel() for ax in figures.curves(table).axes]
    assert labels == ["train loss", "test loss"]
    (ax,) = figures.curves(table, ["test_loss"]).axes
    assert ax.get_ylabel() == "test loss"


def test_curves_take_concatenated_tables_and_uneven_paths():
    table = pd.concat([learning(seeds=(0,)), learning(seeds=(1,), orders=("backward",))])
    first, second = figures.curves(table, ["test_loss"]).axes
    assert set(lines(first)) == {"forward", "backward"}
    assert set(lines(second)) == {"backward"}


def test_runs_of_consecutive_steps_are_not_joined_with_the_grid():
    table = learning(seeds=(0,), steps=(0, 1, 10, 20, 21, 22, 23, 30))
    (ax,) = figures.curves(table, ["test_loss"]).axes
    gap = np.nan
    for line in lines(ax).values():
        np.testing.assert_array_equal(line.get_xdata(), [0, 1, 10, 30, gap, 20, 21, 22, 23])
        np.testing.assert_array_equal(np.isnan(line.get_ydata()), np.isnan(line.get_xdata()))
    (ax,) = figures.curves(learning(seeds=(0,), steps=range(9)), ["test_loss"]).axes
    assert all(list(line.get_xdata()) == list(range(9)) for line in lines(ax).values())


def test_a_wide_gap_in_the_grid_is_not_bridged():
    table = learning(seeds=(0,), steps=(0, 100, 105, 110, 115))
    (ax,) = figures.curves(table, ["test_loss"]).axes
    for line in lines(ax).values():
        np.testing.assert_array_equal(line.get_xdata(), [0, np.nan, 100, 105, 110, 115])


def test_large_is_a_seed_with_all_orders():
    table = learning(seeds=(0, 1, 2))
    table = table[(table["seed"] != 0) | (table["order"] == "backward")]
    titles = [ax.get_title() for ax in figures.curves(table, ["test_loss"]).axes]
    assert titles == ["seed 1", "seed 2", "0"]
    many = figures.curves(learning(seeds=range(8)), ["test_loss"]).axes
    assert [ax.get_title() for ax in many] == ["seed 0", *"1234567"]  # the words would touch


@pytest.mark.parametrize("rough", ["forward", "backward"])
def test_the_path_that_moves_less_lies_on_top(rough):
    table = learning(seeds=(0,))
    table["test_loss"] = np.where(table["order"] == rough, table["step"] % 20, 0.01 * table["step"])
    (ax,) = figures.curves(table, ["test_loss"]).axes
    assert max(lines(ax).items(), key=lambda each: each[1].get_zorder())[0] != rough


@pytest.mark.parametrize(("end", "scale"), [(0.02, "log"), (0.05, "linear"), (0.0, "linear")])
def test_a_loss_that_falls_far_has_a_logarithmic_axis(end, scale):
    table = learning(seeds=(0, 1))
    table["test_loss"] = np.where(table["step"] == 100, end, 1.0)
    figure = figures.curves(table, ["test_loss", "test_accuracy"])
    assert [ax.get_yscale() for ax in figure.axes] == [scale, scale, "linear", "linear"]


def test_seeds_share_the_height_of_a_row_and_the_steps():
    grid = np.reshape(figures.curves(learning()).axes, (4, 2))
    for row in grid:
        assert row[0].get_ylim() == row[1].get_ylim()
    assert len({ax.get_xlim() for ax in grid.flat}) == 1


def test_every_step_is_marked_where_few_are_recorded():
    (ax,) = figures.curves(learning(seeds=(0,)), ["test_loss"]).axes
    assert {line.get_marker() for line in lines(ax).values()} == {"o", "s"}
    one, other = learning(seeds=(0,)), learning(seeds=(0,), steps=range(500))
    table = pd.concat([one[one["order"] == "forward"], other[other["order"] == "backward"]])
    (ax,) = figures.curves(table, ["test_loss"]).axes
    assert {line.get_marker() for line in lines(ax).values()} == {""}, "all are, or none"
    (ax,) = figures.curves(other, ["test_loss"]).axes
    assert {line.get_marker() for line in lines(ax).values()} == {""}


def test_orders_keep_their_style_whatever_else_is_drawn():
    def styles(orders):
        (ax,) = figures.curves(learning(seeds=(0,), orders=orders), ["test_loss"]).axes
        return {
            order: (to_rgb(line.get_color()), line.get_linestyle(), line.get_marker())
            for order, line in lines(ax).items()
        }

    pair = styles(("backward", "forward"))
    more = styles(("windowed(5)", "forward", "switch(50)", "backward"))
    assert list(more) == ["forward", "backward", "windowed(5)", "switch(50)"]
    assert {order: more[order] for order in pair} == pair
    for part in zip(*more.values(), strict=True):
        assert len({*part}) >= 3, "orders differ by colour, line style and marker"
    assert [to_rgb(color) for color in (FORWARD, BACKWARD, OTHER)] == [
        more[order][0] for order in ("forward", "backward", "windowed(5)")
    ]


@pytest.mark.parametrize("colour", [*PALETTE, "0.5", "black"])
def test_colours_are_seen_on_a_light_page_and_on_a_dark_one(colour):
    assert contrast(colour, "white") >= 3
    assert contrast(turned(colour), "#121212") >= 3


def test_text_is_read_on_a_dark_page():
    assert contrast(turned(mpl.rcParams["text.color"]), "#121212") >= 4.5


def diverged(value=np.inf):
    """Return curves of which seed 1 forward grows from step 20 and is lost from step 50 on."""
    table = learning()
    path = (table["seed"] == 1) & (table["order"] == "forward")
    table.loc[path & (table["step"] >= 20), ["train_loss", "test_loss"]] = 1e30
    table.loc[path & (table["step"] >= 50), ["train_loss", "test_loss"]] = value
    return table, path


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_divergence_is_shown(value):
    table, path = diverged(value)
    figure = figures.curves(table)
    render(figure)
    grid = np.reshape(figure.axes, (4, 2))
    for row, column in zip(grid, QUANTITIES, strict=True):
        calm, lost = row
        assert not calm.texts
        assert [text.get_text() for text in lost.texts] == [""], "a small panel has no room for it"
        unlabelled = [line for line in lost.lines if line.get_label().startswith("_")]
        vertical, crosses = unlabelled
        assert list(vertical.get_xdata()) == [50, 50]
        assert list(crosses.get_xdata()) == [50, 60, 70, 80, 90, 100]
        drawn = lines(lost)["forward"].get_ydata()
        np.testing.assert_array_equal(drawn[:5], table.loc[path, column][:5])
        assert np.isnan(drawn[5:]).all(), "accuracies of a lost network mean nothing"


def test_divergence_does_not_flatten_the_other_paths():
    table, path = diverged()
    low, high = figures.curves(table, ["test_loss"]).axes[0].get_ylim()
    calm = table.loc[~path, "test_loss"]
    assert low < calm.min() <= calm.max() < high < 10


def test_a_loss_that_is_not_drawn_tells_of_divergence_too():
    table, _ = diverged()
    ax = figures.curves(table, ["test_accuracy"]).axes[1]
    assert len(ax.texts) == 1


def test_a_path_that_comes_back_is_drawn_again():
    """Backward iterates do not depend on each other: one can be lost and the next one finite."""
    table = learning(seeds=(0,))
    table.loc[(table["order"] == "backward") & (table["step"] == 30), "test_loss"] = np.inf
    (ax,) = figures.curves(table, ["test_loss"]).axes
    assert [text.get_text() for text in ax.texts] == ["backward not\nfinite at 30"]
    drawn = lines(ax)["backward"].get_ydata()
    assert list(np.flatnonzero(np.isnan(drawn))) == [3]


def test_a_table_without_one_finite_value_is_drawn():
    table = learning(seeds=(0,))
    table[list(QUANTITIES)] = np.nan
    figure = figures.curves(table)
    render(figure)
    assert all(len(ax.texts) == 2 for ax in figure.axes)


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        (learning().iloc[:0], None),
        (learning().drop(columns="seed"), None),
        (learning()[["seed", "order", "step"]], None),
        (learning(), ["valid_loss"]),
    ],
)
def test_curves_say_what_they_need(table, columns):
    with pytest.raises(ValueError, match=r"nothing to draw.*needed are seed, order, step and"):
        figures.curves(table, columns)


def test_paths_draw_each_realisation_in_its_own_panel():
    generator = np.random.default_rng(0)
    iterates = {order: generator.normal(size=(21, 3)) for order in ("backward", "forward")}
    limits = np.array([0.1, 0.2, 0.3])
    figure = figures.paths(iterates, band=0.5, limits=limits)
    render(figure)
    assert len(figure.axes) == 3
    for r, ax in enumerate(figure.axes):
        assert list(lines(ax)) == ["forward", "backward"]
        for order, line in lines(ax).items():
            np.testing.assert_array_equal(line.get_xdata(), np.arange(21))
            np.testing.assert_array_equal(line.get_ydata(), iterates[order][:, r])
        (limit,) = [line for line in ax.lines if line.get_label().startswith("_")]
        assert list(limit.get_ydata()) == [limits[r], limits[r]]
        (band,) = ax.patches
        assert (band.get_y(), band.get_height()) == (-0.5, 1.0)


def test_paths_take_a_single_realisation():
    (ax,) = figures.paths({"forward": np.arange(5.0)}).axes
    np.testing.assert_array_equal(lines(ax)["forward"].get_ydata(), np.arange(5.0))
    assert not ax.patches


def test_laws_are_densities_over_the_normal_one():
    samples = {"forward": np.random.default_rng(0).normal(scale=0.5, size=2000)}
    figure = figures.laws(samples, std=0.5)
    render(figure)
    (ax,) = figure.axes
    (histogram,) = ax.patches
    expected, _ = np.histogram(samples["forward"], 40, (-2, 2), density=True)
    outline = histogram.get_xy()
    assert outline[:, 0].min() == -2
    assert outline[:, 0].max() == 2
    assert outline[:, 1].max() == pytest.approx(expected.max())
    x, density = lines(ax)["exact"].get_data()
    assert np.trapezoid(density, x) == pytest.approx(1, abs=1e-3)
    assert np.trapezoid(x**2 * density, x) == pytest.approx(0.25, rel=5e-3)


@pytest.mark.parametrize("log", [False, True])
def test_comparison_draws_formulas_as_lines_and_measurements_as_markers(log):
    x = np.arange(1.0, 6.0)
    exact = {"forward": (x, x**2), "exact": (x, x)}
    measured = {"forward": (x[:3], x[:3] ** 2), "backward": (x[:2], x[:2])}
    figure = figures.comparison(exact, measured, "n", "variance", log=log)
    render(figure)
    (ax,) = figure.axes
    drawn = [(line.get_label(), line.get_linestyle(), line.get_marker()) for line in ax.lines]
    assert drawn == [
        ("forward", "-", ""),
        ("exact", "-", ""),
        ("forward", "None", "o"),
        ("backward", "None", "s"),
    ]
    data = [*exact.values(), *measured.values()]
    for line, (x_values, y_values) in zip(ax.lines, data, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), x_values)
        np.testing.assert_array_equal(line.get_ydata(), y_values)
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["forward", "exact", "backward"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("n", "variance")
    assert ax.get_yscale() == ("log" if log else "linear")


def ratios():
    """Return made-up ratios of two quantities in two windows, each with its interval."""
    table = pd.DataFrame(
        [(q, w) for q in ("test_loss", "train_loss", "batch_loss") for w in ("early", "late")],
        columns=["quantity", "window"],
    )
    table["ratio"] = [1.5, 2.0, 0.5, 4.0, 3.0, 0.9]
    table["low"], table["high"] = table["ratio"] / 1.3, table["ratio"] * 1.4
    return table


def drawn_intervals(ax):
    """Return the intervals of a panel as rows of (left, right, height)."""
    segments = [segment for lines in ax.collections for segment in lines.get_segments()]
    return np.array([(*segment[:, 0], segment[0, 1]) for segment in segments if len(segment)])


def test_intervals_draw_one_line_for_each_ratio():
    table = ratios()[::2].reset_index(drop=True)
    figure = figures.intervals(table, "quantity", "times calmer", "window")
    render(figure)
    (ax,) = figure.axes
    one, points = ax.lines
    assert list(one.get_xdata()) == [1, 1]
    np.testing.assert_array_equal(points.get_data(), [table["ratio"], [0, 1, 2]])
    expected = np.column_stack([table["low"], table["high"], [0, 1, 2]])
    np.testing.assert_array_equal(drawn_intervals(ax), expected)
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "test loss",
        "train loss",
        "batch loss",
    ]
    assert ax.get_ylim() == (2.5, -0.5), "the first is on top"
    assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "times calmer")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["early"]


def test_the_parts_of_a_group_lie_beside_each_other():
    table = ratios()
    figure = figures.intervals(table, "quantity", "times calmer", group="window")
    render(figure)
    (ax,) = figure.axes
    found = lines(ax)
    assert list(found) == ["early", "late"]
    for (window, points), shift in zip(found.items(), (-1, 1), strict=True):
        part = table[table["window"] == window]
        np.testing.assert_array_equal(points.get_xdata(), part["ratio"])
        heights = points.get_ydata()
        assert (np.sign(heights - [0, 1, 2]) == shift).all()
        assert (np.abs(heights - [0, 1, 2]) < 0.25).all(), "nearer to its own line than to another"
        own = drawn_intervals(ax)[np.isin(drawn_intervals(ax)[:, 2], heights)]
        np.testing.assert_array_equal(own, np.column_stack([part["low"], part["high"], heights]))
    early, late = found.values()
    assert early.get_marker() != late.get_marker()
    assert to_rgb(early.get_color()) != to_rgb(late.get_color())
    assert [to_rgb(lines.get_color()[0]) for lines in ax.collections] == [
        to_rgb(early.get_color()),
        to_rgb(late.get_color()),
    ]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["early", "late"]


def test_long_words_of_a_legend_stand_below_each_other():
    table = ratios()
    table["window"] += " of the run, about a smooth trend"
    render(figures.intervals(table, "quantity", "times calmer", group="window"))


def test_an_interval_without_bounds_does_not_flatten_the_others():
    table = ratios()
    table.loc[0, ["low", "high"]] = 1e-9, 1e9
    (ax,) = figures.intervals(table, "quantity", "", group="window").axes
    low, high = ax.get_xlim()
    assert 0.05 < low < table["ratio"].min()
    assert table["ratio"].max() < high < 50
    assert [1e-9, 1e9] in drawn_intervals(ax)[:, :2].tolist(), "it goes on beyond the axis"


@pytest.mark.parametrize("ratio", [30.0, 0.03])
def test_one_is_always_on_the_axis(ratio):
    table = pd.DataFrame({"window": ["w"], "ratio": [ratio], "low": [ratio], "high": [ratio]})
    (ax,) = figures.intervals(table, "window", "", "window").axes
    low, high = ax.get_xlim()
    assert low < min(ratio, 1) < max(ratio, 1) < high


def test_one_seed_is_a_point_without_an_interval():
    table = ratios()[::2].reset_index(drop=True)
    table.loc[1, ["low", "high"]] = np.nan
    figure = figures.intervals(table, "quantity", "", "window")
    render(figure)
    (ax,) = figure.axes
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), table["ratio"])
    np.testing.assert_array_equal(drawn_intervals(ax)[:, 2], [0, 2])


def test_ratios_that_are_not_numbers_are_drawn_as_nothing():
    table = ratios()
    table[["ratio", "low", "high"]] = np.nan
    figure = figures.intervals(table, "quantity", "", group="window")
    render(figure)
    assert len(figure.axes[0].get_yticklabels()) == 3


def moving(steps=(6, 12, 18)):
    """Return made-up motion of two seeds, every value of it different."""
    table = learning(steps=steps)[["seed", "order", "step"]]
    quantities = ["contraction_rate", "step_length", "moved", "predictions_moved"]
    values = np.random.default_rng(0).uniform(0.1, 9, (len(table), len(quantities)))
    table = table.join(pd.DataFrame(values, columns=quantities))
    return table.assign(contraction_rate=table["contraction_rate"] - 4)


def test_motion_draws_a_line_for_each_seed_and_order():
    table = moving()
    figure = figures.motion(table.sample(frac=1, random_state=0))
    render(figure)
    table["moved_in_steps"] = table["moved"] / table["step_length"]
    columns = ("contraction_rate", "moved_in_steps", "predictions_moved")
    for ax, column in zip(figure.axes, columns, strict=True):
        paths = [line for line in ax.lines if not line.get_label().startswith("_")]
        assert len(paths) == 4
        drawn = {(line.get_label(), tuple(line.get_ydata())) for line in paths}
        assert drawn == {
            (order, tuple(path[column])) for (order, _), path in table.groupby(["order", "seed"])
        }
        assert all(list(line.get_xdata()) == [6, 12, 18] for line in paths)
        colours = {(line.get_label(), to_rgb(line.get_color())) for line in paths}
        assert len(colours) == len({colour for _, colour in colours}) == 2
        assert ax.get_xlabel() == "step $n$"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["forward", "backward"]


def test_motion_is_drawn_on_logarithmic_axes_but_for_the_rate_which_has_a_line_at_zero():
    rate, parameters, predictions = figures.motion(moving()).axes
    assert rate.get_yscale() == "linear"
    [zero] = [line for line in rate.lines if line.get_label().startswith("_")]
    assert list(zero.get_ydata()) == [0, 0]
    assert parameters.get_yscale() == predictions.get_yscale() == "log"


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_motion_of_what_does_not_move_or_has_diverged_is_drawn(value):
    table = moving()
    table[["contraction_rate", "moved", "predictions_moved"]] = value
    figure = figures.motion(table)
    render(figure)
    assert [ax.get_yscale() for ax in figure.axes] == ["linear"] * 3


def test_sweeps_draw_each_line_with_its_error_bars_and_one_look():
    x, mean, spread = (
        np.array([0.1, 0.2, 0.4]),
        np.array([1.0, 3.0, 2.0]),
        np.array([0.1, 0.2, 0.3]),
    )
    both = {"a": (x, mean, spread), "b": (2 * x, mean + 1, spread)}
    figure = figures.sweeps({"rate": both, "ratio": {"b": (x, mean, spread)}, "rest": both}, "y")
    render(figure)
    panels = figure.axes
    assert [ax.get_xlabel() for ax in panels] == ["rate", "ratio", "rest"]
    assert [panels[0].get_ylabel(), panels[2].get_ylabel()] == ["y", "y"]
    assert all(ax.get_xscale() == "log" for ax in panels)
    looks = []
    for ax, name, shift in ((panels[0], "b", 1), (panels[1], "b", 0), (panels[2], "b", 1)):
        (drawn,) = (one for one in ax.containers if one.get_label() == name)
        line, _, (bars,) = drawn.lines
        np.testing.assert_allclose(line.get_xdata(), x * (1 + shift))
        np.testing.assert_allclose(line.get_ydata(), mean + shift)
        lengths = [np.ptp(segment[:, 1]) for segment in bars.get_segments()]
        np.testing.assert_allclose(lengths, 2 * spread)
        looks.append((to_rgb(line.get_color()), line.get_marker()))
    assert len(set(looks)) == 1
    (other,) = (one for one in panels[0].containers if one.get_label() == "a")
    assert (to_rgb(other.lines[0].get_color()), other.lines[0].get_marker()) != looks[0]


def test_the_largest_figure_of_the_paper_embeds_small():
    table = learning(seeds=range(5), steps=range(2001))
    assert len(render(figures.curves(table))) < 1.5e6


def test_ticks_of_a_logarithmic_axis_leave_room_for_their_numbers():
    x = np.array([3.0, 10, 1100, 1400])
    (ax,) = figures.scaling({}, {"measured": (x, x)}, "maps", "growth").axes
    assert [text.get_text() for text in ax.get_xticklabels()] == ["3", "10", "1400"]


def rivals():
    """Return what three made-up trainings reach on two tasks and three seeds, and cost."""
    index = [
        (task, name, seed) for task in "ab" for name in ("forward", "EMA", "slow") for seed in "012"
    ]
    table = pd.DataFrame(index, columns=["task", "training", "seed"])
    values = np.random.default_rng(0).uniform(1, 9, (len(table), 2))
    table[["moves", "loss"]] = values
    return table.assign(last=1.0, path=np.where(table["training"] == "slow", 50.0, 1.0))


def test_costs_has_a_row_for_each_training_and_divides_by_the_forward_run():
    table = rivals()
    figure = figures.costs(table, {"moves": "fluctuation", "loss": "last loss"})
    render(figure)
    *panels, cost = figure.axes
    names = ["forward", "EMA", "slow"]
    assert [text.get_text() for text in panels[0].get_yticklabels()] == names
    for ax, quantity in zip(panels, ("moves", "loss"), strict=True):
        dots = [line for line in ax.lines if line.get_marker() in "os"]
        means = np.log(table[quantity]).groupby([table["task"], table["training"]]).mean()
        for dot, (task, name) in zip(dots, itertools.product("ab", names), strict=True):
            expected = np.exp(means[task, name] - means[task, "forward"])
            assert dot.get_xdata() == pytest.approx([expected])
            assert round(float(dot.get_ydata()[0])) == names.index(name)
        assert len({dot.get_marker() for dot in dots}) == 2
    spans = [list(line.get_xdata()) for line in cost.lines if line.get_marker() == "None"]
    assert spans.count([1, 50]) == 2


def test_a_training_that_diverged_on_a_seed_is_not_drawn():
    table = rivals()
    table.loc[(table["training"] == "EMA") & (table["seed"] == "0"), "loss"] = np.inf
    moves, loss, _ = figures.costs(table, {"moves": "", "loss": ""}).axes
    assert len(moves.lines) - len(loss.lines) == 2 * 2, "a marker and a line for each task"
