"""The fixed ending: before each look, always the same last batches in the same sequence.

Backward iteration is calm, and its last maps are the same at every step. Is the calm that of the
ending alone? Three studies of each figure's setting, on seeds that no other study has seen:

- ``endings-figure-4``: forward training with a fixed ending of m maps, ``tail(m)``, for m from 1 up
  to the whole chain, which is the backward order; and two controls, an ending whose sequence
  changes from step to step and one whose maps do;
- ``rivals-figure-4``: other ways to spend m more steps, or an average, on each look;
- ``forgetting-figure-4``: how well both orders know the first batches and the newest.

And two that decide by such looks, at the same cost: ``looks-stopping-figure-4``, when to stop, and
``looks-ranking-figure-4``, which learning rate to keep. In the
first the cases are orders; ``rivals``, ``forgetting`` and ``looks`` compute the others.
"""

from __future__ import annotations

from typing import Any

from revlib.experiments import figures_2_to_11
from revlib.experiments.fixed_ending.forgetting import remembered
from revlib.experiments.fixed_ending.looks import JUDGES, WATCHED, Watched, judging, stopping
from revlib.experiments.fixed_ending.rivals import RIVALS, Parameters, rival
from revlib.experiments.section_5.rankings import Ranking
from revlib.experiments.study import Iterates, Size, Study, Whole

CHAPTER = "fixed-ending"


def _studies(
    figure: int, what: str, paper: dict[str, Any], sample: dict[str, Any]
) -> tuple[Study, Study]:
    """Return the endings and the rivals of a figure."""

    def sizes(preset: str, steps, lengths, length, seeds) -> tuple[Size, Size]:
        setting = figures_2_to_11.setting(f"figure-{figure}", preset)
        endings = (
            "forward",
            *(f"tail({m})" for m in lengths),
            f"reshuffled_tail({length})",
            f"newest_tail({length})",
            "backward",
        )
        parameters = Parameters(setting, length, tuple(steps))
        every = {"seeds": tuple(seeds), "steps": max(steps), "at": tuple(steps)}
        return (
            Size(setting, cases=endings, **every),
            Size(parameters, cases=RIVALS, **every),
        )

    (small, rival_small), (full, rival_full) = sizes("sample", **sample), sizes("paper", **paper)
    return (
        Study(
            name=f"endings-figure-{figure}",
            title=f"{what}: forward with a fixed ending, in the setting of Figure {figure}",
            section="5",
            chapter=CHAPTER,
            sizes={"sample": small, "paper": full},
            method=Iterates(),
        ),
        Study(
            name=f"rivals-figure-{figure}",
            title=f"{what}: other ways to a calm look, in the setting of Figure {figure}",
            section="5",
            chapter=CHAPTER,
            sizes={"sample": rival_small, "paper": rival_full},
            method=Whole(rival),
            quantities={
                "first_loss": "loss on the batches of the ending",
                "newest_loss": "loss on as many newest batches",
            },
        ),
    )


def _forgetting(
    figure: int, what: str, paper: tuple[int, tuple[int, ...]], sample: tuple[int, tuple[int, ...]]
) -> Study:
    """Return the study of forgetting of a figure, by the number of batches and the looks."""
    sizes = {}
    looks = {"sample": (range(2), *sample), "paper": (range(5, 10), *paper)}
    for preset, (seeds, length, steps) in looks.items():
        setting = figures_2_to_11.setting(f"figure-{figure}", preset)
        sizes[preset] = Size(
            Parameters(setting, length, steps),
            cases=("forward", "backward"),
            seeds=tuple(seeds),
            steps=max(steps),
            at=steps,
        )
    return Study(
        name=f"forgetting-figure-{figure}",
        title=f"{what}: what both orders forget, in the setting of Figure {figure}",
        section="1",
        chapter=CHAPTER,
        sizes=sizes,
        method=Whole(remembered),
        quantities={
            "first_loss": "loss on the first batches",
            "newest_loss": "loss on as many newest batches",
        },
    )


