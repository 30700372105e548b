"""The shared page: numbers for people, contrast in both themes, pictures that decode."""

import base64
import io
import math
import re
from importlib import resources

import numpy as np
import pytest
from PIL import Image

from medwave.reports.colours import SEQUENTIAL
from medwave.reports.page import Cell, Table, breaking, colour_bar, measured, number, picture
from medwave.reports.run_tables import record_tables


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.83789, "0.838"),
        (0.0412, "0.0412"),
        (22.84, "22.8"),
        (1730.2, "1\u202f730"),
        (4853952, "4\u202f853\u202f952"),
        (7, "7"),
        (np.int64(554), "554"),
        (-3.216, "−3.22"),
        (0, "0"),
        (0.0, "0"),
        (1.2e-6, "1.2 × 10⁻⁶"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (np.float32(0.5), "0.500"),
    ],
)
def test_numbers_for_people(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00161, "mm", "0.002"),
        (0.0412, "mm", "0.041"),
        (0.893, "mm", "0.893"),
        (-0.25, "mm", "−0.250"),
        (23.94, "mm", "23.9"),
        (3e-7, "mm", "< 0.001"),
        (-3e-7, "mm", "< 0.001"),
        (0.0, "mm", "0"),
        (None, "mm", "–"),
        (math.nan, "mm", "–"),
        (math.inf, "mm", "∞"),
        (0.00161, "", "0.00161"),
        (0.00161, "s", "0.00161"),
    ],
)
def test_lengths_have_no_digits_below_the_micrometre(value, unit, text):
    assert measured(value, unit) == text


def tokens() -> tuple[dict[str, str], dict[str, str]]:
    """The colours of the light and of the dark theme, as the style sheet gives them."""
    css = resources.files("medwave.reports").joinpath("templates/style.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)[:2]
    return tuple(dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in (light, dark))


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2.2."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        (ink, paper)
        for ink in ("ink", "muted", "accent", "good", "warn", "bad")
        for paper in ("paper", "raised", f"{ink}-soft")
        if paper in ("paper", "raised") or ink in ("good", "warn", "bad")
    ],
)
def test_text_has_enough_contrast(theme, ink, paper):
    colours = tokens()[theme]
    assert contrast(colours[ink], colours[paper]) >= 4.5


def test_both_themes_define_the_same_colours():
    light, dark = tokens()
    assert set(light) == set(dark)


def decode(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1]))))


def test_an_embedded_picture_is_the_picture():
    rows, columns = np.mgrid[:80, :120]
    rgb = np.stack([rows * 3, columns * 2, 255 - columns], axis=-1).astype(np.uint8)
    shown = picture(rgb, alt="a ramp")
    assert (shown.width, shown.height) == (120, 80)
    assert np.abs(decode(shown.address).astype(int) - rgb.astype(int)).max() < 16


def test_a_colour_bar_is_exact():
    bar = colour_bar(SEQUENTIAL, label="mm", ticks=((0, "0"), (1, "5 mm")))
    np.testing.assert_array_equal(decode(bar.address)[0], SEQUENTIAL)


def test_plain_text_becomes_cells():
    table = Table("caption", ("a", "b"), [["x", Cell("y", tone="good")]])
    assert table.cells == [[Cell("x"), Cell("y", tone="good")]]


def test_a_picture_of_noise_is_embedded():
    """Its JPEG has about as many bytes as pixels, which an optimising encoder would not have room for."""
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    shown = picture(noise, alt="noise", quality=94)
    assert len(shown.address) > 4 / 3 * 240 * 320
    assert (shown.width, shown.height) == (320, 240)


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("warped.nii.gz", ["warped", ".nii.gz"]),
        ("transform/inverse_field.nii.gz", ["transform/", "inverse_", "field", ".nii.gz"]),
        ("mask.ome.zarr", ["mask", ".ome.zarr"]),
        ("a<b/v1.5_of", ["a&lt;b/", "v1.5_", "of"]),
        ("", [""]),
    ],
)
def test_names_break_between_their_parts(name, pieces):
    assert str(breaking(name)) == "<wbr>".join(pieces)


def test_options_are_written_as_people_do():
    options = {
        "seed": None, "roots": (), "deformable": True, "json": False, "levels": [8, 4], "region": [(0, 1), (2, 3)],
        "rate": 0.5, "name": "null", "of": {"a": 1, "b": None},
    }  # fmt: skip
    (table,) = record_tables((), {}, options, {})
    assert [row[1].text for row in table.cells] == [
        "none", "none", "yes", "no", "8, 4", "(0, 1), (2, 3)", "0.5", "null", "a: 1; b: none",
    ]  # fmt: skip
