"""Studies: trainings that are compared, case by case, on several seeds and in two sizes.

In most of them the cases are orders of iteration, and each iterate can be had on its own
(:class:`Iterates`). In the others a case is a way to train or to measure, and is computed whole
(:class:`Whole`). All are run, kept, shown and audited by the same engine (:mod:`revlib.runs`).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import joblib
import pandas as pd
from tqdm import tqdm

from revlib.orders import named
from revlib.store import datasets
from revlib.training import processes, sweep
from revlib.training.settings import Built, Setting
from revlib.training.sweep import Job

Row = dict[str, Any]

PRESETS = ("sample", "paper")


class Wanted(NamedTuple):
    """What is to be computed of one seed and case: the rows of some steps."""

    seed: int
    case: str
    steps: list[int]


@dataclass(frozen=True)
class Iterates:
    """The way to compute a study whose cases are orders: each step can be had on its own.

    Parameters
    ----------
    measure
        What is measured of the iterates: :func:`revlib.training.sweep.compute` evaluates them,
        :func:`revlib.training.motion.compute` looks at how they move.
    """

    measure: Callable[..., Iterator[list[Row]]] = sweep.compute

    by_step = True

    @property
    def along_paths(self) -> bool:
        """Whether an iterate is computed from an earlier one where the order allows it."""
        return self.measure is sweep.compute

    def compute(
        self,
        parameters: Setting,
        wanted: Iterable[Wanted],
        workers: int = 1,
        progress: bool = False,
        cluster: str | None = None,
        device: str | None = None,
        plain: bool = False,
    ) -> Iterator[list[Row]]:
        """Yield rows as they are computed, in any order; with `plain` by the plain training loop.

        On a device such as ``"cuda"``, or by default on the processor; the other parameters are
        those of :func:`revlib.training.sweep.compute`.
        """
        strategy = "eager" if plain else None
        jobs = [
            Job(Built(parameters, seed, device), seed, named(case), list(steps), strategy)
            for seed, case, steps in wanted
            if steps
        ]
        yield from self.measure(jobs, workers, progress, cluster)

    def roots(self, parameters: Setting, cases: Iterable[str]) -> list[Callable]:
        """Return the code that determines the rows, and all that it reaches does too."""
        return [self.measure, Built, *(named(case).word for case in cases)]


@dataclass(frozen=True)
class Whole:
    """The way to compute a study whose cases can only be had whole.

    Parameters
    ----------
    function
        ``function(parameters, seed, case)`` yields the rows of a case, each with ``step`` and what
        was measured. The parameters say what is trained, the seed gives the start point and the
        batches. It may end early where a training diverges: what was to come is then shown as not a
        number. Where it takes a ``device`` too, ``"cuda"`` say, it can compute on a graphics card.
    """

    function: Callable[[Any, int, str], Iterable[Row]]

    by_step = along_paths = False

    def compute(
        self,
        parameters: Any,
        wanted: Iterable[Wanted],
        workers: int = 1,
        progress: bool = False,
        cluster: str | None = None,
        device: str | None = None,
        plain: bool = False,
    ) -> Iterator[list[Row]]:
        """Yield the rows of each wanted case when it is finished; there is no other way to do it.

        The other parameters are those of :func:`revlib.training.sweep.compute`.

        Raises
        ------
        ValueError
            If a device is asked for, and the function takes none.
        """
        function = self.function
        if device is not None:
            if "device" not in inspect.signature(function).parameters:
                raise ValueError(
                    f"These cases are computed on the processor, not on '{device}'. Leave the "
                    "device out."
                )
            function = functools.partial(function, device=device)
        wanted = list(wanted)
        with (
            processes.pool(workers, cluster) as parallel,
            tqdm(total=len(wanted), unit=" cases", disable=not progress) as bar,
        ):
            for rows in parallel(
                joblib.delayed(_case)(function, parameters, seed, case) for seed, case, _ in wanted
            ):
                yield rows
                bar.update()

    def rows(self, parameters: Any, seed: int, case: str) -> Iterator[Row]:
        """Yield the rows of a case as they come, in this process."""
        with processes.one_thread():
            for row in self.function(parameters, seed, case):
                yield {"seed": seed, "order": case} | row

    def roots(self, parameters: Any, cases: Iterable[str]) -> list[Callable]:
        """Return the code that determines the rows, and all that it reaches does too."""
        return [self.function, _case, type(parameters)]


def _case(function: Callable, parameters: Any, seed: int, case: str) -> list[Row]:
    processes.end_with_parent()
    return list(Whole(function).rows(parameters, seed, case))


@dataclass(frozen=True)
class Size:
    """One size of a study.

    Parameters
    ----------
    parameters
        What the numbers depend on besides seed and case: a
        :class:`revlib.training.settings.Setting`, or a dataclass with a field ``setting`` that is
        one. All of it is part of the results' identity.
    seeds
        The seeds, each a run of its own.
    cases
        The names of the cases; of orders, as :func:`revlib.orders.named` reads them.
    steps
        Length of the run, in steps.
    every
        Spacing of the grid of recorded steps.
    bursts
        Runs of consecutive recorded steps, as ``(first, length)``: without them the change from
        one step to the next cannot be seen.
    at
        The recorded steps where they are no grid.
    """

    parameters: Any
    seeds: tuple[int, ...]
    cases: tuple[str, ...]
    steps: int
    every: int = 1
    bursts: tuple[tuple[int, int], ...] = ()
    at: tuple[int, ...] = ()

    @property
    def setting(self) -> Setting:
        """The setting among the parameters."""
        return getattr(self.parameters, "setting", self.parameters)

    def changed(self, /, **changes: Any) -> Size:
        """Return the size with some fields of its setting changed; None leaves one as it is.

        Raises
        ------
        ValueError
            If there is no such field, or a value is not valid.
        """
        setting, parameters = self.setting.changed(**changes), self.parameters
        if parameters is self.setting:
            return dataclasses.replace(self, parameters=setting)
        return dataclasses.replace(
            self, parameters=dataclasses.replace(parameters, setting=setting)
        )

    @property
    def windows(self) -> list[tuple[int, int]]:
        """The first and the last step of each burst: where a path's fluctuation is measured."""
        return [(first, first + length - 1) for first, length in self.bursts]

    def recorded(self, every: int | None = None, last: int | None = None) -> list[int]:
        """Return the recorded steps: the first two, the grid, the bursts and the end.

        Parameters
        ----------
        every
            Another spacing of the grid.
        last
            A step after which nothing is recorded.

        Raises
        ------
        ValueError
            If the spacing is not a whole number of 1 or more.
        """
        every = self.every if every is None else every
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(
                f"The spacing of recorded steps must be a whole number, 1 or more; got {every!r}."
            )
        grid = self.at or (0, 1, self.steps, *range(every, self.steps + 1, every))
        steps = set(grid).union(*(range(first, first + n) for first, n in self.bursts))
        return sorted(n for n in steps if last is None or n <= last)


