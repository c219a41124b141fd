"""An experiment with all orders that is done in a second, and a way to start it in a process.

Importing torch takes seconds. ``python tests/tiny.py`` does it once: for each line that it reads,
it forks a process in a group of its own that prints its number and calls the command line with the
words of that line; and when it has ended, it prints the exit status.
"""

import os
import sys
import time
from dataclasses import replace

from revlib import backward, datasets, experiments, forward, reset, results, switch, tail, windowed
from revlib.experiments import Experiment, Preset
from revlib.tasks import Setting

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
    train_examples=50,
    test_examples=None,
)
ORDERS = (forward(), backward(), windowed(5), reset(7, 12), switch(10), tail(6))
_SAME = {"orders": ORDERS, "steps": 32, "seeds": (0, 1), "every": 8, "motion": (6, 12)}
TINY = Experiment(
    name="tiny",
    title="A tiny experiment",
    section="0",
    chapter="none",
    presets={
        "ci": Preset(SETTING, bursts=((20, 3),), **_SAME),
        "paper": Preset(SETTING.changed(batch_size=8), **_SAME),
    },
    unstated={},
)


def with_orders(orders):
    """The tiny experiment with other orders."""
    presets = {name: replace(preset, orders=orders) for name, preset in TINY.presets.items()}
    return replace(TINY, presets=presets)


def main():
    from revlib import cli

    experiments.EXPERIMENTS["tiny"] = TINY
    add = results.Writer.add

    def slowly(writer, rows):
        add(writer, rows)
        time.sleep(0.01)  # whoever wants to stop it finds it at work, however fast the machine

    results.Writer.add = slowly
    datasets.load("fashion_mnist", sample=True).digest  # noqa: B018 (once for all, too)
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
