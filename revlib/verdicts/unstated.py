"""What the choices that the paper leaves open do to its claim: the sentences of their chapter.

Most functions take rows of :func:`revlib.verdicts.overview.sensitivity`.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from revlib import experiments
from revlib.training.models import INITS
from revlib.training.settings import FUNCTIONS
from revlib.verdicts import findings, overview
from revlib.verdicts.overview import ORDERS
from revlib.verdicts.stability import counted, factor
from revlib.verdicts.tables import MARKS

LEARNED = 0.9
"""A variant has learned something if less than this share of its first test loss is left."""

_SIDES = {"above": "less backward", "below": "*more* backward", "alike": "as much"}
_SIDES |= {"few": "too few seeds"}
_WORDS = (*_SIDES.values(), "undecided", "not recorded", "stood still", "diverged", "not yet run")
_HOW = {"trend": "about its trend", "change": "from step to step"}


def choices() -> pd.DataFrame:
    """Return the choices that the book varies: a row for each experiment and choice."""
    rows = []
    for study in experiments.STUDIES.values():
        if study.name.startswith("motion-"):
            continue  # it varies with the study that it belongs to
        for field, default in vars(study.size("paper").setting).items():
            others = {each[field] for each in study.variants if field in each}
            if others:
                row = {"experiment": study.name, "what it is": study.title.split(",")[0]}
                row |= {"choice": field, "default": default}
                rows.append(row | {"also tried": ", ".join(sorted(others))})
    return pd.DataFrame(rows)


def verdicts(table: pd.DataFrame) -> pd.Series:
    """Return of each row whether the test loss varies less backward, in a word or two."""
    found = table["side"].map(_SIDES).fillna("undecided")
    return found.where(table["state"] == "ran", table["state"])


def learned(table: pd.DataFrame) -> pd.Series:
    """Tell of which rows the variant learned something in both orders, and did not diverge."""
    left = table[[f"{order}_left" for order in ORDERS]].max(axis=1)
    return table["state"].isin(["ran", "not recorded"]) & (left < LEARNED)


def stuck(table: pd.DataFrame) -> pd.Series:
    """Tell of which rows the seeds decide that the variant learned too little in some order."""
    return (table[[f"{order}_left_low" for order in ORDERS]] >= LEARNED).any(axis=1)


def _variants(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each variant and quantity."""
    return table[table["statistic"] == "trend"]


def _number(table: pd.DataFrame) -> str:
    return counted(len(_variants(table)), "variant")


def _counted(table: pd.DataFrame) -> str:
    words = []
    for statistic, how in _HOW.items():
        numbers = verdicts(table[table["statistic"] == statistic]).value_counts()
        found = ", ".join(f"{word} on {numbers[word]}" for word in _WORDS if word in numbers)
        words.append(f"{how}: {found or 'none'}")
    return "; ".join(words)


def diverged(table: pd.DataFrame) -> str:
    """Return how many runs of each order diverged."""
    table = _variants(table)
    one, other = (f"{table[f'{order}_diverged'].sum():.0f} {order}" for order in ORDERS)
    return f"of {table['run'].sum():.0f} runs of each order, {one} and {other} diverged"


def finding(table: pd.DataFrame) -> str:
    """Return in a sentence on how many variants the test loss varies less backward."""
    done = table[table["state"] != "not yet run"]
    found = verdicts(_variants(done[learned(done)]))
    counts = found[found != "not recorded"].value_counts()
    others = [f"{word} on {counts[word]}" for word in _WORDS if word in counts]
    return (
        f"Of {_number(done)} of initialisation and input scaling, {len(found)} learned something, "
        f"and of {counts.sum()} of these it is recorded how much the test loss varies about its "
        f"trend: {', '.join(others)}. {findings.sentence([diverged(done)])}"
    )


