"""What the chapter on late switch and early judgement shows of its studies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from revlib import figures, runs
from revlib.experiments.section_5.paths import stopped
from revlib.runs.shown import Shown
from revlib.store import provenance
from revlib.verdicts import findings, fixed_ending, section_5

FUNCTIONS = {"x²": "figure-4", "cos 10x": "figure-5"}
"""The figure whose setting each is."""

TRUTHS = {"a constant rate": "misranked", "a rate that falls to zero": "misranked_decayed"}
"""How the long run is trained that decides what the right ranking is; the column for each."""

LOOKS = {"fixed ending": "a fixed ending", "cooldown": "a cooldown"}
"""The cases that the sentences speak of besides averages, in words."""

AVERAGED = "forward, mean loss"


class DecisionsPage:
    """The chapter's studies, and what it shows of them.

    Parameters
    ----------
    preset
        As for :func:`revlib.runs.shown.together`.
    """

    def __init__(self, preset: str):
        figures.theme()
        kinds = ("stopping", "ranking", "looks-stopping", "looks-ranking")
        self.stopping, self.ranking, self.watched, self.judged = (
            runs.together({words: f"{kind}-{name}" for words, name in FUNCTIONS.items()}, preset)
            for kind in kinds
        )
        self.late = self.stopping["x²"].size.cases[1]  # the order with the switch
        self.kept, self.kept_looks = map(_picked, (self.stopping, self.watched))
        self.misranked = _misranked(self.ranking, "forward")
        self.misranked_looks = {
            words: _misranked(self.judged, AVERAGED, column) for words, column in TRUTHS.items()
        }

    def finding(self) -> Markdown:
        """Say what was found, in a sentence a setting."""
        words = {
            where: findings.sentences(
                [
                    self._smoother(where),
                    _kept_loss(self.stopping[where], self.late),
                    "of the pairs of learning rates, "
                    + ", ".join(
                        f"*{method}* ranks {self.misranked[where].loc[method, 'mean']:.0%}"
                        for method in ("forward", AVERAGED, "backward path")
                    )
                    + " the wrong way round",
                ]
            )
            for where in FUNCTIONS
        }
        looks = findings.listed(
            f"{where}, where the long run has {words}: "
            + ", ".join(f"*{c}* {found[where].loc[c, 'mean']:.0%}" for c in (AVERAGED, *LOOKS))
            + " of the pairs."
            for words, found in self.misranked_looks.items()
            for where in FUNCTIONS
        )
        return Markdown(
            f"**In short.**\n\n{findings.listed(words)}\n\nOn other seeds, ways to judge early "
            f"misrank at the same cost:\n\n{looks}"
        )

    def notes(self) -> Markdown:
        """Say where the numbers come from."""
        studies = {
            "Stopping": self.stopping,
            "Ranking": self.ranking,
            "Stopping by other looks": self.watched,
            "Ranking by other looks": self.judged,
        }
        lines = [
            f"- {what}, {where}: {each.note}"
            for what, found in studies.items()
            for where, each in found.items()
        ]
        return Markdown("**What this page shows.**\n\n" + "\n".join(lines))

    def paths(self) -> Figure:
        """Draw the paths of the harder setting in the second half of training."""
        hard = self.stopping["cos 10x"].table
        return figures.curves(hard[hard["seed"] < 3], ["test_loss"])

    def ends(self) -> None:
        """Print on how many seeds each path ends lower than forward."""
        for where, each in self.stopping.items():
            for order in each.size.cases[1:]:
                end = section_5.ends(each.table, "test_loss", "forward").loc[order]
                seeds = f"{end['lower']:.0f} of {end['seeds']:.0f}"
                print(f"{where}, {order}: lower at the end on {seeds}")

    def late_switch(self) -> Markdown:
        """Say what a late switch does to the path."""
        lines = []
        for where, each in self.stopping.items():
            own = each.table[each.table["order"] == self.late]
            mean = own.groupby("step")["test_loss"].mean()
            lines.append(
                f"{where}: {self._smoother(where)}. Its mean test loss goes from "
                f"{mean.iloc[0]:.2g} at the switch to {mean.iloc[-1]:.2g} at the end."
            )
        return Markdown(findings.listed(lines))

    def _smoother(self, where: str) -> str:
        """Return how much less the path varies about its trend, after a seventh of it."""
        each = self.stopping[where]
        steps = each.size.at[len(each.size.at) // 7], each.size.at[-1]
        return findings.varies(each.table, "test_loss", steps, ("forward", self.late))

    def stopping_table(self) -> Markdown:
        """Show which step early stopping keeps, and what comes of it."""
        patience = self.stopping["x²"].size.parameters.patience
        every = np.diff(self.stopping["x²"].size.at)[0]
        lines = [
            "| | path | step kept | it is the first look | test loss there | regret |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for where, each in self.stopping.items():
            table = each.table
            ends = table[table["step"] == table["step"].max()]
            for order in each.size.cases:
                own = ends.loc[ends["order"] == order, "stopped"]
                step, *others = _kept_cells(self.kept[where], order)
                first = f"on {(own == table['step'].min()).sum()} of {len(own)} seeds"
                lines.append(f"| {where} | {' | '.join([order, step, first, *others])} |")
        return Markdown(
            f"Patience: {patience} evaluations, one every {every} steps. Mean ± standard deviation "
            "over seeds.\n\n" + "\n".join(lines)
        )

    def other_patience(self) -> Markdown:
        """Show what another patience would have kept, from the same curves."""
        patience = self.stopping["x²"].size.parameters.patience
        lines = [
            "| | patience | step kept, forward | backward tail | test loss, forward "
            "| backward tail |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for where, each in self.stopping.items():
            paths = each.table.drop(columns=["ended", "stopped", "stopped_loss", "regret"])
            for allowed in (patience // 2, patience, 2 * patience):
                ends = [list(_stopped(paths, name, allowed)) for name in ("forward", self.late)]
                told = [
                    f"{np.mean(values):{digits[0]}} ± {np.std(values, ddof=1):{digits[1]}}"
                    for q, *digits in (("stopped", ".0f", ".0f"), ("stopped_loss", ".2g", ".1g"))
                    for values in ([end[q] for end in of] for of in ends)
                ]
                lines.append(f"| {where} | {allowed} | {' | '.join(told)} |")
        return Markdown("\n".join(lines))

    def regret(self) -> Markdown:
        """Say what early stopping gains or loses on a calm path."""
        return Markdown(
            findings.listed(
                {
                    where: "against forward, the regret is "
                    f"{findings.difference(found['regret'].loc[self.late])}; "
                    f"{_kept_loss(self.stopping[where], self.late)}."
                    for where, found in self.kept.items()
                }
            )
        )

    def shares(self) -> None:
        """Print the share of pairs that each method misranks at each budget."""
        for where, each in self.ranking.items():
            rates = ", ".join(f"{rate:g}" for rate in each.size.parameters.rates)
            print(f"{where}: share of pairs misranked; learning rates {rates}")
            _print_shares(each, "misranked")

    def watched_table(self) -> Markdown:
        """Show what early stopping keeps where it watches other looks."""
        lines = [
            "| | watched | maps a look | step kept | test loss there | regret |",
            "| --- | --- | --: | --: | --: | --: |",
        ]
        for where, each in self.watched.items():
            costs = fixed_ending.steps_a_look(each.size.parameters.length)
            for case in each.size.cases:
                cells = [case, str(costs[case]), *_kept_cells(self.kept_looks[where], case)]
                lines.append(f"| {where} | {' | '.join(cells)} |")
        return Markdown("Mean ± standard deviation over seeds.\n\n" + "\n".join(lines))

    def judged_shares(self) -> None:
        """Print the same for looks that cost as much, by how the long run is trained."""
        for where, each in self.judged.items():
            for words, column in TRUTHS.items():
                print(f"{where}: share of pairs misranked, the truth being a long run at {words}")
                _print_shares(each, column)

    def audit(self) -> Markdown:
        """Recompute a few of the points that are shown."""
        return Markdown(self.ranking["x²"].audit())

    def summary(self) -> Markdown:
        """Say it all once more."""
        return Markdown(findings.listed(line for w in FUNCTIONS for line in self._summed_up(w)))

    def _summed_up(self, where: str) -> Iterator[str]:
        path = section_5.ends(self.ranking[where].table, "misranked", AVERAGED).loc["backward path"]
        ranked = self.misranked[where].iterrows()
        yield f"**Late switch**, {where}: {self._smoother(where)}."
        yield (f"**Early stopping**, {where}: {_kept_loss(self.stopping[where], self.late)}.")
        shares = ", ".join(f"{row['mean']:.0%} are misranked by *{name}*" for name, row in ranked)
        yield (
            f"**Early judgement**, {where}, at {self.ranking[where].size.at[-1]} maps for each "
            f"rate: of the pairs of learning rates {shares}. The backward path's share is "
            f"{findings.difference(path)} against the averaged losses."
        )
        kept = findings.sentences(
            _kept_loss(self.watched[where], case, f"with {words}") for case, words in LOOKS.items()
        )
        misranked = "; ".join(
            f"{findings.difference(found[where].loc[case])} with {kind} if the long run has {words}"
            for words, found in self.misranked_looks.items()
            for case, kind in LOOKS.items()
        )
        yield (
            f"**Other looks**, {where}: {kept} At "
            f"{self.judged[where].size.at[-1]} maps for each rate, the share of misranked pairs "
            f"is, against averaged forward losses, {misranked}."
        )

    def provenance(self) -> Markdown:
        """Say with what the page was made."""
        first = self.stopping["x²"]
        seeds = sorted(int(seed) for seed in first.table["seed"].unique())
        return Markdown(provenance.line(preset=first.preset, seeds=seeds))


def _picked(study: dict[str, Shown]) -> dict[str, dict[str, pd.DataFrame]]:
    """Return what early stopping picks in each setting, against forward."""
    return {
        where: {
            q: section_5.ends(each.table, q, "forward")
            for q in ("stopped", "stopped_loss", "regret")
        }
        for where, each in study.items()
    }


def _kept_loss(each: Shown, case: str, words: str = "") -> str:
    """Say how much lower than forward the test loss of the iterate is that early stopping keeps."""
    last = each.table[each.table["step"] == each.table["step"].max()]
    loss = last.pivot(index="seed", columns="order", values="stopped_loss")
    what = "the test loss of the iterate that early stopping keeps"
    return findings.lower(what, loss["forward"] / loss[case], ("forward", words or case))


def _misranked(
    study: dict[str, Shown], against: str, column: str = "misranked"
) -> dict[str, pd.DataFrame]:
    """Return the share of pairs that are misranked in each setting, at the largest budget."""
    return {where: section_5.ends(each.table, column, against) for where, each in study.items()}


def _kept_cells(kept: dict[str, pd.DataFrame], case: str) -> list[str]:
    step, loss, regret = (found.loc[case] for found in kept.values())
    return [
        f"{step['mean']:.0f} ± {step['spread']:.0f}",
        f"{loss['mean']:.2g} ± {loss['spread']:.1g}",
        f"{regret['mean']:.2g} ± {regret['spread']:.1g}",
    ]


def _stopped(paths: pd.DataFrame, order: str, patience: int) -> Iterator[pd.Series]:
    """Yield what early stopping keeps of each seed's path."""
    own = paths[paths["order"] == order].sort_values("step").groupby("seed")
    for _, path in own:
        yield stopped(path, patience).iloc[-1]


def _print_shares(each: Shown, column: str) -> None:
    print("  cost            ", *(f"{budget:>14}" for budget in each.size.at))
    by = each.table.groupby(["order", "step"])[column]
    for name in each.size.cases:
        cells = (
            f"{by.mean()[name, budget]:.2f} ± {by.sem()[name, budget]:.2f}"
            for budget in each.size.at
        )
        print(f"  {name:23}", *(f"{cell:>14}" for cell in cells))
