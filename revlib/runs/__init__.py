"""The engine: run, keep, show, audit and renew any study (:mod:`revlib.experiments`)."""

from revlib.runs.engine import (
    Audit,
    audit,
    audited,
    compute,
    looks,
    renew,
    run,
    source,
    stale,
    stored,
)
from revlib.runs.shown import Shown, shown, together
