"""Training of fibre networks as a job: it learns, goes on after an interruption, keeps its data apart."""

import numpy as np
import pytest
import torch

from medwave.core.errors import InputError, MissingFileError
from medwave.data import SyntheticNeurons
from medwave.models import FibreNet, open_network, read_weights_info
from medwave.workflows.train_options import TrainFibreOptions
from medwave.workflows.train_waveunet import fibre_scores, train_waveunet

pytest.importorskip("ignite", reason="training needs the extra train")

SMALL = TrainFibreOptions(
    width=4, size=(16, 32, 32), epochs=3, steps=8, batch=2, average=0.8, learning_rate=0.01, validation_cubes=4, seed=5
)


def test_it_learns_and_its_weights_open(tmp_path):
    losses = []
    result = train_waveunet(tmp_path, options=SMALL, on_epoch=lambda epoch, loss, score: losses.append(loss))
    assert losses[-1] < 0.9 * losses[0]
    assert result.best_score == max(result.history)
    network = open_network(result.weights, FibreNet)
    assert network.options["width"] == 4
    assert not network.training
    cubes = [
        (item["image"][None], item["label"][None])
        for item in map(SyntheticNeurons(3, (16, 32, 32), seed=9).__getitem__, range(3))
    ]
    with torch.inference_mode():
        assert 0 <= fibre_scores(network, cubes).iou <= 1


def test_a_run_that_was_interrupted_goes_on_to_the_same_weights(tmp_path):
    whole = train_waveunet(tmp_path / "whole", options=SMALL, steps=3)

    def stop(epoch, loss, score):
        if epoch == 2:
            raise KeyboardInterrupt

    steps = []
    with pytest.raises(KeyboardInterrupt):
        train_waveunet(tmp_path / "parts", options=SMALL, steps=3, on_epoch=stop)
    parts = train_waveunet(tmp_path / "parts", options=SMALL, steps=3, on_step=steps.append)
    assert parts.history == whole.history
    assert steps == [7, 8, 9]
    first, second = (open_network(r.weights, FibreNet).state_dict() for r in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_folder_of_another_network_or_other_losses_is_refused(tmp_path):
    train_waveunet(tmp_path, options=SMALL, epochs=1, steps=1)
    others = ({"wavelet": "db2"}, {"dice": 0.5}, {"seed": 6}, {"black_levels": 0.0}, {"validation_cubes": 5})
    for change in others:
        with pytest.raises(InputError, match=r"checkpoint\.pt: belongs to a run with other options"):
            train_waveunet(tmp_path, options=SMALL, epochs=1, steps=1, **change)


def test_human_labels_count_only_where_there_are_some(tmp_path):
    import tifffile

    rng = np.random.default_rng(0)
    for split in ("training", "validation"):
        folder = tmp_path / "axons" / split
        folder.mkdir(parents=True)
        image = rng.poisson(20, (20, 40, 40)).astype(np.uint16)
        labels = np.zeros(image.shape, np.uint8)
        labels[10] = 1
        labels[10, 20] = 2
        image[10, 20] += 100
        tifffile.imwrite(folder / "volume_1.tif", image)
        tifffile.imwrite(folder / "labels_1.tif", labels)
    options = {"axons": str(tmp_path / "axons"), "synthetic": 0, "epochs": 2, "steps": 24}
    result = train_waveunet(tmp_path / "run", options=SMALL, **options)
    assert result.best_score > 0.3
    with pytest.raises(MissingFileError, match="training"):
        train_waveunet(tmp_path / "other", options=SMALL, axons=str(tmp_path), epochs=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width: at least 1"),
        ({"synthetic": 0}, "nothing to train on"),
        ({"size": (8, 32, 32)}, "at least 16 voxels"),
        ({"learning_rate": 2.0}, "learning_rate"),
        ({"network": "neuron_net"}, "network is one of"),
        ({"cross_entropy": 0.0, "dice": 0.0, "skeleton_recall": 0.0}, "not all 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        train_waveunet(tmp_path, options=SMALL, **change)


def test_fine_tuning_starts_from_weights_and_says_so(tmp_path):
    first = train_waveunet(tmp_path / "first", options=SMALL, epochs=1)
    tuned = train_waveunet(
        tmp_path / "tuned", options=SMALL, init=str(first.weights), epochs=1, steps=1, learning_rate=1e-9, average=0.0
    )
    assert tuned.best_score == pytest.approx(first.best_score, abs=0.02)
    assert "from weights that were trained by medwave" in read_weights_info(tuned.weights).provenance
    with pytest.raises(InputError, match="its tensors do not fit"):
        train_waveunet(tmp_path / "other", options=SMALL, init=str(first.weights), width=5)
