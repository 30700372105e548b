"""The page over a cohort, as text and in a real browser: order, sorting, stepping, both themes, no scripts."""

import pytest
from cohort_cases import write_cohort
from report_cases import Page


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"))


def test_it_says_what_happened_and_links_the_reports(page_file):
    page = Page(page_file.read_text())
    assert "4 of 5 registrations succeeded; 1 failed, 1 stands out from the others." in page.text
    assert "broken.nii.gz: <not> an image" in page.text
    assert [link for link in page.links if link.startswith("runs/")] == [f"runs/p%20{n}/report.html" for n in range(4)]
    assert len(page.images) == 4
    assert all(address.startswith(("data:", "#", "runs/")) for address in page.addresses)


def names(page):
    return page.locator("table.cohort tbody tr").evaluate_all("r => r.map(n => n.dataset.name)")


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_opens_without_errors_and_fits(visit, page_file, width, theme):
    page = visit(page_file.as_uri(), viewport={"width": width, "height": 900}, color_scheme=theme)
    page.wait_for_selector(".viewer")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("scrollY") == 0
    assert page.problems == []


@pytest.mark.browser
def test_keys_step_and_open(visit, page_file):
    page = visit(page_file.as_uri(), viewport={"width": 1280, "height": 900})
    said = page.locator(".viewer .said")
    assert said.inner_text().startswith("1 of 5: broken")
    assert not page.locator(".viewer a").is_visible()
    page.keyboard.press("j")
    assert said.inner_text() == "2 of 5: p0 Dice 0.310, median of all 0.705"
    assert page.locator(".viewer img").get_attribute("src") == page.locator("tr[aria-current] img").get_attribute("src")
    for _ in range(9):
        page.keyboard.press("j")
    assert said.inner_text().startswith("5 of 5: p3")
    page.keyboard.press("k")
    page.keyboard.press("o")
    page.wait_for_url("**/report.html")
    assert page.url.endswith("runs/p%202/report.html")
    assert page.problems == []


@pytest.mark.browser
def test_heads_sort_both_ways_and_unknown_values_stay_last(visit, page_file):
    page = visit(page_file.as_uri(), viewport={"width": 1280, "height": 900})
    assert names(page) == ["broken", "p0", "p1", "p2", "p3"]
    head = page.get_by_role("button", name="Dice")
    head.click()
    assert names(page) == ["p0", "p2", "p3", "p1", "broken"]
    head.click()
    assert names(page) == ["p1", "p3", "p2", "p0", "broken"]
    assert page.locator('th[data-key="dice"]').get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="Largest displacement").click()
    assert names(page) == ["p3", "p2", "p1", "p0", "broken"]


@pytest.mark.browser
def test_it_is_complete_without_scripts(visit, page_file):
    page = visit(page_file.as_uri(), java_script_enabled=False, viewport={"width": 1280, "height": 900})
    assert page.locator("table.cohort tbody tr").count() == 5
    assert page.locator(".viewer").count() == 0
    assert page.locator("table.cohort img").first.is_visible()
