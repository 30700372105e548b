"""The page in a real browser, opened from disk: no errors, no overflow, complete without scripts, slider works."""

import pytest
from report_cases import full_report

from medwave.reports import write_registration_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    long_name = "a_rather_long_name_of_a_scan_without_any_place_to_break_it_T1w_brain.nii.gz"
    report = full_report(status="warning", messages=["Look at this."], files={"Warped": (long_name, "x")})
    return write_registration_report(tmp_path_factory.mktemp("browser") / "report.html", report).as_uri()


@pytest.fixture
def open_page(visit, address):
    return lambda **options: visit(address, **options)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_opens_without_errors_and_fits(open_page, width, theme):
    page = open_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    page.wait_for_selector(".compare")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if theme == "light" else "rgb(19, 21, 24)")
    assert page.problems == []


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_key_figures_stand_on_one_line_with_their_units(open_page, width):
    page = open_page(viewport={"width": width, "height": 900})
    boxes = page.locator(".tile .value").evaluate_all(
        "v => v.map(n => [n.getBoundingClientRect().top, n.offsetHeight, n.scrollWidth - n.clientWidth])"
    )
    assert len(boxes) == 6
    assert len({round(height) for _, height, _ in boxes}) == 1
    assert all(overflow <= 0 for _, _, overflow in boxes)
    assert len({round(top) for top, _, _ in boxes}) == (3 if width == 390 else 2)


def test_it_is_complete_without_scripts(open_page):
    page = open_page(java_script_enabled=False, viewport={"width": 1280, "height": 900})
    assert page.locator("#images img").count() == 12
    assert page.locator("main table").count() >= 6
    assert page.locator(".compare").count() == 0
    assert page.locator("h1").is_visible()


def test_the_slider_and_the_choice_change_the_picture(open_page):
    page = open_page(viewport={"width": 1280, "height": 900})
    page.wait_for_selector(".compare")
    over = page.locator(".compare img.over").first
    assert over.get_attribute("src") == page.locator('#images img[data-stage="Warped"]').first.get_attribute("src")
    page.get_by_label("After affine").check()
    assert over.get_attribute("src") == page.locator('#images img[data-stage="After affine"]').first.get_attribute(
        "src"
    )
    slider = page.locator('.compare input[type="range"]')
    slider.focus()
    slider.press("Home")
    assert page.evaluate("getComputedStyle(document.querySelector('.compare .over')).clipPath").startswith("inset(0")
    assert page.locator(".compare .strip").evaluate("n => n.style.getPropertyValue('--cut')") == "0"
    heights = page.locator(".compare figure").evaluate_all("f => f.map(n => Math.round(n.offsetHeight))")
    assert max(heights) - min(heights) <= 2


def test_it_prints_on_white_without_controls(open_page):
    page = open_page(viewport={"width": 680, "height": 900}, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".compare").is_visible()
    assert not page.locator("nav.contents").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 680
