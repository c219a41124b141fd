"""Loading, fetching and refusing data sets; nothing here needs a network."""

import dataclasses
import importlib.resources
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import platformdirs
import pytest
import torch
import torchvision.datasets

from revlib.store import datasets

IMAGE = {"fashion_mnist": (28, 28), "cifar10": (32, 32, 3), "cifar100": (32, 32, 3)}
CLASSES = {"fashion_mnist": 10, "cifar10": 10, "cifar100": 100}
TORCHVISION = {"fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Look for full sets in an empty folder, so that no test sees the user's own."""
    monkeypatch.setenv("REVLIB_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "DIGESTS", {})  # those of the tests are small
    return tmp_path


def small(name, rows=6):
    """Return arrays of the right form for a data set of `rows` training images."""
    generator = np.random.default_rng(0)
    arrays = {"classes": np.array([f"class {i}" for i in range(CLASSES[name])])}
    for part, size in (("train", rows), ("test", rows // 2)):
        arrays[f"x_{part}"] = generator.integers(0, 256, (size, *IMAGE[name]), dtype=np.uint8)
        arrays[f"y_{part}"] = generator.integers(0, CLASSES[name], size, dtype=np.uint8)
    return arrays


def fake(monkeypatch, name, arrays):
    """Make torchvision yield `arrays` in the types of its real data set; count the calls."""
    calls = []

    class Fake:
        def __init__(self, root, train=True, download=False):
            calls.append((Path(root), train, download))
            print("Downloading")
            print("100%", file=sys.stderr)
            part = "train" if train else "test"
            x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
            if name == "fashion_mnist":  # MNIST's relatives hold tensors, CIFAR an array and a list
                self.data, self.targets = torch.from_numpy(x), torch.from_numpy(y).long()
            else:
                self.data, self.targets = x, y.tolist()
            self.classes = arrays["classes"].tolist()

    monkeypatch.setattr(torchvision.datasets, TORCHVISION[name], Fake)
    return calls


def fail(monkeypatch, error, name="cifar10"):
    """Make torchvision's download raise `error`."""

    def download(*args, **kwargs):
        raise error

    monkeypatch.setattr(torchvision.datasets, TORCHVISION[name], download)


def assert_same(data, arrays):
    assert data.classes == tuple(arrays["classes"].tolist())
    for key in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(data, key), arrays[key])


@pytest.mark.parametrize("name", datasets.NAMES)
def test_sample_is_embedded_and_well_formed(name, folder):
    data = datasets.load(name, sample=True)
    assert (data.name, data.sample) == (name, True)
    assert len(data.classes) == CLASSES[name]
    assert all(type(label) is str for label in data.classes)
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert x.dtype == y.dtype == np.uint8
        assert x.shape == (len(y), *IMAGE[name])
        assert len(y) >= 500
        assert len(np.unique(y)) == CLASSES[name], "every class occurs"
        assert 50 < x.mean() < 150, "real images use the whole range of values"
        assert (x.min(), x.max()) == (0, 255)
    assert list(folder.iterdir()) == []


def test_samples_are_small_enough_to_ship():
    files = importlib.resources.files("revlib.store") / "samples"
    assert {file.name for file in files.iterdir()} == {f"{name}.npz" for name in datasets.NAMES}
    assert sum(len(file.read_bytes()) for file in files.iterdir()) < 10e6


def test_load_returns_the_same_read_only_object():
    data = datasets.load("fashion_mnist", sample=True)
    assert datasets.load("fashion_mnist", sample=True) is data
    with pytest.raises(ValueError, match="read-only"):
        data.x_train[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"
    assert torch.tensor(data.x_train[:2]).shape == (2, 28, 28)


def test_repr_is_short():
    assert repr(datasets.load("cifar10", sample=True)) == "Dataset(name='cifar10', sample=True)"


@pytest.mark.parametrize("name", datasets.NAMES)
def test_full_set_is_read_from_the_folder(name, folder, monkeypatch):
    fail(monkeypatch, AssertionError("nothing is to be downloaded"), name)
    arrays = small(name)
    np.savez(folder / f"{name}.npz", **arrays)
    data = datasets.load(name)
    assert not data.sample
    assert_same(data, arrays)


def test_path_follows_the_environment(folder, monkeypatch):
    assert datasets.path("cifar10") == folder / "cifar10.npz"
    monkeypatch.setenv("REVLIB_DATA", "~/images")
    assert datasets.path("cifar10") == Path.home() / "images" / "cifar10.npz"
    default = Path(platformdirs.user_cache_dir("revlib"), "cifar10.npz")
    monkeypatch.setenv("REVLIB_DATA", "")
    assert datasets.path("cifar10") == default
    monkeypatch.delenv("REVLIB_DATA")
    assert datasets.path("cifar10") == default


def test_another_folder_is_noticed_within_one_process(folder, monkeypatch):
    for place, rows in (("first", 6), ("second", 8)):
        (folder / place).mkdir()
        np.savez(folder / place / "cifar10.npz", **small("cifar10", rows))
    monkeypatch.setenv("REVLIB_DATA", str(folder / "first"))
    assert len(datasets.load("cifar10").x_train) == 6
    monkeypatch.setenv("REVLIB_DATA", str(folder / "second"))
    assert len(datasets.load("cifar10").x_train) == 8


@pytest.mark.parametrize("name", datasets.NAMES)
def test_download_is_kept_and_used_again(name, folder, monkeypatch, capfd):
    arrays = small(name)
    monkeypatch.setenv("REVLIB_DATA", str(folder / "not" / "yet"))
    calls = fake(monkeypatch, name, arrays)
    data = datasets.load(name)
    assert_same(data, arrays)
    assert [(train, download) for _, train, download in calls] == [(True, True), (False, True)]
    assert [file.name for file in (folder / "not" / "yet").iterdir()] == [f"{name}.npz"]
    assert not calls[0][0].exists(), "the raw download is removed"
    assert capfd.readouterr() == ("", ""), "the download says nothing when nobody watches"

    datasets._read.cache_clear()
    fail(monkeypatch, AssertionError("nothing is to be downloaded twice"), name)
    again = datasets.load(name)
    assert again is not data
    assert again.digest == data.digest


def test_download_shows_its_progress_on_a_terminal(monkeypatch, capsys):
    fake(monkeypatch, "cifar10", small("cifar10"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    datasets.load("cifar10")
    out, err = capsys.readouterr()
    assert out == ""
    assert "100%" in err


@pytest.mark.parametrize(
    "error", [URLError("no route to host"), RuntimeError("Error\n downloading"), OSError("full")]
)
def test_failing_download_says_every_way_out(error, folder, monkeypatch):
    fail(monkeypatch, error)
    with pytest.raises(datasets.DataNotFoundError) as caught:
        datasets.load("cifar10")
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.__suppress_context__, "no second traceback above the sentence"
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        type(error).__name__,
        str(folder / "cifar10.npz"),
        "REVLIB_DATA",
        "`revlib data cifar10`",
        "load('cifar10', sample=True)",
    ):
        assert part in message
    assert list(folder.iterdir()) == [], "nothing is left behind"


def test_folder_that_cannot_be_written_fails_before_the_download(folder, monkeypatch):
    (folder / "file").touch()
    monkeypatch.setenv("REVLIB_DATA", str(folder / "file"))
    calls = fake(monkeypatch, "cifar10", small("cifar10"))
    with pytest.raises(datasets.DataNotFoundError, match="REVLIB_DATA"):
        datasets.load("cifar10")
    assert calls == []


def test_download_of_something_else_is_not_kept(folder, monkeypatch):
    arrays = small("cifar10")
    arrays["x_train"] = arrays["x_train"][:, :16]
    fake(monkeypatch, "cifar10", arrays)
    with pytest.raises(datasets.DataNotFoundError, match=r"shapes \(6, 16, 32, 3\)"):
        datasets.load("cifar10")
    assert list(folder.iterdir()) == []


def test_broken_off_save_leaves_no_file(folder, monkeypatch):
    fake(monkeypatch, "cifar10", small("cifar10"))

    def full_disk(file, **arrays):
        Path(file).write_bytes(b"PK")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(datasets.DataNotFoundError, match="No space left"):
        datasets.load("cifar10")
    assert list(folder.iterdir()) == []


def refused(name, folder):
    """Return the sentence with which the file in `folder` is refused."""
    with pytest.raises(datasets.DamagedDataError) as caught:
        datasets.load(name)
    message = str(caught.value)
    assert str(folder / f"{name}.npz") in message
    assert f"`revlib data {name}`" in message
    return message


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated_file_is_refused(keep, folder):
    file = folder / "cifar10.npz"
    np.savez_compressed(file, **small("cifar10"))
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    assert "cannot be read" in refused("cifar10", folder)


def test_flipped_bytes_are_noticed(folder):
    file = folder / "cifar10.npz"
    np.savez(file, **small("cifar10"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    assert "CRC" in refused("cifar10", folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: a.pop("y_test"), "in place of"),
        (lambda a: a.update(x_train=a["x_train"] / 255), "float64"),
        (lambda a: a.update(y_train=a["y_train"].astype(int)), "int64"),
        (lambda a: a.update(y_train=a["y_train"][1:]), "shapes"),
        (lambda a: a.update(x_test=a["x_test"][:, :, :, 0]), "shapes"),
        (lambda a: a.update(x_test=a["x_test"][:0], y_test=a["y_test"][:0]), "shapes"),
        (lambda a: a.update(y_test=a["y_test"] + np.uint8(10)), "classes end at 9"),
        (lambda a: a.update(classes=a["classes"][:9]), "10 class names"),
        (lambda a: a.update(classes=np.arange(10)), "10 class names"),
    ],
)
def test_wrong_content_is_refused(change, reason, folder):
    arrays = small("cifar10")
    change(arrays)
    np.savez(folder / "cifar10.npz", **arrays)
    assert reason in refused("cifar10", folder)


def test_file_of_another_data_set_is_refused(folder):
    np.savez(folder / "cifar10.npz", **small("cifar100"))
    assert "10 class names" in refused("cifar10", folder)


def test_digest_depends_on_every_array(folder):
    def digest(arrays):
        datasets._read.cache_clear()
        np.savez(folder / "cifar10.npz", **arrays)
        return datasets.load("cifar10").digest

    arrays = small("cifar10")
    seen = {digest(arrays)}
    assert digest(arrays) in seen
    for key in ("x_train", "y_train", "x_test", "y_test"):
        changed = dict(arrays, **{key: arrays[key][::-1]})
        seen.add(digest(changed))
    seen.add(digest(dict(arrays, classes=arrays["classes"][::-1])))
    assert len(seen) == 6
    assert all(len(value) == 16 for value in seen)


@pytest.mark.parametrize("function", [datasets.load, datasets.path])
def test_unknown_name_lists_the_valid_ones(function):
    with pytest.raises(ValueError, match=r"'mnist'.*fashion_mnist, cifar10, cifar100"):
        function("mnist")


def test_other_images_in_the_place_of_a_data_set_are_refused(folder, monkeypatch):
    monkeypatch.setattr(datasets, "DIGESTS", {("fashion_mnist", False): "fdc0f30e48e41518"})
    np.savez(folder / "fashion_mnist.npz", **small("fashion_mnist"))
    message = refused("fashion_mnist", folder)
    assert "other images, labels or class names than fashion_mnist" in message
    assert "and should be fdc0f30e48e41518" in message
