"""The command line, ``revlib COMMAND``; ``revlib --help`` lists the commands."""

from __future__ import annotations

import argparse
import ast
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from typing import Any, NoReturn

from revlib import (
    benchmark,
    claims,
    datasets,
    experiments,
    overview,
    results,
    runs,
    stability,
    studies,
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"revlib: {message[0].upper()}{message[1:].rstrip('.')}. See revlib --help.\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.do(options)
    except KeyboardInterrupt:
        print("\nStopped. What was computed is kept; the same command goes on from there.")
        return 130
    except BrokenExecutor:
        print(
            "revlib: A worker was killed, perhaps for lack of memory. What was computed is kept; "
            "the same command goes on from there, with fewer --workers perhaps.",
            file=sys.stderr,
        )
        return 2
    except (ValueError, OSError, results.StoreInUseError) as error:
        print(f"revlib: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="revlib", description="Training in reverse: run and check experiments.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="the experiments, their sizes, what is stored")
    command.set_defaults(do=_list)

    command = commands.add_parser("run", help="compute what is missing of an experiment")
    command.set_defaults(do=_run)
    _experiment(command)
    command.add_argument(
        "--seeds", type=int, nargs="+", metavar="SEED", help="default: the preset's"
    )
    command.add_argument(
        "--every", type=_positive, metavar="K", help="record every K-th step (and the bursts)"
    )
    command.add_argument("--last", type=_positive, metavar="N", help="record nothing after step N")
    command.add_argument(
        "--workers", type=_positive, default=1, metavar="N", help="processes side by side (1)"
    )
    command.add_argument(
        "--cluster", metavar="ADDRESS", help="use the workers of this Dask scheduler instead"
    )

    command = commands.add_parser("motion", help="measure contraction, and how far iterates move")
    command.set_defaults(do=_motion)
    _experiment(command)
    command.add_argument(
        "--seeds", type=int, nargs="+", metavar="SEED", help="default: the preset's"
    )
    command.add_argument(
        "--workers", type=_positive, default=1, metavar="N", help="processes side by side (1)"
    )

    command = commands.add_parser("audit", help="recompute a few stored points and compare")
    command.set_defaults(do=_audit)
    _experiment(command)
    command.add_argument("--points", type=_positive, default=3, metavar="N", help="how many (3)")
    command.add_argument(
        "--seconds", type=_positive, metavar="S", help="begin with a cheap one, stop in time"
    )
    command.add_argument(
        "--draw", type=int, metavar="NUMBER", help="draw the points of an earlier audit again"
    )
    command.add_argument(
        "--motion", action="store_true", help="points of the stored motion, not of the curves"
    )

    command = commands.add_parser("claims", help="what the stored results say of the claims")
    command.set_defaults(do=_claims)
    command.add_argument(
        "--write", action="store_true", help="write tables and advice for the book's front page"
    )

    command = commands.add_parser("bench", help="time a backward run here, and store the result")
    command.set_defaults(do=_bench)

    command = commands.add_parser("data", help="fetch a data set and say where it is kept")
    command.set_defaults(do=_data)
    command.add_argument("name", metavar="NAME", help=", ".join(datasets.NAMES))
    return parser


def _experiment(command: argparse.ArgumentParser) -> None:
    command.add_argument("experiment", metavar="EXPERIMENT", help="see revlib list")
    command.add_argument("--preset", default="paper", help="paper (the default) or ci")
    command.add_argument(
        "--set",
        type=_change,
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help="with other choices than the preset's, init=glorot say; stored apart",
    )


def _change(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form FIELD=VALUE, init=he say")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value  # a word: he, say


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


def _list(options: argparse.Namespace) -> int:
    for experiment in experiments.EXPERIMENTS.values():
        print(f"{experiment.name}  {experiment.title} (Section {experiment.section})")
        for name, preset in experiment.presets.items():
            maps = len(preset.seeds) * sum(
                order.cost(preset.recorded(order)) for order in preset.orders
            )
            asked = preset.recorded()
            stored = len(runs.stored(experiment.name, name))
            print(
                f"  {name:<6} {len(preset.seeds)} seeds of {preset.steps} steps, "
                f"{len(asked)} recorded, {maps:,} optimizer steps in all; {stored:,} rows stored"
            )
            _say_stale(experiment.name, name, {})
    for study in studies.known().values():
        print(f"{study.name}  {study.title} (Section {study.section})")
        for name, size in study.presets.items():
            print(
                f"  {name:<6} {len(size.seeds)} seeds of {len(size.cases)} cases, "
                f"{len(size.steps)} steps recorded; {len(studies.stored(study.name, name)):,} "
                "rows stored"
            )
            _say_stale_study(study.name, name)
    return 0


def _say_stale(experiment: str, preset: str, changes: dict[str, Any]) -> None:
    differs = [f"{name}={value}" for name, value in changes.items()]
    which = shlex.join([experiment, "--preset", preset, *(["--set", *differs] if differs else [])])
    for words in runs.stale(experiment, preset, **changes):
        print(
            f"  Stale and not used: {words}. `revlib audit {which}` renews curves that still "
            "hold; with --motion, what was measured of motion."
        )


def _say_stale_study(name: str, preset: str) -> None:
    for words in studies.stale(name, preset):
        print(
            f"  Stale and not used: {words}. `revlib audit {name} --preset {preset}` renews what "
            "still holds."
        )


def _refuse(options: argparse.Namespace, *names: str) -> None:
    """Refuse options that a study has no use for."""
    given = [f"--{name}" for name in names if getattr(options, name)]
    if given:
        raise ValueError(f"{options.experiment} is a study, which takes no {', '.join(given)}.")


def _run(options: argparse.Namespace) -> int:
    if options.experiment in studies.known():
        return _run_study(options)
    _say_stale(options.experiment, options.preset, dict(options.set))
    table = runs.run(
        options.experiment,
        options.preset,
        options.seeds,
        options.every,
        options.last,
        options.workers,
        options.cluster,
        **dict(options.set),
    )
    print(f"{len(table):,} rows of {options.experiment}, preset {options.preset}, are stored.")
    return 0


def _run_study(options: argparse.Namespace) -> int:
    _refuse(options, "set", "every", "last", "cluster")
    _say_stale_study(options.experiment, options.preset)
    table = studies.run(options.experiment, options.preset, options.seeds, options.workers)
    print(f"{len(table):,} rows of {options.experiment}, preset {options.preset}, are stored.")
    return 0


def _motion(options: argparse.Namespace) -> int:
    table = runs.measure(
        options.experiment, options.preset, options.seeds, options.workers, **dict(options.set)
    )
    print(f"{len(table):,} rows of the motion of {options.experiment} are stored.")
    return 0


def _audit(options: argparse.Namespace) -> int:
    if options.experiment in studies.known():
        return _audit_study(options)
    audits = runs.audit(
        options.experiment,
        options.preset,
        options.points,
        options.seconds,
        options.motion,
        options.draw,
        **dict(options.set),
    )
    for audit in audits:
        print(f"Draw {audit.draw}:")
        print(audit.points.to_string(index=False))
        print("Equal." if audit.passed else "Not equal.", end=" ")
        print("" if audit.finished else "The time was not enough for all points.", end=" ")
        print("The stale rows are renewed." if audit.renewed else "")
    return 0 if all(audit.passed for audit in audits) else 1


def _audit_study(options: argparse.Namespace) -> int:
    _refuse(options, "set", "seconds", "motion")
    points = studies.audit(options.experiment, options.preset, options.points, options.draw)
    print(points.to_string(index=False))
    print("Equal." if points["equal"].all() else "Not equal.", end=" ")
    print("The stale rows are renewed." if points["renewed"].any() else "")
    return 0 if points["equal"].all() else 1


def _claims(options: argparse.Namespace) -> int:
    if options.write:
        for page, text in ((claims.page(), claims.front()), (overview.page(), overview.advice())):
            page.write_text(text, encoding="utf-8")
            print(page)
    else:
        for row in claims.table().itertuples():
            seeds = stability.counted(row.seeds, "seed")
            print(f"{row.id}: {row.verdict} on {seeds}. {row.evidence}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    result = benchmark.run(lambda line: print(line, file=sys.stderr))
    print(benchmark.table(result).to_string(index=False, float_format="{:.3g}".format))
    return 0


def _data(options: argparse.Namespace) -> int:
    datasets.load(options.name)
    print(datasets.path(options.name))
    return 0
