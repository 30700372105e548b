"""Transforms as files from the command line: what is printed and written, and one line for what cannot be."""

import json

import nibabel
import numpy as np
import pytest
from cli_cases import QUICK, listing

from medwave.core.locks import only_run_in
from medwave.volumes import read_transform, read_volume
from medwave.workflows.register import register


@pytest.mark.parametrize("command", ["convert-transform", "compose", "invert", "jacobian"])
def test_each_explains_itself(medwave, command):
    done = medwave(command, "--help")
    assert done.code == 0
    assert "points" in done.out or "inverse" in done.out or "volume" in done.out


def test_there_and_back_through_fsl_and_freesurfer(medwave, pair, run, tmp_path):
    ends = ("--fixed", pair["fixed"], "--moving", pair["moving"])
    affine = run / "transform/affine.tfm"
    done = medwave("convert-transform", affine, "--to", "fsl", "-o", tmp_path / "m.mat", *ends)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == str(tmp_path / "m.mat")
    assert f"use it: flirt -in {pair['moving']} -ref {pair['fixed']} -applyxfm" in done.out
    assert medwave("convert-transform", affine, "--to", "freesurfer", "-o", tmp_path / "m.lta", *ends).code == 0
    for name in ("m.mat", "m.lta"):
        done = medwave(
            "register", pair["fixed"], pair["moving"], "--init", tmp_path / name, "-o", tmp_path / "r", *QUICK
        )
        assert done.code == 0, done.err
        found = read_transform(tmp_path / "r/transform/affine.tfm").linear
        np.testing.assert_allclose(found, read_transform(affine).linear, atol=1e-5)


def test_compose_invert_jacobian(medwave, run, tmp_path):
    both, back = tmp_path / "both.h5", tmp_path / "back.nii.gz"
    done = medwave("compose", run, run / "transform/affine.tfm", "-o", both)
    assert (done.code, done.out) == (0, f"{both}\n")
    done = medwave("invert", run, "-o", back)
    assert (done.code, done.out, done.err) == (0, f"{back}\n", "")
    done = medwave("jacobian", run, "--log", "-o", tmp_path / "log.nii.gz")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "folded voxels: 0"
    assert np.abs(read_volume(tmp_path / "log.nii.gz").data).max() < 1e-6  # the quick run's transform is the identity


@pytest.mark.parametrize(
    "words",
    [
        ("invert", "{run}", "-o", "{run}/transform/composite.h5"),
        ("compose", "{run}", "{run}/transform/affine.tfm", "-o", "{run}/transform/field.nii.gz"),
        ("jacobian", "{run}/transform/field.nii.gz", "-o", "{run}/transform/field.nii.gz"),
        ("convert-transform", "{run}", "--to", "fsl", "-o", "{run}/warped.nii.gz"),
        ("apply", "{run}", "{other}/warped.nii.gz", "-o", "{run}", "--suffix", ""),
        ("apply", "{run}", "{other}/field.nii.gz", "-o", "{run}/transform", "--suffix", ""),
    ],
)
def test_no_file_of_the_run_is_replaced(medwave, pair, run, tmp_path, words):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("warped.nii.gz", "field.nii.gz"):
        (other / name).write_bytes(pair["fixed"].read_bytes())
    before = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    done = medwave(*(word.format(run=run, other=other) for word in words))
    assert (done.code, len(done.errors)) == (2, 1)
    assert "would replace" in done.errors[0]
    assert {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()} == before


ENDS = ("--fixed", "{fixed}", "--moving", "{moving}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("invert", "absent.h5", "-o", "x.h5"), "no such file"),
        (("compose", "{bent}", "{affine}", "-o", "x.tfm"), "bends space"),
        (("jacobian", "{affine}", "-o", "x.nii.gz"), "--reference"),
        (("convert-transform", "{affine}", "--to", "fsl", "-o", "x.mat"), "--fixed and --moving"),
        (("convert-transform", "{bent}", "--to", "fsl", "-o", "x.mat", *ENDS), ".nii.gz"),
        (("register", "{fixed}", "{moving}", "--init", "absent.mat", "-o", "out"), "no such file"),
    ],
)
def test_what_cannot_be_is_one_line(medwave, pair, run, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    bent = nibabel.load(run / "transform/field.nii.gz")
    nibabel.save(nibabel.Nifti1Image(bent.get_fdata() + 0.5, bent.affine, bent.header), tmp_path / "bent.nii.gz")
    before = listing(tmp_path)
    names = {"run": run, "affine": run / "transform/affine.tfm", "bent": tmp_path / "bent.nii.gz", **pair}
    done = medwave(*(word.format(**names) for word in words))
    assert done.code == 2
    assert len(done.errors) == 1
    assert said in done.errors[0]
    assert listing(tmp_path) == before


def test_register_writes_nothing_of_an_input_that_changes_meanwhile(medwave, pair, tmp_path, monkeypatch):
    moving = tmp_path / "moving.nii.gz"
    moving.write_bytes(pair["moving"].read_bytes())

    def replacing(*images, **arguments):
        result = register(*images, **arguments)
        moving.write_bytes(pair["fixed"].read_bytes())
        return result

    monkeypatch.setattr("medwave.workflows.register.register", replacing)
    done = medwave("register", pair["fixed"], moving, "-o", tmp_path / "out", *QUICK)
    assert (done.code, len(done.errors)) == (2, 1)
    assert f"{moving}: changed while it was worked on" in done.errors[0]
    assert not (tmp_path / "out").exists()


def test_two_registrations_do_not_share_a_folder(medwave, pair, run):
    before = listing(run)
    with only_run_in(run):
        done = medwave("register", pair["fixed"], pair["moving"], "-o", run, *QUICK)
    assert done.code == 2
    assert "is working in this folder" in done.errors[0]
    assert listing(run) == before
    assert medwave("register", pair["fixed"], pair["moving"], "-o", run, *QUICK).code == 0


def test_register_takes_channels_and_landmarks(medwave, pair, tmp_path):
    for name, shift in (("f", 0.0), ("m", 5.0)):
        (tmp_path / f"{name}.csv").write_text(f"x,y,z\n{shift},0,0\n{shift + 3},4,5\n")
    done = medwave(
        "register", pair["fixed"], pair["moving"], "-o", tmp_path / "r", *QUICK, "--fixed-channel", pair["fixed"],
        "--moving-channel", pair["moving"], "--channel-weight", 0.5, "--landmarks-fixed", tmp_path / "f.csv",
        "--landmarks-moving", tmp_path / "m.csv",
    )  # fmt: skip
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "r/run.json").read_text())
    assert record["figures"]["Target registration error"]["after"] == pytest.approx(5.0)
    assert {"fixed_channel_1", "moving_channel_1", "landmarks_fixed", "landmarks_moving"} <= set(record["inputs"])
    done = medwave("register", pair["fixed"], pair["moving"], "-o", tmp_path / "s", "--fixed-channel", pair["fixed"])
    assert done.code == 2
    assert "--moving-channel" in done.errors[0]
    assert not (tmp_path / "s").exists()
