"""``medwave view``: what it prints, how it ends, and its errors."""

import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from dataclasses import replace

import nibabel as nib
import numpy as np
from cli_cases import QUICK, write_pair

from medwave import register
from medwave.volumes import read_volume
from medwave.workflows.view import ResultSite


def test_it_serves_until_ctrl_c_and_ends_cleanly(run):
    words = ["-c", "from medwave.cli.app import main; main()", "view", str(run), "--no-browser"]
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().removeprefix("view: ").strip()
        with urllib.request.urlopen(address, timeout=20) as response:
            assert response.url == f"{address}report.html"
            assert b"registered" in response.read()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert err == "medwave: Ctrl-C ends it\nmedwave: ended\n"


def test_unusable_folders_and_ports_are_errors_of_one_line(medwave, tmp_path, run):
    for words, said in (
        ((tmp_path / "absent",), "no such folder"),
        ((tmp_path,), "no record of either"),
        ((run / "run.json",), "this is a file"),
        ((run, "--port", "70000"), "port: a number up to 65535"),
    ):
        failed = medwave("view", *words, "--no-browser")
        assert failed.code == 2
        assert len(failed.errors) == 1
        assert said in failed.errors[0]


def test_a_registration_shows_its_volumes_at_full_resolution(run, pair, tmp_path):
    site = ResultSite(run)
    page = site.answer("/viewer.html").body.decode()
    assert "moving.nii.gz on fixed.nii.gz" in page
    assert '"address": "volumes/warped-difference.nii"' in page
    assert "is not shown" not in page
    assert b'"volumes": "viewer.html"' in site.answer("/report.html").body
    for name, file in (("fixed", pair["fixed"]), ("warped", run / "warped.nii.gz")):
        (tmp_path / "layer.nii").write_bytes(site.answer(f"/volumes/{name}.nii").body)
        shown, known = nib.load(tmp_path / "layer.nii"), read_volume(file)
        assert np.array_equal(shown.get_fdata(), known.data)
        assert np.array_equal(shown.affine, known.grid.affine)
    assert site.answer("/volumes/absent.nii") is None
    assert site.answer("/transform/viewer.html") is None
    shutil.copytree(run, tmp_path / "sibling")
    assert site.answer("/../sibling/viewer.html") is None


def test_volumes_of_a_run_that_is_made_anew_are_the_new_ones(medwave, run, pair, tmp_path):
    site = ResultSite(run)
    assert "moving.nii.gz on fixed.nii.gz" in site.answer("/viewer.html").body.decode()
    assert medwave("register", pair["moving"], pair["fixed"], "-o", run, *QUICK).code == 0
    assert "fixed.nii.gz on moving.nii.gz" in site.answer("/viewer.html").body.decode()
    (tmp_path / "layer.nii").write_bytes(site.answer("/volumes/fixed.nii").body)
    assert np.array_equal(nib.load(tmp_path / "layer.nii").get_fdata(), read_volume(pair["moving"]).data)


def test_volumes_that_are_gone_or_changed_are_left_out_and_said(medwave, tmp_path):
    files = write_pair(tmp_path)
    assert medwave("register", files["fixed"], files["moving"], "-o", tmp_path / "run", *QUICK).code == 0
    files["moving"].unlink()
    page = ResultSite(tmp_path / "run").answer("/viewer.html").body.decode()
    assert "The moving image is not shown" in page
    assert '"name": "warped-difference"' in page
    files["fixed"].write_bytes(files["fixed"].read_bytes() + b"0")
    page = ResultSite(tmp_path / "run").answer("/viewer.html").body.decode()
    assert "The fixed image is not shown" in page
    assert "difference" not in page.split('id="volumes"')[1].split("</script>")[0]


def test_volumes_are_found_from_elsewhere_where_the_run_named_them_from_its_folder(medwave, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    paths = write_pair(tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")
    names = (paths[role].name for role in ("fixed", "moving"))
    assert medwave("register", *names, "-o", tmp_path / "far" / "away" / "run", *QUICK).code == 0
    monkeypatch.chdir(tmp_path)
    assert "is not shown" not in ResultSite(tmp_path / "far" / "away" / "run").answer("/viewer.html").body.decode()


def test_a_run_from_python_keeps_the_files_it_was_given(tmp_path):
    paths = write_pair(tmp_path)
    quick = {"affine": "none", "deformable": False, "threads": 1}
    images = {"fixed_channels": [paths["fixed"]], "moving_channels": [str(paths["moving"])]}
    result = register(str(paths["fixed"]), paths["moving"], **images, **quick)
    result.save(tmp_path / "run")
    inputs = json.loads((tmp_path / "run" / "run.json").read_text())["inputs"]
    assert {role: entry["path"] for role, entry in inputs.items()} == {
        role: str(paths[role.split("_")[0]]) for role in ("fixed", "moving", "fixed_channel_1", "moving_channel_1")
    }
    page = ResultSite(tmp_path / "run").answer("/viewer.html").body.decode()
    assert "moving.nii.gz on fixed.nii.gz" in page
    assert "is not shown" not in page
    paths["moving"].unlink()
    page = ResultSite(tmp_path / "run").answer("/viewer.html").body.decode()
    assert "is not there any more, or has changed" in page
    replace(result, inputs={}).save(tmp_path / "run")
    page = ResultSite(tmp_path / "run").answer("/viewer.html").body.decode()
    assert "The moving image is not shown: run.json names no file of it." in page


def test_the_page_with_volumes_in_it(medwave, run, tmp_path):
    done = medwave("view", run, "--page")
    assert done.code == 0
    assert done.out.strip() == f"page: {run / 'viewer.html'}"
    page = (run / "viewer.html").read_text()
    assert "volumes/warped.nii" not in page
    assert 'src="http' not in page
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("{}")
    (tmp_path / "other" / "report.html").write_text("x")
    failed = medwave("view", tmp_path / "other", "--page")
    assert failed.code == 2
    assert "volumes are shown of a registration" in failed.errors[0]
