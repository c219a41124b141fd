"""An experiment with all orders that is done in a moment, and a way to start it in a process.

Importing torch takes seconds. ``python tests/tiny.py`` does it once: for each line that it reads,
it forks a process in a group of its own that prints its number and calls the command line with the
words of that line; and when it has ended, it prints the exit status.
"""

import os
import sys
import time
from dataclasses import replace

from revlib import experiments
from revlib.experiments import Iterates, Size, Study
from revlib.store import results
from revlib.training import maps, motion
from revlib.training.settings import Setting, build

SETTING = Setting(
    data="fashion_mnist",
    sample=True,
    model="mlp",
    hidden=(8,),
    stem=None,
    normalisation=None,
    init="he",
    scaling="unit",
    sampling="epochs",
    batch_size=4,
    learning_rate=0.05,
    train_examples=20,
    test_examples=20,
)
ORDERS = ("forward", "backward", "windowed(5)", "reset(7, 12)", "switch(10)", "tail(6)")
# What is replayed is a whole word, whose last run is a letter or all of it; or only its last run.
MOVING = ("forward", "backward", "windowed(5)", "tail(6)")
_SAMPLE = Size(SETTING, (0, 1), ORDERS, 32, every=8, bursts=((20, 3),))
_PAPER = Size(SETTING.changed(batch_size=8), (0, 1), ORDERS, 32, every=8)
TINY = Study(
    name="tiny",
    title="A tiny experiment",
    section="0",
    chapter="none",
    sizes={"sample": _SAMPLE, "paper": _PAPER},
    method=Iterates(),
)
MOTION = replace(
    TINY,
    name="motion-tiny",
    sizes={
        name: replace(size, cases=MOVING, bursts=(), at=(6, 12))
        for name, size in TINY.sizes.items()
    },
    method=Iterates(motion.compute),
)


def with_cases(cases):
    """The tiny experiment with other orders."""
    return replace(
        TINY, sizes={name: replace(size, cases=cases) for name, size in TINY.sizes.items()}
    )


def main():
    from revlib import cli
    from revlib.runs.engine import Plan

    experiments.STUDIES |= {"tiny": TINY, "motion-tiny": MOTION}
    add = results.Writer.add

    def slowly(writer, rows):
        add(writer, rows)
        time.sleep(0.01)  # whoever wants to stop it finds it at work, however fast the machine

    results.Writer.add = slowly
    # Once for all, too: the data and the code are read, and torch imports what it has put off.
    Plan.of("tiny", "sample").identity()
    maps.Trainer(build(SETTING, 0))  # takes no gradient: torch cannot go on with that in a fork
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.setsid()
            print(os.getpid(), flush=True)
            sys.stdout = sys.stderr
            os._exit(cli.main(line.split()))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
