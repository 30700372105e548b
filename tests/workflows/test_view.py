"""The server of results: what it gives, what it refuses, and marks that stay."""

import csv
import http.client
import json
import threading

import pytest

from medwave.core.errors import InputError, MissingFileError
from medwave.workflows.options_view import ViewOptions
from medwave.workflows.quality import QUALITY, read_marks, write_mark
from medwave.workflows.view import ResultSite, front_page, view

PAGE = "<!doctype html><html><head><title>{}</title></head><body></body></html>"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "cohort"
    run = folder / "runs" / "a b"
    run.mkdir(parents=True)
    (folder / "index.html").write_text(PAGE.format("index"))
    (folder / "summary.csv").write_text("name,status\na b,ok\nc,failed\n")
    (run / "report.html").write_text(PAGE.format("report"))
    (run / "run.json").write_text("{}")
    (folder / ".hidden").write_text("secret")
    (folder.parent / "outside.txt").write_text("secret")
    (folder / "link.txt").symlink_to(folder.parent / "outside.txt")
    return folder


@pytest.fixture(scope="module")
def server(cohort):
    with view(cohort, ViewOptions(browser=False)) as started:
        threading.Thread(target=started.serve_forever, daemon=True).start()
        yield started
        started.shutdown()


@pytest.fixture
def ask(server):
    def answer(path, method="GET", body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        connection.putrequest(method, path, skip_host="Host" in headers)
        if body is not None:
            headers = {"Content-Length": str(len(body)), "Content-Type": "application/json"} | headers
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        read = response, response.read().decode()
        connection.close()
        return read

    return answer


def test_it_listens_on_this_machine_only_at_a_free_port(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.server_port > 0
    assert server.address == f"http://127.0.0.1:{server.server_port}/"


def test_it_gives_the_pages_and_files_of_the_folder(ask):
    response, _ = ask("/")
    assert (response.status, response.headers["Location"]) == (302, "/index.html")
    response, page = ask("/index.html")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert '<head><script type="application/json" id="served">{"marks": {' in page
    assert "<title>report</title>" in ask("/runs/a%20b/report.html")[1]
    assert ask("/summary.csv")[1].startswith("name,status")
    response, body = ask("/index.html", "HEAD")
    assert response.status == 200
    assert body == ""
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/../outside.txt", "/%2e%2e/outside.txt", "/runs/..%2f..%2foutside.txt", "//etc/passwd", "/link.txt",
        "/.hidden", "/runs", "/absent.html", "/%00", "/" + "x" * 5000,
    ],
)  # fmt: skip
def test_nothing_else_is_given(ask, path):
    response, text = ask(path)
    assert response.status == 404
    assert "secret" not in text


def test_another_name_of_the_host_is_refused(ask, server):
    assert ask("/index.html", Host="elsewhere.example")[0].status == 403
    assert ask("/index.html", Host=f"elsewhere.example:{server.server_port}")[0].status == 403
    assert ask("/index.html", Host=f"localhost:{server.server_port}")[0].status == 200


def test_marks_are_saved_beside_those_of_others(ask, cohort):
    (cohort / QUALITY).write_text("name,rater,mark\nolder run,X,fail\nc,Y,\n")
    response, text = ask("/qc.csv", "POST", b'{"name": "c", "mark": "pass"}')
    assert (response.status, json.loads(text)) == (200, {"marks": {"older run": "fail", "c": "pass"}})
    assert ask("/qc.csv", "POST", b'{"name": "a b", "mark": "fail"}')[0].status == 200
    with (cohort / QUALITY).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["name"], r["rater"], r["mark"]) for r in rows] == [
        ("older run", "X", "fail"), ("c", "Y", "pass"), ("a b", "", "fail")
    ]  # fmt: skip
    assert rows[1]["marked_at"].endswith("+00:00")
    assert '"a b": "fail"' in ask("/index.html")[1]
    assert ask("/qc.csv", "POST", b'{"name": "a b", "mark": ""}')[0].status == 200
    assert read_marks(cohort) == {"older run": "fail", "c": "pass"}


