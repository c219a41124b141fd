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
    float: (
        lambda value: _is(value, Real) and math.isfinite(value),
        "a number",
        "-p {name} 0.5",
    ),
    int: (
        lambda value: _is(value, Integral) and value >= 1,
        "a whole number, 1 or more",
        "-p {name} 10",
    ),
    str: (lambda value: isinstance(value, str), "a text", "-r {name} TEXT"),
    list[int]: (
        lambda value: _each(value, Integral) and all(number >= 0 for number in value),
        "a list of whole numbers, 0 or more",
        "-y '{name}: [0, 1]'",
    ),
    list[str]: (lambda value: _each(value, str), "a list of texts", "-y '{name}: [this, that]'"),
    tuple[float, float]: (
        lambda value: _each(value, Real) and len(value) == 2,
        "a list of two numbers",
        "-y '{name}: [1.5, 1.0]'",
    ),
}
_NAMED: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "preset": (
        lambda value: value in ("sample", "paper"),
        "sample or paper",
        "-p preset sample",
    ),
    "seed": (
        lambda value: _is(value, Integral) and value >= 0,
        "a whole number, 0 or more",
        "-p seed 1",
    ),
}


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
        valid, words, example = _NAMED.get(name) or _VALID[kind]
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
