"""Stores behind URLs: a real S3 server on this machine, a web server that stumbles, and names that mean folders."""

import functools
import http.client
import http.server
import json
import os
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest

from medwave.core.errors import GeometryError, InputError, MedwaveError, UnreachableError
from medwave.volumes import OmeZarrImage, build_pyramid, create_ome_zarr, open_stack
from medwave.volumes import location as location_module
from medwave.volumes.location import absolute, fingerprint_at, is_url, location, patiently, put_json

SHAPE = (20, 70, 90)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 200, SHAPE, dtype=np.uint8)


def test_names(tmp_path):
    assert location(f"file://{tmp_path}/a%20b.zarr") == tmp_path / "a b.zarr"
    assert not is_url(tmp_path)
    assert not is_url(f"file://{tmp_path}")
    assert is_url("s3://bucket/x.zarr")
    assert absolute("s3://bucket/x.zarr") == "s3://bucket/x.zarr"
    assert absolute(f"file://{tmp_path}/x") == str(tmp_path / "x")
    with pytest.raises(InputError, match="not a kind of URL"):
        location("nowhere://bucket/x.zarr")


def test_names_that_are_not_utf_8_come_back_from_json_behind_a_url():
    path, name = location("memory://folder/run.json"), os.fsdecode(b"M\xfcller.h5")
    put_json(path, {"path": name})
    assert json.loads(path.read_bytes()) == {"path": name}


def test_a_file_url_is_the_folder(image, tmp_path):
    url = f"file://{tmp_path}/x.ome.zarr"
    create_ome_zarr(url, SHAPE, np.uint8).write([slice(None)] * 3, image)
    with open_stack(tmp_path / "x.ome.zarr") as here, open_stack(url) as there:
        np.testing.assert_array_equal(here.read(), there.read())
    assert fingerprint_at(url) == fingerprint_at(tmp_path / "x.ome.zarr")


def test_a_store_in_a_bucket_is_that_in_a_folder(image, bucket, tmp_path):
    for path in (tmp_path / "x.ome.zarr", f"{bucket}/x.ome.zarr"):
        made = create_ome_zarr(path, SHAPE, np.uint8, spacing_um=(2, 1, 1))
        made.write((slice(0, 20), slice(0, 64), slice(0, 64)), image[:, :64, :64])
        OmeZarrImage(path).write((slice(0, 20), slice(0, 64), slice(64, 90)), image[:, :64, 64:])
        build_pyramid(path)
    for level in (0, 1):
        with (
            open_stack(tmp_path / "x.ome.zarr", level=level) as here,
            open_stack(f"{bucket}/x.ome.zarr", level=level) as there,
        ):
            assert there.spacing_um == here.spacing_um
            np.testing.assert_array_equal(here.read(), there.read())
    names = {str(p.relative_to(tmp_path / "x.ome.zarr")) for p in (tmp_path / "x.ome.zarr").rglob("*") if p.is_file()}
    root = location(f"{bucket}/x.ome.zarr")
    assert {name.split("x.ome.zarr/")[1] for name in root.fs.find(root.path)} == names
    before = fingerprint_at(root)
    assert before == fingerprint_at(root)
    made.write((slice(0, 20), slice(64, 70), slice(0, 64)), image[:, 64:, :64])
    root.fs.invalidate_cache()
    assert before != fingerprint_at(root)
    create_ome_zarr(root, SHAPE, np.uint8, overwrite=True)
    assert not OmeZarrImage(root).read().any()


def test_what_is_not_in_a_bucket_is_named(bucket):
    for path in (f"{bucket}/none.zarr", "s3://no-such-bucket/x.zarr"):
        with pytest.raises(MedwaveError, match=path):
            open_stack(path)
    with pytest.raises(InputError, match="axes"):
        open_stack(f"{bucket}/x.zarr", axes="ZYX")
    with pytest.raises(GeometryError):
        create_ome_zarr(f"{bucket}/flat.zarr", (1, 4, 4), np.uint8)


