from __future__ import annotations

import pytest

from conf.errors import ConfigError
from conf.words import whole_number


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("007", 7), ("65535", 65535)])
def test_a_whole_number_is_read(text, number):
    assert whole_number("x", "port", text, 65535) == number


@pytest.mark.parametrize(
    "text", ["", "0", "00", "-1", "+1", "1.0", "65536", "9" * 5000, "٣", "²", " 1", "1e3", "x"]
)
def test_what_is_none_is_refused_in_one_short_line(text):
    with pytest.raises(ConfigError, match=r"^x: port must be a whole number from 1 to 65535, got"):
        whole_number("x", "port", text, 65535)
