"""The demo neuron: files that say the same as its arrays, truth that lies on its fibres, scores against that truth."""

import functools

import numpy as np
import pytest

from medwave.core.errors import OutputError
from medwave.tracing import check_alignment, topology
from medwave.volumes import open_stack, read_swc, read_swc_units
from medwave.workflows import demo
from medwave.workflows.demo_neurons import SHAPE, VOXEL_UM, make_neuron_sample

SMALL = (32, 96, 112)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return make_neuron_sample(tmp_path_factory.mktemp("demo") / "new" / "folder", seed=3, shape=SMALL)


def test_the_files_say_the_same_as_the_arrays(sample):
    with open_stack(sample.image_path) as volume:
        np.testing.assert_array_equal(volume.read(), sample.neuron.image)
        assert volume.spacing_um == pytest.approx((VOXEL_UM,) * 3)
    tree = read_swc(sample.tree_path)
    np.testing.assert_allclose(tree.positions, sample.neuron.tree.positions, atol=1e-4)
    np.testing.assert_array_equal(tree.parent, sample.neuron.tree.parent)
    assert read_swc_units(sample.tree_path) == "voxels"


def test_the_truth_lies_on_the_fibres(sample):
    assert check_alignment(sample.neuron.tree, sample.neuron.image).aligned


def test_equal_seeds_give_equal_neurons_and_others_others(sample, tmp_path):
    again = make_neuron_sample(tmp_path / "a", seed=3, shape=SMALL)
    assert again.image_path.read_bytes() == sample.image_path.read_bytes()
    assert again.tree_path.read_bytes() == sample.tree_path.read_bytes()
    other = make_neuron_sample(tmp_path / "b", seed=4, shape=SMALL)
    assert other.tree_path.read_bytes() != sample.tree_path.read_bytes()


def test_the_neuron_of_the_demo_fills_its_volume(tmp_path):
    neuron = make_neuron_sample(tmp_path).neuron
    counts, reach = topology(neuron.tree), np.ptp(neuron.tree.positions, axis=0) / SHAPE[::-1]
    assert counts.roots == 1
    assert counts.branches > 40
    assert reach.min() > 0.7


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        make_neuron_sample(tmp_path / "file" / "folder", shape=SMALL)


def test_the_demo_ends_with_its_report_and_its_scores(tmp_path, bright_is_fibre, monkeypatch):
    """On a smaller neuron, with a network whose answer is known."""
    monkeypatch.setattr(demo, "make_neuron_sample", functools.partial(make_neuron_sample, shape=SMALL))
    stages = []
    report, scores = demo.demo_neuron(
        tmp_path / "out", seed=3, weights=bright_is_fibre, command_line="medwave demo neuron", on_stage=stages.append
    )
    assert stages[0] == "make the sample"
    assert scores.at_tolerance.by_samples.precision > 0.5
    assert report == tmp_path / "out" / "report.html"
    html = report.read_text(encoding="utf-8")
    assert "neuron.tif was reconstructed" in html
    assert "medwave demo neuron" in html
    assert f"{scores.at_tolerance.by_samples.f1:.3f}" in html
    assert (tmp_path / "out" / "sample" / "true_tree.swc").exists()