class _Stumbling(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; refuses the first requests for a chunk."""

    refusals = 0
    asked = 0

    def do_GET(self):
        if self.path.endswith("/0/0/0/0"):
            type(self).asked += 1
            if type(self).asked <= type(self).refusals:
                self.send_error(503, "the store is busy")
                return
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def stumbling(tmp_path):
    """Address of a web server over the folder, and its handler."""
    handler = type("Handler", (_Stumbling,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def hurried(monkeypatch):
    """The pauses of tests: one before each repetition."""
    monkeypatch.setattr(location_module, "WAITS_S", (0.05, 0.1))


def test_a_store_on_the_web_that_fails_says_so_and_is_read_when_it_recovers(image, stumbling, tmp_path, hurried):
    address, handler = stumbling
    create_ome_zarr(tmp_path / "x.ome.zarr", SHAPE, np.uint8).write([slice(None)] * 3, image)
    with open_stack(f"{address}/x.ome.zarr") as volume:
        handler.refusals = 3
        with pytest.raises(UnreachableError, match=r"x\.ome\.zarr/0: chunks 0/0/0 to 0/1/1: .* asked 3 times .*503"):
            volume.read()
        handler.refusals, handler.asked = 2, 0
        np.testing.assert_array_equal(volume.read(), image)
        assert handler.asked == 3


def test_what_no_repetition_cures_is_not_repeated(bucket, hurried):
    asked = []

    def damaged():
        asked.append(1)
        raise ValueError("not a chunk")

    for path in (f"{bucket}/x", "folder"):
        with pytest.raises(ValueError, match="not a chunk"):
            patiently(path, "chunk 0", damaged)
    assert len(asked) == 2


class _Stalling(http.server.BaseHTTPRequestHandler):
    """Hands everything on to another server; lets the first requests for a chunk wait for longer than they will."""

    protocol_version = "HTTP/1.1"
    server_address, chunk, patience_s = ("", 0), "/0/0/0/1", 0.3
    stalls = 0
    asked = 0

    def _hand_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith(self.chunk) and self.command != "HEAD":
            type(self).asked += 1
            if self.asked <= self.stalls:
                time.sleep(4 * self.patience_s)
                self.close_connection = True
                return
        behind = http.client.HTTPConnection(*self.server_address)
        behind.request(self.command, self.path, body, dict(self.headers))
        answer = behind.getresponse()
        content = answer.read()
        behind.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _hand_on

    def log_message(self, *_):
        pass


@pytest.fixture
def stalling(bucket, monkeypatch):
    """The handler of a proxy before the S3 server; clients wait 0.3 s, and leave it to medwave to ask again."""
    s3fs = pytest.importorskip("s3fs")
    conf = pytest.importorskip("fsspec.config").conf
    behind = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    handler = type("Handler", (_Stalling,), {"server_address": (behind.hostname, behind.port)})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {"read_timeout": handler.patience_s, "retries": {"max_attempts": 0}}
    monkeypatch.setitem(
        conf, "s3", {"endpoint_url": f"http://127.0.0.1:{server.server_port}", "config_kwargs": settings}
    )
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    yield handler
    server.shutdown()
    server.server_close()


def test_a_bucket_that_stalls_twice_costs_nothing(image, bucket, stalling, hurried):
    store = create_ome_zarr(f"{bucket}/stalls.ome.zarr", SHAPE, np.uint8)
    stalling.stalls = 2
    store.write([slice(None)] * 3, image)
    assert stalling.asked == 3
    stalling.asked = 0
    with open_stack(f"{bucket}/stalls.ome.zarr") as volume:
        np.testing.assert_array_equal(volume.read(), image)
    assert stalling.asked == 3


def test_a_bucket_that_always_stalls_is_named_with_its_chunk(image, bucket, stalling, hurried):
    store = create_ome_zarr(f"{bucket}/silent.ome.zarr", SHAPE, np.uint8)
    store.write([slice(None)] * 3, image)
    stalling.stalls, stalling.asked = 100, 0
    box = (slice(0, 20), slice(0, 64), slice(64, 90))
    said = r"s3://volumes/silent\.ome\.zarr(/0)?: chunk 0/0/1: the store does not answer, asked 3 times \(.*timeout"
    with open_stack(f"{bucket}/silent.ome.zarr") as volume:
        with pytest.raises(UnreachableError, match=said):
            volume.read(box)
        assert stalling.asked == 3
        np.testing.assert_array_equal(volume.read((slice(0, 20), slice(0, 64), slice(0, 64))), image[:, :64, :64])
    with pytest.raises(UnreachableError, match=said):
        store.write(box, image[:, :64, 64:])
