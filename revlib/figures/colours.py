"""The colours of the book, in its figures and drawings.

Each has a contrast of at least 3 to 1 with a white page. Dark pages turn light into dark and keep
the hues (``book/_static/style.css``); there each has as much with the page again.
"""

FORWARD, BACKWARD, OTHER = "#0173b2", "#c05600", "#027e5d"
"""Those of the two orders everywhere, and that of the first order beside them."""

PALETTE = (
    FORWARD,
    BACKWARD,
    OTHER,
    "#b0509b",
    "#6f5bb5",
    "#8a8a00",
    "#2596be",
    "#8b1a3a",
    "#707070",
    "#7a4a1c",
)
