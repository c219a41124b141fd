"""The figures of the book, all with one look, and the drawings that explain."""

from revlib.figures.plots import (
    cases,
    clouds,
    comparison,
    costs,
    curves,
    distributions,
    growth,
    intervals,
    laws,
    motion,
    paths,
    plane,
    points,
    quadrants,
    ratios,
    scaling,
    sweeps,
    theme,
    variants,
    weights,
)
