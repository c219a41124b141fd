"""What is trained, as data: every study by name.

A module a figure of the paper, a section, or a paper; each ends with its ``STUDIES``, and this is
where they come together.
"""

from revlib.experiments import (
    figures_2_to_11,
    figures_14_to_19,
    fixed_ending,
    nudges,
    remedies,
    sandler2023,
    section_5,
    sharpness,
    smith2021,
)
from revlib.experiments.study import PRESETS, Iterates, Size, Study, Whole

_MODULES = (
    figures_2_to_11,
    figures_14_to_19,
    section_5,
    smith2021,
    sandler2023,
    remedies,
    fixed_ending,
    nudges,
    sharpness,
)

STUDIES = {study.name: study for module in _MODULES for study in module.STUDIES}
"""All studies by name."""


def get(name: str) -> Study:
    """Return a study by name.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if name not in STUDIES:
        raise ValueError(f"There is no study '{name}'. Valid are: {', '.join(STUDIES)}.")
    return STUDIES[name]
