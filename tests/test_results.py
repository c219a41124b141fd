"""The store: nothing that was computed is lost, and nothing is read that was not computed."""

import itertools
import json
import math
import os
import struct
import tempfile
import threading
from pathlib import Path

import pandas as pd
import pytest
from conftest import contents
from hypothesis import given, settings
from hypothesis import strategies as st

from revlib import Order, backward, forward, switch, windowed
from revlib.store import results
from revlib.store.results import DamagedResultsError, Identity, ResultFile, Store, StoreInUseError

CODE = {"revlib.maps.step": "a1", "revlib.tasks.build": "b2"}
TODAY = Identity({"data": "digits", "learning_rate": 0.1}, CODE, "d1")
KEYS = results.KEYS


def row(step, loss=None, seed=0, order="forward"):
    loss = 1 / (step + 3) if loss is None else loss
    return {"seed": seed, "order": order, "step": step, "train_loss": loss, "accuracy": step / 7}


def rows(*steps):
    return [row(step) for step in steps]


def open_store(store, identity=TODAY, orders=(forward(),), steps=40):
    return store.writing(identity, orders, steps, workers=1)


def save(store, added, identity=TODAY, **options):
    with open_store(store, identity, **options) as writer:
        for one in added:
            writer.add([one])
    return writer.file


def save_killed(store, added, identity=TODAY):
    """Leave the store as a process leaves it that is killed after these rows."""
    with pytest.MonkeyPatch.context() as patch, open_store(store, identity) as writer:
        for one in added:
            writer.add([one])
        patch.setattr(ResultFile, "compact", lambda _: None)
    return writer.file


def assert_holds(store, expected, identity=TODAY):
    expected = pd.DataFrame(expected).sort_values(KEYS, ignore_index=True)
    pd.testing.assert_frame_equal(store.table(identity), expected, check_exact=True)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "tiny" / "sample")


# Rows survive


def test_rows_are_on_disk_when_add_returns(store):
    with open_store(store) as writer:
        for n in range(5):
            writer.add(rows(n))
            assert_holds(Store(store.folder), rows(*range(n + 1)))


def test_rows_come_back_sorted_and_typed(store):
    save(store, [row(3, order="b"), row(2, seed=1), row(3), row(1)])
    assert_holds(store, [row(3, order="b"), row(1), row(3), row(2, seed=1)])
    save(store, rows(2))
    assert_holds(store, [row(3, order="b"), row(1), row(2), row(3), row(2, seed=1)])


def test_rows_survive_an_exception(store):
    with pytest.raises(KeyboardInterrupt), open_store(store) as writer:
        writer.add(rows(1, 2))
        raise KeyboardInterrupt
    assert_holds(store, rows(1, 2))
    assert set(contents(store.folder)) == {
        f"{TODAY.fingerprint()}.{s}" for s in ("json", "parquet")
    }


def test_rows_of_a_killed_run_are_kept_by_the_next(store):
    save(store, rows(1))
    save_killed(store, rows(2, 3))
    assert_holds(store, rows(1, 2, 3))
    file = save(store, rows(4))
    assert_holds(store, rows(1, 2, 3, 4))
    assert not file.stem.with_suffix(".journal").exists()
    assert [run["rows"] for run in store.current(TODAY).runs] == [1, 2, 1]


def test_a_line_that_a_kill_has_cut_never_counted(store):
    file = save_killed(store, rows(1, 2, 3))
    journal = file.stem.with_suffix(".journal")
    whole = journal.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in range(last, len(whole)):
        journal.write_bytes(whole[:end])
        assert_holds(store, rows(1, 2))
    save(store, rows(4))
    assert_holds(store, rows(1, 2, 4))


def test_a_first_run_that_adds_nothing_leaves_no_folder(store):
    with open_store(store) as writer:
        writer.file.keep_rehearsal(pd.DataFrame(rows(1)))
    assert not store.folder.parent.exists()
    with pytest.raises(Crash), open_store(store):
        raise Crash
    assert not store.folder.parent.exists()


