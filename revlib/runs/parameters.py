"""What a reader may change in a chapter, checked before anything is computed with it.

Papermill passes on what it is given: ``-p h 1/2`` sets h to the text "1/2". A chapter's cell of
parameters says of what type each is, and :func:`check` compares.
"""

from __future__ import annotations

import math
import sys
import typing
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

_VALID: dict[Any, tuple[Callable[[Any], bool], str, str]] = {
    float: (lambda x: _is(x, Real) and math.isfinite(x), "a number", "-p {name} 0.5"),
    int: (lambda x: _is(x, Integral) and x >= 1, "a whole number, 1 or more", "-p {name} 10"),
    str: (lambda x: isinstance(x, str), "a text", "-r {name} TEXT"),
    list[int]: (
        lambda x: _each(x, Integral) and min(x, default=-1) >= 0 and len(set(x)) == len(x),
        "a list of whole numbers, 0 or more, each of them once",
        "-y '{name}: [0, 1]'",
    ),
    list[str]: (lambda x: _each(x, str), "a list of texts", "-y '{name}: [this, that]'"),
    tuple[float, float]: (
        lambda x: _each(x, Real) and len(x) == 2,
        "a list of two numbers",
        "-y '{name}: [1.5, 1.0]'",
    ),
    "preset": (lambda x: x in ("sample", "paper"), "sample or paper", "-p preset sample"),
    "sigma": (lambda x: _is(x, Real) and 0 <= x < math.inf, "a number, 0 or more", "-p sigma 0.5"),
    "realisations": (
        lambda x: _is(x, Integral) and x >= 2,
        "a whole number, 2 or more",
        "-p realisations 1000",
    ),
    "seed": (lambda x: _is(x, Integral) and x >= 0, "a whole number, 0 or more", "-p seed 1"),
}
"""By type, or for some parameters by name: what is valid, in words, and how papermill gets it."""


def check(chapter: object = None) -> None:
    """Check the parameters of a chapter against the types that its cell of parameters gives.

    Parameters
    ----------
    chapter
        The module whose annotated variables are the parameters; the notebook itself if left out.

    Raises
    ------
    ValueError
        If a value is not of its type: names the parameter, what is valid, and what to give
        papermill.
    """
    chapter = chapter or sys.modules["__main__"]
    for name, hint in typing.get_type_hints(chapter).items():
        optional = typing.get_origin(hint) is typing.Union  # with None
        kind = typing.get_args(hint)[0] if optional else hint
        value = getattr(chapter, name)
        if value is None and optional:
            continue
        valid, words, example = _VALID.get(name) or _VALID[kind]
        if not valid(value):
            or_none = ", or None" if optional else ""
            raise ValueError(
                f"The parameter {name} must be {words}{or_none}; got {value!r}. "
                f"For papermill: {example.format(name=name)}"
            )


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _each(value: Any, kind: type) -> bool:
    return isinstance(value, list | tuple) and all(_is(each, kind) for each in value)
