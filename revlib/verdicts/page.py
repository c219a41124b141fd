"""The pages of the figures: what each of their chapters shows, in the reader's setting throughout.

A :class:`Page` holds the studies of a chapter as they are shown. Each section of the chapter is
one call, so that what a reader changes reaches all of them: curves, motion, audit and cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure

from revlib import figures, orders, runs
from revlib.runs import Shown
from revlib.store import provenance
from revlib.verdicts import claims, findings, stability, tables
from revlib.verdicts.effects import CRITERIA, Asked


class Page:
    """What a chapter about one or several figures shows.

    Parameters
    ----------
    chapter
        Its name, that of the notebook.
    names
        The studies: ``"figure-7"``, or several.
    preset, seeds, every, **changes
        As for :func:`revlib.runs.shown`. They reach everything on the page, but for `every`: motion
        is looked at in a few steps only.
    """

    def __init__(
        self,
        chapter: str,
        names: str | Iterable[str],
        preset: str,
        seeds: Iterable[int] | None = None,
        every: int | None = None,
        **changes: Any,
    ):
        figures.theme()
        self.chapter = chapter
        names = [names] if isinstance(names, str) else list(names)
        seeds = None if seeds is None else list(seeds)
        self.shown = {name: runs.shown(name, preset, seeds, every, **changes) for name in names}
        self._asked = (preset, seeds, changes)
        self._moved: dict[str, Shown] = {}

    @property
    def first(self) -> Shown:
        """The first of the studies."""
        return next(iter(self.shown.values()))

    @property
    def range(self) -> tuple[int, int]:
        """The steps over which a path is judged.

        Those of the claims about the first of the studies, at the preset that they are about; else
        the second half of what is recorded.
        """
        if self.first.preset == "paper":
            name = self.first.study.name
            for claim in claims.load():
                if claim.criterion == "calmer" and claim.experiment == (name,):
                    return claim.windows[0]
        last = int(self.first.table["step"].max())
        return last // 2, last

    def note(self) -> Markdown:
        """Say what is shown and why."""
        notes = self._lines({name: shown.note for name, shown in self.shown.items()})
        gap = " " if len(self.shown) == 1 else "\n\n"
        return Markdown(f"**What this page shows.**{gap}{notes.data}")

    def finding(self) -> Markdown:
        """Say in a few sentences for each setting what is found.

        Does the test loss vary less, stay below a level first, does the iterate still move?
        It is computed from what is shown, and says what is undecided, not recorded, or diverged.
        """
        found = {
            shown.setting.data: findings.sentences(self._found(name))
            for name, shown in self.shown.items()
        }
        if len(found) == 1:
            [words] = found.values()
            return Markdown(f"**In short.** {words}{self._small()}")
        return Markdown(f"**In short.**{self._small()}\n\n{findings.listed(found)}")

    def summary(self) -> Markdown:
        """Say in a list what is found in each setting, with its numbers, computed as `finding`."""
        lines = []
        for name, shown in self.shown.items():
            table, steps = shown.table, self._range(name)
            measured = [c for c in _CURVES if c in table]
            groups = [
                [findings.spreads(table, measured, steps, self.orders)],
                self._sooner(name),
                [self._moves(name)],
                [self._level(name), findings.diverged(table), self._price(name)],
            ]
            data = f"{shown.setting.data}: " if len(self.shown) > 1 else ""
            heads = ("Varies less?", "Below a level sooner?", "At rest?", "Level and cost.")
            lines += [
                f"{data}**{head}** {findings.sentence(parts)}"
                for head, parts in zip(heads, groups, strict=True)
                if parts
            ]
        return Markdown(findings.listed(lines))

    def choices(self) -> HTML:
        """Show the setting beside what the paper says of each choice."""
        table = self.first.study.choices(self.first.setting)
        return HTML(table.to_html(index=False, border=0))

    def curves(self, name: str | None = None, columns: list[str] | None = None) -> Figure:
        """Draw learning curves, one seed large; nothing is averaged."""
        return figures.curves(self._one(name).whole, columns)

    def late(self, name: str | None = None) -> Figure:
        """Draw the steps over which a path is judged alone, on the scale of what happens there."""
        whole = self._one(name).whole
        inside = whole["step"].between(*self._range(name or self.first.study.name))
        return figures.curves(whole[inside], ["test_loss", "test_accuracy"])

    def burst(self, name: str | None = None) -> Figure:
        """Draw a few consecutive steps: test loss, and loss on the batch applied last."""
        shown = self._one(name)
        inside = shown.table["step"].between(*shown.windows[-1])
        return figures.curves(shown.table[inside], ["test_loss", "batch_loss"])

    @property
    def orders(self) -> tuple[str, str]:
        """The two orders that are compared: the first and the last."""
        return self.first.size.cases[0], self.first.size.cases[-1]

    def spreads(self) -> pd.DataFrame:
        """Return by which factor the first order varies more, of all studies in one table.

        About a smooth trend over the :attr:`range`, and from each step to the next. The columns are
        those of :func:`revlib.verdicts.stability.ratios`.
        """
        found = []
        for shown in self.shown.values():
            for statistic in ("trend", "change"):
                ratios = stability.ratios(shown.table, [self.range], self.orders, statistic)
                if len(self.shown) > 1:
                    ratios["quantity"] = f"{shown.setting.data}, " + ratios["quantity"]
                found.append(ratios)
        return pd.concat(found, ignore_index=True)

    def ratios(self) -> Figure:
        """Draw :meth:`spreads`."""
        one, other = self.orders
        return figures.intervals(
            self.spreads(), "quantity", f"spread {one} / {other}", group="window"
        )

    def structure(self) -> Figure:
        """Draw how far the test loss moves in so many steps: root mean squares over the seeds.

        A jump that is taken back at once is seen at every lag alike; a drift grows with it.
        """
        found = stability.structure(self.first.table, "test_loss", *self.range)
        return figures.structure(found.loc[list(self.orders)])

    def levels(self) -> Markdown:
        """Say how much less the test loss varies with the second order, and at which level."""
        table, (first, last), (one, other) = self.first.table, self.range, self.orders
        ratios = stability.compare(table, "test_loss", first, last, "trend", self.orders)
        found = stability.fluctuation(table, "test_loss", first, last)
        level = found.pivot(index="seed", columns="order", values="mean")[[one, other]].dropna()
        points = int(found.loc[found["order"].isin(self.orders), "points"].min())
        lower = int((level[other] < level[one]).sum())
        fate = findings.sentence([findings.diverged(table)])
        if (ratios == 1).all():
            return Markdown(f"{self._no_ratio()} {fate}")
        varies = findings.less("the test loss", "varies", "about its trend", ratios, self.orders)
        return Markdown(
            f"Over steps {first:,} to {last:,}: {varies}. Seed by seed the ratio is "
            f"{', '.join(f'{ratio:.2g}' for ratio in ratios)}; from {points} recorded steps, each "
            f"has a standard error of {100 * stability.ratio_error(points):.0f}% or more. The mean "
            f"test loss over these steps is lower {findings.adverb(other)} on {lower} of "
            f"{stability.counted(len(level), 'seed')}: {level[other].mean():.3f} against "
            f"{level[one].mean():.3f} {findings.adverb(one)} on average. {fate}"
        )

    def falls(self) -> Markdown:
        """Say how far the mean test loss of both orders still falls over the :attr:`range`."""
        table, words = self.first.table, []
        first, last = self.range
        for order in self.orders:
            own = table[(table["order"] == order) & table["step"].between(first, last)]
            mean = own.groupby("step")["test_loss"].mean()
            words.append(f"from {mean.iloc[0]:.3f} to {mean.iloc[-1]:.3f} {findings.adverb(order)}")
        return Markdown(
            f"- **Level.** Over steps {first:,} to {last:,} the test loss, averaged over the "
            f"seeds, goes {' and '.join(words)}."
        )

    def elsewhere(self, order: str) -> Markdown:
        """Say whether the last order lies elsewhere than another one, and whether both rest there.

        In the test accuracy. Over the :attr:`range`, the distance of their means against how much
        they vary. Over its second half, seed by seed, against how far the one that moves more goes
        from its first to its last step.
        """
        asked = Asked((order, self.orders[1]), (self.range,))
        apart = CRITERIA["apart"].measure(self.first.table, "test_accuracy", asked)[""]
        times = findings.Times.of(np.exp(apart.groupby("seed").mean()))
        lies = {"above": "it does", "below": "it does not", "alike": "no further than it varies"}
        first, last = (sum(self.range) // 2, self.range[1])
        table = self.first.table
        inside = table[table["step"].between(first, last)]
        at = inside.pivot(index=["order", "seed"], columns="step", values="test_accuracy")
        at = at.dropna(axis=1)
        pair = [order, self.orders[1]]
        mean = at.mean(axis=1).unstack("order")
        moved = (at.iloc[:, -1] - at.iloc[:, 0]).abs().unstack("order")[pair].max(axis=1)
        gap = (mean[pair[0]] - mean[pair[1]]).abs()
        return Markdown(
            f"- **Elsewhere?** Does the path lie elsewhere {findings.adverb(self.orders[1])} than "
            f"{findings.adverb(order)}? {lies.get(times.side, 'undecided').capitalize()}: the test "
            f"accuracies lie {stability.factor(times.mean)} times as far apart as they vary "
            f"together {times.interval()}. Over steps "
            f"{first:,} to {last:,} their means "
            f"lie {', '.join(f'{each:.3f}' for each in gap)} apart, seed by seed; over the same "
            f"steps one of the two moves by {', '.join(f'{each:.3f}' for each in moved)}. It moves "
            f"further than they lie apart on {int((moved > gap).sum())} of "
            f"{stability.counted(len(gap), 'seed')}."
        )

    def training_losses(self) -> Markdown:
        """Compare the spread of the loss on fixed examples with that on the batch applied last."""
        first, last = self.range
        fixed, batch = (
            stability.compare(self.first.table, quantity, first, last, "trend", self.orders)
            for quantity in ("train_loss", "batch_loss")
        )
        times = [stability.geometric_mean(ratios)[0] for ratios in (fixed, batch)]
        one, other = map(findings.adverb, self.orders)
        if (fixed == 1).all() or (batch == 1).all():
            return Markdown(self._no_ratio())
        beyond = findings.Times.of(batch / fixed)
        words = {
            "above": "What the second number has beyond the first comes from the choice of "
            "examples, not from the order of iteration",
            "below": "So here the choice of examples makes the difference smaller",
            "alike": "So here the choice of examples makes no difference",
        }
        return Markdown(
            f"Over steps {first:,} to {last:,}, {one} the loss spreads {times[0]:.2g} times as "
            f"much about its trend as {other} on the fixed examples, and {times[1]:.2g} times as "
            "much on the batch applied last. "
            f"{words.get(beyond.side, 'Whether the choice of examples matters here is undecided')}"
            f": the second is {beyond} the first."
        )

    def motion(self, name: str | None = None) -> Figure:
        """Draw contraction rates, and how far one step moves the iterates and their predictions."""
        return figures.motion(self._motion(name).table)

    def motion_note(self) -> Markdown:
        """Show :meth:`motion` in numbers, a row an order, in the units of the figure."""
        words = {}
        for name in self.shown:
            shown = self._motion(name)
            at = shown.table[shown.table["step"] == shown.table["step"].max()]
            at = at.assign(
                steps=at["moved"] / at["step_length"], negative=at["contraction_rate"] < 0
            )
            rows = [
                f"| {order} | {own['contraction_rate'].mean():+.4f} "
                f"| {own['negative'].sum()} of {stability.counted(len(own), 'seed')} "
                f"| {own['steps'].mean():.3g} | {own['predictions_moved'].mean():.3g} |"
                for order, own in at.groupby("order")
            ]
            words[name] = "\n".join(
                [
                    f"{shown.note} At step {at['step'].max():,}, means over seeds (first steps "
                    "differ in length between chains; the summary compares the distances):",
                    "",
                    "| | contraction rate a map | negative on | one step moves the iterate, "
                    "in first steps of its chain | and its predictions |",
                    "| --- | --- | --- | --- | --- |",
                    *rows,
                ]
            )
        return self._lines(words)

    def verdicts(self) -> Markdown:
        """Judge the chapter's claims from the stored results of the paper's setting."""
        return Markdown(tables.of_chapter(self.chapter))

    def audit(self) -> Markdown:
        """Recompute a few of the points that are shown."""
        return self._lines({name: shown.audit() for name, shown in self.shown.items()})

    def cost(self) -> Markdown:
        """Say in what the page differs from the paper's run, and what it cost."""
        return self._lines(
            {name: f"{shown.deviations()}\n\n{shown.cost()}" for name, shown in self.shown.items()}
        )

    def provenance(self) -> Markdown:
        """Say where the numbers come from."""
        table = self.first.table
        return Markdown(
            provenance.line(
                preset=self.first.preset,
                **{name: value for name, value in self._asked[2].items() if value is not None},
                seeds=", ".join(map(str, sorted(set(table["seed"])))),
                recorded_steps=table["step"].nunique(),
            )
        )

    def _found(self, name: str) -> list[str]:
        """Return what is found in one of the settings: a clause a question."""
        table, steps = self.shown[name].table, self._range(name)
        return [
            *findings.steady(table, "test_loss", steps, self.orders),
            findings.varies(table, "test_loss", steps, self.orders),
            *self._sooner(name)[:1],
            self._moves(name),
            *([findings.diverged(table)] if len(stability.divergence(table)) else []),
        ]

    def _sooner(self, name: str) -> list[str]:
        """Return which order is sooner below the levels of each claim, in all of its readings."""
        table = self.shown[name].table
        return [
            "; ".join(
                findings.stays_below(table, each, claim.levels, self.orders)
                for each in claim.quantity
                if each in table
            )
            for claim in claims.load()
            if claim.criterion == "stays_below" and claim.experiment[0] == name
        ]

    def _moves(self, name: str) -> str:
        """Return how far one more step moves the iterate, of a motion in the size of the page."""
        motion = self._motion(name)
        table = self.shown[name].table
        same = motion.preset == self.shown[name].preset
        shown = motion.table if same else motion.table[:0]
        return findings.moves(shown, self.orders, int(table["step"].max()))

    def _small(self) -> str:
        """Say that what is shown is the sample, if it is."""
        if self.first.preset == "paper":
            return ""
        return " (This is the sample, a small version of the experiment.)"

    def _range(self, name: str) -> tuple[int, int]:
        """Return the steps over which one of the studies is looked at."""
        last = int(self.shown[name].table["step"].max())
        return self.range if self.range[1] <= last else (last // 2, last)

    def _level(self, name: str) -> str:
        """Say on how many seeds the second order has the lower mean test loss."""
        first, last = self._range(name)
        found = stability.fluctuation(self.shown[name].table, "test_loss", first, last)
        level = found.pivot(index="seed", columns="order", values="mean")
        level = level.reindex(columns=list(self.orders)).dropna()
        one, other = map(findings.adverb, self.orders)
        lower = int((level[self.orders[1]] < level[self.orders[0]]).sum())
        return (
            f"the mean test loss over steps {first:,} to {last:,} is lower {other} than {one} on "
            f"{lower} of {stability.counted(len(level), 'seed')}"
        )

    def _price(self, name: str) -> str:
        """Say what all points of the path up to its last step cost."""
        last = int(self.shown[name].table["step"].max())
        costs = [orders.named(order).cost(range(1, last + 1)) for order in self.orders]
        one, other = map(findings.adverb, self.orders)
        return f"all {last:,} points of a path take {costs[1]:,} maps {other}, {costs[0]:,} {one}"

    def _no_ratio(self) -> str:
        first, last = self.range
        return (
            f"Over steps {first:,} to {last:,} {' and '.join(self.orders)} cannot be compared: on "
            "each seed one of the two does not move, or diverged."
        )

    def _one(self, name: str | None) -> Shown:
        return self.first if name is None else self.shown[name]

    def _motion(self, name: str | None) -> Shown:
        name = name or next(iter(self.shown))
        if name not in self._moved:
            preset, seeds, changes = self._asked
            self._moved[name] = runs.shown(f"motion-{name}", preset, seeds, **changes)
        return self._moved[name]

    def _lines(self, words: dict[str, str]) -> Markdown:
        if len(self.shown) == 1:
            return Markdown(next(iter(words.values())))
        return Markdown(
            "\n\n".join(f"**{self.shown[name].setting.data}.** {w}" for name, w in words.items())
        )


_CURVES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
"""The paper's four learning curves."""
