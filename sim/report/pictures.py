"""How pictures look and are written: as PNG and SVG, the same numbers giving the same bytes.

Texts are shown as they are: no mathematics is read out of ``$``, control characters are escaped,
and characters that the font lacks are boxes, of which a log line tells once.
"""

from __future__ import annotations

import io
import logging
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text

from storage import atomic
from storage.text_files import printable

DPI = 150
FORMATS: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}}
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "svg.hashsalt": "cdcda",  # else ids inside differ from file to file
    "text.parse_math": False,
}
_GLYPH = "Glyph"  # how matplotlib's warning of a missing one begins

logger = logging.getLogger(__name__)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG and beside it as SVG, atomically and without a time stamp."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # also where the figure was made without STYLE
        text.set_text("\n".join(map(printable, text.get_text().split("\n"))))
    for suffix, metadata in FORMATS.items():
        buffer = io.BytesIO()
        with rc_context(STYLE), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            figure.savefig(buffer, format=suffix, dpi=DPI, metadata=metadata)
        for each in caught:
            if str(each.message).startswith(_GLYPH):
                _tell_missing_glyphs()
            else:
                warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
        atomic.write_bytes(path.with_suffix(f".{suffix}"), buffer.getvalue())
    return path


@cache
def _tell_missing_glyphs() -> None:
    logger.warning(
        "some characters are boxes in the pictures: the font lacks them; tables have them all"
    )
