"""What the chapter on fixed endings shows of its studies: figures, tables and sentences."""

from __future__ import annotations

import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from revlib import experiments, figures, runs
from revlib.orders import backward, forward, named, tail
from revlib.runs.shown import Shown
from revlib.store import provenance
from revlib.verdicts import findings, fixed_ending, stability

SETTINGS = {"x²": 4, "cos 10x": 5, "x³": 6, "Fashion-MNIST": 7}
"""The number of the figure whose setting each is."""

COSTLY = {
    "ResNet-18, batch norm": ("endings-figure-2", {}),
    "ResNet-18, group norm": ("endings-figure-2", {"normalisation": "group"}),
    "VGG-19": ("endings-figure-8", {}),
}
"""The studies of convolutional networks, with what differs from their setting."""

LEVELS = {"cos 10x": (1.05, 1.0, 0.97), "Fashion-MNIST": (0.8, 0.6, 0.5, 0.4, 0.35, 0.3)}
"""Below which training losses paths are looked for, where it is not 0.2, 0.1, 0.05 and 0.02."""


class FixedEndingPage:
    """The chapter's studies, and what it shows of them.

    Parameters
    ----------
    preset
        ``sample`` computes on the spot; ``paper`` shows the settings of which every case is
        stored, and all at the sample where that is none.
    """

    def __init__(self, preset: str):
        figures.theme()
        self.preset = preset
        self.endings, self.rivals, self.nudges = map(self._shown, ("endings", "rivals", "nudges"))
        self.lengths = {
            what: fixed_ending.length(SETTINGS[what], each.preset)
            for what, each in self.endings.items()
        }
        self.calm = {what: _calm(each) for what, each in self.endings.items()}
        self.rivals_calm = {what: _calm(each) for what, each in self.rivals.items()}
        self.summaries, self.rivals_summaries = (
            {what: fixed_ending.summary(each).loc[list(of[what].size.cases)] for what, each in calm}
            for of, calm in (
                (self.endings, self.calm.items()),
                (self.rivals, self.rivals_calm.items()),
            )
        )
        self.grown = {what: fixed_ending.nudged(each.table) for what, each in self.nudges.items()}

    def _shown(self, kind: str) -> dict[str, Shown]:
        names = {what: f"{kind}-figure-{number}" for what, number in SETTINGS.items()}
        names = {what: name for what, name in names.items() if name in experiments.STUDIES}
        there = {what: name for what, name in names.items() if self._is_whole(name)}
        return runs.together(there if self.preset == "paper" and there else names, self.preset)

    def _is_whole(self, name: str) -> bool:
        """Tell whether every case of a study is stored at the preset."""
        study, table = experiments.get(name), runs.looks(name, self.preset)
        if table.empty:
            return False
        size = study.size(self.preset)
        if study.method.by_step:
            table = fixed_ending.calm(table, size.at[-1] // 2, size.at[-1])
        return {*size.cases} <= {*table["order"]}

    def finding(self) -> Markdown:
        """Say what was found, in a sentence a setting."""
        settings = stability.counted(len(self.calm), "setting")
        return Markdown(
            "**In short.** Let the same batches come last before every look: then the test loss "
            f"varies less than forward in {self._calmer_in()} of {settings}, and a look costs "
            "these few steps however long the training has been.\n\n"
            f"{self._of_endings()}"
        )

    def _calmer_in(self) -> int:
        """Return in how many settings the test loss varies less with the fixed ending."""
        sides = (
            findings.Times.of(each.set_index("order")["trend"].loc[[f"tail({self.lengths[what]})"]])
            for what, each in self.calm.items()
        )
        return sum(times.side == "above" for times in sides)

    def _of_endings(self) -> str:
        return self._calmer("tail({})", "backward")

    def _calmer(self, *orders: str) -> str:
        """Return how calm some orders are, whose names take the length of the ending."""
        return findings.listed(
            {
                what: fixed_ending.finding(each, [o.format(self.lengths[what]) for o in orders])
                for what, each in self.calm.items()
            }
        )

    def calm_by_length(self) -> Figure:
        """Draw how calm the curves are against how many maps stay the same."""
        measured = {}
        for what, each in self.summaries.items():
            step = self.endings[what].size.at[-1]
            lasting = {order: fixed_ending.fixed(named(order), step) for order in each.index}
            own = each[[lasting[o] > 0 and "reshuffled" not in o for o in each.index]]
            x, y = np.array([lasting[o] for o in own.index]), own["trend"].to_numpy()
            place = np.argsort(x)
            bars = np.abs(own[["trend_low", "trend_high"]].to_numpy().T - y)
            measured[what] = (x[place], y[place], np.nan_to_num(bars[:, place]))
        ends = np.array([1, max(x.max() for x, *_ in measured.values())])
        return figures.scaling(
            {"as forward": (ends, np.ones(2))},
            measured,
            "maps that stay the same at the end",
            "times calmer than forward",
        )

    def tables(self) -> Markdown:
        """Show all cases in numbers, and which settings are not there."""
        parts = [
            f"**{what}.** {self.endings[what].note}\n\n{fixed_ending.table_of(each)}"
            for what, each in self.summaries.items()
        ]
        if missing := [what for what in SETTINGS if what not in self.endings]:
            parts.append(f"*Not yet run* at this preset, or not to the end: {', '.join(missing)}.")
        return Markdown("\n\n".join(parts))

    def structure(self) -> Figure:
        """Draw the structure function of the first setting."""
        where, first = next(iter(self.endings.items()))
        last = first.size.at[-1]
        found = stability.structure(first.table, "test_loss", last // 2, last)
        names = ["forward", "backward", f"tail({self.lengths[where]})"]
        return figures.structure(found.loc[names])

    def sooner(self) -> Markdown:
        """Say from which step on each path stays below a level."""
        return Markdown(
            findings.listed(
                {
                    what: findings.sentence(
                        findings.stays_below(
                            each.table,
                            "train_loss",
                            LEVELS.get(what, (0.2, 0.1, 0.05, 0.02)),
                            ("forward", order),
                        )
                        for order in (f"tail({self.lengths[what]})", "backward")
                    )
                    for what, each in self.endings.items()
                }
            )
        )

    def growth(self) -> Figure:
        """Draw how far nudges have grown at the end of a backward chain."""
        series = {}
        for what, each in self.grown.items():
            own = each[each["order"] == "backward"].groupby("after")["growth"]
            by = own.agg(stability.geometric_mean)
            mean, low, high = np.array(by.tolist()).T
            bars = np.nan_to_num(np.abs([low - mean, high - mean]))
            series[what] = (by.index.to_numpy(), mean, bars)
        places = [x for x, *_ in series.values()]
        ends = np.array([min(x.min() for x in places), max(x.max() for x in places)])
        return figures.scaling(
            {"no growth": (ends, np.ones(2))},
            series,
            "maps that come after the change",
            "growth by the end",
        )

    def taken_in(self) -> Markdown:
        """Say what either order makes of a new batch, and where that was measured."""
        notes = "\n".join(f"- {what}: {each.note}" for what, each in self.nudges.items())
        return Markdown(f"{self._of_nudges()}\n\n{notes}")

    def _of_nudges(self) -> str:
        return findings.listed(
            {
                what: findings.sentence([fixed_ending.taken_in(each, self._nudged(what))])
                for what, each in self.grown.items()
            }
        )

    def _nudged(self, what: str) -> int:
        """Return the length of the ending before which the chains of a setting are nudged."""
        return fixed_ending.length(SETTINGS[what], self.nudges[what].preset)

    def contracted(self) -> Markdown:
        """Say by how much a fixed ending shrinks a change that comes before it, or does not."""
        return Markdown(
            findings.listed(
                {
                    what: fixed_ending.contracted(each, self._nudged(what))
                    for what, each in self.grown.items()
                }
            )
        )

    def growth_table(self) -> Markdown:
        """Show the growth of all nudges in numbers."""
        lines = [
            "| | chain | maps after the change | along a step | in a random direction |",
            "| --- | --- | --: | --: | --: |",
        ]
        for what, each in self.grown.items():
            for (order, after), own in each.groupby(["order", "after"]):
                cells = (
                    stability.rounded(stability.geometric_mean(own[q])[0])
                    for q in ("growth", "random")
                )
                lines.append(f"| {what} | {order} | {after} | {' | '.join(cells)} |")
        return Markdown("\n".join(lines))

    def controls(self) -> Markdown:
        """Say how calm the endings are whose sequence changes, or whose maps do."""
        return Markdown(self._calmer("reshuffled_tail({})", "newest_tail({})"))

    def rivals_figure(self, what: str) -> Figure:
        """Draw how calm the rivals are (``"trend"``), or how high their loss is (``"level"``)."""
        columns = {
            f"{what}{end}": name
            for end, name in (("", "ratio"), ("_low", "low"), ("_high", "high"))
        }
        parts = [
            each.drop(index="forward")
            .rename(columns=columns)[list(columns.values())]
            .assign(setting=where)
            for where, each in self.rivals_summaries.items()
        ]
        axis = {
            "trend": "times calmer than forward",
            "level": "mean test loss, in units of forward",
        }
        table = pd.concat(parts).rename_axis("rival").reset_index()
        return figures.intervals(table, "rival", axis[what], group="setting")

    def rivals_tables(self) -> Markdown:
        """Show all rivals in numbers, with what a look costs."""
        parts = []
        for what, each in self.rivals.items():
            m = each.size.parameters.length
            costs = ", ".join(f"{case} {n}" for case, n in fixed_ending.steps_a_look(m).items())
            parts.append(
                f"**{what}**, m = {m}. {each.note} Steps a look besides the forward run: "
                f"{costs}.\n\n{fixed_ending.table_of(self.rivals_summaries[what])}"
            )
        return Markdown("\n\n".join(parts))

    def own_batches(self) -> Markdown:
        """Show the loss on the batches of the ending, and on as many newest: geometric means."""
        lines = ["| | case | on the first batches | on the newest |", "| --- | --- | --: | --: |"]
        for what, each in self.rivals.items():
            last = each.table[each.table["step"] == each.table["step"].max()]
            for case in ("forward", "fixed ending", "cooldown"):
                own = last[last["order"] == case]
                first, newest = (
                    stability.geometric_mean(own[f"{q}_loss"])[0] for q in ("first", "newest")
                )
                lines.append(f"| {what} | {case} | {first:.3g} | {newest:.3g} |")
        return Markdown("\n".join(lines))

    def forgetting(self) -> Markdown:
        """Say what both orders know of the first batches and of the newest."""
        have = runs.compute if self.preset == "sample" else runs.looks
        return Markdown(
            findings.listed(
                {
                    what: fixed_ending.forgets(have(f"forgetting-figure-{number}", self.preset))
                    for what, number in SETTINGS.items()
                }
            )
        )

    def costs(self) -> None:
        """Print what the looks cost in each order, in maps."""
        for what, each in self.endings.items():
            looks, length = each.size.at, self.lengths[what]
            print(
                f"{what}: {len(looks)} looks cost {forward().cost(looks):,} maps forward, "
                f"{tail(length).cost(looks):,} with tail({length}), "
                f"{backward().cost(looks):,} backward"
            )

    def costly(self) -> Markdown:
        """Show what is stored of the convolutional networks."""
        return Markdown(
            "\n\n".join(
                f"**{what}.** {fixed_ending.costly(name, **changes)}"
                for what, (name, changes) in COSTLY.items()
            )
        )

    def summary(self) -> Markdown:
        """Say it all once more."""
        lower = findings.listed(
            {
                what: fixed_ending.rival(each, ["cooldown", "EMA"])
                for what, each in self.rivals_calm.items()
            }
        )
        of_endings, of_nudges, of_rivals = (
            next(iter(of.values())).preset for of in (self.endings, self.nudges, self.rivals)
        )
        return Markdown(
            f"A fixed ending and the whole backward chain (preset {of_endings}):\n\n"
            f"{self._of_endings()}\n\nThe same maps in changing sequence, and the newest maps:\n\n"
            f"{self.controls().data}\n\nWhy a short ending can be calmer (preset {of_nudges}):\n\n"
            f"{self._of_nudges()}\n\nWhat the rivals do to the loss (preset {of_rivals}):\n\n"
            f"{lower}\n\n"
            "Use a fixed ending to compare looks at a model trained at a constant rate, within an "
            "epoch. Do not use it to lower the loss: it has the law of forward training, and "
            "averages and cooldowns cost no more."
        )

    def provenance(self) -> Markdown:
        """Say where the numbers come from."""
        return Markdown(provenance.line(preset=next(iter(self.endings.values())).preset))


def _calm(shown: Shown) -> pd.DataFrame:
    """Return how calm each case is over the second half, as far as it is recorded in full."""
    return fixed_ending.calm(shown.table, shown.size.at[-1] // 2, shown.size.at[-1])
