"""The claims as data: what is said of each experiment, by whom, and how it is judged.

They stand in ``book/claims.yml``, with the ranges of steps, the levels and the bands by which they
are judged. What cannot be judged is refused when the file is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from revlib import experiments
from revlib.store import results
from revlib.verdicts.effects import CRITERIA, Asked, Criterion

QUANTITIES = {
    f"{part}_{kind}{suffix}": f"{kind} on {where}{how}"
    for part, where in (("train", "a fixed training sample"), ("test", "the test set"))
    for kind in ("loss", "accuracy")
    for suffix, how in (("", ""), ("_by_batch", ", normalised by the evaluated examples"))
} | {f"batch_{kind}": f"{kind} on the batch applied last" for kind in ("loss", "accuracy")}
"""What can be measured of an iterate, in words."""

CHOICES = {
    ("init", "he"): "He's weights",
    ("init", "haiku"): "Haiku's weights",
    ("scaling", "unit"): "pixels from 0 to 1",
    ("scaling", "image"): "each image standardised",
}
"""Choices of a setting, in words."""

AUTHORS = {
    "paper": "the paper",
    "smith2021": "Smith et al. (2021)",
    "sandler2023": "Sandler et al. (2023)",
    "nobody": "nobody: a question of this book's own",
}
"""Who makes the statements."""

RATIO = 1.25
"""A ratio between 1 / 1.25 and 1.25 counts as no effect, where a claim states no other band."""


@dataclass(frozen=True)
class Claim:
    """A statement, and how it is judged.

    Parameters
    ----------
    id
        Its name, in lower case with hyphens.
    place
        Where it is made.
    made_by
        By whom: a name in :data:`AUTHORS`.
    statement
        What is claimed, in our words.
    experiment
        Names of the studies that it is about; mostly one.
    quantity
        What is measured: names in :data:`QUANTITIES` or of the study's own. Several are the
        *readings* of a statement that leaves open which one is meant.
    orders
        Names of the orders, or of the study's cases, that are compared.
    windows
        Ranges of steps, as ``(first, last)``, both included.
    criterion
        A name in :data:`revlib.verdicts.effects.CRITERIA`.
    chapter
        The chapter that shows it.
    levels
        The levels of the criterion, where it has some.
    band
        What counts as no effect: ratios between ``1 / band`` and ``band``, differences between
        ``-band`` and ``band``.
    excluded_by, proved_by
        The label of what in the book says that it cannot hold, or that it must, whatever is
        measured.
    settings
        What the statement leaves open of the setting: for each choice the fields that differ from
        the study's own, which must be one of its variants. Several are readings, too.
    """

    id: str
    place: str
    made_by: str
    statement: str
    experiment: tuple[str, ...]
    quantity: tuple[str, ...]
    orders: tuple[str, ...]
    windows: tuple[tuple[int, int], ...]
    criterion: str
    chapter: str
    levels: tuple[float, ...] = ()
    band: float = 0.0
    excluded_by: str = ""
    proved_by: str = ""
    settings: tuple[Mapping[str, Any], ...] = ({},)

    @property
    def readings(self) -> dict[str, tuple[str, int]]:
        """The readings by name: what is measured, and in which of the settings."""
        return {
            " ".join([quantity, *map("{0[0]}={0[1]}".format, changes.items())]): (quantity, i)
            for i, changes in enumerate(self.settings)
            for quantity in self.quantity
        }

    def words(self, reading: str) -> str:
        """Return in what a reading differs from the others; nothing, if it is the only one."""
        quantity, i = self.readings[reading]
        known = QUANTITIES | dict(experiments.get(self.experiment[0]).quantities)
        fields = dict.fromkeys(field for each in self.settings for field in each)
        told = [known[quantity]] if len(self.quantity) > 1 else []
        values = {f: self.settings[i].get(f, getattr(self.setting, f)) for f in fields}
        told += [CHOICES.get(choice, " ".join(map(str, choice))) for choice in values.items()]
        return ", ".join(told)

    @property
    def how(self) -> Criterion:
        """The criterion."""
        return CRITERIA[self.criterion]

    @property
    def cases(self) -> dict[tuple[str, str], str]:
        """The names under which the cases of the experiments are compared."""
        alone = len(self.experiment) == 1
        return {
            (name, order): order if alone else f"{order} ({name})"
            for name in self.experiment
            for order in self.orders
        }

    @property
    def asked(self) -> Asked:
        """What the criterion is asked for."""
        return Asked(tuple(self.cases.values()), self.windows, self.levels)

    @property
    def setting(self) -> Any:
        """What is trained, and how: claims with the same are not independent of each other."""
        return experiments.get(self.experiment[0]).size("paper").setting

    def needed(self) -> list[int]:
        """Return the steps in its ranges that the preset ``paper`` records of all that it takes."""
        recorded = [set(experiments.get(name).size("paper").recorded()) for name, _ in self.cases]
        steps = set.intersection(*recorded)
        return sorted(n for n in steps if any(first <= n <= last for first, last in self.windows))


_SAFE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C ten times as fast, where there is C


def load(path: Path | None = None) -> list[Claim]:
    """Read the claims and check that each can be judged.

    Parameters
    ----------
    path
        The file; by default ``claims.yml`` in the nearest book above the current folder. The
        chapters are looked for in the folder ``notebooks`` beside the book.

    Raises
    ------
    ValueError
        If something in it is not valid, or there is no such file.
    """
    path = results.root().with_name("claims.yml") if path is None else path
    try:
        entries = yaml.load(path.read_bytes(), _SAFE)
    except FileNotFoundError:
        raise ValueError(f"There are no claims at {path}; call this inside the project.") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path} must hold a list of claims, each beginning with '- id: …'.")
    files = sorted((path.parent.parent / "notebooks").glob("*.md"))
    labels = {
        label
        for file in files
        for label in re.findall(r":label: (\S+)", file.read_text(encoding="utf-8"))
    }
    claims: list[Claim] = []
    for entry in entries:
        claim = _claim(entry, {file.stem for file in files}, labels)
        if claim.id in {earlier.id for earlier in claims}:
            raise invalid(claim.id, "is there twice; give one of them another id")
        claims.append(claim)
    return claims


def invalid(name: Any, fault: str) -> ValueError:
    """Return the error that a claim cannot be judged."""
    return ValueError(f"The claim '{name}' {fault}.")


_NEEDED = [field.name for field in fields(Claim) if field.default is MISSING]
_FIELDS = [field.name for field in fields(Claim)]


def _claim(entry: Any, chapters: set[str], labels: set[str]) -> Claim:
    """Return a claim from its entry in the file, or refuse it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise ValueError(f"A claim is a mapping with an 'id', a text; got {entry!r}.")
    name = entry["id"]
    faults = [f"lacks {field}" for field in _NEEDED if field not in entry]
    faults += [f"has an unknown field '{field}'" for field in entry if field not in _FIELDS]
    if faults:
        raise invalid(name, f"{', '.join(faults)}; its fields are: {', '.join(_FIELDS)}")
    several = {f: _several(entry[f]) for f in ("experiment", "quantity", "orders")}
    several["settings"] = _several(entry.get("settings", {}))
    _among(name, "author", [entry["made_by"]], AUTHORS)
    _among(name, "experiment", several["experiment"], experiments.STUDIES)
    _among(name, "criterion", [entry["criterion"]], CRITERIA)
    _among(name, "chapter", [entry["chapter"]], chapters)
    _among(name, "label", [entry[f] for f in ("excluded_by", "proved_by") if f in entry], labels)
    for study in map(experiments.get, several["experiment"]):
        _among(name, "quantity", several["quantity"], QUANTITIES | dict(study.quantities))
        _among(name, "order", several["orders"], study.size("paper").cases)
        _among(name, "setting", several["settings"], [{}, *map(dict, study.variants)])
    criterion = CRITERIA[entry["criterion"]]
    claim = Claim(
        **entry
        | several
        | {
            "windows": tuple(tuple(_window(name, each)) for each in _several(entry["windows"])),
            "levels": tuple(_levels(name, criterion, entry.get("levels", []))),
            "band": _band(name, criterion, entry.get("band")),
        }
    )
    few, many = criterion.takes
    if not few <= len(claim.cases) <= many:
        words = f"{few}" if few == many else f"{few} or more"
        raise invalid(name, f"has {len(claim.cases)} orders; {claim.criterion} takes {words}")
    if claim.criterion == "settles" and len(claim.windows) != 2:
        raise invalid(name, f"has {len(claim.windows)} ranges of steps; settles takes two")
    recorded = claim.needed()
    for first, last in claim.windows:
        inside = [n for n in recorded if first <= n <= last]
        if not criterion.enough.holds(inside, first, last):
            raise invalid(
                name,
                f"is judged over steps {first} to {last}, where {' and '.join(claim.experiment)} "
                f"must record {criterion.enough.words} of all its orders: {claim.criterion} needs "
                "that",
            )
    return claim


