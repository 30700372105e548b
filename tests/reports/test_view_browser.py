"""Served results in a real browser: marks are saved and survive, from disk they are kept and downloaded."""

import threading

import pytest
from cohort_cases import write_cohort

from medwave.workflows.options_view import ViewOptions
from medwave.workflows.quality import read_marks
from medwave.workflows.view import view

pytestmark = pytest.mark.browser
ALLOWED = ("file:", "data:", "blob:", "http://127.0.0.1:")
WIDE = {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("marked"))


@pytest.fixture
def serve():
    """Serve a folder until the test ends."""
    servers = []

    def start(folder):
        server = view(folder, ViewOptions(browser=False))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.address

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def shown(page):
    return page.locator("table.cohort tbody tr").evaluate_all(
        "r => Object.fromEntries(r.map(n => [n.dataset.name, n.querySelector('.given').textContent]))"
    )


def test_marks_are_saved_and_survive_a_reload(visit, serve, cohort):
    page = visit(serve(cohort.parent), allowed=ALLOWED, **WIDE)
    page.wait_for_selector(".viewer")
    page.keyboard.press("f")
    page.keyboard.press("p")
    page.get_by_role("button", name="Pass", exact=True).click()
    page.get_by_text("2 pass, 1 fail, 2 none yet").wait_for()
    assert page.locator(".said").inner_text().startswith("4 of 5")
    assert read_marks(cohort.parent) == {"broken": "fail", "p0": "pass", "p1": "pass"}
    page.reload()
    assert shown(page) == {"broken": "Fail", "p0": "Pass", "p1": "Pass", "p2": "", "p3": ""}
    assert page.get_by_role("button", name="Fail", exact=True).get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Mark", exact=True).click()
    assert next(iter(shown(page))) == "broken"
    page.keyboard.press("u")
    page.get_by_text("2 pass, 0 fail").wait_for()
    assert read_marks(cohort.parent) == {"p0": "pass", "p1": "pass"}
    assert page.get_by_role("button", name="Download qc.csv").count() == 0
    assert page.problems == []


def test_a_mark_that_cannot_be_saved_is_not_shown_as_saved(visit, serve, cohort):
    page = visit(serve(cohort.parent), allowed=ALLOWED, **WIDE)
    page.wait_for_selector(".viewer")
    page.route("**/qc.csv", lambda route: route.abort())
    before = shown(page)
    page.keyboard.press("f")
    page.wait_for_selector(".marked.problem")
    assert "Not saved" in page.locator(".marked").inner_text()
    assert shown(page) == before


def test_from_disk_marks_are_kept_and_downloaded(visit, cohort, tmp_path):
    page = visit(cohort.as_uri(), **WIDE)
    page.wait_for_selector(".viewer")
    page.keyboard.press("j")
    page.keyboard.press("f")
    page.keyboard.press("p")
    page.get_by_text("1 pass, 1 fail").wait_for()
    page.reload()
    assert shown(page)["p0"] == "Fail"
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download qc.csv").click()
    assert waiting.value.suggested_filename == "qc.csv"
    waiting.value.save_as(tmp_path / "qc.csv")
    assert (tmp_path / "qc.csv").read_text() == "name,mark\np0,fail\np1,pass\n"
    assert read_marks(tmp_path) == {"p0": "fail", "p1": "pass"}
