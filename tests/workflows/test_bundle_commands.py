"""Every recipe by MONAI's own command, in a copy of it, on small data: its metadata pass, all that it offers runs."""

import json
import runpy
import shutil

import nibabel
import numpy as np
import phantom
import pytest
from PIL import Image

from medwave.data import synthetic_boxes
from medwave.transforms.label_images import STRUCTURES
from medwave.volumes import read_swc, read_volume, write_volume
from medwave.workflows.demo_neurons import make_neuron_sample
from medwave.workflows.pipelines import copy_pipeline, list_pipelines, pipelines_folder

pytest.importorskip("fire", reason="monai.bundle's command line needs the extra train")
pytest.importorskip("zarr", reason="the extra large writes probabilities")

FEW = ("--changes#epochs", "1", "--changes#steps", "1", "--changes#batch", "2")

STEPS = {
    "classify_images": [
        ("train_bundle", "--data", "photos.npz", *FEW, "--changes#width", "0.0625"),
        ("evaluate", "--data", "photos.npz", "--weights", "out/train_bundle/best.safetensors"),
    ],
    "detect_boxes": [
        ("train_bundle", "--data", "boxes.npz", *FEW, "--changes#width", "0.0625", "--changes#channels", "16"),
        ("evaluate", "--data", "boxes.npz", "--weights", "out/train_bundle/best.safetensors"),
    ],
    "recognise_faces": [
        ("train_bundle", "--data", "faces", *FEW, "--changes#size", "16x16", "--changes#width", "4"),
        ("verify", "--pairs", "pairs.txt", "--images", "faces", "--folds", "2", "--weights",
         "out/train_bundle/best.safetensors"),
    ],
    "reconstruct_neuron": [("inference", "--volume", "neuron.tif", "--gold", "true_tree.swc", "--overlap", "48")],
    "register_brain": [
        ("inference", "--fixed", "fixed.nii.gz", "--moving", "moving.nii.gz", "--preset", "fast"),
        ("train_bundle", "--changes#label_maps", "maps", *FEW, "--changes#width", "1", "--changes#spacing_mm", "6",
         "--changes#size", "[16,16,16]", "--changes#validation_size", "[16,16,16]", "--changes#held_back", "2",
         "--changes#validation_pairs", "2"),
    ],
    "register_brain_ixi": [
        ("inference", "--data", "ixi", "--subject", "Test/subject_1", "--preset", "fast"),
        ("train_bundle", "--changes#images", "ixi", *FEW, "--changes#width", "1", "--changes#spacing_mm", "3",
         "--changes#size", "[32,32,32]", "--changes#validation_size", "[32,32,32]", "--changes#held_back", "1"),
    ],
    "segment_images": [
        ("train_bundle", "--data", "camvid", *FEW, "--changes#crop", "32"),
        ("evaluate", "--data", "camvid", "--weights", "out/train_bundle/best.safetensors"),
    ],
    "segment_neurons": [
        ("inference", "--volume", "neuron.tif", "--overlap", "48"),
        ("train_bundle", *FEW, "--changes#axons_share", "0", "--changes#width", "4", "--changes#size", "[16,32,32]",
         "--changes#validation_cubes", "2"),
    ],
}  # fmt: skip
"""What is run in the copy of each recipe: a configuration, and entries that differ from its own."""


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Small data under the names that the steps give them."""
    folder = tmp_path_factory.mktemp("samples")
    _brains(folder)
    _photographs(folder)
    synthetic_boxes(folder / "boxes.npz", (32, 32), {"train": 4, "val": 2, "test": 2}, seed=0, side_voxels=(8, 16))
    make_neuron_sample(folder, shape=(32, 96, 96))
    return folder


def _brains(folder):
    pair = phantom.make_pair()
    write_volume(folder / "fixed.nii.gz", pair.fixed)
    write_volume(folder / "moving.nii.gz", pair.moving)
    for part in ("Train", "Val", "Test"):
        (folder / "ixi" / part).mkdir(parents=True)
    for name in ("atlas", "Train/subject_1", "Val/subject_1", "Test/subject_1"):
        write_volume(folder / f"ixi/{name}_image.nii.gz", pair.fixed)
        cells = np.digitize(pair.fixed.data, [0.3, 0.6, 0.8]).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(cells, pair.fixed.grid.affine), folder / f"ixi/{name}_labels.nii.gz")
    (folder / "maps").mkdir()
    places = np.moveaxis(np.indices((24, 24, 24)), 0, -1) - 11.5
    for number in range(4):
        radius = np.linalg.norm(places + number, axis=-1)
        octant = (places + number > 0) @ np.array([1, 2, 4])
        labels = np.where(radius < 9, np.array(STRUCTURES[:8])[octant], 0).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(labels, np.diag([4.0, 4, 4, 1])), folder / f"maps/map_{number}.nii.gz")


def _photographs(folder):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (48, 16, 16), dtype=np.uint8), np.arange(48) % 2
    np.savez(folder / "photos.npz", train_images=images, train_labels=labels, test_images=images[:8],
             test_labels=labels[:8])  # fmt: skip
    for person in ("ann", "bo", "cy", "dee", "eve", "fay", "guy", "hal"):
        (folder / "faces" / person).mkdir(parents=True)
        texture = rng.integers(30, 226, (4, 4)).repeat(4, axis=0).repeat(4, axis=1)
        for view in range(1, 4):
            picture = np.clip(texture + rng.normal(0, 9, texture.shape), 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(folder / "faces" / person / f"{person}_{view:04d}.png")
    (folder / "pairs.txt").write_text("ann\t1\t2\nann\t1\tbo\t1\nbo\t1\t3\ncy\t2\tdee\t2\n", encoding="utf-8")
    for split in ("train", "val", "test"):
        for part in (split, f"{split}annot"):
            (folder / "camvid" / part).mkdir(parents=True)
        for number in range(3):
            label = np.zeros((32, 48), np.uint8)
            label[:, 12 + 6 * number :] = 1
            Image.fromarray(np.repeat((60 + 120 * label)[..., None], 3, axis=2)).save(
                folder / "camvid" / split / f"{number}.png"
            )
            Image.fromarray(label).save(folder / "camvid" / f"{split}annot" / f"{number}.png")


@pytest.fixture
def bundle(monkeypatch):
    """``python -m monai.bundle ...``, in this process: packages are imported once."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["monai.bundle", *words])
        runpy.run_module("monai.bundle", run_name="__main__")

    return run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Default logging file", "ignore:No hash value", "ignore:parsing config_file")
