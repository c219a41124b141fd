"""The paper's experiments as data: one entry for each figure, each in two sizes.

The preset ``paper`` is the paper's own setting on the full data. The preset ``ci`` is a small
version on the embedded sample, for tests and for a first look; it stands for nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pandas as pd

from revlib.models import INITS
from revlib.orders import Order, backward, forward, reset, switch, windowed
from revlib.tasks import SCALINGS, Setting


@dataclass(frozen=True)
class Preset:
    """One size of an experiment.

    Parameters
    ----------
    setting
        What determines the numbers.
    orders
        The orders of iteration that are compared.
    steps
        Length of the run, in optimizer steps.
    seeds
        The seeds, each a run of its own.
    every
        Spacing of the grid of recorded steps.
    bursts
        Runs of consecutive recorded steps, as ``(first, length)``: without them the change from
        one step to the next cannot be seen.
    until
        The last step that is recorded of an order, by its name, where the whole run is out of
        reach.
    motion
        The steps at which contraction is measured (:mod:`revlib.growth`).
    """

    setting: Setting
    orders: tuple[Order, ...]
    steps: int
    seeds: tuple[int, ...]
    every: int
    bursts: tuple[tuple[int, int], ...] = ()
    until: Mapping[str, int] = field(default_factory=dict)
    motion: tuple[int, ...] = ()

    @property
    def windows(self) -> list[tuple[int, int]]:
        """The first and the last step of each burst: where a path's fluctuation is measured."""
        return [(first, first + length - 1) for first, length in self.bursts]

    def recorded(
        self, order: Order | None = None, every: int | None = None, last: int | None = None
    ) -> list[int]:
        """Return the recorded steps: the first two, the grid, the bursts and the end.

        Parameters
        ----------
        order
            The order of which they are recorded; by default, one that is followed to the end.
        every
            Another spacing of the grid.
        last
            A step after which nothing is recorded.
        """
        every = self.every if every is None else every
        if not isinstance(every, int) or every < 1:
            raise ValueError(
                f"The spacing of recorded steps must be a whole number, 1 or more; got {every!r}."
            )
        grid = {0, 1, self.steps, *range(every, self.steps + 1, every)}
        steps = grid.union(*(range(first, first + n) for first, n in self.bursts))
        until = self.steps if order is None else self.until.get(order.name, self.steps)
        return sorted(n for n in steps if n <= until and (last is None or n <= last))


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
    presets
        Its sizes, by name.
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
    presets: dict[str, Preset]
    unstated: dict[str, str]
    variants: tuple[dict[str, str], ...] = ()

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


_MLP = Setting(
    data="fashion_mnist",
    sample=False,
    model="mlp",
    hidden=(500,) * 5,
    stem=None,
    normalisation=None,
    init="he",
    scaling="unit",
    sampling="epochs",
    batch_size=8,
    learning_rate=0.001,
    train_examples=2000,
    test_examples=None,
)
_SMALL_MLP = _MLP.changed(sample=True, hidden=(100, 100), learning_rate=0.02, train_examples=500)

_ON_THE_MLP = {
    "init": "with PyTorch's default nothing is learned in 2000 steps",
    "scaling": "the plainest choice",
    "sampling": "what a data loader does",
    "train_examples": "the paper does not say which samples its training curves use; a fixed part "
    "of the training set measures the same thing at every step",
    "test_examples": "the plainest choice",
}
_ON_REGRESSION = {
    "init": "with LeCun's or He's normal weights the forward run diverges at these learning rates",
    "scaling": "the arguments lie in [-1, 1] as they are",
    "sampling": "what a data loader does",
    "train_examples": "all 101 points (the paper speaks of 100, and its formula gives 101)",
    "test_examples": "the paper does not say; the 100 points half way between",
}
_ON_CONVOLUTIONS = {
    "stem": "torchvision's, and four times cheaper than that of the CIFAR variants",
    "normalisation": "torchvision's default",
    "init": "torchvision's own",
    "scaling": "the plainest choice",
    "sampling": "what a data loader does",
    "train_examples": "the paper does not say; a fixed part of the training set, small because "
    "every iterate is evaluated",
    "test_examples": "the same for the test set",
}