def test_a_run_that_adds_nothing_leaves_no_trace(store):
    save(store, rows(1))
    before = contents(store.folder)
    save(store, [])
    assert contents(store.folder) == before


def test_a_full_disk_costs_the_step_in_hand_at_most(store):
    resource = pytest.importorskip("resource")
    file = save_killed(store, rows(1, 2))
    size = file.stem.with_suffix(".journal").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = [row(n) for n in range(3, 200)]
    with pytest.raises(OSError, match="large"), open_store(store) as writer:
        writer.add(rows(3))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            writer.add(big)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    kept = store.table(TODAY)
    assert kept["step"].tolist()[:3] == [1, 2, 3]
    save(store, rows(4))
    assert {1, 2, 3, 4} <= set(store.table(TODAY)["step"])


numbers = st.floats(width=64)


@settings(deadline=None, max_examples=40)
@given(st.lists(numbers, min_size=1, max_size=5), st.booleans())
def test_floats_come_back_bit_for_bit(values, killed):
    special = [math.inf, -math.inf, math.nan, -0.0, 5e-324, 0.1 + 0.2]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        (save_killed if killed else save)(
            store, [row(n, value) for n, value in enumerate(values + special)]
        )
        read = store.table(TODAY)["train_loss"]
    for old, new in zip(values + special, read, strict=True):
        same = struct.pack("d", old) == struct.pack("d", new)
        assert same or (math.isnan(old) and math.isnan(new))


def test_a_quantity_that_some_rows_lack_is_nan_there(store):
    part = {key: value for key, value in row(2).items() if key != "accuracy"}
    save(store, [row(1), part])
    assert store.table(TODAY)["accuracy"].isna().tolist() == [False, True]
    save(store, rows(3))
    assert store.table(TODAY)["accuracy"].isna().tolist() == [False, True, False]


# A crash while rows are moved from the journal into the table


class Crash(BaseException):
    pass


@pytest.mark.parametrize("operation", range(7))
@pytest.mark.parametrize("moment", ["before", "after"])
def test_compaction_may_crash_anywhere(store, operation, moment, monkeypatch):
    """It announces the table, replaces it, says that it has, and removes the journal."""
    save(store, rows(1, 2))
    file = save_killed(store, [row(2), row(3), row(4, math.nan)])
    done = []

    def crashing(function, name):
        def crash(*arguments, **options):
            counts = name != "unlink" or arguments[0].suffix == ".journal"
            hit = counts and len(done) == operation
            done.extend([name] * counts)
            if hit and moment == "before":
                raise Crash
            function(*arguments, **options)
            if hit:
                raise Crash

        return crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(os, "replace", crashing(os.replace, "replace"))
        patch.setattr(Path, "unlink", crashing(Path.unlink, "unlink"))
        patch.setattr(Path, "write_bytes", crashing(Path.write_bytes, "write"))
        file.compact()
    assert done == [*["write", "replace"] * 3, "unlink"][: operation + 1]

    expected = [row(1), row(2), row(3), row(4, math.nan)]
    assert_holds(store, expected)
    save(store, rows(5))
    assert_holds(store, [*expected, row(5)])
    again = store.current(TODAY)
    assert (again.rows, [run["rows"] for run in again.runs]) == (5, [2, 3, 1])
    again.compact()
    once = contents(store.folder)
    again.compact()
    assert contents(store.folder) == once


def test_the_start_of_a_run_may_be_killed_anywhere(store, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Crash), open_store(store):
        patch.setattr(ResultFile, "compact", lambda _: None)
        raise Crash
    store.current(TODAY).stem.with_suffix(".journal").unlink()
    save(store, rows(1))
    assert_holds(store, rows(1))
    assert [run["rows"] for run in store.current(TODAY).runs] == [1]


