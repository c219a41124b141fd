"""Where numbers come from: code, versions, machine, commit, date."""

from __future__ import annotations

import ast
import datetime
import hashlib
import importlib.metadata
import io
import platform
import subprocess
import tokenize
from pathlib import Path
from typing import Any

import joblib
import torch

PACKAGES = ("revlib", "torch", "torchvision", "numpy", "pandas")


def digest(content: str | bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a text or of bytes."""
    content = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(content).hexdigest()[:16]


def meaning(source: str) -> str:
    """Return the source without comments, docstrings and empty lines.

    The text and not the syntax tree, whose printed form differs between versions of Python.
    """
    return "\n".join(line for line in bare(source) if line)


def bare(source: str) -> list[str]:
    """Return the lines of the source, empty where there were comments and docstrings only."""
    lines = source.split("\n")  # and nowhere else, as Python does
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            # What stands on the same line stays: def f(rate=0.1): ...
            first, last = node.lineno - 1, node.end_lineno - 1
            rest = lines[first][: node.col_offset] + lines[last][node.end_col_offset :]
            lines[first : last + 1] = [rest, *[""] * (last - first)]
    return [line.rstrip() for line in lines]


def environment() -> dict[str, Any]:
    """Return versions, machine, commit and date of this moment, ready for JSON."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "machine": machine(),
    }


def machine() -> str:
    """Return the processor, how many of its cores can be used, and the system, in words."""
    return f"{_processor()}, {joblib.cpu_count()} cores, {platform.system()}"


def accelerator(device: str) -> str:
    """Return what a device is called, in words.

    Raises
    ------
    ValueError
        If it is not there.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise ValueError(
            f"The device '{device}' is not there ({str(error).splitlines()[0].rstrip('.')}). "
            f"On this machine there is: {', '.join(there)}."
        ) from None
    kind = torch.device(device).type
    return torch.cuda.get_device_name(device) if kind == "cuda" else kind


def place(run: dict[str, Any]) -> str:
    """Return where a run was computed: on a processor, or the graphics card beside it."""
    return run.get("device") or run["machine"]


def alike(run: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two runs were computed on the same kind of machine, by the same PyTorch."""
    return (run["versions"]["torch"], run["machine"], run.get("device")) == (
        other["versions"]["torch"],
        other["machine"],
        other.get("device"),
    )


def commit() -> str:
    """Return the commit of the source tree, marked if files differ from it, or "unknown"."""
    describe = ["describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+changes"]
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *describe],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def line(**facts: Any) -> str:
    """Return the provenance line at the foot of a chapter, in Markdown.

    What the chapter adds is shown first: the preset, the seeds, the steps recorded.
    """
    now = environment()
    shown = [f"{name.replace('_', ' ')} {value}" for name, value in facts.items()]
    shown += [f"{name} {version}" for name, version in now["versions"].items()]
    shown += [f"Python {now['python']}", now["machine"], f"commit {now['commit']}", now["date"]]
    return "*Provenance: " + "; ".join(shown) + ".*"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    try:
        for entry in Path("/proc/cpuinfo").read_text().splitlines():
            if entry.startswith("model name"):
                return entry.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
