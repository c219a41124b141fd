"""What the comparison of all experiments says of contraction: the sentences of its chapter.

All functions take a table of :func:`revlib.verdicts.overview.contractions`, a row a seed, and say
what it says, whichever way it falls.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from revlib.verdicts import findings
from revlib.verdicts.stability import counted, rounded

REGRESSIONS = ("figure-4", "figure-5", "figure-6")


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """Return what the seeds of each experiment come to.

    Returns
    -------
    pandas.DataFrame
        One row for each experiment, by its title (``"Figure 4"``): the last ``step``, the ``seeds``
        of which the motion was measured, the mean ``rate`` of contraction and on how many of them
        it is ``negative``, the mean ``tangent`` rate, the geometric means of ``stretch``, ``moved``
        and ``predictions``, on how many seeds the iterate moves ``further`` and the predictions
        ``less`` backward, and ``times``, how many times less the test loss varies, on all seeds of
        which that is known (:class:`findings.Times <revlib.verdicts.findings.Times>`).
    """
    rows = {}
    for name, both in table.groupby("experiment"):
        own = _measured(both)
        mean = np.exp(np.log(own[["stretch", "moved", "predictions_moved"]]).mean())
        rows[name.replace("-", " ").capitalize()] = {
            "step": int(own["step"].max()),
            "seeds": len(own),
            "rate": own["contraction_rate"].mean(),
            "negative": (own["contraction_rate"] < 0).sum(),
            "tangent": own["tangent_contraction_rate"].mean(),
            "stretch": mean["stretch"],
            "moved": mean["moved"],
            "predictions": mean["predictions_moved"],
            "further": (own["moved"] > 1).sum(),
            "less": (own["predictions_moved"] < 1).sum(),
            "times": findings.Times.of(both["calm"]),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _measured(table: pd.DataFrame) -> pd.DataFrame:
    """Return the seeds of which the motion was measured."""
    return table.dropna(subset="contraction_rate")


def _sides(found: pd.DataFrame, *wanted: str) -> pd.Series:
    return found["times"].map(lambda times: times.side in wanted)


def _named(chosen: pd.Series) -> str:
    return ", ".join(chosen.index[chosen]) or "none"


def finding(table: pd.DataFrame) -> str:
    """Return in a sentence whether contraction separates smooth curves from others."""
    found = judged(table)
    less, parting = _sides(found, "above"), found["rate"] >= 0
    open_ = _sides(found, "open", "few", "none")
    words = (
        f"along the backward chain the maps contract on {found['negative'].sum()} of "
        f"{counted(len(_measured(table)), 'run')}"
    )
    if (less & parting).any():
        words += (
            "; without contraction the backward test loss varies less in "
            f"{_named(less & parting)}, so contraction in every direction is not what makes these "
            "curves smooth"
        )
    elif less.any():
        words += f"; they contract wherever the test loss varies less backward: {_named(less)}"
    if open_.any():
        words += (
            "; whether the test loss varies less backward is undecided, or on too few seeds, in "
            f"{_named(open_)}"
        )
    return findings.sentence([words])


def groups(table: pd.DataFrame) -> str:
    """Return which experiments contract, vary less backward, both or neither, as a list."""
    found = judged(table)
    less, contracting = _sides(found, "above"), found["rate"] < 0
    open_ = _sides(found, "open", "few", "none")
    return findings.listed(
        [
            "The maps contract, so the theory gives a reason for a smooth curve: "
            f"{_named(contracting)}.",
            "Backward varies less although neighbouring chains part: "
            f"{_named(less & ~contracting)}.",
            f"Undecided, or on too few seeds, whether backward varies less: {_named(open_)}.",
            f"Backward does not vary less: {_named(~less & ~open_)}.",
            "Two chains one step apart at the start end closer than that: "
            f"{_named(found['stretch'] < 1)}.",
        ]
    )


def moving(table: pd.DataFrame) -> str:
    """Return in which experiments a step moves iterate and predictions further, as a list."""
    found = judged(table)
    less, further = _sides(found, "above"), found["moved"] > 1
    return findings.listed(
        [
            f"*further* backward, and yet the loss varies less: {_named(further & less)};",
            "further backward, and whether the loss varies less is open, or it does not: "
            f"{_named(further & ~less)};",
            f"less far backward: {_named(~further)}.",
        ]
    )


def rates(table: pd.DataFrame) -> pd.DataFrame:
    """Return contraction and spread of all experiments, as shown to the reader."""
    found = judged(table)
    shown = {
        "step": found["step"],
        "contraction rate": found["rate"].map("{:+.4f}".format),
        "negative on": _of_seeds(found, "negative"),
        "of a tangent vector": found["tangent"].map("{:+.5f}".format).replace("+nan", "not finite"),
        "one step apart, at the end": found["stretch"].map("{:.2g}".format),
        "spread forward / backward": found["times"].map(
            lambda times: "no ratio" if times.side == "none" else str(times)
        ),
    }
    return pd.DataFrame(shown).rename_axis("experiment").reset_index()


def moves(table: pd.DataFrame) -> pd.DataFrame:
    """Return how far a step moves iterates and predictions, as shown to the reader."""
    found = judged(table)
    shown = {
        "moved in θ, backward / forward": found["moved"].map(rounded),
        "further on": _of_seeds(found, "further"),
        "predictions moved, backward / forward": found["predictions"].map(rounded),
        "less on": _of_seeds(found, "less"),
    }
    return pd.DataFrame(shown).rename_axis("experiment").reset_index()


def _of_seeds(found: pd.DataFrame, what: str) -> list[str]:
    return [
        f"{number} of {counted(seeds, 'seed')}"
        for number, seeds in zip(found[what], found["seeds"], strict=True)
    ]


def sharp(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return how sharp the loss is, as shown to the reader.

    The tables are those of :func:`revlib.experiments.sharpness.sharpness`, by setting.
    """
    rows = []
    for name, table in tables.items():
        for (order, step), own in table.groupby(["order", "step"], sort=False):
            rows.append(
                {
                    "setting": name,
                    "order": order,
                    "step": step,
                    "seeds": own["seed"].nunique(),
                    "hλ of the training loss": _ranged(own["sharpness"]),
                    "hλ of a batch, mean": _ranged(own["batch_sharpness"]),
                    "batches above 2": f"{own['expanding'].mean():.0%}",
                }
            )
    return pd.DataFrame(rows)


