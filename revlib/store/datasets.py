"""The image data sets of the experiments, whole or as a small embedded sample.

A sample of each set ships inside the package, so that everything runs on real images without a
network. A full set is looked up in one folder, and fetched once when it is not there.

Credits: Fashion-MNIST is by Han Xiao, Kashif Rasul and Roland Vollgraf, copyright Zalando SE, under
the MIT licence. CIFAR-10 and CIFAR-100 were collected by Alex Krizhevsky, Vinod Nair and Geoffrey
Hinton.
"""

import contextlib
import functools
import hashlib
import importlib.resources
import io
import os
import sys
import tempfile
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import numpy as np
import platformdirs


@dataclass(frozen=True)
class _Source:
    """What torchvision calls a data set, and what its arrays must look like."""

    torchvision: str
    image: tuple[int, ...]
    classes: int


_SOURCES = {
    "fashion_mnist": _Source("FashionMNIST", (28, 28), 10),
    "cifar10": _Source("CIFAR10", (32, 32, 3), 10),
    "cifar100": _Source("CIFAR100", (32, 32, 3), 100),
}

NAMES = tuple(_SOURCES)
"""The names that `load` and `path` know."""


DIGESTS = {
    ("fashion_mnist", False): "fdc0f30e48e41518",
    ("cifar10", False): "78481bfa3e45b6cc",
    ("cifar100", False): "81a663fb29cb4204",
    ("fashion_mnist", True): "29cc33e93902d991",
    ("cifar10", True): "8cf9b590fc3ddabf",
    ("cifar100", True): "3da2d852b4ccb827",
}
"""The digest of each set and of its sample (:attr:`Dataset.digest`), to which no other is equal."""


class DataNotFoundError(FileNotFoundError):
    """A full data set is neither on this machine nor could it be downloaded."""


