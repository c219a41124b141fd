"""What the choices that the paper leaves open do to its claim: the sentences of their chapter.

All functions but :func:`choices` take rows of :func:`revlib.verdicts.overview.sensitivity`.
"""

from __future__ import annotations

import pandas as pd

from revlib import experiments
from revlib.verdicts import findings, intervals
from revlib.verdicts.overview import ORDERS

LEARNED = 0.9
"""A variant has learned something if less than this share of its first test loss is left."""


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
    """Return of each variant whether the test loss varies less backward, in a word."""
    few = table["seeds"] < intervals.FEWEST
    found = pd.Series("undecided", index=table.index)
    found[(table["low"] > 1) & ~few] = "less backward"
    found[(table["high"] < 1) & ~few] = "*more* backward"
    found[few] = "too few seeds"
    return found.where(table["state"] == "ran", table["state"])


def learned(table: pd.DataFrame) -> pd.Series:
    """Tell which variants ran and learned something in both orders."""
    left = table[[f"{order}_left" for order in ORDERS]].max(axis=1)
    return (table["state"] == "ran") & (left < LEARNED)


def _counted(found: pd.Series) -> str:
    numbers = found.value_counts()
    return ", ".join(f"{word} on {number}" for word, number in numbers.items()) or "none"


def diverged(table: pd.DataFrame) -> str:
    """Return how many runs of each order diverged."""
    one, other = (f"{table[f'{order}_diverged'].sum():.0f} {order}" for order in ORDERS)
    return f"of {table['run'].sum():.0f} runs of each order, {one} and {other} diverged"


def finding(table: pd.DataFrame) -> str:
    """Return in a sentence on how many variants the test loss varies less backward."""
    done = table[table["state"] != "not yet run"]
    chosen = learned(done)
    words = (
        f"does the test loss vary less backward? Of {len(done)} variants of initialisation and "
        f"input scaling: {_counted(verdicts(done))}; of the {chosen.sum()} that learned something: "
        f"{_counted(verdicts(done)[chosen])}"
    )
    return findings.sentence([words, diverged(done)])


def lines(table: pd.DataFrame) -> str:
    """Return the same of each experiment, as a list, with what is missing and what diverged."""
    done = table[table["state"] != "not yet run"]
    words = {}
    for name, own in done.groupby("experiment"):
        found, chosen = verdicts(own), learned(own)
        words[name.replace("-", " ").capitalize()] = (
            f"of {len(own)} variants: {_counted(found)}; of the "
            f"{chosen.sum()} that learned something: {_counted(found[chosen])}."
        )
    words["Diverged"] = f"{diverged(done)}."
    if len(done) < len(table):
        words["Not yet run"] = f"{len(table) - len(done)} of {len(table)} variants."
    return findings.listed(words)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return what became of the variants as shown to the reader."""
    run = table["run"].map("of {:.0f}".format)
    counts = ("forward_diverged", "backward_diverged", "calmer")
    gone, gone_backward, above = (table[each].map("{:.0f} ".format) + run for each in counts)
    ends = table["low"].map(" ({:.2g} to ".format) + table["high"].map("{:.2g})".format)
    ratio = table["ratio"].map("{:.2g}".format) + ends.where(table["low"].notna(), "")
    columns = {
        "experiment": table["experiment"],
        "variant": table["variant"] + table["default"].map({True: " (default)", False: ""}),
        "evaluated as": table["quantity"].str.replace("_", " "),
        "state": table["state"],
        "loss left, forward": table["forward_left"].map("{:.2g}".format),
        "backward": table["backward_left"].map("{:.2g}".format),
        "diverged, forward": gone,
        "backward, diverged": gone_backward,
        "ratio": ratio.where(table["state"] == "ran", "–"),
        "above 1 on seeds": above,
    }
    return pd.DataFrame(columns).replace(r"^nan.*", "–", regex=True)
