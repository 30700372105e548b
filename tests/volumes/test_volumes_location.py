"""Stores behind URLs: a real S3 server on this machine, a web server that stumbles, and names that mean folders."""

import functools
import http.server
import threading

import numpy as np
import pytest

from medwave.core.errors import GeometryError, InputError, MedwaveError
from medwave.volumes import OmeZarrImage, build_pyramid, create_ome_zarr, open_stack
from medwave.volumes.location import absolute, fingerprint_at, is_url, location

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


def test_a_store_on_the_web_that_fails_says_so_and_is_read_when_it_recovers(image, stumbling, tmp_path):
    address, handler = stumbling
    create_ome_zarr(tmp_path / "x.ome.zarr", SHAPE, np.uint8).write([slice(None)] * 3, image)
    handler.refusals = 1
    with open_stack(f"{address}/x.ome.zarr") as volume:
        with pytest.raises(MedwaveError, match=r"x\.ome\.zarr.*0:20"):
            volume.read()
        np.testing.assert_array_equal(volume.read(), image)