@pytest.mark.parametrize("name", STEPS)
def test_monai_runs_a_copy_of_the_recipe(name, tmp_path, samples, bundle, monkeypatch):
    mine = copy_pipeline(name, tmp_path / "mine")
    offered = next(pipeline.configs for pipeline in list_pipelines() if pipeline.name == name)
    assert {config for config, *_ in STEPS[name]} == set(offered)
    monkeypatch.chdir(mine)
    for sample in samples.iterdir():
        (mine / sample.name).symlink_to(sample)
    schema = shutil.copy(pipelines_folder() / "metadata_schema.json", mine)
    bundle("verify_metadata", "--meta_file", "configs/metadata.json", "--filepath", str(schema))
    for config, *more in STEPS[name]:
        bundle("run", "--config_file", f"configs/{config}.yaml", "--output", f"out/{config}", *more)
    check(name, mine / "out")


def check(name, out):
    """What the runs have left is of use."""
    for trained in out.glob("train_bundle"):
        assert (trained / "best.safetensors").stat().st_size > 1000
    for page in (out / step for step in ("inference", "evaluate", "verify") if (out / step).is_dir()):
        if name not in ("segment_neurons", "detect_boxes"):
            assert "<title>" in (page / "report.html").read_text(encoding="utf-8")
        assert json.loads((page / "run.json").read_text())["inputs"]
    if name == "register_brain":
        assert read_volume(out / "inference/warped.nii.gz").data.std() > 0
    if name == "register_brain_ixi":
        assert json.loads((out / "inference/overlap.json").read_text())["mean"]["dice"] > 0.99
    if name == "reconstruct_neuron":
        assert len(read_swc(out / "inference/tree.swc").positions) > 50