_TWO_ORDERS = (forward(), backward())
_FIVE = (0, 1, 2, 3, 4)


def _starts(setting: Setting) -> tuple[dict[str, str], ...]:
    """Return all other ways to initialise an MLP and to scale its inputs."""
    fields = {"init": INITS, "scaling": SCALINGS}
    combined = (dict(zip(fields, values, strict=True)) for values in product(*fields.values()))
    differing = ({k: v for k, v in each.items() if v != getattr(setting, k)} for each in combined)
    return tuple(filter(None, differing))


def _fashion_mnist(
    orders: tuple[Order, ...],
    small_orders: tuple[Order, ...],
    bursts: tuple[tuple[int, int], ...],
    **what,
) -> Experiment:
    """Return an experiment with the MLP on Fashion-MNIST, in which only the orders differ."""
    return Experiment(
        presets={
            "paper": Preset(
                _MLP,
                orders,
                steps=2000,
                seeds=_FIVE,
                every=50,
                bursts=bursts,
                motion=(500, 1000, 1500, 2000),
            ),
            "ci": Preset(
                _SMALL_MLP,
                small_orders,
                steps=200,
                seeds=(0, 1),
                every=4,
                bursts=tuple((first // 10 - 10, 20) for first, _ in bursts),
                motion=(50, 200),
            ),
        },
        unstated=_ON_THE_MLP,
        **what,
    )


def _regression(figure: int, function: str, learning_rate: float) -> Experiment:
    """Return one of the regressions of Section A.1."""
    setting = Setting(
        data=function,
        sample=False,
        model="mlp",
        hidden=(300, 300, 300),
        stem=None,
        normalisation=None,
        init="pytorch",
        scaling="unit",
        sampling="epochs",
        batch_size=1,
        learning_rate=learning_rate,
        train_examples=None,
        test_examples=None,
    )
    return Experiment(
        name=f"figure-{figure}",
        title=f"MLP learning {function}, forward against backward",
        section="A.1",
        chapter="a-1-regression",
        presets={
            "paper": Preset(
                setting,
                _TWO_ORDERS,
                steps=1400,
                seeds=_FIVE,
                every=1,
                bursts=((651, 50), (1351, 50)),
                motion=(350, 700, 1050, 1400),
            ),
            "ci": Preset(
                setting.changed(sample=True, hidden=(50, 50)),
                _TWO_ORDERS,
                steps=400,
                seeds=(0, 1),
                every=4,
                bursts=((351, 50),),
                motion=(100, 400),
            ),
        },
        unstated=_ON_REGRESSION,
        variants=_starts(setting),
    )


def _convolutional(
    paper: Preset, ci: int, small_orders: tuple[Order, ...] = _TWO_ORDERS, **what
) -> Experiment:
    """Return an experiment with a convolutional network, of which `ci` takes so many steps."""
    small = Preset(
        paper.setting.changed(sample=True, train_examples=50, test_examples=50),
        small_orders,
        steps=ci,
        seeds=(0,),
        every=1,
        bursts=((ci // 2, ci - ci // 2 + 1),),
        motion=(ci,),
    )
    return Experiment(
        presets={"paper": paper, "ci": small},
        unstated={
            name: reason
            for name, reason in _ON_CONVOLUTIONS.items()
            if getattr(paper.setting, name) is not None
        }
        | what.pop("unstated", {}),
        **what,
    )


_RESNET_18 = Setting(
    data="cifar10",
    sample=False,
    model="resnet18",
    hidden=None,
    stem="imagenet",
    normalisation="batch",
    init="torchvision",
    scaling="unit",
    sampling="epochs",
    batch_size=8,
    learning_rate=0.025,
    train_examples=500,
    test_examples=1000,
)
_VGG_19 = replace(
    _RESNET_18,
    model="vgg19",
    stem=None,
    learning_rate=0.001,
    test_examples=500,
)
_RESNET_50 = replace(
    _RESNET_18,
    data="cifar100",
    model="resnet50",
    batch_size=16,
    learning_rate=0.001,
    test_examples=500,
)

EXPERIMENTS = {
    e.name: e
    for e in [
        _convolutional(
            Preset(
                _RESNET_18,
                _TWO_ORDERS,
                steps=2000,
                seeds=_FIVE,
                every=200,
                bursts=((500, 8), (1000, 8)),
                motion=(100, 300, 503),
            ),
            ci=8,
            name="figure-2",
            title="ResNet-18 on CIFAR-10, forward against backward (with Figure 12)",
            section="4 and B.1",
            chapter="4-1-resnet-18-cifar-10",
            variants=({"normalisation": "group"}, {"normalisation": "none"}, {"stem": "cifar"}),
        ),
        _fashion_mnist(
            name="figure-3",
            title="MLP on Fashion-MNIST, backward with a new start at step 1000 (with Figure 13)",
            section="4 and B.2",
            chapter="4-2-convergence-toward-points",
            orders=(forward(), backward(), reset(1000)),
            small_orders=(forward(), backward(), reset(100)),
            bursts=((900, 8), (1900, 8)),
        ),
        _regression(4, "x^2", 0.05),
        _regression(5, "cos(10x)", 0.02),
        _regression(6, "x^3", 0.02),
        _fashion_mnist(
            name="figure-7",
            title="MLP on Fashion-MNIST, forward against backward",
            section="A.2",
            chapter="a-2-mlp-fashion-mnist",
            orders=_TWO_ORDERS,
            small_orders=_TWO_ORDERS,
            bursts=((1000, 8), (1900, 8)),
            variants=_starts(_MLP),
        ),
        _convolutional(
            Preset(
                _VGG_19,
                _TWO_ORDERS,
                steps=2000,
                seeds=_FIVE,
                every=1000,
                bursts=((300, 4), (1000, 4)),
                motion=(100, 302),
            ),
            ci=4,
            name="figure-8",
            title="VGG-19 on CIFAR-10, forward against backward",
            section="A.3",
            chapter="a-3-vgg-19-cifar-10",
            variants=({"normalisation": "none"},),
            unstated={
                "normalisation": "VGG-19 as published has none, and does not learn so at this "
                "learning rate (see the chapter on unstated choices)"
            },
        ),
        _convolutional(
            Preset(
                _RESNET_50,
                _TWO_ORDERS,
                steps=2000,
                seeds=_FIVE,
                every=1000,
                bursts=((300, 4), (1000, 4)),
                motion=(100,),
            ),
            ci=4,
            name="figure-9",
            title="ResNet-50 on CIFAR-100, forward against backward",
            section="A.4",
            chapter="a-4-resnet-50-cifar-100",
        ),
        _fashion_mnist(
            name="figure-10",
            title="MLP on Fashion-MNIST, forward and from step 1000 on backward",
            section="A.5",
            chapter="a-5-backward-after-forward",
            orders=(forward(), switch(1000)),
            small_orders=(forward(), switch(100)),
            bursts=((900, 8), (1900, 8)),
        ),
        _convolutional(
            Preset(
                _RESNET_18,
                (forward(), backward(), windowed(100)),
                steps=25_000,
                seeds=(0,),
                every=500,
                bursts=((24_992, 8),),
                until={"backward": 2000},
            ),
            ci=8,
            name="figure-11",
            title="ResNet-18 on CIFAR-10 for 25,000 steps",
            section="A.6",
            chapter="a-6-longer-training",
            small_orders=(forward(), backward(), windowed(4)),
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


def _told(value: Any) -> str:
    return "all" if value is None else str(value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
