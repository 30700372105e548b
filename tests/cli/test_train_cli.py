"""``medwave train``: the configuration file, what overrides it, and what is said about a bad one."""

from pathlib import Path

import pytest
import yaml

from medwave.models import read_weights_info

pytest.importorskip("ignite", reason="training needs the extra train")

CONFIG = """
width: 4
size: [16, 32, 32]
epochs: 2
steps: 2
batch: 1
validation_cubes: 1
"""


def test_a_configuration_is_read_and_the_command_line_overrides_it(medwave, tmp_path):
    config = tmp_path / "train.yaml"
    config.write_text(CONFIG)
    done = medwave("train", "waveunet", "--config", config, "--epochs", "1", "-o", tmp_path / "run")
    assert done.code == 0, done.err
    assert "epoch 1/1, loss" in done.err
    assert "in epoch 1" in done.out
    assert (tmp_path / "run" / "best.safetensors").exists()
    again = medwave("train", "waveunet", "--config", config, "-o", tmp_path / "run")
    assert again.code == 2
    assert "belongs to a run with other options" in again.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("widht: 4", "no option is called widht; there are average, axons"),
        ("- 4", "maps options to values"),
        ("width: [", "not a readable YAML file"),
        ("width: many", "Invalid value for '--width'"),
        ("size: [16, 32]", "three whole numbers z,y,x"),
        ("size: 32", "three whole numbers z,y,x"),
        ("width: 0", "width: at least 1, got 0"),
    ],
)
def test_a_bad_configuration_is_one_line(medwave, tmp_path, text, message):
    config = tmp_path / "train.yaml"
    config.write_text(text)
    done = medwave("train", "waveunet", "--config", config, "-o", tmp_path / "run")
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_missing_configuration_is_one_line(medwave, tmp_path):
    done = medwave("train", "waveunet", "--config", tmp_path / "no.yaml", "-o", tmp_path / "run")
    assert done.code == 2
    assert "no such file" in done.err


@pytest.mark.parametrize("name", ["train", "tune", "tune_borders"])
def test_the_recipes_of_the_shipped_network_are_configurations(name):
    from medwave.workflows.train_options import TrainFibreOptions

    recipe = Path(__file__).parents[2] / f"pipelines/segment_neurons/configs/{name}.yaml"
    values = yaml.safe_load(recipe.read_text())
    options = TrainFibreOptions(**values | {"size": tuple(values["size"]), "axons": "folder"})
    assert options.network == "neuron_wavesnet_v4"


def test_fine_tuning_takes_weights_by_their_name(medwave, tmp_path):
    words = ("--size", "16,32,32", "--epochs", 1, "--steps", 1, "--validation-cubes", 1, "-o", tmp_path / "run")
    done = medwave("train", "waveunet", "--init", "neuron", *words)
    assert done.code == 0, done.err
    start = read_weights_info("neuron").provenance
    assert read_weights_info(tmp_path / "run" / "best.safetensors").provenance.endswith(f"weights that were {start}")
    done = medwave("train", "waveunet", "--init", "neurone", *words[:-1], tmp_path / "other")
    assert done.code == 2
    assert "neurone: there is no such weight file; weights that come with medwave are called neuron, " in done.err
    assert not (tmp_path / "other").exists()


def test_a_pair_network_needs_label_maps(medwave, tmp_path):
    done = medwave("train", "winet", "-o", tmp_path / "run")
    assert done.code == 2
    assert "name a folder of --label-maps" in done.err
    assert medwave("train", "winet", "--label-maps", tmp_path / "no", "-o", tmp_path / "run").code == 2


def test_the_recipe_of_the_brain_network_is_a_configuration():
    from medwave.workflows.train_options import TrainPairOptions

    recipe = Path(__file__).parents[2] / "pipelines/register_brain/configs/train.yaml"
    values = yaml.safe_load(recipe.read_text())
    sizes = {name: tuple(values[name]) for name in ("size", "validation_size")}
    assert TrainPairOptions(**values | sizes).diffeomorphic
