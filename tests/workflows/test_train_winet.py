"""Training of WiNet as a job: it learns to align, goes on after an interruption, keeps its label maps apart."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from medwave.core.errors import InputError
from medwave.data import LabelMapPairs, read_label_maps
from medwave.metrics.registration import folding
from medwave.models import WiNet, open_network, read_weights_info
from medwave.transforms.label_images import STRUCTURES
from medwave.workflows.train_options import TrainPairOptions
from medwave.workflows.train_winet import pair_overlap, predicted_field, train_winet, training_loss

pytest.importorskip("ignite", reason="training needs the extra train")

SMALL = TrainPairOptions(
    width=1, spacing_mm=6.0, size=(16, 16, 16), validation_size=(16, 16, 16), held_back=2, epochs=2, steps=3,
    validation_pairs=2, learning_rate=0.01, average=0.5, squarings=4, seed=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four people: sixteen structures in shells around a centre, each person with an own bend."""
    made = tmp_path_factory.mktemp("maps")
    places = np.moveaxis(np.indices((24, 24, 24)), 0, -1) * 4.0 - 46.0
    for number in range(4):
        bend = np.random.default_rng(number).uniform(6, 12, 3) * np.sin(places[..., ::-1] / 12 + number)
        radius = np.linalg.norm(places + bend, axis=-1)
        octant = ((places + bend) > 0) @ np.array([1, 2, 4])
        labels = np.zeros(radius.shape, dtype=np.float32)
        labels[radius < 42] = 507
        for shell, reach in enumerate((36, 22)):
            structures = np.array(STRUCTURES[8 * shell : 8 * shell + 8])
            labels = np.where(radius < reach, structures[octant], labels)
        affine = np.diag([4.0, 4.0, 4.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(labels.astype(np.float32), affine), made / f"map_{number}.nii.gz")
    return made


def test_the_loss_teaches_a_network_to_align_a_pair(folder):
    data = LabelMapPairs(read_label_maps(folder), 1, (16, 16, 16), spacing_mm=6.0)
    pair = next(iter(DataLoader(data)))
    torch.manual_seed(0)
    network = WiNet(2, diffeomorphic=True, spacing_mm=6.0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    loss = training_loss(replace(SMALL, smoothness=0.02))
    before = pair_overlap(network, [pair])
    for _ in range(25):
        optimiser.zero_grad()
        loss(predicted_field(network, pair), pair).backward()
        optimiser.step()
    with torch.no_grad():
        assert pair_overlap(network, [pair]) > before + 0.08
        assert folding(network(pair["moving"], pair["fixed"])[0].numpy()).count == 0


def test_a_step_at_the_highest_rate_does_not_tear_the_field(folder):
    """At a rate of 0.001 the first step moves voxels by a dozen voxels, and training begins by undoing that."""
    options = TrainPairOptions()
    pair = next(iter(DataLoader(LabelMapPairs(read_label_maps(folder), 1, (32, 32, 32), spacing_mm=3.0))))
    torch.manual_seed(0)
    network = WiNet(options.width, diffeomorphic=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.learning_rate)
    before = predicted_field(network, pair)
    training_loss(options)(before, pair).backward()
    optimiser.step()
    with torch.no_grad():
        change = (predicted_field(network, pair) - before).abs().max()
    assert 0.1 < change < 5


def test_the_weights_open_and_say_what_they_were_trained_on(folder, tmp_path):
    starts, losses = [], []
    result = train_winet(
        tmp_path, options=SMALL, label_maps=str(folder), on_start=starts.append,
        on_epoch=lambda epoch, loss, score: losses.append((epoch, loss, score)),
    )  # fmt: skip
    assert 0.2 < starts[0] < 0.9
    assert [epoch for epoch, _, _ in losses] == [1, 2]
    assert result.history == tuple(score for _, _, score in losses)
    network = open_network(result.weights, WiNet)
    assert network.options == {"width": 1, "wavelet": "haar", "diffeomorphic": True, "spacing_mm": 6.0}
    assert "made up from 2 label maps" in read_weights_info(result.weights).provenance
    assert any((tmp_path / "tensorboard").iterdir())


def test_a_run_that_was_interrupted_goes_on_to_the_same_weights(folder, tmp_path):
    whole = train_winet(tmp_path / "whole", options=SMALL, label_maps=str(folder))

    def stop(epoch, loss, score):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_winet(tmp_path / "parts", options=SMALL, label_maps=str(folder), on_epoch=stop)
    steps = []
    parts = train_winet(tmp_path / "parts", options=SMALL, label_maps=str(folder), on_step=steps.append)
    assert parts.history == whole.history
    assert steps == [4, 5, 6]
    first, second = (open_network(r.weights, WiNet).state_dict() for r in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_folder_of_other_pairs_is_refused(folder, tmp_path):
    options = {"label_maps": str(folder), "epochs": 1, "steps": 1}
    train_winet(tmp_path, options=SMALL, **options)
    for change in ({"strength": 2.0}, {"validation_size": (16, 16, 32)}, {"validation_pairs": 1}):
        with pytest.raises(InputError, match=r"checkpoint\.pt: belongs to a run with other options"):
            train_winet(tmp_path, options=SMALL, **options, **change)


@pytest.mark.parametrize("change", [{"diffeomorphic": False}, {"bfloat16": True}])
def test_displacements_and_half_precision_train_too(folder, tmp_path, change):
    result = train_winet(tmp_path, options=SMALL, label_maps=str(folder), epochs=1, steps=2, **change)
    assert len(result.history) == 1
    assert open_network(result.weights, WiNet).diffeomorphic == change.get("diffeomorphic", True)


def test_fine_tuning_starts_from_weights_even_at_another_voxel_size(folder, tmp_path):
    first = train_winet(tmp_path / "first", options=SMALL, label_maps=str(folder))
    tuned = train_winet(
        tmp_path / "tuned", options=SMALL, label_maps=str(folder), init=str(first.weights), epochs=1, steps=1,
        learning_rate=1e-9, average=0.0, spacing_mm=5.0,
    )  # fmt: skip
    ours, theirs = (open_network(r.weights, WiNet) for r in (tuned, first))
    assert ours.spacing_mm == 5.0
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, theirs.state_dict()[name], rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="its tensors do not fit"):
        train_winet(tmp_path / "other", options=SMALL, label_maps=str(folder), init=str(first.weights), width=2)


def test_fine_tuning_takes_the_weights_that_come_with_medwave_by_name(folder, tmp_path):
    tuned = train_winet(
        tmp_path, options=SMALL, label_maps=str(folder), init="brain", width=8, epochs=1, steps=1, learning_rate=1e-9,
        average=0.0,
    )  # fmt: skip
    ours, theirs = (open_network(weights, WiNet).state_dict() for weights in (tuned.weights, "brain"))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-6)
    assert read_weights_info(tuned.weights).provenance.endswith(read_weights_info("brain").provenance)


def test_a_step_on_real_label_maps(data_folder, tmp_path):
    for number in ("01", "05", "09", "12"):
        source = data_folder / "brains" / "label_maps" / f"training_seg_{number}.nii.gz"
        (tmp_path / source.name).symlink_to(source)
    starts = []
    result = train_winet(
        tmp_path / "run", options=SMALL, label_maps=str(tmp_path), epochs=1, steps=1, size=(32, 32, 32),
        validation_size=(32, 32, 32), learning_rate=1e-4, on_start=starts.append,
    )  # fmt: skip
    assert 0.2 < starts[0] < 0.8
    assert result.best_score == pytest.approx(starts[0], abs=0.02)  # one step moves little


class Still(torch.nn.Module):
    def forward(self, moving, fixed):
        return torch.zeros(1, 3, *fixed.shape[2:])


def test_overlap_of_a_pair_with_itself_is_whole():
    labels = torch.zeros(1, 1, 8, 8, 8, dtype=torch.uint8)
    labels[..., 2:5] = 3
    image = torch.zeros(1, 1, 8, 8, 8)
    pair = {"moving": image, "fixed": image, "moving_labels": labels, "fixed_labels": labels}
    half = pair | {"moving_labels": labels.roll(1, dims=-1)}
    assert pair_overlap(Still(), [pair]) == 1
    assert pair_overlap(Still(), [pair, half]) == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width: at least 1"),
        ({"held_back": 1}, "a validation pair needs two"),
        ({"held_back": 3}, "two more than are held back"),
        ({"size": (20, 32, 32)}, "multiples of 16"),
        ({"spacing_mm": 0.0}, "spacing_mm is positive"),
        ({"learning_rate": 2.0}, "learning_rate"),
        ({"label_maps": None}, "name a folder of --label-maps"),
    ],
)
def test_options_that_make_no_sense_are_refused(folder, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        train_winet(tmp_path, options=SMALL, **{"label_maps": str(folder)} | change)
