"""Training of WiNet on real images: it learns a known shift without labels, and a stop changes nothing."""

import importlib.util
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from medwave.core.errors import InputError
from medwave.models import WiNet, open_network, read_weights_info
from medwave.workflows.train_options import TrainPairOptions
from medwave.workflows.train_winet import predicted_field, train_winet, training_loss

pytest.importorskip("ignite", reason="training needs the extra train")

PROGRAM = Path(__file__).resolve().parents[2] / "data_prep" / "ixi.py"
SMALL = TrainPairOptions(
    width=1, spacing_mm=1.0, size=(16, 16, 16), validation_size=(16, 16, 16), radius=2, epochs=2, steps=3,
    validation_pairs=2, learning_rate=0.01, average=0.5, squarings=4, seed=5,
)  # fmt: skip


def texture(seed, shape=(16, 16, 16)):
    image = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    return ((image - image.min()) / np.ptp(image)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stand-ins for the pickles of TransMorph, converted: an atlas, and subjects that are the atlas moved a little."""
    source = tmp_path_factory.mktemp("ixi")
    atlas = texture(0)
    labels = np.digitize(atlas, [0.35, 0.5, 0.65]).astype(np.int16)
    names = ("Train/subject_1", "Train/subject_2", "Train/subject_3", "Val/subject_4", "Val/subject_5")
    for number, name in enumerate(("atlas", *names)):
        (source / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        moved = [np.roll(part, (number % 3, number % 2, 0), (0, 1, 2)) for part in (atlas, labels)]
        (source / "raw" / f"{name}.pkl").write_bytes(pickle.dumps(tuple(moved)))
    spec = importlib.util.spec_from_file_location("ixi", PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    assert program.convert(source / "raw", source / "nifti") == 6
    return source / "nifti"


@pytest.mark.parametrize("similarity", ["lncc", "mi"])
def test_the_loss_teaches_a_shift_that_is_known(similarity):
    """The moving image is the fixed one moved by two voxels; with mutual information it is inverted too."""
    wide = texture(1, (20, 16, 16))
    fixed, moving = (torch.from_numpy(part.copy())[None, None] for part in (wide[2:18], wide[:16]))
    pair = {"fixed": fixed, "moving": 1 - moving if similarity == "mi" else moving}
    torch.manual_seed(0)
    network = WiNet(2, diffeomorphic=False, spacing_mm=1.0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    options = replace(SMALL, images="folder", similarity=similarity, diffeomorphic=False, smoothness=0.05)
    loss = training_loss(options)
    for _ in range(60):
        optimiser.zero_grad()
        loss(predicted_field(network, pair), pair).backward()
        optimiser.step()
    with torch.no_grad():
        found = network(pair["moving"], pair["fixed"])[0, :, 4:12, 4:12, 4:12].mean(dim=(1, 2, 3))
    assert found.tolist() == pytest.approx([2, 0, 0], abs=0.5)


def test_a_run_on_converted_pickles_is_scored_by_overlap_and_goes_on_to_the_same_weights(folder, tmp_path):
    starts = []
    options = replace(SMALL, images=str(folder))
    whole = train_winet(tmp_path / "whole", options=options, on_start=starts.append)
    assert 0.2 < starts[0] < 0.9
    provenance = read_weights_info(whole.weights).provenance
    assert "on 3 images of nifti from atlas_image.nii.gz" in provenance
    assert "local correlation of radius 2 and smoothness 0.5" in provenance

    def stop(epoch, loss, score):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_winet(tmp_path / "parts", options=options, on_epoch=stop)
    parts = train_winet(tmp_path / "parts", options=options)
    assert parts.history == whole.history
    first, second = (open_network(r.weights, WiNet).state_dict() for r in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(InputError, match="belongs to a run with other options"):
        train_winet(tmp_path / "parts", options=options, radius=3)


def test_without_labels_and_atlas_similarity_is_the_score(folder, tmp_path):
    for path in folder.glob("Train/*_image.nii.gz"):
        (tmp_path / "bare" / "Train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "bare" / "Train" / path.name).symlink_to(path)
    starts = []
    with pytest.raises(InputError, match="2 subjects to train on and 1 to validate with; 2 of each"):
        train_winet(tmp_path / "run", options=SMALL, images=str(tmp_path / "bare"), held_back=1)
    (tmp_path / "bare" / "Train" / "subject_9_image.nii.gz").symlink_to(folder / "Val" / "subject_4_image.nii.gz")
    result = train_winet(
        tmp_path / "run", options=SMALL, images=str(tmp_path / "bare"), held_back=2, epochs=1, steps=1,
        schedule="constant", on_start=starts.append,
    )  # fmt: skip
    assert 0 < starts[0] < 1  # mean squared local correlation
    assert 0 < result.best_score < 1


def test_options_that_make_no_sense_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="give one of the two"):
        train_winet(tmp_path, options=SMALL, images=str(folder), label_maps="maps")
    with pytest.raises(InputError, match="similarity"):
        train_winet(tmp_path, options=SMALL, images=str(folder), similarity="dice")
    (folder / "Val" / "subject_4_labels.nii.gz").rename(folder / "Val" / "kept.nii.gz")
    try:
        with pytest.raises(InputError, match="some of the images to validate with have labels"):
            train_winet(tmp_path, options=SMALL, images=str(folder))
    finally:
        (folder / "Val" / "kept.nii.gz").rename(folder / "Val" / "subject_4_labels.nii.gz")