def lines(table: pd.DataFrame) -> str:
    """Return the same of each experiment, as a list, with what is missing and what diverged."""
    done = table[table["state"] != "not yet run"]
    words = {}
    for name, own in done.groupby("experiment"):
        chosen = own[learned(own)]
        words[name.replace("-", " ").capitalize()] = (
            f"of {_number(own)}, {_counted(own)}. Of the {len(_variants(chosen))} that learned "
            f"something, {_counted(chosen)}."
        )
    words["Diverged"] = f"{diverged(done)}."
    if len(done) < len(table):
        missing = len(_variants(table)) - len(_variants(done))
        words["Not yet run"] = f"{missing} of {_number(table)}."
    return findings.listed(words)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return what became of the variants as shown to the reader."""
    trend = _variants(table).reset_index(drop=True)
    change = table[table["statistic"] == "change"].reset_index(drop=True)
    run = trend["run"].map("of {:.0f}".format)
    gone, gone_backward = (
        trend[f"{order}_diverged"].map("{:.0f} ".format) + run for order in ORDERS
    )
    columns = {
        "experiment": trend["experiment"],
        "variant": trend["variant"] + trend["default"].map({True: " (default)", False: ""}),
        "evaluated as": trend["quantity"].str.replace("_", " "),
        "loss left, forward": trend["forward_left"].map("{:.2g}".format),
        "backward": trend["backward_left"].map("{:.2g}".format),
        "diverged, forward": gone,
        "diverged, backward": gone_backward,
        "ratio about a trend": _ratio(trend),
        "step to step": _ratio(change),
    }
    return pd.DataFrame(columns).replace(r"^nan.*", "–", regex=True)


def _ratio(table: pd.DataFrame) -> pd.Series:
    ends = " (" + table["low"].map(factor) + " to " + table["high"].map(factor) + ")"
    ratio = table["ratio"].map(factor) + ends.where(table["low"].notna(), "")
    return ratio.where(table["state"] == "ran", table["state"])


def candidates() -> pd.DataFrame:
    """Return what became of Figures 4 to 7 from each initialisation, from stored results.

    Returns
    -------
    pandas.DataFrame
        A row for each initialisation, figure and convention of its loss or inputs: ``init``,
        ``figure``, ``convention``, those of :func:`revlib.verdicts.overview.outcomes` for the
        spread of the test loss about its trend, and ``out``: whether it is decided that the test
        loss varies less backward while something is learned (None where either is open).
    """
    rows = []
    for init in INITS:
        for name in (f"figure-{n}" for n in range(4, 8)):
            for convention, changes in _conventions(name).items():
                (found,) = (
                    row
                    for row in overview.outcomes(name, "paper", {"init": init} | changes)
                    if row["statistic"] == "trend"
                )
                figure = name.replace("-", " ").capitalize()
                rows.append({"init": init, "figure": figure, "convention": convention} | found)
    table = pd.DataFrame(rows)
    gone = table["forward_diverged"] == table["run"]  # which a few steps are enough to see
    table["state"] = table["state"].mask(gone, "diverged")
    less = learned(table) & (table["side"] == "above")
    open_ = table["state"].isin(["not yet run", "not recorded"]) | (
        (table["state"] == "ran") & (~learned(table) | table["side"].isin(["open", "few"]))
    )
    return table.assign(out=less.astype(object).mask(open_ & ~stuck(table), None))


def _conventions(name: str) -> dict[str, dict[str, Any]]:
    setting = experiments.get(name).size("paper").setting
    if setting.data in FUNCTIONS:
        # A step at h on half of the squared error is one at h/2 on the whole.
        return {"squared error": {}, "half of it": {"learning_rate": setting.learning_rate / 2}}
    return {
        "pixels from 0 to 1": {},
        "standardised": {"scaling": "standardised"},
        "each image standardised": {"scaling": "image"},
    }


def side_by_side(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of :func:`candidates` as shown to the reader: figures beside each other."""
    mark = table["out"].map({True: MARKS["reproduced"], False: MARKS["contradicted"]})
    ratio = table["ratio"].map(factor).where(table["state"] == "ran", table["state"])
    ratio = ratio.mask((table["state"] == "ran") & ~learned(table), "learns little")
    words = mark.fillna("?") + " " + ratio.mask(stuck(table), "learns too little")
    cells = table.assign(words=words).pivot(
        index="init", columns=["figure", "convention"], values="words"
    )
    return cells.loc[list(dict.fromkeys(table["init"]))].rename_axis(index=None, columns=[None] * 2)


def one_setting(table: pd.DataFrame) -> str:
    """Return from which initialisations all figures of :func:`candidates` come out."""
    found: dict[str, list[str]] = {"All four come out": [], "Open": [], "Excluded": []}
    for init, own in table.groupby("init", sort=False):
        outs = {name: set(part["out"]) for name, part in own.groupby("figure")}
        lost = [name for name, out in outs.items() if out == {False}]
        unknown = [name for name, out in outs.items() if True not in out and None in out]
        head = "Excluded" if lost else "Open" if unknown else "All four come out"
        by = f" ({', '.join(lost or unknown)})" if lost or unknown else ""
        found[head].append(f"from `{init}`{by}")
    return findings.listed(
        {head: f"{', '.join(each) or 'from none'}." for head, each in found.items()}
    )
