"""The store of results: tidy tables that survive kills, and never mix what does not belong.

A :class:`Store` is a folder. In it, each *result file* holds the rows that were computed under one
identity (the setting, the digest of the data, the hashes of the code) and consists of

- ``<fingerprint>.json``: the identity, the orders, every run that added rows, every renewal, the
  digests of the two tables, and a digest of all this;
- ``<fingerprint>.parquet``: the rows, keyed by seed, order and step;
- ``<fingerprint>.journal``: rows of a run that is going on or was killed, one line each. They are
  moved into the table when a run ends or the next one begins;
- ``<fingerprint>.rehearsal``: the small table (Parquet) that the same code gives in seconds.

So no table can stand in the place of another, or of another version of itself, unnoticed.

Rows of another identity than today's are *stale*. They stay where they are, and are not used until
a rehearsal comes out as before, or an audit has recomputed some of them and found them equal; it is
written down as a renewal by which of the two.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import datetime
import errno
import functools
import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import pandas as pd
import pyarrow

from revlib.orders import Order
from revlib.store import provenance

KEYS = ["seed", "order", "step"]


class DamagedResultsError(ValueError):
    """A result file cannot be read."""


class StoreInUseError(OSError):
    """Another process is writing to the same store."""


def root() -> Path:
    """Return the folder of all results: the nearest ``book/results`` above the current folder.

    Outside a checkout of the book it is ``results`` in the current folder.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "book" / "_config.yml").exists():
            return folder / "book" / "results"
    return here / "results"