def test_a_reader_never_stumbles_over_a_writer(store):
    save(store, rows(0))
    done = threading.Event()

    def write():
        try:
            for n in range(1, 40):
                save(store, rows(n))
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = [0]
    while not done.is_set():
        seen.append(len(Store(store.folder).table(TODAY)))
    writer.join()
    assert seen == sorted(seen)
    assert_holds(store, rows(*range(40)))


# Damage is refused, with the path and the mend, and left as it is


def assert_refused(store, path):
    before = contents(store.folder)
    for attempt in (
        lambda: store.table(TODAY),
        lambda: save(store, rows(9), orders=(forward(), backward()), steps=99),
    ):
        with pytest.raises(DamagedResultsError) as refusal:
            attempt()
        assert str(path) in str(refusal.value)
        assert "Restore it from a copy" in str(refusal.value)
        assert contents(store.folder) == before


@pytest.mark.parametrize("suffix", [".parquet", ".json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-5],
        lambda content: bytes(len(content)),
        lambda content: content[:200] + bytes(50) + content[250:],
        lambda content: b"null",
        lambda content: b"[]",
        lambda content: b'{"identity": 3}',
        lambda content: b"{}",
    ],
    ids=["empty", "half", "cut", "zeros", "hole", "null", "list", "identity", "object"],
)
def test_a_damaged_file_is_refused(store, suffix, damage):
    path = save(store, rows(*range(20))).stem.with_suffix(suffix)
    path.write_bytes(damage(path.read_bytes()))
    assert_refused(store, path)


@pytest.mark.parametrize(("kept", "lost"), [(".json", ".parquet"), (".parquet", ".json")])
def test_a_missing_file_is_refused(store, kept, lost):
    stem = save(store, rows(1, 2)).stem
    stem.with_suffix(lost).unlink()
    assert_refused(store, stem.with_suffix(".parquet"))


def test_a_journal_without_its_provenance_is_refused(store):
    stem = save_killed(store, rows(1, 2)).stem
    stem.with_suffix(".json").unlink()
    assert_refused(store, stem.with_suffix(".journal"))


@pytest.mark.parametrize(
    ("old", "new"), [("0.1", "0.2"), ('"a1"', '"a2"'), ('"d1"', "null"), ("digits", "widgets")]
)
def test_a_changed_identity_is_refused(store, old, new):
    """Otherwise the rows would pass for those of another identity."""
    path = save(store, rows(1)).stem.with_suffix(".json")
    changed = path.read_text().replace(old, new, 1)
    assert changed != path.read_text()
    path.write_text(changed)
    assert_refused(store, path)


def test_rows_fewer_than_were_stored_are_refused(store):
    path = save(store, rows(1)).stem.with_suffix(".parquet")
    earlier = path.read_bytes()
    save(store, rows(2))
    path.write_bytes(earlier)
    assert_refused(store, path)


def test_no_flipped_bit_of_a_table_goes_unnoticed(store):
    path = save(store, rows(*range(6))).stem.with_suffix(".parquet")
    content = path.read_bytes()
    for position in [*range(0, len(content), 17), *range(len(content) - 12, len(content))]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedResultsError, match=str(path)):
            store.table(TODAY)


def test_no_flipped_bit_of_the_provenance_goes_unnoticed(store):
    """Where it turns one blank into another, nothing has changed."""
    path = save(store, rows(1)).stem.with_suffix(".json")
    content = path.read_bytes()
    for position in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        if damaged.split() != content.split():
            with pytest.raises(DamagedResultsError, match=str(path)):
                store.table(TODAY)


@pytest.mark.parametrize("suffix", [".parquet", ".rehearsal", ".journal"])
def test_a_file_in_the_place_of_another_of_its_kind_is_refused(tmp_path, suffix):
    """Its values are whole and readable, and were computed for something else."""
    stems = []
    for name, loss in (("one", 0.5), ("other", 0.7)):
        identity = Identity(TODAY.setting | {"data": name}, CODE, "d1")
        file = save(Store(tmp_path / name), [row(1, loss)], identity)
        file.keep_rehearsal(pd.DataFrame([row(1, loss)]))
        file = save_killed(Store(tmp_path / name), [row(2, loss)], identity)
        stems.append(file.stem)
    one, other = (stem.with_suffix(suffix) for stem in stems)
    one.write_bytes(other.read_bytes())
    [file] = Store(tmp_path / "one").files()
    with pytest.raises(DamagedResultsError, match=str(one)):
        file.rehearsal() if suffix == ".rehearsal" else file.table()


