"""The paper's experiments as data: one entry for each figure, each in two sizes.

The preset ``paper`` is the paper's own setting on the full data. The preset ``ci`` is a small
version on the embedded sample, for tests and for a first look; it stands for nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from revlib.orders import Order, backward, forward
from revlib.tasks import Setting


@dataclass(frozen=True)
class Preset:
    """One size of an experiment.

    Parameters
    ----------
    setting
        What determines the numbers.
    steps
        Length of the run, in optimizer steps.
    seeds
        The seeds, each a run of its own.
    every
        Spacing of the grid of recorded steps.
    bursts
        Runs of consecutive recorded steps, as ``(first, length)``: without them the change from
        one step to the next cannot be seen.
    """

    setting: Setting
    steps: int
    seeds: tuple[int, ...]
    every: int
    bursts: tuple[tuple[int, int], ...] = ()

    def recorded(self, every: int | None = None) -> list[int]:
        """Return the recorded steps: the start, the grid, the bursts and the end.

        Parameters
        ----------
        every
            Another spacing of the grid.
        """
        every = self.every if every is None else every
        if not isinstance(every, int) or every < 1:
            raise ValueError(
                f"The spacing of recorded steps must be a whole number, 1 or more; got {every!r}."
            )
        grid = {0, self.steps, *range(every, self.steps + 1, every)}
        return sorted(grid.union(*(range(first, first + n) for first, n in self.bursts)))


@dataclass(frozen=True)
class Experiment:
    """One experiment of the paper.

    Parameters
    ----------
    name
        How it is called on the command line and in the store.
    title
        What it is, in a line.
    section
        Where the paper reports it.
    chapter
        The notebook that shows it.
    orders
        The orders of iteration that are compared.
    presets
        Its sizes, by name.
    unstated
        What the paper does not say, by the field of the setting that fills the gap: the reason
        for our default.
    """

    name: str
    title: str
    section: str
    chapter: str
    orders: tuple[Order, ...]
    presets: dict[str, Preset]
    unstated: dict[str, str]

    def preset(self, name: str) -> Preset:
        """Return a preset by name.

        Raises
        ------
        ValueError
            If there is none of that name.
        """
        return _find("preset", name, self.presets)

    def choices(self, setting: Setting) -> pd.DataFrame:
        """Return a setting as a table beside what the paper says of each choice.

        Parameters
        ----------
        setting
            The setting that is used.

        Returns
        -------
        pandas.DataFrame
            Columns ``choice``, ``here`` and ``in the paper``, one row for each field.
        """
        paper = vars(self.presets["paper"].setting)
        return pd.DataFrame(
            {
                "choice": name.replace("_", " "),
                "here": str(value),
                "in the paper": f"not stated; our default is {paper[name]}: {self.unstated[name]}"
                if name in self.unstated
                else str(paper[name]),
            }
            for name, value in vars(setting).items()
            if name != "sample"  # the data's size is no choice of the paper's
        )


PAPER_MLP = (500,) * 5

EXPERIMENTS = {
    e.name: e
    for e in [
        Experiment(
            name="figure-7",
            title="MLP on Fashion-MNIST, forward against backward",
            section="A.2",
            chapter="a-2-mlp-fashion-mnist",
            orders=(forward(), backward()),
            presets={
                "paper": Preset(
                    Setting(
                        data="fashion_mnist",
                        sample=False,
                        hidden=PAPER_MLP,
                        batch_size=8,
                        learning_rate=0.001,
                        init="he",
                        scaling="unit",
                        train_examples=2000,
                    ),
                    steps=2000,
                    seeds=(0, 1, 2, 3, 4),
                    every=100,
                    bursts=((1000, 8), (1900, 8)),
                ),
                "ci": Preset(
                    Setting(
                        data="fashion_mnist",
                        sample=True,
                        hidden=(100, 100),
                        batch_size=8,
                        learning_rate=0.02,
                        init="he",
                        scaling="unit",
                        train_examples=500,
                    ),
                    steps=200,
                    seeds=(0, 1),
                    every=4,
                    bursts=((180, 20),),
                ),
            },
            unstated={
                "init": "with PyTorch's default nothing is learned in 2000 steps",
                "scaling": "the plainest choice",
                "train_examples": "the paper does not say which samples its training curves use; "
                "a fixed part of the training set measures the same thing at every step",
            },
        ),
    ]
}


def get(name: str) -> Experiment:
    """Return an experiment by name.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    return _find("experiment", name, EXPERIMENTS)


def _find(kind: str, name: str, known: dict):
    if name not in known:
        raise ValueError(f"There is no {kind} '{name}'. Valid are: {_listed(known)}.")
    return known[name]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
