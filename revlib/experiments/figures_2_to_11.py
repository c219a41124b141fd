"""Figures 2 to 11 of the paper as data: what is trained in which orders, and at which steps.

To each figure belongs a second study, called motion-NAME: whether the maps of the same trainings
contract, and how far their iterates move (:mod:`revlib.training.motion`).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

from revlib.experiments.study import Iterates, Size, Study
from revlib.training import motion
from revlib.training.models import INITS
from revlib.training.settings import Setting

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
_SMALL_MLP = _MLP.changed(
    sample=True, hidden=(50, 50), learning_rate=0.02, train_examples=200, test_examples=200
)

_ON_THE_MLP = {
    "init": "with PyTorch's default nothing is learned in 2000 steps",
    "scaling": "the plainest choice",
    "sampling": "what a data loader does",
    "train_examples": "the paper does not say which samples its training curves use; a fixed part "
    "of the training set measures the same thing at every step",
    "test_examples": "the plainest choice",
}
_ON_REGRESSION = {
    "init": "at these learning rates the forward run diverges from He's normal weights, and some "
    "backward iterates do from LeCun's",
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

_TWO_ORDERS = ("forward", "backward")
_FIVE = (0, 1, 2, 3, 4)
_SECOND_HALF = (0, 1, *(round(1000 + 1000 * i / 15) for i in range(16)))


_PLAIN = ("pytorch", "lecun", "he", "glorot")
_LIBRARIES = tuple(init for init in INITS if init not in _PLAIN)


def _others(setting: Setting, **values: tuple) -> list[dict[str, Any]]:
    """Return all combinations of values of some fields, but for that of the setting itself."""
    combined = (dict(zip(values, each, strict=True)) for each in product(*values.values()))
    differing = ({k: v for k, v in each.items() if v != getattr(setting, k)} for each in combined)
    return list(filter(None, differing))


def _motion(study: Study, paper: tuple[int, ...], sample: tuple[int, ...]) -> Study:
    """Return the study that looks at how the iterates of another one move, at some steps."""
    at = {"sample": sample, "paper": paper}
    return replace(
        study,
        name=f"motion-{study.name}",
        title=f"{study.title}: contraction, and how far iterates move",
        sizes={name: replace(size, bursts=(), at=at[name]) for name, size in study.sizes.items()},
        method=Iterates(motion.compute),
    )


def _fashion_mnist(
    orders: tuple[str, ...],
    small_orders: tuple[str, ...],
    bursts: tuple[tuple[int, int], ...],
    **what,
) -> tuple[Study, Study]:
    """Return the study of an MLP on Fashion-MNIST, in which only the orders differ."""
    small = tuple((first // 20 - 5, 10) for first, _ in bursts)
    study = Study(
        sizes={
            "sample": Size(_SMALL_MLP, (0, 1), small_orders, 100, every=4, bursts=small),
            "paper": Size(_MLP, _FIVE, orders, 2000, every=50, bursts=bursts),
        },
        method=Iterates(),
        unstated=_ON_THE_MLP,
        **what,
    )
    return study, _motion(study, (500, 1000, 1500, 2000), (50, 100))


def _regression(figure: int, function: str, learning_rate: float) -> tuple[Study, Study]:
    """Return the study of one of the regressions of Section A.1."""
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
    small = setting.changed(sample=True, hidden=(50, 50))
    bursts = (651, 50), (1351, 50)
    study = Study(
        name=f"figure-{figure}",
        title=f"MLP learning {function}, forward against backward",
        section="A.1",
        chapter="a-1-regression",
        sizes={
            "sample": Size(small, (0, 1), _TWO_ORDERS, 240, every=4, bursts=((191, 50),)),
            "paper": Size(setting, _FIVE, _TWO_ORDERS, 1400, bursts=bursts),
        },
        method=Iterates(),
        unstated=_ON_REGRESSION,
        variants=(
            *_others(setting, scaling=("unit", "standardised"), init=_PLAIN),
            *_others(setting, init=_LIBRARIES),
        ),
    )
    return study, _motion(study, (350, 700, 1050, 1400), (30, 60))


def _convolutional(
    paper: Size,
    steps: int,
    looks: tuple[int, ...],
    small_model: str,
    small_orders: tuple[str, ...] = _TWO_ORDERS,
    **what,
) -> tuple[Study, Study]:
    """Return the study of a convolutional network, of which the sample takes so many steps.

    The sample trains a smaller network of the same kind. Motion is looked at, at some steps; in
    the sample at a third of them.
    """
    few = {"batch_size": 4, "train_examples": 4, "test_examples": 4}
    setting = paper.setting.changed(sample=True, model=small_model, **few)
    bursts = ((steps // 2, steps - steps // 2 + 1),)
    study = Study(
        sizes={
            "sample": Size(setting, (0,), small_orders, steps, bursts=bursts),
            "paper": paper,
        },
        method=Iterates(),
        unstated={
            name: reason
            for name, reason in _ON_CONVOLUTIONS.items()
            if getattr(paper.setting, name) is not None
        }
        | what.pop("unstated", {}),
        **what,
    )
    return study, _motion(study, looks, (-(-steps // 3),))


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

_PAIRS = (
    _convolutional(
        Size(
            _RESNET_18,
            _FIVE,
            _TWO_ORDERS,
            2000,
            every=50,
            bursts=((500, 8), (1000, 8), (1990, 8)),
        ),
        steps=6,
        looks=(100, 300, 503),
        small_model="resnet10",
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
        orders=("forward", "backward", "reset(1000)"),
        small_orders=("forward", "backward", "reset(50)"),
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
        variants=(
            *_others(_MLP, scaling=("unit", "standardised"), init=_PLAIN),
            *_others(_MLP, scaling=("unit", "image"), init=_LIBRARIES),
        ),
    ),
    _convolutional(
        Size(_VGG_19, _FIVE, _TWO_ORDERS, 2000, bursts=((1000, 6), (1990, 6)), at=_SECOND_HALF),
        steps=2,
        looks=(100, 302),
        small_model="vgg11",
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
        Size(_RESNET_50, _FIVE, _TWO_ORDERS, 2000, bursts=((1000, 6), (1990, 6)), at=_SECOND_HALF),
        steps=2,
        looks=(100,),
        small_model="resnet14",
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
        orders=("forward", "switch(1000)"),
        small_orders=("forward", "switch(50)"),
        bursts=((900, 8), (1900, 8)),
    ),
    _convolutional(
        Size(
            _RESNET_18,
            (0, 1, 2),
            ("forward", "windowed(100)", "backward"),
            25_000,
            at=(
                *(0, 1, *range(2500, 25_001, 2500)),
                *range(12_000, 12_501, 100),
                *range(24_500, 25_001, 100),
            ),
        ),
        steps=6,
        looks=(503,),
        small_model="resnet10",
        name="figure-11",
        title="ResNet-18 on CIFAR-10 for 25,000 steps",
        section="A.6",
        chapter="a-6-longer-training",
        small_orders=("forward", "windowed(4)", "backward"),
    ),
)

STUDIES = tuple(study for pair in _PAIRS for study in pair)
"""Each figure, and after it its motion."""


def setting(name: str, preset: str) -> Setting:
    """Return the setting of a figure, for studies that start from it."""
    (study,) = (study for study in STUDIES if study.name == name)
    return study.size(preset).setting