@pytest.mark.parametrize(
    "change",
    [
        *({name: None} for name in ("orders", "rows", "runs", "renewals", "digests", "digest")),
        {"orders": {"forward": 3}},
        {"orders": {"forward": {"steps": 40, "words": "0"}}},
        {"rows": 7},
        {"runs": []},
        {"runs": [{}]},
        {"runs": "none"},
        {"renewals": {"identity": {}}},
        {"renewals": [{"by": "audit"}]},
        {"digests": {".parquet": [None]}},
        {"machine": "another"},
    ],
    ids=str,
)
def test_provenance_that_was_written_by_another_hand_is_refused(store, change):
    path = save(store, rows(1)).stem.with_suffix(".json")
    stored = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: v for name, v in stored.items() if v is not None}))
    assert_refused(store, path)


def test_provenance_holds_however_it_is_laid_out(store):
    path = save(store, rows(1)).stem.with_suffix(".json")
    stored = json.loads(path.read_text())
    text = json.dumps(dict(reversed(stored.items())), indent=3)
    path.write_bytes(text.replace("\n", "\r\n").encode())
    assert_holds(store, rows(1))


def test_all_that_is_kept_can_be_verified(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results.verify()
    store = Store(results.root() / "tiny" / "paper")
    file = save(store, rows(1))
    file.keep_rehearsal(pd.DataFrame(rows(1)))
    save_killed(store, rows(2), Identity(TODAY.setting, CODE, "d2"))
    results.write(results.root() / "performance.json", {"workers": 2})
    results.verify()
    for path in [path for path in results.root().rglob("*.*") if path.name != ".lock"]:
        content = path.read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        cut = (content[:-2], b"", b"{}") if path.suffix != ".journal" else ()  # as a kill leaves it
        for damaged in (flipped, *cut):
            path.write_bytes(damaged)
            with pytest.raises(DamagedResultsError, match=str(path.with_suffix(""))):
                results.verify()
        path.write_bytes(content)


def test_no_flipped_bit_in_the_middle_of_a_journal_goes_unnoticed(store):
    path = save_killed(store, rows(1, 2, 3)).stem.with_suffix(".journal")
    content = path.read_bytes()
    first, last = content.index(b"\n") + 1, content.rindex(b"\n", 0, -1)
    for position in range(first, last + 1):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedResultsError, match=str(path)):
            store.table(TODAY)
    assert_refused(store, path)


def test_a_damaged_stale_file_does_not_stand_in_the_way(store):
    other = Identity(TODAY.setting, {"revlib.maps.step": "old"}, "d1")
    save(store, rows(1), other).stem.with_suffix(".parquet").write_bytes(b"")
    save(store, rows(2))
    assert_holds(store, rows(2))


def test_equal_rows_count_once(store):
    save(store, [row(1), row(1), row(2, math.nan), row(2, math.nan)])
    save(store, [row(1), row(2, math.nan), row(3)])
    assert_holds(store, [row(1), row(2, math.nan), row(3)])


@pytest.mark.parametrize("other", [0.5, math.nan, math.nextafter(row(1)["train_loss"], 1)])
def test_rows_that_disagree_are_refused(store, other):
    save(store, rows(1))
    stem = save_killed(store, [row(1, other)]).stem
    assert_refused(store, stem.with_suffix(".journal"))