def _ranged(values: pd.Series) -> str:
    ends = f" ({values.min():.2f} to {values.max():.2f})" if len(values) > 1 else ""
    return f"{values.mean():.2f}{ends}"


def expanding(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return in which settings curvatures exceed 2/h, and how often, as a list."""
    words = {}
    for name, table in tables.items():
        below, share = (table["sharpness"] < 2).sum(), table["expanding"].mean()
        batches = (
            f"{share:.1%} of the batches are sharper than that: their maps expand in some direction"
            if share
            else "no batch is sharper than that"
        )
        words[name] = (
            f"the largest curvature of the training loss is below 2/h at {below} of "
            f"{counted(len(table), 'iterate')}; {batches}."
        )
    return findings.listed(words)


def negative(table: pd.DataFrame) -> str:
    """Return whether a negative rate occurs, in regression and in classification, as a list."""
    table = _measured(table)
    regression = table["experiment"].isin(REGRESSIONS)
    words = {}
    for kind, part in (("Regression", table[regression]), ("Classification", table[~regression])):
        if len(part):
            rate, apart = part["contraction_rate"], part["stretch"]
            number = int((rate < 0).sum())
            words[kind] = (
                f"{'yes' if number else 'no'}, on {number} of {counted(len(part), 'run')}; rates "
                f"from {rate.min():+.4f} to {rate.max():+.4f}. Two chains one step apart at the "
                f"start end {apart.min():.2g} to {apart.max():.2g} steps apart."
            )
    return findings.listed(words)


def summary(table: pd.DataFrame) -> str:
    """Return contraction, spread and movement of each experiment, a line each."""
    words = {}
    for name, row in judged(table).iterrows():
        times = row["times"]
        ratio = "" if times.side == "none" else f", {times}"
        words[name] = (
            f"the maps contract on {row['negative']} of {counted(row['seeds'], 'seed')} (mean rate "
            f"{row['rate']:+.4f} a map). Does the test loss vary less backward? "
            f"{findings.LESS[times.side].capitalize()}{ratio}. One step moves θ "
            f"{rounded(row['moved'])} times as far backward as forward."
        )
    return findings.listed(words)
