"""A cohort end to end: failures are passed by, a killed run resumes to the same files, a BIDS dataset comes out."""

import csv
import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medwave.core.errors import InputError, OutputError
from medwave.core.geometry import Grid, Volume
from medwave.volumes import read_volume, write_volume
from medwave.workflows.batch import BEFORE, DONE, FAILED
from medwave.workflows.cohort import register_arguments, register_cohort
from medwave.workflows.cohort_index import RULES, measures, stand_out
from medwave.workflows.cohort_items import cohort_pairs
from medwave.workflows.options_cohort import CohortOptions
from medwave.workflows.register import register

GRID = Grid((20, 22, 18), np.array([[-4.0, 0, 0, 40], [0, 4, 0, -42], [0, 0, 4, -34], [0, 0, 0, 1]]))
QUICK = CohortOptions(affine="none", deformable=False, threads=1)
RUN = "import sys; sys.argv[0] = 'medwave'; from medwave.cli.app import main; main()"
ARGUMENTS = ("batch", "pairs.csv", "-o", "out", "--affine", "none", "--no-deformable", "--threads", "1", "--jobs", "2")


def ball(number):
    at = GRID.to_mm(np.moveaxis(np.indices(GRID.shape), 0, -1)) - (number, -2.0 * number, 0)
    return Volume((100 / (1 + np.exp((np.linalg.norm(at, axis=-1) - 26) / 2))).astype(np.float32), GRID)


