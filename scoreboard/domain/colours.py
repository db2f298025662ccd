"""Colours as `#rrggbb`: relative luminance and contrast as WCAG 2.2 defines them. Pure."""

from collections.abc import Sequence

MIN_CONTRAST = 4.5  # WCAG 2.2, 1.4.3: of text, which has the strictest rule of all uses of the accent
MIXING_STEPS = 256  # between a colour and black or white, when one with more contrast is searched

BLACK, WHITE = "#000000", "#ffffff"


def contrast(one: str, other: str) -> float:
    """The contrast ratio: from 1 for the same colour to 21 for black and white."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def readable_on(colour: str, backgrounds: Sequence[str]) -> str:
    """The colour, or the nearest mixture of it with black or white that has MIN_CONTRAST against all backgrounds.

    The backgrounds must be all light or all dark, else there may be no such mixture. Then the result is black or white,
    the one with more contrast.
    """
    ends = sorted((BLACK, WHITE), key=lambda end: min(contrast(end, each) for each in backgrounds), reverse=True)
    for step in range(MIXING_STEPS + 1):
        mixed = _mix(colour, ends[0], step / MIXING_STEPS)
        if all(contrast(mixed, each) >= MIN_CONTRAST for each in backgrounds):
            return mixed
    return ends[0]


def text_on(colour: str) -> str:
    """Black or white, the one with more contrast on the colour. The contrast is always at least 4.5."""
    return max((BLACK, WHITE), key=lambda each: contrast(each, colour))


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _mix(colour: str, end: str, share: float) -> str:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(_channels(colour), _channels(end), strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _luminance(colour: str) -> float:
    red, green, blue = (_linear(channel / 255) for channel in _channels(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)