class DamagedDataError(ValueError):
    """A data file is truncated, or holds something else than the data set it is named after."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their labels, split into a training and a test part.

    The arrays are shared by everyone who loads the same set, and therefore read-only. Use
    ``torch.tensor(dataset.x_train)``, which copies, to get a tensor.

    Attributes
    ----------
    name : str
        One of `NAMES`.
    sample : bool
        Whether this is the embedded sample and not the full set.
    x_train, x_test : numpy.ndarray
        Images, shape (N, 28, 28) for Fashion-MNIST and (N, 32, 32, 3) for CIFAR; uint8, 0 to 255.
    y_train, y_test : numpy.ndarray
        Class indices, shape (N,), uint8.
    classes : tuple of str
        Class names, in the order of the indices.
    """

    name: str
    sample: bool
    x_train: np.ndarray = field(repr=False)
    y_train: np.ndarray = field(repr=False)
    x_test: np.ndarray = field(repr=False)
    y_test: np.ndarray = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)

    @functools.cached_property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 over the arrays and the class names.

        Two results rest on the same data if and only if they carry the same digest. (The full set
        and its sample differ, and so do two files that hold different rows of one set.)
        """
        sha = hashlib.sha256(repr(self.classes).encode())
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            sha.update(repr(array.shape).encode())
            sha.update(np.ascontiguousarray(array))
        return sha.hexdigest()[:16]


def load(name: str, sample: bool = False) -> Dataset:
    """Load a data set.

    The full set is read from `path(name)`. Where that file is missing it is downloaded once
    through torchvision, which verifies its checksums, and kept there. Nothing is printed; on a
    terminal the download shows torchvision's progress bar.

    Parameters
    ----------
    name
        One of `NAMES`: ``"fashion_mnist"``, ``"cifar10"`` or ``"cifar100"`` (fine labels).
    sample
        Load the sample that is embedded in the package (the default is the full set).

    Returns
    -------
    Dataset
        The same object at every call in one process.

    Raises
    ------
    ValueError
        If `name` is not known.
    DataNotFoundError
        If the full set is not there and cannot be downloaded.
    DamagedDataError
        If the file is truncated, or its arrays are not those of this data set.

    Examples
    --------
    >>> from revlib.store import datasets
    >>> data = datasets.load("fashion_mnist", sample=True)
    >>> data.x_train.shape, data.classes[int(data.y_train[0])]
    ((4000, 28, 28), 'Ankle boot')
    """
    _source(name)
    if sample:
        return _read(
            importlib.resources.files("revlib.store") / "samples" / f"{name}.npz", name, True
        )
    file = path(name)
    if not file.exists():
        _download(name, file)
    return _read(file, name, False)


def digest(name: str, sample: bool = False) -> str:
    """Return the digest of a data set (:attr:`Dataset.digest`), which need not be at hand.

    Raises
    ------
    ValueError
        If `name` is not known.
    """
    _source(name)
    return DIGESTS[name, sample]


def path(name: str) -> Path:
    """Where the full data set is looked for, and kept once it has been downloaded.

    Parameters
    ----------
    name
        One of `NAMES`.

    Returns
    -------
    pathlib.Path
        ``<name>.npz`` in the folder that the environment variable ``REVLIB_DATA`` names, or else in
        the user's cache folder. The file need not exist.

    Raises
    ------
    ValueError
        If `name` is not known.
    """
    _source(name)
    folder = os.environ.get("REVLIB_DATA") or platformdirs.user_cache_dir("revlib")
    try:
        return Path(folder).expanduser() / f"{name}.npz"
    except RuntimeError:
        raise ValueError(
            f"There is no home folder for {folder}. Let REVLIB_DATA name a folder for the data."
        ) from None


def _source(name: str) -> _Source:
    if name not in _SOURCES:
        raise ValueError(f"There is no data set {name!r}: choose one of {', '.join(NAMES)}.")
    return _SOURCES[name]


@functools.cache
def _read(file, name: str, sample: bool) -> Dataset:
    """Read and check one ``.npz``; `file` is a path or a file inside the package."""
    with file.open("rb") as stream:
        try:
            with np.load(stream) as archive:
                arrays = dict(archive)
            fault = _fault(arrays, name)
        except Exception as error:  # zip, zlib, lzma and npy each have their own way to fail
            fault = f"it cannot be read ({error})"
    if fault:
        raise DamagedDataError(
            f"{file} is not a usable copy of {name}: {fault}. Delete it, then put a good copy in "
            f"its place or fetch one with `revlib data {name}`."
        )
    classes = tuple(arrays.pop("classes").tolist())
    for array in arrays.values():
        array.flags.writeable = False
    data = Dataset(name, sample, **arrays, classes=classes)
    if data.digest != DIGESTS.get((name, sample), data.digest):
        raise DamagedDataError(
            f"{file} holds other images, labels or class names than {name}: the digest of its "
            f"content is {data.digest}, and should be {DIGESTS[name, sample]}. Delete it, then "
            f"put a good copy in its place or fetch one with `revlib data {name}`."
        )
    return data


def _fault(arrays: dict[str, np.ndarray], name: str) -> str | None:
    """Say what keeps the arrays from being this data set, or return None if nothing does."""
    source = _source(name)
    wanted = {"x_train", "y_train", "x_test", "y_test", "classes"}
    if set(arrays) != wanted:
        return f"it holds {sorted(arrays)} in place of {sorted(wanted)}"
    if arrays["classes"].shape != (source.classes,) or arrays["classes"].dtype.kind != "U":
        return f"it does not hold {source.classes} class names"
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.dtype != np.uint8 or y.dtype != np.uint8:
            return f"x_{part} and y_{part} are {x.dtype} and {y.dtype}, not uint8"
        if x.shape[1:] != source.image or y.shape != x.shape[:1] or len(x) == 0:
            return f"x_{part} and y_{part} have the shapes {x.shape} and {y.shape}"
        if y.max() >= source.classes:
            return f"y_{part} has the label {y.max()}, but the classes end at {source.classes - 1}"
    return None


def _download(name: str, file: Path) -> None:
    """Fetch a full set through torchvision and keep it as `file`."""
    import torchvision.datasets  # slow to import, and needed here only

    fetch = getattr(torchvision.datasets, _source(name).torchvision)
    screen = sys.stderr if sys.stderr.isatty() else io.StringIO()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Everything happens in a folder beside the final file: the last step is then a rename,
        # which either happens or does not, and nobody ever finds half a file.
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{name}-") as folder:
            arrays = {}
            with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
                for part in ("train", "test"):
                    fetched = fetch(folder, train=part == "train", download=True)
                    arrays[f"x_{part}"] = np.asarray(fetched.data)
                    arrays[f"y_{part}"] = np.asarray(fetched.targets).astype(np.uint8)
            arrays["classes"] = np.array(fetched.classes)
            if fault := _fault(arrays, name):
                raise RuntimeError(f"unexpected content: {fault}")
            finished = Path(folder, file.name)
            np.savez_compressed(finished, **arrays)
            finished.replace(file)
    except (OSError, RuntimeError, HTTPException) as error:
        cause = " ".join(str(error).split())
        raise DataNotFoundError(
            f"The full data set {name} is not at {file}, and fetching it failed "
            f"({type(error).__name__}: {cause}). Put {file.name} there or set REVLIB_DATA to a "
            f"folder that has it; or run `revlib data {name}` on a machine with a network and copy "
            f"the file that it keeps; or use the embedded sample: load({name!r}, sample=True)."
        ) from None