@dataclass(frozen=True)
class Study:
    """A comparison of trainings.

    Parameters
    ----------
    name
        How it is called on the command line, in the claims and in the store.
    title
        What it is, in a line.
    section
        Where the paper, or which paper, speaks of it.
    chapter
        The notebook that shows it.
    sizes
        Its sizes: ``paper``, the paper's own setting on the full data; and ``sample``, a small
        version on the sample that comes with the package, for tests and for a first look, which
        stands for nothing else.
    method
        How it is computed.
    quantities
        What is measured besides losses and accuracies: in words, by column.
    unstated
        What the paper does not say, by the field of the setting that fills the gap: the reason
        for our default.
    variants
        Other choices of what is unstated, whose effect the book looks at: for each the fields of
        the setting that differ from the default.
    """

    name: str
    title: str
    section: str
    chapter: str
    sizes: Mapping[str, Size]
    method: Iterates | Whole
    quantities: Mapping[str, str] = field(default_factory=dict)
    unstated: Mapping[str, str] = field(default_factory=dict)
    variants: tuple[Mapping[str, str], ...] = ()

    def size(self, preset: str) -> Size:
        """Return a size by the name of its preset.

        Raises
        ------
        ValueError
            If there is none of that name.
        """
        if preset not in self.sizes:
            raise ValueError(f"There is no preset '{preset}'. Valid are: {', '.join(PRESETS)}.")
        return self.sizes[preset]

    @property
    def data(self) -> str | None:
        """The image data set that the full size is trained on, None if it makes its own data."""
        data = self.sizes["paper"].setting.data
        return data if data in datasets.NAMES else None

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
        paper = vars(self.sizes["paper"].setting)
        return pd.DataFrame(
            {
                "choice": name.replace("_", " "),
                "here": _told(value),
                "in the paper": f"not stated; our default is {_told(paper[name])}: "
                f"{self.unstated[name]}"
                if name in self.unstated
                else str(paper[name]),
            }
            for name, value in vars(setting).items()
            if name not in ("sample", "nudge")  # no choices of the paper's
            and not (value is None and name not in self.unstated)  # the choice does not arise
        )


def _told(value: Any) -> str:
    return "all" if value is None else str(value)