def as_json(parameters: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that determine numbers, as JSON keeps them.

    Left out is the field ``nudge`` (:class:`revlib.training.settings.Setting`): nothing nudged is
    ever stored.
    """
    fields = json.loads(json.dumps(dataclasses.asdict(parameters)))
    for part in (fields, *(value for value in fields.values() if isinstance(value, dict))):
        part.pop("nudge", None)
    return fields


def write(path: Path, stored: dict[str, Any]) -> None:
    """Write a JSON file with a digest of what it holds, in place of the one that was there."""
    with _kept(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, (json.dumps(stored | {"digest": _digest(stored)}, indent=1) + "\n").encode())


def read(path: Path) -> dict[str, Any]:
    """Return what :func:`write` has written.

    Raises
    ------
    DamagedResultsError
        If that is not what the file holds.
    """
    with _damage_reported(path):
        stored = json.loads(path.read_text())
        if stored.pop("digest", None) != _digest(stored):
            raise ValueError("it does not hold what was written")
        return stored


@dataclass(frozen=True)
class Identity:
    """What determines the numbers of a result file.

    Parameters
    ----------
    setting
        The setting's fields, as JSON keeps them.
    code
        Hashes of the code that determines numbers (:func:`revlib.store.reachable.code`).
    data
        Digest of the data.
    """

    setting: dict[str, Any]
    code: dict[str, str]
    data: str

    def other_study(self, other: Identity) -> str:
        """Return in words what says that these rows never were those of `other`; or nothing.

        Code may mean the same when it reads otherwise, and a field of the setting that only one of
        the two knows may change nothing. All else makes another study.
        """
        return "; ".join(self._unlike(other, known_to_both=True))

    def _unlike(self, other: Identity, known_to_both: bool) -> list[str]:
        """Return in what setting and data differ, by fields that both know or by all."""
        mine, others = _flat(self.setting), _flat(other.setting)
        names = mine.keys() & others.keys() if known_to_both else mine.keys() | others.keys()
        words = [
            f"{name} {mine.get(name)} instead of {others.get(name)}"
            for name in sorted(names)
            if mine.get(name) != others.get(name)
        ]
        return [*words, "other data"] if self.data != other.data else words

    def fingerprint(self) -> str:
        """Return a short hash of the whole identity."""
        return provenance.digest(json.dumps(vars(self), sort_keys=True))

    def differences(self, other: Identity) -> str:
        """Return in words in what these rows differ from those of `other`."""
        words = self._unlike(other, known_to_both=False)
        changed = sorted(
            name
            for name in self.code.keys() | other.code.keys()
            if self.code.get(name) != other.code.get(name)
        )
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            words.append(f"other code in {', '.join(changed[:3])}{more}")
        return "; ".join(words)


@dataclass
class ResultFile:
    """The rows computed under one identity, with their provenance.

    Parameters
    ----------
    stem
        The path without its suffix.
    identity
        Under which the rows were computed.
    orders
        For each order by name, up to which step it was taken, and a digest of its words.
    rows
        How many rows the table has.
    runs
        Each run that added rows: environment, workers, rows, seconds.
    renewals
        Each time that the rows were found to be those of another identity, too: that identity, the
        date, and ``by``, whether by rehearsal or by audit, with what was compared.
    digests
        For each of the two tables by its suffix the digests of the files that may be there: one,
        or while it is being replaced two; None is for no file.
    """

    stem: Path
    identity: Identity
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: int = 0
    runs: list[dict[str, Any]] = field(default_factory=list)
    renewals: list[dict[str, Any]] = field(default_factory=list)
    digests: dict[str, list[str | None]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> ResultFile:
        """Read the provenance at `path`, a ``.json``."""
        stored = read(path)
        with _damage_reported(path):
            identity = Identity(**stored.pop("identity"))
            if identity.fingerprint() != path.stem:
                raise ValueError("the identity in it is not the one that it is named after")
            return cls(path.with_suffix(""), identity, **stored)

    def write(self) -> None:
        """Write the provenance."""
        stored = {name: value for name, value in vars(self).items() if name != "stem"}
        write(self.stem.with_suffix(".json"), stored | {"identity": vars(self.identity)})

    def stands_for(self, identity: Identity) -> bool:
        """Return whether the rows hold under an identity, from the start or by renewal."""
        return identity in [self.identity, *(Identity(**r["identity"]) for r in self.renewals)]

    @property
    def finished(self) -> list[dict[str, Any]]:
        """The runs that have moved their rows into the table, which says how long they took."""
        return [run for run in self.runs if "seconds" in run]

    def check(self, order: Order) -> None:
        """Make sure that an order's name stands for the same words as in these rows.

        Raises
        ------
        ValueError
            If it does not.
        """
        known = self.orders.get(order.name)
        if known and _words(order, known["steps"]) != known["words"]:
            raise ValueError(
                f"The results in {self.stem.parent} have an order '{order.name}' with other "
                "words. Give the new order a name of its own."
            )

    def enter(self, order: Order, steps: int) -> None:
        """Write down an order, whose words are then known up to `steps` at least."""
        longest = max(steps, self.orders.get(order.name, {"steps": 0})["steps"])
        self.orders[order.name] = {"steps": longest, "words": _words(order, longest)}

    def table(self) -> pd.DataFrame:
        """Return all rows, those still in the journal included, sorted by their keys.

        Raises
        ------
        DamagedResultsError
            If the table or the journal is truncated, damaged or missing.
        """
        journal = self._journal()  # first: rows move from it into the table, never back
        stored = self._read(".parquet")
        added = pd.DataFrame([row for entry in journal for row in entry["rows"]])
        table = pd.concat([part for part in (stored, added) if len(part)] or [stored])
        table = table.drop_duplicates(ignore_index=True)
        if table.duplicated(KEYS).any():
            raise DamagedResultsError(
                f"{self.stem}.parquet and {self.stem}.journal disagree about the same row. {_MEND}"
            )
        return table.sort_values(KEYS, ignore_index=True)

    def has_rehearsal(self) -> bool:
        """Return whether a rehearsal is kept."""
        return self._content(".rehearsal") is not None

    def rehearsal(self) -> pd.DataFrame:
        """Return the small table that the code gave in which the rows were computed.

        Raises
        ------
        DamagedResultsError
            If it is damaged.
        """
        return self._read(".rehearsal")

    def keep_rehearsal(self, table: pd.DataFrame) -> None:
        """Write the rehearsal."""
        self._put(".rehearsal", table)
        self.write()

    def compact(self) -> None:
        """Move the rows of the journal into the table."""
        journal = self._journal()
        table = self.table()  # even where nothing is added: damage is found before any change
        if journal:
            self._put(".parquet", table)
            self.rows = len(table)
            self.runs[-1]["rows"] = sum(len(entry["rows"]) for entry in journal)
            self.runs[-1]["seconds"] = journal[-1]["seconds"]
        elif self.runs and "rows" not in self.runs[-1]:
            self.runs.pop()  # it was stopped before it had anything
        self.write()
        self.stem.with_suffix(".journal").unlink(missing_ok=True)

    def _put(self, suffix: str, table: pd.DataFrame) -> None:
        """Write a table, in a way that a kill at any moment leaves what is accepted.

        Before it, the table that is there and the new one are both written down; after it, the new
        one is, as soon as the provenance is written again.
        """
        content = table.to_parquet(index=False)
        [*_, before] = self.digests.get(suffix, [None])
        self.digests[suffix] = [before, provenance.digest(content)]
        self.write()
        _replace(self.stem.with_suffix(suffix), content)
        self.digests[suffix] = [provenance.digest(content)]

    def _content(self, suffix: str) -> bytes | None:
        """Return the bytes of a table, None if there is none as yet.

        Raises
        ------
        DamagedResultsError
            If it is not the table that was written.
        """
        path = self.stem.with_suffix(suffix)
        with _damage_reported(path):
            for known in (self, None, None):  # while it is read, another process may replace it
                known = known or ResultFile.read(self.stem.with_suffix(".json"))
                content = path.read_bytes() if path.exists() else None
                found = None if content is None else provenance.digest(content)
                if found in known.digests.get(suffix, [None]):
                    return content
            raise ValueError(
                "it is missing" if found is None else "it does not hold what was written"
            )

    def _read(self, suffix: str) -> pd.DataFrame:
        content = self._content(suffix)
        if content is None:
            return pd.DataFrame(columns=KEYS)
        with _damage_reported(self.stem.with_suffix(suffix)):
            return pd.read_parquet(io.BytesIO(content))

    def _journal(self) -> list[dict[str, Any]]:
        path = self.stem.with_suffix(".journal")
        with _damage_reported(path):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                return []
            # A kill can cut the line that is being written. It has no line end: it never counted.
            complete, _, _ = content.rpartition(b"\n")
            return [self.entry(line) for line in complete.splitlines()]

    def line(self, entry: dict[str, Any]) -> bytes:
        """Return the line of the journal that holds an entry."""
        text = json.dumps(entry)
        return f"{provenance.digest(self.stem.name + text)} {text}\n".encode()

    def entry(self, line: bytes) -> dict[str, Any]:
        """Return the entry that a line of the journal holds."""
        digest, _, text = line.decode().partition(" ")
        if digest != provenance.digest(self.stem.name + text):
            raise ValueError("a line does not hold what was written")
        return json.loads(text)


class Store:
    """All results of one experiment in one size.

    Parameters
    ----------
    folder
        Where its files are; made when the first row is written.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def files(self) -> list[ResultFile]:
        """Return all result files, whatever their identity."""
        for rows in (*self.folder.glob("*.parquet"), *self.folder.glob("*.journal")):
            if not rows.with_suffix(".json").exists():
                raise DamagedResultsError(f"{rows} has lost its .json beside it. {_MEND}")
        return [ResultFile.read(path) for path in sorted(self.folder.glob("*.json"))]

    def current(self, identity: Identity, orders: Iterable[Order] = ()) -> ResultFile | None:
        """Return the result file that holds under `identity`, the largest if there are several.

        Raises
        ------
        ValueError
            If the name of one of `orders` stands for other words in it.
        """
        valid = [file for file in self.files() if file.stands_for(identity)]
        file = max(valid, key=lambda file: file.rows, default=None)
        for order in orders:
            if file is not None:
                file.check(order)
        return file

    def stale(self, identity: Identity) -> list[ResultFile]:
        """Return the result files that do not hold under `identity`."""
        return [file for file in self.files() if not file.stands_for(identity)]

    def table(self, identity: Identity, orders: Iterable[Order] = ()) -> pd.DataFrame:
        """Return the rows that hold under `identity`; none if there are none."""
        file = self.current(identity, orders)
        return pd.DataFrame(columns=KEYS) if file is None else file.table()

    @contextlib.contextmanager
    def writing(
        self,
        identity: Identity,
        orders: Iterable[Order],
        steps: int,
        workers: int,
        device: str | None = None,
    ) -> Iterator[Writer]:
        """Open the store for a run, and keep what it has computed however the run ends.

        Parameters
        ----------
        identity
            Under which rows are computed.
        orders, steps
            What is run. An order that was stored under the same name with other words is
            refused.
        workers
            How many processes compute, for the record.
        device
            What computes in the place of the processor, for the record.

        Raises
        ------
        StoreInUseError
            If another process is writing to this store.
        ValueError
            If an order's name stands for other words in this store.
        """
        with self._lock():
            file = self.current(identity, orders) or ResultFile(
                self.folder / identity.fingerprint(), identity
            )
            for order in orders:
                file.enter(order, steps)
            file.compact()  # rows of a run that was killed
            file.runs.append({**provenance.environment(), "workers": workers})
            if device is not None:
                file.runs[-1]["device"] = device
            file.write()
            journal = file.stem.with_suffix(".journal")
            try:
                with journal.open("ab") as stream:
                    yield Writer(file, stream)
            finally:
                file.compact()
                if not file.rows and not journal.exists():  # then nothing is left behind
                    for suffix in (".json", ".rehearsal"):
                        file.stem.with_suffix(suffix).unlink(missing_ok=True)

    def renew(
        self,
        file: ResultFile,
        identity: Identity,
        record: dict[str, Any],
        rehearsal: pd.DataFrame | None = None,
    ) -> None:
        """Write down that the rows of `file` were found to be those of `identity`, and how.

        A rehearsal that is given takes the place of the one that is kept.
        """
        with self._lock():
            file = ResultFile.read(file.stem.with_suffix(".json"))
            date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            file.renewals.append({"identity": vars(identity), "date": date, **record})
            if rehearsal is not None:
                file.keep_rehearsal(rehearsal)
            file.write()

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        lock = filelock.FileLock(self.folder / ".lock")
        with _kept(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise StoreInUseError(
                f"Another process is writing to {self.folder}. Wait until it has finished, or "
                "stop it: what it has computed is kept."
            ) from None
        except (OSError, NotImplementedError) as error:
            if getattr(error, "errno", None) in (errno.EACCES, errno.EROFS):
                raise OSError(
                    f"{self.folder} may not be written to ({error.strerror}). Give yourself the "
                    "right to, or work on a copy of the results elsewhere."
                ) from error
            raise OSError(
                f"{self.folder} cannot be locked against other processes ({error}): its file "
                "system has no locks, perhaps. Nothing was changed there. Work on a copy of the "
                "results on another disk."
            ) from error
        try:
            yield
        finally:
            lock.release()
            if {path.name for path in self.folder.iterdir()} == {".lock"}:
                shutil.rmtree(self.folder, ignore_errors=True)
                with contextlib.suppress(OSError):  # they are not empty
                    self.folder.parent.rmdir()
                    self.folder.parent.parent.rmdir()


class Writer:
    """Takes rows of a run as they are computed; each is on disk when :meth:`add` returns."""

    def __init__(self, file: ResultFile, stream: Any):
        self.file = file
        self._stream = stream
        self._start = time.monotonic()

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Add rows."""
        seconds = round(time.monotonic() - self._start, 3)
        with _kept(self.file.stem.with_suffix(".journal")):
            self._stream.write(self.file.line({"seconds": seconds, "rows": rows}))
            self._stream.flush()

    def take(self, rows: list[dict[str, Any]], command: str) -> None:
        """Add rows that another study has, and write down which: what follows ``revlib run``."""
        self.add(rows)  # first: after a kill the record says no more than there is
        self.file.runs[-1].setdefault("taken", {})[command] = len(rows)
        self.file.write()


def kept() -> list[tuple[str, str, dict[str, Any]]]:
    """Return of all that is stored the name of the study, the preset and the changes to it."""
    found = []
    for folder in sorted({path.parent for path in root().glob("*/*/*.json")}):
        name, size = folder.parent.name, folder.name
        preset, *changes = re.split(r",(?=\w+=)", size)  # a list of widths has commas, too
        pairs = (change.partition("=")[::2] for change in changes)
        found.append((name, preset, {field: value(text) for field, text in pairs}))
    return found


def value(text: str) -> Any:
    """Return what a text stands for as the value of a field: a number, a list, or a word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text  # he, say


def verify() -> None:
    """Read everything that is stored, also what is stale.

    Raises
    ------
    DamagedResultsError
        If something does not hold what was written.
    """
    for path in root().rglob("*.json"):
        read(path)
    for folder in sorted({path.parent for path in root().glob("*/*/*.*")}):
        for file in Store(folder).files():
            file.table()
            file.has_rehearsal()


def costs() -> pd.DataFrame:
    """Return what all stored results took, from the runs on record.

    Returns
    -------
    pandas.DataFrame
        One row for each result file: ``experiment``, ``size`` (its folder: the preset, with the
        changes to its setting),
        ``rows``, ``hours`` (of the clock), ``core_hours`` (hours times workers, which have one
        thread each) and ``card_hours`` (those on a graphics card, which count no core), ``machine``
        and ``date`` of the last run, and ``cards``, their names.
    """

    def hours(runs: Iterable[dict[str, Any]]) -> float:
        return sum(run["seconds"] * run.get("workers", 1) for run in runs) / 3600

    folders = sorted({path.parent for path in root().rglob("*.parquet")})
    return pd.DataFrame(
        {
            "experiment": folder.relative_to(root()).parts[0],
            "size": "/".join(folder.relative_to(root()).parts[1:]),
            "rows": file.rows,
            "hours": sum(run["seconds"] for run in file.finished) / 3600,
            "core_hours": hours(run for run in file.finished if "device" not in run),
            "card_hours": hours(run for run in file.finished if "device" in run),
            "cards": " and ".join(sorted({run.get("device", "") for run in file.finished} - {""})),
            "machine": file.finished[-1]["machine"],
            "date": file.finished[-1]["date"][:10],
        }
        for folder in folders
        for file in Store(folder).files()
        if file.finished
    )


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields with those of the setting among them on the same level, ``setting.init`` say.

    So a field that a setting has gained is one field more, wherever the setting is.
    """
    return pd.json_normalize(fields, max_level=1).to_dict("records")[0]


@functools.cache
def _words(order: Order, steps: int) -> str:
    """Return the digest of an order's words at steps up to a last one."""
    return order.digest(_spread(steps))


def _spread(steps: int) -> list[int]:
    """Return a hundred of the steps 1 to `steps`, spread over them; all if there are fewer."""
    return sorted({1 + k * (steps - 1) // 99 for k in range(100)})


_MEND = (
    "Restore it from a copy or from version control; or delete the .parquet, .json and .journal "
    "of that name, and the next run computes their rows again."
)


@contextlib.contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        *(ValueError, LookupError, TypeError, AttributeError),  # it is not what we would write
        *(OSError, pyarrow.ArrowException),
    ) as error:
        raise DamagedResultsError(
            f"The result file {path} is truncated or damaged ({error}). {_MEND}"
        ) from error


def _digest(stored: dict[str, Any]) -> str:
    return provenance.digest(json.dumps(stored, sort_keys=True))


def _replace(path: Path, content: bytes) -> None:
    """Write a file beside `path` and move it there, so that `path` is never half written."""
    beside = path.with_name(path.name + ".new")
    with _kept(path):
        beside.write_bytes(content)
        os.replace(beside, path)


@contextlib.contextmanager
def _kept(path: Path) -> Iterator[None]:
    """Say of what cannot be written where that was, and what is kept."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path} could not be written: {error.strerror or error}. What was stored before is "
            "kept. Make room there, and give the same command again: it goes on from there."
        ) from error
