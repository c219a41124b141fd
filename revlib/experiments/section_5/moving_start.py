"""Moving the start only when it pays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from revlib.experiments.section_5.held_out import task_of
from revlib.training import sweep
from revlib.training.maps import Trainer
from revlib.training.settings import Setting


class Policy(NamedTuple):
    """A way to go from one check to the next.

    Parameters
    ----------
    replayed
        ``replayed(anchor, before, n)``: the numbers of the batches that are applied to the iterate
        at the anchor, in this order, to make the iterate of check n; `before` is the step of the
        check before.
    selective
        Whether the anchor moves to the new iterate only if that has a lower validation loss than
        the anchor has; otherwise it always does.
    """

    replayed: Callable[[int, int, int], Iterable[int]]
    selective: bool


def policies() -> dict[str, Policy]:
    """Return the policies that are compared, by name.

    Forward; backward in windows; the paper's proposal; and the same choice in forward training,
    which drops the batches since the last check if they did no good, and goes on with new ones.
    """
    return {
        "forward": Policy(lambda anchor, before, n: range(before + 1, n + 1), selective=False),
        "windowed": Policy(lambda anchor, before, n: range(n, before, -1), selective=False),
        "reset when better": Policy(lambda anchor, before, n: range(n, anchor, -1), selective=True),
        "forward when better": Policy(
            lambda anchor, before, n: range(before + 1, n + 1), selective=True
        ),
    }


@dataclass(frozen=True)
class Checks:
    """What the numbers of a study of policies depend on.

    Parameters
    ----------
    setting
        What is trained.
    every
        Steps from one check to the next.
    steps
        How many batches there are in all.
    """

    setting: Setting
    every: int
    steps: int


def checks(
    trainer: Trainer, policy: Policy, every: int, steps: int, loss: Callable[[], float]
) -> Iterator[dict[str, int]]:
    """Train under a policy and yield at each check, while the trainer holds its iterate.

    Parameters
    ----------
    trainer
        Holds the start, and is driven in place.
    policy
        How to go on.
    every, steps
        Checks are at the steps 0, every, 2 every, … up to `steps`.
    loss
        Returns the validation loss of what the trainer holds.

    Yields
    ------
    dict
        ``step``, ``anchor`` (the step of the iterate from which the training goes on) and ``cost``
        (maps applied so far).
    """
    anchor, cost, kept, lowest = 0, 0, trainer.state(), loss()
    yield {"step": 0, "anchor": 0, "cost": 0}
    for n in range(every, steps + 1, every):
        trainer.load(kept)
        for batch in policy.replayed(anchor, n - every, n):
            trainer.apply(batch)
            cost += 1
        found = loss()
        if not policy.selective or found < lowest:
            anchor, kept, lowest = n, trainer.state(), found
        yield {"step": n, "anchor": anchor, "cost": cost}


def policy(parameters: Checks, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield the checks of one of the :func:`policies`.

    Yields
    ------
    dict
        As :func:`checks`; loss and accuracy of the new iterate on both held-out sets; and
        ``kept_validation_loss`` and ``kept_loss``, the validation and the test loss of the iterate
        that had the lowest validation loss so far.
    """
    task = task_of(parameters.setting, seed)
    trainer = next(kind for applies, kind in sweep.STRATEGIES.values() if applies(task))(task)
    measured: dict[str, float] = {}

    def loss() -> float:
        measured.update(task.evaluate(trainer.model()))
        return measured["validation_loss"]

    kept = (math.inf, math.nan)
    for check in checks(trainer, policies()[case], parameters.every, parameters.steps, loss):
        kept = min(kept, (measured["validation_loss"], measured["test_loss"]))
        yield check | measured | {"kept_validation_loss": kept[0], "kept_loss": kept[1]}