def _several(value: Any) -> tuple:
    return tuple(value) if isinstance(value, list) else (value,)


def _window(claim: str, window: Any) -> list[int]:
    whole = isinstance(window, list) and [type(n) for n in window] == [int, int]
    if not whole or not 0 <= window[0] <= window[1]:
        raise invalid(claim, f"has the range {window!r}; a range of steps is [first, last]")
    return window


def _levels(claim: str, criterion: Criterion, levels: Any) -> list[float]:
    if bool(levels) != bool(criterion.levels):
        needs = f"needs levels, {criterion.levels}" if criterion.levels else "takes no levels"
        raise invalid(claim, f"has the levels {levels!r}; its criterion {needs}")
    if not isinstance(levels, list) or not all(_positive(level) for level in levels):
        raise invalid(claim, f"has the levels {levels!r}; they must be a list of numbers above 0")
    return levels


def _band(claim: str, criterion: Criterion, band: Any) -> float:
    if band is None:
        return RATIO if criterion.ratio else 0.0
    if not _positive(band) or (criterion.ratio and band < 1):
        least = "of 1 or more, a ratio" if criterion.ratio else "above 0, a difference"
        raise invalid(claim, f"has the band {band!r}; it must be a number {least}")
    return float(band)


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < float("inf")


def _among(claim: str, what: str, names: Iterable, known: Any) -> None:
    for name in names:
        if name not in list(known):
            valid = ", ".join(sorted(map(str, known)))
            raise invalid(claim, f"has the unknown {what} '{name}'. Valid are: {valid}")