def _early(
    figure: int,
    what: str,
    rates: tuple[float, ...],
    paper: tuple[int, range, tuple[int, ...]],
    sample: tuple[int, range, tuple[int, ...]],
) -> tuple[Study, Study]:
    """Return the studies of early stopping and of early judgement of a figure.

    Of each size the number of maps a look, the looks, and the budgets.
    """

    def sizes(preset: str, length: int, looks: range, budgets, rates, seeds) -> tuple[Size, Size]:
        setting = figures_2_to_11.setting(f"figure-{figure}", preset)
        watched = Watched(setting, length, tuple(looks), patience=10)
        judged = Ranking(setting, rates, looks[-1], looks[-1] // 7, budgets)
        return (
            Size(watched, tuple(seeds), WATCHED, looks[-1], at=watched.steps),
            Size(judged, tuple(seeds), JUDGES, budgets[-1], at=budgets),
        )

    small = sizes("sample", *sample, rates[::2], range(2))
    full = sizes("paper", *paper, rates, range(10, 20))
    common = {"section": "5", "chapter": "5-late-switch-and-early-judgement"}
    return (
        Study(
            name=f"looks-stopping-figure-{figure}",
            title=f"{what}: early stopping by looks that cost as much, in the setting of Figure "
            f"{figure}",
            sizes={"sample": small[0], "paper": full[0]},
            method=Whole(stopping),
            quantities={
                "validation_loss": "loss on the validation set",
                "stopped": "the step that early stopping picks",
                "stopped_loss": "test loss at the step that early stopping picks",
                "regret": "test loss there above the lowest of the path",
            },
            **common,
        ),
        Study(
            name=f"looks-ranking-figure-{figure}",
            title=f"{what}: learning rates ranked early by looks that cost as much, in the setting "
            f"of Figure {figure}",
            sizes={"sample": small[1], "paper": full[1]},
            method=Whole(judging),
            quantities={
                "misranked": "share of pairs ranked other than by the long run",
                "excess": "loss of the long run at the rate chosen above that at the best rate",
                "misranked_decayed": "share of pairs ranked other than by the long run with decay",
                "excess_decayed": "loss of the long run with decay at the rate chosen above that "
                "at the best rate",
            },
            **common,
        ),
    )


def _convolutional(
    figure: int, what: str, length: int, variants: tuple[dict[str, str], ...] = ()
) -> Study:
    """Return the endings of a convolutional network, at looks that cost about one forward run.

    The sample takes as many steps as that of the figure, and has an ending of so many maps.
    """
    small, full = (
        figures_2_to_11.setting(f"figure-{figure}", preset) for preset in ("sample", "paper")
    )
    looks = tuple(sorted({*range(1000, 2001, 20), *range(1993, 2001)}))
    few = tuple(range(length, 2 * length + 1))
    return Study(
        name=f"endings-figure-{figure}",
        title=f"{what}: forward with a fixed ending, in the setting of Figure {figure}",
        section="5",
        chapter=CHAPTER,
        sizes={
            "sample": Size(small, (0,), ("forward", f"tail({length})"), few[-1], at=few),
            "paper": Size(full, (5, 6, 7), ("forward", "tail(50)"), looks[-1], at=looks),
        },
        method=Iterates(),
        variants=variants,
    )


_REGRESSION = (
    {
        "steps": (*range(0, 700, 10), *range(700, 1401)),
        "lengths": (1, 3, 10, 30, 100, 300),
        "length": 100,
        "seeds": range(5, 10),
    },
    {
        "steps": (*range(0, 50, 10), *range(50, 81)),
        "lengths": (1, 5, 20),
        "length": 20,
        "seeds": range(2),
    },
)

_LOOKS = (
    (100, range(700, 1401, 10), (25, 100, 400)),
    (10, range(40, 81, 2), (20, 40)),
)

_LATE = ((50, (1000, 1100, 1200, 1300, 1400)), (20, (80, 100, 120)))
"""How many batches are first and newest, and at which looks, at the paper's size and the sample."""

STUDIES = (
    *_studies(4, "MLP learning x²", *_REGRESSION),
    *_studies(5, "MLP learning cos(10x)", *_REGRESSION),
    *_studies(6, "MLP learning x³", *_REGRESSION),
    *_studies(
        7,
        "MLP on Fashion-MNIST",
        {
            "steps": sorted({*range(0, 1000, 50), *range(1000, 2001, 10), *range(1900, 1908)}),
            "lengths": (1, 5, 10, 50, 200),
            "length": 50,
            "seeds": range(5, 10),
        },
        {
            "steps": (*range(0, 60, 10), *range(60, 81)),
            "lengths": (1, 5, 20),
            "length": 20,
            "seeds": range(2),
        },
    ),
    _forgetting(4, "MLP learning x²", *_LATE),
    _forgetting(5, "MLP learning cos(10x)", *_LATE),
    _forgetting(6, "MLP learning x³", *_LATE),
    _forgetting(7, "MLP on Fashion-MNIST", (50, (1000, 1250, 1500, 1750, 2000)), _LATE[1]),
    _convolutional(2, "ResNet-18 on CIFAR-10", 2, variants=({"normalisation": "group"},)),
    _convolutional(8, "VGG-19 on CIFAR-10", 1),
    *_early(4, "MLP learning x²", (0.003, 0.006, 0.0125, 0.025, 0.05, 0.1, 0.2), *_LOOKS),
    *_early(5, "MLP learning cos(10x)", (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08), *_LOOKS),
)
"""The studies of the fixed ending."""