def test_a_mark_is_of_the_result_that_was_looked_at(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    (tmp_path / QUALITY).write_text("name,mark\nb,fail\n")  # of an earlier version, or by hand
    for name in ("a", "failed"):
        write_mark(tmp_path, name, "pass", ["a", "b", "failed"])
    assert read_marks(tmp_path) == {"a": "pass", "b": "fail", "failed": "pass"}
    (tmp_path / "runs/failed").mkdir()
    for name in ("a", "b", "failed"):
        (tmp_path / "runs" / name / "run.json").write_text('{"options": "others"}')
    assert read_marks(tmp_path) == {"b": "fail"}
    write_mark(tmp_path, "a", "fail", ["a"])
    assert read_marks(tmp_path) == {"a": "fail", "b": "fail"}


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/qc.csv", b'{"name": "nobody", "mark": "pass"}', {}, 400),
        ("/qc.csv", b'{"name": "c", "mark": "good"}', {}, 400),
        ("/qc.csv", b'["c", "pass"]', {}, 400),
        ("/qc.csv", b"not JSON", {}, 400),
        ("/summary.csv", b'{"name": "c", "mark": "pass"}', {}, 404),
        ("/qc.csv", b'{"name": "c", "mark": "pass"}', {"Origin": "http://elsewhere.example"}, 403),
        ("/qc.csv", b'{"name": "c", "mark": "pass"}', {"Content-Type": "text/plain"}, 403),
        ("/qc.csv", b" " * 70_000, {}, 413),
    ],
)
def test_what_is_no_mark_changes_nothing(ask, cohort, path, body, headers, status):
    before = (cohort / QUALITY).read_bytes()
    assert ask(path, "POST", body, **headers)[0].status == status
    assert (cohort / QUALITY).read_bytes() == before


def test_a_damaged_table_of_marks_is_said_and_kept(tmp_path):
    (tmp_path / QUALITY).write_text("subject;mark\n1;2\n")
    with pytest.raises(InputError, match="a column called name"):
        read_marks(tmp_path)
    with pytest.raises(InputError, match="repair it"):
        write_mark(tmp_path, "a", "pass", ["a"])
    assert (tmp_path / QUALITY).read_text() == "subject;mark\n1;2\n"


def test_a_template_is_shown_by_its_index(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "index.html").write_text(PAGE.format("template"))
    site = ResultSite(tmp_path)
    assert site.answer("/").go_to == "/index.html"
    page = site.answer("/index.html").body
    assert b'id="served">{}<' in page
    assert site.receive("/qc.csv", b'{"name": "a", "mark": "pass"}') is None


def test_results_without_a_page_name_what_can_be_looked_at(tmp_path):
    (tmp_path / "stack" / "mask.ome.zarr").mkdir(parents=True)
    (tmp_path / "stack" / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"a segmentation has no page; open .*stack/mask\.ome\.zarr"):
        front_page(tmp_path / "stack")
    (tmp_path / "stack" / "report.html").write_text(PAGE)
    (tmp_path / "summary.csv").write_text("name,status\nstack,ok\n")
    with pytest.raises(InputError, match=r"a page each and none together; name the folder of one, such as .*/stack$"):
        front_page(tmp_path)


def test_folders_that_are_none_of_results(tmp_path, server):
    with pytest.raises(MissingFileError, match="no such folder"):
        front_page(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no.record of either"):
        front_page(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(MissingFileError, match=r"report.html: no such file, though run.json is there"):
        front_page(tmp_path)
    with pytest.raises(InputError, match="this is a file"):
        front_page(tmp_path / "run.json")
    (tmp_path / "report.html").write_text(PAGE)
    with pytest.raises(InputError, match="cannot be used"):
        view(tmp_path, ViewOptions(port=server.server_port))
    with pytest.raises(InputError, match="up to 65535"):
        ViewOptions(port=70000)
