"""The command line, ``revlib COMMAND``; ``revlib --help`` lists the commands.

PyTorch and the tables take seconds to import, which help and refusals need not wait for: each
command imports what it needs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import os
import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from revlib.runs.engine import Plan
    from revlib.store.results import Identity

NEXT = """What you can do next:
  revlib list                        what there is to run, and what is stored of it
  revlib run figure-4 --preset sample
                                     run an experiment, small, in seconds
  revlib audit figure-4              recompute a few published points and compare
  revlib claims                      what the stored results say of the paper's claims
  revlib COMMAND --help              more about a command
A model of your own: see "Your own model" in the book (make book)."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"revlib: {message[0].upper()}{message[1:].rstrip('.')}. See revlib --help.\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # its encoding may lack λ, as in a file that it
            stream.reconfigure(errors="namereplace")  # is redirected to
    options = _parser().parse_args(arguments)
    try:
        status = options.do(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # who reads the output, head say, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
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
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise  # PyTorch has no class for memory that is not there
        print(f"revlib: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="revlib",
        description="Training in reverse: run and check experiments.",
        epilog=NEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = importlib.metadata.version("revlib")
    parser.add_argument("--version", action="version", version=f"revlib {version}")
    parser.set_defaults(do=lambda options: parser.print_help() or 0)
    commands = parser.add_subparsers(metavar="COMMAND")

    command = commands.add_parser("list", help="the studies, their sizes, what is stored")
    command.set_defaults(do=_list)

    command = commands.add_parser("run", help="compute what is missing of a study")
    command.set_defaults(do=_run)
    _study(command)
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

    command.add_argument(
        "--device", metavar="NAME", help="compute there, cuda say (default: the processor)"
    )

    command = commands.add_parser("renew", help="rehearse stale results, and renew those that hold")
    command.set_defaults(do=_renew)
    command.add_argument("studies", nargs="*", metavar="STUDY", help="default: all that are stored")

    command = commands.add_parser("audit", help="recompute a few stored points and compare")
    command.set_defaults(do=_audit)
    _study(command)
    command.add_argument("--points", type=_positive, default=3, metavar="N", help="how many (3)")
    command.add_argument(
        "--seconds", type=_positive, metavar="S", help="begin with a cheap one, stop in time"
    )
    command.add_argument(
        "--draw", type=int, metavar="NUMBER", help="draw the points of an earlier audit again"
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
    command.add_argument("name", metavar="NAME", help="fashion_mnist, cifar10 or cifar100")
    return parser


def _study(command: argparse.ArgumentParser) -> None:
    command.add_argument("study", metavar="STUDY", help="see revlib list")
    command.add_argument("--preset", default="paper", help="paper (the default) or sample")
    command.add_argument(
        "--set",
        type=_change,
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help="with other choices than the preset's, init=glorot say; stored apart",
    )


def _change(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form FIELD=VALUE, init=he say")
    return name, value


def _plan(options: argparse.Namespace) -> Plan:
    """Return the plan of a study with the choices that are set, each a field of its setting."""
    from revlib.runs.engine import Plan
    from revlib.store import results

    changes = {name: results.value(text) for name, text in options.set}
    for name, value in changes.items():
        if value is None:
            raise ValueError(f"'{name}=None' changes nothing: leave it out, or set a value.")
    return Plan.of(options.study, options.preset, changes=changes)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


def _list(options: argparse.Namespace) -> int:
    from revlib import experiments
    from revlib.runs.engine import Plan
    from revlib.verdicts.stability import counted

    for study in experiments.STUDIES.values():
        print(f"{study.name}  {study.title} (Section {study.section})")
        for name, size in study.sizes.items():
            plan = Plan.of(study.name, name)
            identity = plan.identity()
            file = plan.store.current(identity, plan.orders)
            print(
                f"  {name:<6} {counted(len(size.seeds), 'seed')} of "
                f"{counted(len(size.cases), 'case')}, {len(size.recorded()):,} of "
                f"{size.steps + 1:,} steps recorded; {file.rows if file else 0:,} rows stored"
            )
            _say_stale(plan, identity)
    return 0


def _say_stale(plan: Plan, identity: Identity) -> None:
    for words in plan.stale(identity):
        print(
            f"  Stale and not used: {words}. `revlib renew {plan.study.name}` renews what still "
            f"holds; so does `revlib audit {plan.command}`, at more cost and on better grounds."
        )


def _run(options: argparse.Namespace) -> int:
    from revlib import runs

    plan = _plan(options)
    _say_stale(plan, plan.identity())
    table = runs.run(
        options.study,
        options.preset,
        options.seeds,
        options.every,
        options.last,
        options.workers,
        options.cluster,
        options.device,
        **plan.changes,
    )
    print(f"{len(table):,} rows of {options.study}, preset {options.preset}, are stored.")
    return 0


def _renew(options: argparse.Namespace) -> int:
    from revlib import experiments, runs
    from revlib.runs.engine import Plan
    from revlib.store import results

    for name in options.studies:
        experiments.get(name)  # it is valid
    held = True
    for name, preset, changes in results.kept():
        if not options.studies or name in options.studies:
            for found in runs.renew(name, preset, **changes):
                held = held and found.renewed
                which = Plan.of(name, preset, changes=changes).command
                print(f"{which}, {found.rows:,} rows: {found.words}.", flush=True)
    return 0 if held else 1


def _audit(options: argparse.Namespace) -> int:
    from revlib import runs

    changes = _plan(options).changes
    audits = runs.audit(
        options.study, options.preset, options.points, options.seconds, options.draw, **changes
    )
    for audit in audits:
        print(f"Draw {audit.draw}:")
        print(audit.points.to_string(index=False))
        print("Equal." if audit.passed else "Not equal.", end=" ")
        print("" if audit.finished else "The time was not enough for all points.", end=" ")
        print("The stale rows are renewed." if audit.renewed else "")
    return 0 if all(audit.passed for audit in audits) else 1


def _claims(options: argparse.Namespace) -> int:
    from revlib.store import results
    from revlib.verdicts import front_page, stability, tables

    results.verify()
    if options.write:
        for name, text in (
            ("opening", front_page.opening()),
            ("verdicts", tables.front()),
            ("advice", front_page.advice()),
        ):
            page = results.root().with_name(f"{name}.md")  # which pages of the book include
            page.write_text(text, encoding="utf-8")
            print(page)
    else:
        for row in tables.verdicts():
            seeds = stability.counted(row.seeds, "seed")
            print(f"{row.claim.id}: {row.verdict} on {seeds}. {row.evidence}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    from revlib.runs import benchmark

    result = benchmark.run(lambda line: print(line, file=sys.stderr))
    print(benchmark.table(result).to_string(index=False, float_format="{:.3g}".format))
    return 0


def _data(options: argparse.Namespace) -> int:
    from revlib.store import datasets

    datasets.load(options.name)
    print(datasets.path(options.name))
    return 0
