"""What might come of iteration order in practice: the conjectures of Section 5, measured.

The paper ends with proposals: (a) a backward window of fixed size; (b) a start that moves only when
the new trajectory does better; (c) backward switched on late, for (d) more reliable early stopping;
(e) backward at the very start, to judge a setting early; (f) any gradient-based optimizer. Each
becomes a study here: at the paper's setting of a figure, which its name
ends with, on several seeds, with what it costs. (a), (c), (d) and (f) are in ``paths``, (b) in
``moving_start``, (e) in ``rankings``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from revlib.experiments import figures_2_to_11
from revlib.experiments.section_5.held_out import optimizers
from revlib.experiments.section_5.moving_start import Checks, policies, policy
from revlib.experiments.section_5.paths import Path, path
from revlib.experiments.section_5.rankings import METHODS, Ranking, ranking
from revlib.experiments.study import Size, Study, Whole
from revlib.training.settings import Setting


def _setting(figure: int, preset: str) -> Setting:
    """Return a figure's setting, with 600 test examples (``sample``: 200) where it has more."""
    setting = figures_2_to_11.setting(f"figure-{figure}", preset)
    return setting.changed(test_examples={"paper": 600, "sample": 200}[preset])


def _study(
    kind: str,
    figure: int,
    title: str,
    compute: Callable[[Any, int, str], Iterable[dict[str, Any]]],
    chapter: str,
    paper: Size,
    sample: Size,
    **quantities: str,
) -> Study:
    """Return a study at the setting of a figure."""
    return Study(
        name=f"{kind}-figure-{figure}",
        title=f"{title}, in the setting of Figure {figure}",
        section="5",
        chapter=chapter,
        sizes={"sample": sample, "paper": paper},
        method=Whole(compute),
        quantities={"validation_loss": "loss on the validation set"} | quantities,
    )


def _paths(
    kind: str,
    figure: int,
    title: str,
    chapter: str,
    paper: tuple[Iterable[int], Iterable[str], int],
    sample: tuple[Iterable[int], Iterable[str]],
    patience: int | None = None,
    **quantities: str,
) -> Study:
    """Return a study of paths: of each size the recorded steps and the cases, then the seeds."""

    def size(preset: str, steps: Iterable[int], cases: Iterable[str], seeds: int) -> Size:
        parameters = Path(_setting(figure, preset), tuple(steps), patience)
        at = parameters.steps
        return Size(parameters, tuple(range(seeds)), tuple(cases), max(at), at=at)

    sizes = size("paper", *paper), size("sample", *sample, 2)
    return _study(kind, figure, title, path, chapter, *sizes, **quantities)


def _windows(figure: int, first: int, last: int, sizes: Iterable[int], seeds: int) -> Study:
    cases, small = (
        ("forward", *(f"windowed({size})" for size in each)) for each in (sizes, (2, 5, 10, 20, 40))
    )
    return _paths(
        "windows",
        figure,
        "Backward in windows of fixed size",
        "5-windowed-backward",
        ((0, *range(first, last + 1)), cases, seeds),
        ((0, *range(40, 81)), small),
    )


def _resets(figure: int, every: int, steps: int, seeds: int) -> Study:
    def size(preset: str, every: int, steps: int, seeds: int) -> Size:
        parameters = Checks(_setting(figure, preset), every, steps)
        recorded = tuple(range(0, steps + 1, every))
        return Size(parameters, tuple(range(seeds)), tuple(policies()), steps, at=recorded)

    return _study(
        "reset",
        figure,
        "Backward from a start that moves only when it pays",
        policy,
        "5-reset-when-better",
        size("paper", every, steps, seeds),
        size("sample", 10, 100, 2),
        kept_loss="test loss of the iterate with the lowest validation loss so far",
        cost="maps applied so far",
    )


def _stopping(figure: int, seeds: int) -> Study:
    return _paths(
        "stopping",
        figure,
        "Early stopping, forward, backward and backward after a late switch",
        "5-late-switch-and-early-judgement",
        (range(700, 1401, 10), ("forward", "switch(700)", "backward"), seeds),
        (range(40, 81, 2), ("forward", "switch(40)", "backward")),
        patience=10,
        stopped="the step that early stopping picks",
        stopped_loss="test loss at the step that early stopping picks",
        regret="test loss there above the lowest of the path",
    )


def _rankings(figure: int, rates: tuple[float, ...], seeds: int) -> Study:
    def size(preset: str, rates: tuple[float, ...], long: int, budgets: tuple[int, ...], seeds):
        parameters = Ranking(_setting(figure, preset), rates, long, long // 7, budgets)
        return Size(parameters, tuple(range(seeds)), METHODS, max(budgets), at=budgets)

    return _study(
        "ranking",
        figure,
        "Learning rates ranked early, forward and backward at equal cost",
        ranking,
        "5-late-switch-and-early-judgement",
        size("paper", rates, 1400, (25, 100, 400), seeds),
        size("sample", rates[::2], 140, (20, 40), 3),
        misranked="share of pairs ranked other than by the long run",
        excess="loss of the long run at the rate chosen above that at the best rate",
    )


def _optimized(figure: int, recorded: Iterable[int], small: Iterable[int], seeds: int) -> Study:
    cases = tuple(
        f"{optimizer}, {order}"
        for optimizer in optimizers(1.0)
        for order in ("forward", "backward")
    )
    return _paths(
        "optimizers",
        figure,
        "Forward and backward with momentum and with Adam",
        "5-any-optimizer",
        ((0, *recorded), cases, seeds),
        ((0, *small), cases),
    )


_FEW = (10, 15, 20, 25, *range(31, 41))

STUDIES = (
    _windows(4, 1200, 1400, (5, 10, 25, 50, 100), seeds=5),
    _windows(7, 1950, 2000, (10, 25, 50), seeds=3),
    _resets(4, every=10, steps=1400, seeds=10),
    _resets(7, every=100, steps=2000, seeds=5),
    _stopping(4, seeds=5),
    _stopping(5, seeds=10),
    _rankings(4, (0.003, 0.006, 0.0125, 0.025, 0.05, 0.1, 0.2), seeds=10),
    _rankings(5, (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08), seeds=10),
    _optimized(4, (*range(210, 291, 10), *range(291, 301)), _FEW, seeds=5),
    _optimized(7, range(95, 101), _FEW, seeds=3),
)
"""The studies of Section 5."""
