"""The recipes: MONAI verifies them, every function that they name is there, and the cheap ones run."""

import json
import shutil
from pathlib import Path

import numpy as np
import phantom
import pytest

from medwave.core.errors import InputError, MissingFileError, OutputError
from medwave.volumes import read_swc, read_volume, write_volume
from medwave.workflows.pipelines import (
    copy_pipeline,
    find_pipeline,
    list_pipelines,
    parse_changes,
    pipelines_folder,
    recipe_options,
    run_pipeline,
)

NAMES = [
    "classify_images", "detect_boxes", "recognise_faces", "reconstruct_neuron", "register_brain", "register_brain_ixi",
    "segment_images", "segment_neurons",
]  # fmt: skip
KINDS = {
    "register_brain": "TrainPairOptions", "register_brain_ixi": "TrainPairOptions",
    "segment_neurons": "TrainFibreOptions",
    "classify_images": "TrainClassifierOptions", "segment_images": "TrainSegmenterOptions",
    "recognise_faces": "TrainRecogniseOptions", "detect_boxes": "TrainDetectorOptions",
}  # fmt: skip
NEEDED = {
    "register_brain": {"label_maps": "maps"}, "register_brain_ixi": {"images": "ixi"},
    "segment_neurons": {"axons": "axons", "init": "weights.safetensors"},
}  # fmt: skip


def test_the_eight_recipes_are_there_with_their_papers():
    found = list_pipelines()
    assert [p.name for p in found] == NAMES
    for p in found:
        assert p.configs
        assert (p.folder / "docs" / "README.md").is_file()
        assert json.loads((p.folder / "configs/metadata.json").read_text())["references"]


@pytest.mark.filterwarnings("ignore:No hash value provided")  # MONAI about a schema that is there already
@pytest.mark.parametrize("name", NAMES)
def test_monai_verifies_the_metadata(name, tmp_path):
    from monai.bundle import verify_metadata

    schema = shutil.copy(pipelines_folder() / "metadata_schema.json", tmp_path)
    path = find_pipeline(name).folder / "configs" / "metadata.json"
    verify_metadata(meta_file=str(path), filepath=str(schema))
    broken = {k: v for k, v in json.loads(path.read_text()).items() if k != "task"}
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(tmp_path / "broken.json"), filepath=str(schema))


@pytest.mark.parametrize(("name", "config"), [(p.name, c) for p in list_pipelines() for c in p.configs])
def test_every_function_that_a_configuration_names_is_there(name, config):
    from monai.bundle import ConfigParser

    folder = find_pipeline(name).folder / "configs"
    parser = ConfigParser()
    parser.read_config(str(folder / f"{config}.yaml"))
    steps = [str(step) for step in parser.config["run"]]
    assert all(step.startswith("$") for step in steps)
    for line in parser.config["imports"]:
        exec(line.removeprefix("$"), names := {})
        called = [name for name in names if name in "".join(steps)]
        assert called, line
    for step in steps:
        compile(step.removeprefix("$").replace("@", ""), name, "eval")


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_the_options_of_every_recipe_are_known(name, kind):
    folder = find_pipeline(name).folder
    runnable = set(find_pipeline(name).configs)
    recipes = {p.stem for p in (folder / "configs").glob("*.yaml")} - runnable
    assert recipes
    for recipe in recipes:
        assert recipe_options(kind, folder, recipe, NEEDED.get(name)).seed >= 0
    with pytest.raises(InputError, match="no option is called epoch;"):
        recipe_options(kind, folder, min(recipes), {"epoch": 3})
    with pytest.raises(MissingFileError):
        recipe_options(kind, folder, "absent")