# What belongs together


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            Identity(TODAY.setting | {"learning_rate": 0.2}, TODAY.code, "d1"),
            ["learning_rate", "0.2"],
        ),
        (Identity(TODAY.setting | {"momentum": 0.9}, TODAY.code, "d1"), ["momentum", "0.9"]),
        (
            Identity(TODAY.setting, CODE | {"revlib.tasks.build": "new"}, "d1"),
            ["revlib.tasks.build"],
        ),
        (Identity(TODAY.setting, {"revlib.maps.step": "a1"}, "d1"), ["other code in revlib.tasks"]),
        (Identity(TODAY.setting, TODAY.code, "d2"), ["other data"]),
    ],
    ids=["value", "field", "code", "definition", "data"],
)
def test_rows_of_another_identity_are_stale_and_left_alone(store, other, words):
    file = save(store, rows(1, 2), other)
    before = contents(store.folder)
    assert all(word in other.differences(TODAY) for word in words)
    assert store.current(TODAY) is None
    assert store.table(TODAY).empty
    assert [stale.stem for stale in store.stale(TODAY)] == [file.stem]

    new = save(store, rows(2, 3))
    assert new.stem != file.stem
    assert_holds(store, rows(2, 3))
    assert_holds(store, rows(1, 2), other)
    assert contents(store.folder).items() >= before.items()


def test_a_renewal_is_written_down_and_rows_are_added_to_the_renewed_file(store):
    old = Identity(TODAY.setting, CODE | {"revlib.maps.step": "old"}, "d1")
    file = save(store, rows(1, 2), old)
    table = file.stem.with_suffix(".parquet").read_bytes()
    points = [{"seed": 0, "step": 2, "quantity": "train_loss", "equal": True}]
    store.renew(file, TODAY, {"by": "audit", "draw": 7, "points": points})

    assert file.stem.with_suffix(".parquet").read_bytes() == table
    stored = json.loads(file.stem.with_suffix(".json").read_text())
    assert stored["identity"] == vars(old)
    [renewal] = stored["renewals"]
    assert renewal["identity"] == vars(TODAY)
    assert (renewal["by"], renewal["draw"], renewal["points"]) == ("audit", 7, points)
    assert renewal["date"].startswith("20")
    assert set(renewal) == {"identity", "date", "by", "draw", "points"}
    assert_holds(store, rows(1, 2))
    assert_holds(store, rows(1, 2), old)
    assert not store.stale(TODAY)
    assert store.stale(Identity(TODAY.setting, CODE | {"revlib.maps.step": "newer"}, "d1"))

    save(store, rows(3))
    assert len(store.files()) == 1
    assert_holds(store, rows(1, 2, 3))


def test_of_several_valid_files_the_largest_counts(store):
    old = Identity(TODAY.setting, {"revlib.maps.step": "old"}, "d1")
    save(store, rows(1))
    file = save(store, rows(1, 2, 3), old)
    store.renew(file, TODAY, {})
    assert_holds(store, rows(1, 2, 3))


def test_an_order_keeps_its_words(store):
    mine, other = (Order("mine", order.word) for order in (forward(), windowed(8)))
    save(store, rows(1), orders=(mine, backward()), steps=10)
    before = contents(store.folder)
    with pytest.raises(ValueError, match=r"order 'mine' with other words.* name of its own"):
        save(store, rows(2), orders=(backward(), other), steps=10)
    assert contents(store.folder) == before


def test_the_words_are_noted_by_their_digest_and_how_far_they_are_known(store):
    file = save(store, rows(1), orders=(windowed(8),), steps=10)
    stored = json.loads(file.stem.with_suffix(".json").read_text())
    digest = windowed(8).digest(range(1, 11))
    assert stored["orders"] == {"windowed(8)": {"steps": 10, "words": digest}}


def test_of_a_long_run_a_hundred_words_are_noted(store):
    file = save(store, rows(1), orders=(backward(),), steps=25_000)
    spread = results._spread(25_000)
    assert (len(spread), spread[0], spread[-1]) == (100, 1, 25_000)
    gaps = {later - step for step, later in itertools.pairwise(spread)}
    assert gaps <= {252, 253}
    assert file.orders["backward"]["words"] == backward().digest(spread)
    assert results._spread(7) == [1, 2, 3, 4, 5, 6, 7]
    assert results._spread(1) == [1]