def write_cohort(folder, count):
    """Balls and a table of pairs, each to the next."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        write_volume(folder / f"b{number}.nii.gz", ball(number))
    rows = [f"b{n}.nii.gz,b{(n + 1) % count}.nii.gz" for n in range(count)]
    (folder / "pairs.csv").write_text("\n".join(["fixed,moving", *rows]) + "\n")
    return folder


def statuses(outcomes):
    return [outcome.status for outcome in outcomes]


@pytest.mark.parametrize("header", ["a.mhd", "a.nhdr"])
def test_other_data_of_the_same_header_are_registered_anew(tmp_path, header):
    folder = write_cohort(tmp_path, 2)
    stored = sitk.ReadImage(str(folder / "b0.nii.gz"))
    image = sitk.GetImageFromArray(sitk.GetArrayFromImage(stored))
    image.CopyInformation(stored)
    sitk.WriteImage(image, str(folder / header))
    (folder / "pairs.csv").write_text(f"fixed,moving\nb1.nii.gz,{header}\n")
    items = cohort_pairs(folder / "pairs.csv")
    assert statuses(register_cohort(items, tmp_path / "out", options=QUICK)) == [DONE]
    assert statuses(register_cohort(items, tmp_path / "out", options=QUICK)) == [BEFORE]
    before = (folder / header).read_bytes()
    sitk.WriteImage(image * 2, str(folder / header))
    assert (folder / header).read_bytes() == before
    assert statuses(register_cohort(items, tmp_path / "out", options=QUICK)) == [DONE]


def test_failures_are_listed_and_the_same_question_is_not_asked_twice(tmp_path):
    folder = write_cohort(tmp_path, 3)
    (folder / "b2.nii.gz").write_bytes(b"no image")
    items = cohort_pairs(folder / "pairs.csv")
    first = register_cohort(items, tmp_path / "out", options=QUICK)
    assert statuses(first) == [DONE, FAILED, FAILED]
    with (tmp_path / "out/failed.csv").open(newline="") as stream:
        failed = list(csv.DictReader(stream))
    assert [row["name"] for row in failed] == ["b2_to_b1", "b0_to_b2"]
    assert all("b2.nii.gz" in row["error"] for row in failed)
    page = (tmp_path / "out/index.html").read_text()
    assert page.index("b2_to_b1") < page.index(">b1_to_b0<")  # failures come first

    write_volume(folder / "b2.nii.gz", ball(2))
    assert statuses(register_cohort(items, tmp_path / "out", options=QUICK)) == [BEFORE, DONE, DONE]
    assert not (tmp_path / "out/failed.csv").exists()
    write_volume(folder / "b0.nii.gz", ball(5))  # another image of the same name
    assert statuses(register_cohort(items, tmp_path / "out", options=QUICK)) == [DONE, BEFORE, DONE]
    other = CohortOptions(affine="none", deformable=False, threads=2, metric="mi")
    assert statuses(register_cohort(items[:1], tmp_path / "out", options=other)) == [DONE]


def test_the_list_of_failures_is_a_table_of_the_same_pairs(tmp_path, monkeypatch):
    folder = write_cohort(tmp_path, 2)
    (folder / "b1.nii.gz").write_bytes(b"no image")
    (folder / "pairs.csv").write_text("fixed,moving,mask_fixed\nb0.nii.gz,b1.nii.gz,b0.nii.gz\nb0.nii.gz,b1.nii.gz,\n")
    monkeypatch.chdir(folder)
    items = cohort_pairs("pairs.csv")
    register_cohort(items, "out", options=QUICK)
    again = cohort_pairs("out/failed.csv")
    assert [item.name for item in again] == [item.name for item in items]
    assert [item.files for item in again] == [{r: folder / p for r, p in item.files.items()} for item in items]


def test_an_image_that_is_replaced_meanwhile_is_registered_again(tmp_path, monkeypatch):
    folder = write_cohort(tmp_path, 2)
    items = cohort_pairs(folder / "pairs.csv")

    def replacing(*images, **arguments):
        result = register(*images, **arguments)
        write_volume(folder / "b0.nii.gz", ball(5))
        return result

    with monkeypatch.context() as patch:
        patch.setattr("medwave.workflows.register.register", replacing)
        first, second = register_cohort(items, tmp_path / "out", options=QUICK)
    assert (first.status, second.status) == (FAILED, DONE)
    assert "b0.nii.gz: changed while it was worked on; run again" in first.error
    assert not (tmp_path / "out/runs/b1_to_b0/run.json").exists()
    assert statuses(register_cohort(items, tmp_path / "out", options=QUICK)) == [DONE, BEFORE]


@pytest.mark.parametrize("name", ["warped.nii.gz", "transform/composite.h5", "preview.jpg"])
def test_a_run_that_lost_a_file_is_made_again(tmp_path, name):
    items = cohort_pairs(write_cohort(tmp_path, 2) / "pairs.csv")
    register_cohort(items, tmp_path / "out", options=QUICK)
    lost = tmp_path / "out/runs/b1_to_b0" / name
    lost.unlink()
    assert statuses(register_cohort(items, tmp_path / "out", options=QUICK)) == [DONE, BEFORE]
    assert lost.is_file()


def test_a_pair_that_lacks_a_side_or_its_content_fails_by_name(tmp_path):
    for name in ("half", "link"):
        (tmp_path / "in" / name).mkdir(parents=True)
        write_volume(tmp_path / "in" / name / "moving.nii.gz", ball(0))
    (tmp_path / "in/link/fixed.nii.gz").symlink_to("absent")
    half, link = register_cohort(cohort_pairs(tmp_path / "in"), tmp_path / "out", options=QUICK)
    assert (half.status, link.status) == (FAILED, FAILED)
    assert "half/fixed.nii.gz: no such file" in half.error
    assert "link/fixed.nii.gz: no such file" in link.error


def test_two_runs_do_not_share_a_folder(tmp_path):
    folder = write_cohort(tmp_path, 2)
    items = cohort_pairs(folder / "pairs.csv")
    refused = []

    def again(*_):
        with pytest.raises(OutputError, match=r"out: process \d+ is working in this folder"):
            register_cohort(items, tmp_path / "out", options=QUICK)
        refused.append(True)

    register_cohort(items, tmp_path / "out", options=QUICK, on_outcome=again)
    assert refused == [True, True]
    assert statuses(register_cohort(items, tmp_path / "out", options=QUICK)) == [BEFORE, BEFORE]
    assert not list((tmp_path / "out").glob(".*"))


def test_no_input_is_replaced(tmp_path):
    folder = write_cohort(tmp_path, 2)
    items = cohort_pairs(folder / "pairs.csv")
    table = (folder / "pairs.csv").rename(folder / "summary.csv")
    before = table.read_bytes()
    with pytest.raises(OutputError, match=r"summary\.csv: a result would replace this input; choose another output"):
        register_cohort(items, folder, source=table, options=QUICK)
    assert table.read_bytes() == before
    register_cohort(items[:1], folder / "out", options=QUICK)
    chained = [replace(items[0], files={**items[0].files, "moving": folder / "out/runs/b1_to_b0/warped.nii.gz"})]
    with pytest.raises(OutputError, match=r"warped\.nii\.gz: a result would replace this input"):
        register_cohort(chained, folder / "out", options=QUICK)
    again = [replace(items[0], files={**items[0].files, "init": folder / "out/runs/b1_to_b0"})]
    with pytest.raises(OutputError, match=r"b1_to_b0/run\.json: a result would replace this input"):
        register_cohort(again, folder / "out", options=QUICK)


def test_further_channels_come_from_the_table(tmp_path):
    folder = write_cohort(tmp_path, 2)
    table = folder / "channels.csv"
    table.write_text("fixed,moving,fixed_channel_1,moving_channel_1\nb0.nii.gz,b1.nii.gz,b0.nii.gz,b1.nii.gz\n")
    items = cohort_pairs(table)
    assert register_arguments(items[0].files) == {
        "fixed": folder / "b0.nii.gz", "moving": folder / "b1.nii.gz",
        "fixed_channels": [folder / "b0.nii.gz"], "moving_channels": [folder / "b1.nii.gz"],
    }  # fmt: skip
    options = CohortOptions(affine="none", preset="fast", threads=1)
    assert statuses(register_cohort(items, tmp_path / "out", options=options)) == [DONE]
    assert statuses(register_cohort(items, tmp_path / "out", options=options)) == [BEFORE]
    record = json.loads((tmp_path / "out/runs/b1_to_b0/run.json").read_text())
    assert {"fixed_channel_1", "moving_channel_1"} <= record["inputs"].keys()
    table.write_text("fixed,moving,fixed_channel_1,moving_channel_2\nb0.nii.gz,b1.nii.gz,b0.nii.gz,b1.nii.gz\n")
    with pytest.raises(InputError, match=r"line 2: fixed_channel_1 has no counterpart; name moving_channel_1 too"):
        cohort_pairs(table)


@pytest.mark.slow
def test_a_run_that_is_killed_twice_gives_the_files_of_one_that_is_not(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    compare = import_module("_cohort_compare")
    draw = random.Random(time.time_ns())
    command = [sys.executable, "-c", RUN, *ARGUMENTS]
    whole, killed = write_cohort(tmp_path / "whole", 5), write_cohort(tmp_path / "killed", 5)
    subprocess.run(command, cwd=whole, check=True, capture_output=True)
    for share in (0.0, 0.5):
        wanted = int(100 * draw.uniform(share, share + 0.5))
        with subprocess.Popen(command, cwd=killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            while child.poll() is None and len(list(killed.glob("out/runs/*/*"))) < wanted * 35 // 100:
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.1))
            child.send_signal(signal.SIGKILL)
    subprocess.run(command, cwd=killed, check=True, capture_output=True)
    assert compare.differences(whole / "out", killed / "out") == []
    assert len(list(killed.glob("out/runs/*/run.json"))) == 5
    changed = killed / "out/runs/b1_to_b0/warped.nii.gz"
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    assert compare.differences(whole / "out", killed / "out") == ["runs/b1_to_b0/warped.nii.gz"]  # it can tell


def write_bids(source, count):
    for number in range(1, count + 1):
        folder = source / f"sub-0{number}" / "anat"
        folder.mkdir(parents=True)
        write_volume(folder / f"sub-0{number}_T1w.nii.gz", ball(number))
    (source / "dataset_description.json").write_text('{"Name": "balls", "BIDSVersion": "1.8.0"}')
    return source


def test_a_bids_dataset_is_not_described_anew(tmp_path):
    source = write_bids(tmp_path / "raw", 1)
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    items = cohort_pairs(source, template=source / "sub-01/anat/sub-01_T1w.nii.gz")
    with pytest.raises(OutputError, match=r"dataset_description\.json: a result would replace this input"):
        register_cohort(items, source, options=QUICK, bids_source=source, space="Ball")
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("name", "space"), [("t.nii.gz", "MNI152_2mm"), ("_.nii.gz", None)])
def test_a_label_that_bids_does_not_know_is_refused_before_the_work(tmp_path, name, space):
    source = write_bids(tmp_path / "raw", 1)
    write_volume(tmp_path / name, ball(0))
    items = cohort_pairs(source, template=tmp_path / name)
    with pytest.raises(InputError, match=r"letters and digits only, got '(MNI152_2mm)?'; give --bids-space"):
        register_cohort(items, tmp_path / "out", options=QUICK, bids_source=source, space=space)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "names",
    [
        ("sub-01_desc-preproc_T1w.nii.gz", "sub-01_space-MNI152NLin2009cAsym_desc-preproc_T1w.nii.gz"),
        ("sub-01_T1w.nii", "sub-01_T1w.nii.gz"),
    ],
)
def test_images_whose_results_would_have_one_name_are_refused(tmp_path, names):
    source = write_bids(tmp_path / "raw", 2)
    (source / "sub-01/anat/sub-01_T1w.nii.gz").unlink()
    for number, name in enumerate(names):
        write_volume(source / "sub-01/anat" / name, ball(number))
    items = cohort_pairs(source, template=source / "sub-02/anat/sub-02_T1w.nii.gz")
    said = rf"{names[0]} and .*{names[1]}: results of both would be called sub-01/anat/\S+; name pairs in a table"
    with pytest.raises(InputError, match=said):
        register_cohort(items, tmp_path / "out", options=QUICK, bids_source=source, space="Ball")
    assert not (tmp_path / "out").exists()


def test_images_of_a_dataset_have_labels_of_their_own(tmp_path):
    source = write_bids(tmp_path / "raw", 3)
    items = cohort_pairs(source, all_pairs=True)
    register_cohort(items, tmp_path / "out", options=QUICK, bids_source=source, space="MNI")
    assert len(list((tmp_path / "out").glob("sub-01/anat/*desc-warped_T1w.nii.gz"))) == 2


def test_a_repeated_bids_cohort_leaves_no_older_results(tmp_path):
    source, template = write_bids(tmp_path / "raw", 2), tmp_path / "template.nii.gz"
    write_volume(template, ball(0))
    write_volume(tmp_path / "labels.nii.gz", Volume((np.asarray(ball(0).data) > 50).astype(np.uint8), GRID))
    (source / "sub-01/anat/sub-01_dseg.nii.gz").write_bytes((tmp_path / "labels.nii.gz").read_bytes())

    def names(**labels):
        items = cohort_pairs(source, template=template, **labels)
        register_cohort(items, tmp_path / "out", options=QUICK, bids_source=source, space="Ball")
        return {path.name for path in (tmp_path / "out").glob("sub-0*/anat/*")}

    first = names(template_labels=tmp_path / "labels.nii.gz")
    labels = {"sub-01_space-Ball_desc-warped_dseg.nii.gz", "sub-01_space-Ball_desc-warped_dseg.json"}
    assert labels < first
    write_volume(template, ball(3))  # another one, without labels
    assert names() == first - labels
    (source / "sub-02/anat/sub-02_T1w.nii.gz").write_bytes(b"no image")
    assert names() == {name for name in first - labels if name.startswith("sub-01")}


def test_a_bids_dataset_gives_a_derivative_that_others_read(tmp_path):
    source = write_bids(tmp_path / "raw", 2)
    write_volume(tmp_path / "template.nii.gz", ball(0))
    items = cohort_pairs(source, template=tmp_path / "template.nii.gz")
    out = tmp_path / "out"
    register_cohort(items, out, options=QUICK, bids_source=source, space="Ball")
    anat = out / "sub-01/anat"
    composite = anat / "sub-01_from-T1w_to-Ball_mode-image_xfm.h5"
    sidecar = json.loads(composite.with_suffix(".json").read_text())
    assert sidecar["FromFile"].endswith("sub-01_T1w.nii.gz")
    assert sidecar["ToFile"].endswith("template.nii.gz")
    assert (anat / "sub-01_from-Ball_to-T1w_mode-image_xfm.h5").is_file()
    images = [
        sitk.ReadImage(str(p), sitk.sitkFloat32) for p in (tmp_path / "template.nii.gz", items[0].files["moving"])
    ]
    moved = sitk.GetArrayFromImage(sitk.Resample(images[1], images[0], sitk.ReadTransform(str(composite)))).T
    warped = read_volume(anat / "sub-01_space-Ball_desc-warped_T1w.nii.gz").data
    np.testing.assert_allclose(warped[2:-2, 2:-2, 2:-2], moved[2:-2, 2:-2, 2:-2], atol=1e-3)
    described = json.loads((out / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    assert described["GeneratedBy"][0]["Name"] == "medwave"

    ancpbids = pytest.importorskip("ancpbids", reason="ancpbids is not installed")
    found = ancpbids.BIDSLayout(str(out)).get(suffix="xfm", extension=".h5", return_type="filename")
    assert sorted(Path(path).name for path in found if "sub-01" in path) == sorted(
        path.name for path in anat.glob("*_xfm.h5")
    )


def test_what_stands_out_is_named_with_its_reason():
    usual = [{"dice": 0.6 + 0.002 * n, "folds": 0.0, "scale": 1 + 0.01 * n, "rotation_degrees": None} for n in range(9)]
    keys = ("similarity_after", "largest_mm")
    rows = [{**dict.fromkeys(keys), **row} for row in usual]
    assert stand_out(rows) == ([[]] * 9, [0.0] * 9)
    rows[4] |= {"dice": 0.2}
    rows[6] |= {"dice": 0.9, "scale": 0.5}  # a high overlap is no fault, a scale is one on either side
    reasons, scores = stand_out(rows)
    assert reasons[4] == ["Dice 0.200, median of all 0.606"]
    assert reasons[6] == ["scale of the affine 0.500, median of all 1.030"]
    assert [bool(r) for r in reasons] == [score > 0 for score in scores]


def test_correlations_are_compared_among_those_of_one_metric():
    """Between contrasts they are lower, however good the result."""
    usual = [0.86, 0.87, 0.865, 0.855, 0.862, 0.69, 0.70, 0.695, 0.688, 0.692]
    metrics = ["lncc"] * 5 + ["curve"] * 5
    rows = [dict.fromkeys(RULES) | {"similarity_after": value} for value in usual]
    assert stand_out(rows, metrics) == ([[]] * 10, [0.0] * 10)
    assert stand_out(rows[:6], metrics[:6])[0][5] == []  # fewer than five of a kind: none stands out
    rows[3]["similarity_after"] = 0.70  # usual between contrasts only
    reasons, _ = stand_out(rows, metrics)
    assert reasons == [[]] * 3 + [["correlation after 0.700, median of 5 by lncc 0.862"]] + [[]] * 6


def test_scale_and_rotation_are_read_from_the_matrix():
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = 1.1 * turn
    found = measures({"affine": {"matrix": matrix.tolist()}})
    assert found["scale"] == pytest.approx(1.1)
    assert found["rotation_degrees"] == pytest.approx(20)
    assert found["dice"] is None
