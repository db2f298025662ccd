"""Colours: contrast as WCAG defines it, and a colour that can be read on given backgrounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.colours import MIN_CONTRAST, contrast, readable_on, text_on

colours = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")


def test_contrast_is_that_of_wcag() -> None:
    """Black on white has 21, a colour on itself 1, and the order of the two does not matter."""
    assert contrast("#000000", "#ffffff") == contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=0.001)
    assert contrast("#123456", "#123456") == 1


@given(colours)
def test_any_colour_can_be_made_readable(colour: str) -> None:
    """On light and on dark backgrounds; one that can be read already stays, and so can what is written on it."""
    for backgrounds in (("#f6f4ee", "#fffefa"), ("#12110d", "#1c1a15")):
        made = readable_on(colour, backgrounds)
        least = min(contrast(made, each) for each in backgrounds)
        assert least >= MIN_CONTRAST
        assert made == colour or min(contrast(colour, each) for each in backgrounds) < MIN_CONTRAST
        assert contrast(text_on(made), made) >= MIN_CONTRAST