def test_a_run_can_be_made_longer(store):
    mine, late = Order("mine", forward().word), Order("mine", switch(10).word)
    save(store, rows(1), orders=(mine,), steps=10)
    save(store, rows(20), orders=(late,), steps=20)  # the same words as far as they were known
    digest = late.digest(range(1, 21))
    assert store.current(TODAY).orders["mine"] == {"steps": 20, "words": digest}
    save(store, rows(2), orders=(late,), steps=5)
    assert store.current(TODAY).orders["mine"]["steps"] == 20
    with pytest.raises(ValueError, match="other words"):
        save(store, rows(2), orders=(mine,), steps=5)


def test_words_name_three_of_the_definitions_that_have_changed():
    changed = Identity(TODAY.setting, {f"revlib.maps.{name}": "x" for name in "abcde"}, "d1")
    assert changed.differences(Identity(TODAY.setting, {}, "d1")) == (
        "other code in revlib.maps.a, revlib.maps.b, revlib.maps.c and 2 more"
    )


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (TODAY, ""),
        (Identity(TODAY.setting, {}, "d1"), ""),
        (Identity(TODAY.setting | {"momentum": 0.9}, CODE, "d1"), ""),
        (Identity({"data": "digits"}, CODE, "d1"), ""),
        (
            Identity({"data": "faces", "learning_rate": 0.2}, CODE, "d1"),
            "data faces instead of digits; learning_rate 0.2 instead of 0.1",
        ),
        (Identity(TODAY.setting, CODE, "d2"), "other data"),
    ],
    ids=["same", "code", "more fields", "fewer fields", "values", "data"],
)
def test_other_code_and_fields_that_one_side_lacks_may_be_of_the_same_study(other, words):
    assert other.other_study(TODAY) == words


# A rehearsal beside it


def test_a_rehearsal_is_kept_beside_its_rows_bit_for_bit(store):
    file = save(store, rows(1, 2))
    before = contents(store.folder)
    assert not file.has_rehearsal()
    small = pd.DataFrame([row(1, 0.1 + 0.2), row(2, math.inf), row(3, math.nan)])
    file.keep_rehearsal(small)
    [again] = Store(store.folder).files()
    assert again.has_rehearsal()
    pd.testing.assert_frame_equal(again.rehearsal(), small, check_exact=True)
    assert set(contents(store.folder)) == {*before, f"{TODAY.fingerprint()}.rehearsal"}
    table = f"{TODAY.fingerprint()}.parquet"
    assert contents(store.folder)[table] == before[table]
    assert_holds(store, rows(1, 2))


def test_a_damaged_rehearsal_is_refused_and_does_not_stand_in_the_way_of_rows(store):
    file = save(store, rows(1))
    file.keep_rehearsal(pd.DataFrame(rows(1)))
    path = file.stem.with_suffix(".rehearsal")
    content = path.read_bytes()
    for damaged in (b"", content[:-5], bytes(len(content))):
        path.write_bytes(damaged)
        with pytest.raises(DamagedResultsError, match=str(path)):
            file.rehearsal()
        assert_holds(store, rows(1))


# One writer


def test_a_second_writer_is_refused_and_reading_is_not(store):
    with open_store(store) as writer:
        writer.add(rows(1))
        with (
            pytest.raises(
                StoreInUseError, match=r"Another process is writing to .*sample\. Wait until"
            ),
            open_store(Store(store.folder)),
        ):
            pytest.fail("two writers at once")
        with pytest.raises(StoreInUseError):
            store.renew(writer.file, TODAY, {})
        assert_holds(Store(store.folder), rows(1))
        writer.add(rows(2))
    save(store, rows(3))
    assert_holds(store, rows(1, 2, 3))


