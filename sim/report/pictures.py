"""Charts as files: PNG and SVG through vl-convert, the same numbers giving the same bytes.

Texts are shown as they are, control characters escaped. The picture takes this machine's fonts; for
scripts that they may lack a log line says so once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import vl_convert

from storage import atomic
from storage.text_files import printable

LAST_COMMON = 0x24FF  # Latin, Greek, Cyrillic, arrows and signs: every font has most of these
SCALE = 2.0  # pixels per point of a PNG
CONFIG: Mapping[str, Any] = {
    "background": "white",
    "padding": 12,
    "view": {"stroke": None},
    "axis": {
        "gridColor": "#E4E4E4",
        "labelLimit": 220,
        "labelFlush": False,
        "labelOverlap": "parity",
        "labelSeparation": 8,
    },
    "legend": {"orient": "bottom", "labelLimit": 220, "symbolOpacity": 1},
}

logger = logging.getLogger(__name__)


def save(spec: Mapping[str, Any], path: Path) -> Path:
    """Write a Vega-Lite chart as PNG and beside it as SVG, atomically."""
    shown = {**_printable(spec), "config": CONFIG}
    if any(ord(char) > LAST_COMMON for text in _texts(shown) for char in text):
        _tell_of_fonts()
    drawn = vl_convert.vegalite_to_svg(shown)  # the costly half, and vegalite_to_png's first step
    atomic.write_bytes(path, vl_convert.svg_to_png(drawn, scale=SCALE))
    atomic.write_text(path.with_suffix(".svg"), drawn)
    return path


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {key: _printable(each) for key, each in value.items()}
    return [_printable(each) for each in value] if isinstance(value, list) else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)


@cache
def _tell_of_fonts() -> None:
    logger.warning(
        "characters that this machine has no font for are boxes in the pictures; the page and the "
        "tables have them all"
    )