def test_values_of_recipes_are_what_options_want():
    """As ``--set`` reads them: YAML takes 1e-3 for a text and 112 for a number."""
    faces, fibres = (find_pipeline(name).folder for name in ("recognise_faces", "segment_neurons"))
    changes = parse_changes(["learning_rate=1e-3", "size=96", "milestones=[2, 4]", "epochs=1e1", "margin=0", "seed=7"])
    made = recipe_options("TrainRecogniseOptions", faces, "omniglot", changes)
    assert (made.learning_rate, made.size, made.milestones, made.epochs, made.margin) == (0.001, "96", "2,4", 10, 0.0)
    for size in ("16,32,32", "[16, 32, 32]"):
        made = recipe_options("TrainFibreOptions", fibres, "train", parse_changes([f"size={size}", "axons=a"]))
        assert made.size == (16, 32, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("learning_rate=fast", r"train\.yaml: learning_rate: a number, got 'fast'"),
        ("epochs=2.5", "epochs: a whole number, got 2.5"),
        ("bfloat16=1", "bfloat16: true or false, got 1"),
        ("width=true", "width: a whole number, got True"),
        ("size=32", "size: three numbers, got 32"),
        ("size=[32, 32]", r"size: three numbers, got \[32, 32\]"),
    ],
)
def test_values_of_recipes_that_cannot_be_are_refused(change, message):
    folder = find_pipeline("segment_neurons").folder
    with pytest.raises(InputError, match=message):
        recipe_options("TrainFibreOptions", folder, "train", parse_changes([change, "axons=a"]))


@pytest.mark.filterwarnings("ignore:Default logging file")
def test_a_pair_is_registered_by_monai_as_by_medwave(tmp_path):
    import medwave

    pair = phantom.make_pair()
    fixed, moving = (str(tmp_path / f"{side}.nii.gz") for side in ("fixed", "moving"))
    write_volume(fixed, pair.fixed)
    write_volume(moving, pair.moving)
    changes = {"fixed": fixed, "moving": moving, "output": str(tmp_path / "out"), "preset": "fast"}
    run_pipeline("register_brain", changes=changes)
    expected = medwave.register(fixed, moving, preset="fast").warped.data
    np.testing.assert_allclose(read_volume(tmp_path / "out/warped.nii.gz").data, expected, atol=1e-4)
    assert len(json.loads((tmp_path / "out/run.json").read_text())["inputs"]) == 2


def test_a_neuron_is_reconstructed_from_a_copy_of_the_recipe(tmp_path, bright_is_fibre, monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("zarr", reason="the extra large writes the probabilities")
    monkeypatch.chdir(tmp_path)
    image = np.full((24, 48, 48), 10, np.uint8) + np.random.default_rng(0).integers(0, 3, (24, 48, 48), np.uint8)
    image[11:14, 23:26, 6:42] = 200
    tifffile.imwrite("stack.tif", image, imagej=True, metadata={"axes": "ZYX"})
    mine = copy_pipeline("reconstruct_neuron", "mine")
    run_pipeline(str(mine), changes=parse_changes([f"weights={bright_is_fibre}", "output=out", "overlap=48"]))
    tree = read_swc("out/tree.swc")
    assert np.ptp(tree.positions[:, 0]) == pytest.approx(35, abs=4)
    with pytest.raises(OutputError, match="already"):
        copy_pipeline("reconstruct_neuron", "mine")


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(InputError, match="no recipe is called so; there are classify_images"):
        find_pipeline("absent")
    with pytest.raises(InputError, match="no configuration is called train; there are inference, train_bundle"):
        run_pipeline("register_brain", "train")
    with pytest.raises(InputError, match="no entry is called fixxed; there are fixed, moving"):
        run_pipeline("register_brain", changes={"fixxed": "a.nii.gz"})
    with pytest.raises(InputError, match="KEY=VALUE"):
        parse_changes(["output"])
    assert parse_changes(["a=1", "b#c=[1, 2]", "d=x.nii"]) == {"a": 1, "b#c": [1, 2], "d": "x.nii"}


@pytest.mark.filterwarnings("ignore:Default logging file")
def test_an_error_of_medwave_comes_through_monai_as_it_is(tmp_path):
    changes = {"fixed": str(tmp_path / "absent.nii.gz"), "moving": "b.nii.gz", "output": str(tmp_path / "out")}
    with pytest.raises(MissingFileError, match=r"absent.nii.gz: no such file"):
        run_pipeline("register_brain", changes=changes)
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:Default logging file")
def test_another_error_keeps_what_monai_says(tmp_path):
    mine = copy_pipeline("register_brain", tmp_path / "mine")
    config = mine / "configs" / "inference.yaml"
    config.write_text(config.read_text().split("run:")[0] + "run:\n  - $1 / 0\n")
    with pytest.raises(RuntimeError, match="1 / 0"):
        run_pipeline(str(mine))


def test_the_wheel_takes_the_recipes_along():
    import tomllib

    root = Path(__file__).resolve().parents[2]
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"pipelines": "medwave/_shipped/pipelines"}