def test_stores_do_not_get_into_each_others_way(tmp_path):
    with open_store(Store(tmp_path / "a")) as a, open_store(Store(tmp_path / "b")) as b:
        a.add(rows(1))
        b.add(rows(2))
    assert_holds(Store(tmp_path / "a"), rows(1))
    assert_holds(Store(tmp_path / "b"), rows(2))


# Where it is


def test_reading_makes_nothing(store):
    assert store.files() == []
    assert store.table(TODAY).empty
    assert list(store.table(TODAY)) == KEYS
    assert not store.folder.exists()


def test_results_are_kept_in_the_book_or_else_here(tmp_path, monkeypatch):
    chapter = tmp_path / "checkout" / "notebooks" / "deeper"
    chapter.mkdir(parents=True)
    monkeypatch.chdir(chapter)
    assert results.root() == chapter / "results"
    book = tmp_path / "checkout" / "book"
    book.mkdir()
    assert results.root() == chapter / "results"
    (book / "_config.yml").touch()
    assert results.root() == book / "results"
    monkeypatch.chdir(book)
    assert results.root() == book / "results"


# What it took


def test_costs_add_up_all_runs_of_a_file_and_leave_out_those_that_stored_nothing(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(results, "root", lambda: tmp_path)
    assert results.costs().empty
    sizes = ("paper", "paper,init=he", "sample")
    for number, size in enumerate(sizes, start=1):
        file = save(Store(tmp_path / "tiny" / size), rows(*range(number)))
        file.runs[0] |= {"seconds": 3600, "workers": 2}
        file.runs.append(file.runs[0] | {"seconds": 1800, "workers": 1, "date": "2030-01-02T03"})
        file.runs.append(file.runs[0] | {"seconds": 900, "workers": 1, "device": "a card"})
        file.runs.append({name: v for name, v in file.runs[0].items() if name != "seconds"})
        file.write()
    found = results.costs()
    assert list(found["experiment"]) == ["tiny"] * 3
    assert list(found["size"]) == list(sizes)
    assert list(found["rows"]) == [1, 2, 3]
    assert set(found["hours"]) == {1.75}
    assert set(found["core_hours"]) == {2.5}
    assert set(found["card_hours"]) == {0.25}
    assert set(found["cards"]) == {"a card"}


def test_what_is_kept_is_known_by_study_preset_and_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "root", lambda: tmp_path)
    assert results.kept() == []
    folders = (
        "tiny/paper",
        "tiny/paper,hidden=(4, 4),init=he,learning_rate=1e+300",
        "tiny/sample",
        "other/paper",
    )
    for folder in folders:
        save(Store(tmp_path / folder), rows(1))
    (tmp_path / "empty" / "paper").mkdir(parents=True)
    changes = {"hidden": (4, 4), "init": "he", "learning_rate": 1e300}
    assert results.kept() == [
        ("other", "paper", {}),
        ("tiny", "paper", {}),
        ("tiny", "paper", changes),
        ("tiny", "sample", {}),
    ]


@pytest.mark.parametrize("value", [0.5, 1e-3, 3, True, (4, 4), "he", "x^2", "cos(10x)", None])
def test_a_value_is_read_as_it_is_written(value):
    read = results.value(str(value))
    assert (read, type(read)) == (value, type(value))


def test_a_full_disk_names_the_file_and_what_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    path.write_text("before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"rows\.parquet could not be written: No space.*is kept"):
        results._replace(path, b"after")
    assert path.read_text() == "before"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(37, "No locks available"), "cannot be locked .*another disk"),
        (NotImplementedError("flock"), "cannot be locked .*another disk"),
        (PermissionError(13, "Permission denied"), "may not be written to .Permission denied"),
    ],
)
def test_why_a_folder_cannot_be_written_to_is_said(error, words, tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise error

    monkeypatch.setattr(results.filelock.FileLock, "acquire", refuse)
    message = f"{tmp_path} {words}"
    with pytest.raises(OSError, match=message), results.Store(tmp_path)._lock():
        pass
