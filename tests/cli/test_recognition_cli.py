"""``medwave train recognise``, ``embed``, ``verify``, ``identify``: from pictures to numbers; errors are one line."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

pytest.importorskip("ignite", reason="training needs the extra train")

TRAIN = (
    "--depth", 18, "--width", 4, "--size", 16, "--channels", 1, "--dimension", 16, "--head", "cosface", "--scale", 16,
    "--epochs", 1, "--steps", 2, "--batch", 8, "--holdout", 0.4,
)  # fmt: skip


@pytest.fixture(scope="module")
def patterns(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("patterns")
    for name in "abcde":
        (folder / name).mkdir()
        base = rng.integers(40, 216, (4, 4)).repeat(4, axis=0).repeat(4, axis=1)
        for view in range(4):
            picture = np.clip(base + rng.normal(0, 10, base.shape), 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(folder / name / f"{name}_{view:04d}.png")
    return folder


def test_from_training_to_a_page(medwave, patterns, tmp_path):
    done = medwave("train", "recognise", patterns, "-o", tmp_path / "run", *TRAIN)
    assert done.code == 0, done.err
    assert "epoch 1/1, loss" in done.err
    assert "best: score" in done.out
    weights = tmp_path / "run" / "best.safetensors"

    done = medwave("embed", patterns, "--weights", weights, "-o", tmp_path / "x.npz")
    assert done.code == 0, done.err
    assert "20 pictures of 5 identities, 16 values each" in done.out

    pairs = tmp_path / "pairs.txt"
    lines = [f"{a}/{a}_0000 {b}/{b}_0001 {int(a == b)}" for a in "abcde" for b in "abcde"]
    pairs.write_text("\n".join(lines))
    by_features = medwave("verify", pairs, "--embeddings", tmp_path / "x.npz", "--folds", 5)
    assert by_features.code == 0, by_features.err
    assert "pairs: 5 of one identity, 20 of two" in by_features.out
    assert "recognised at a false acceptance of 0.001: too few pairs" in by_features.out
    page = medwave(
        "verify", pairs, "--images", patterns, "--weights", weights, "--folds", 5, "-o", tmp_path / "page"
    )  # fmt: skip
    assert page.code == 0, page.err
    assert page.out.startswith(by_features.out)
    assert "medwave verify" in (tmp_path / "page" / "report.html").read_text()
    piped = medwave("verify", pairs, "--embeddings", tmp_path / "x.npz", "--folds", 5, "--json", "-")
    verified = json.loads(piped.out)
    assert f"accuracy: {100 * verified['accuracy']['mean']:.2f} ±" in by_features.out
    assert verified["pairs"] == 25
    assert len(verified["accuracy"]["thresholds"]) == 5
    assert verified["tar_at_far"]["0.001"] is None

    gallery = tmp_path / "gallery"
    for name in "abcd":
        (gallery / name).mkdir(parents=True)
        (gallery / name / "0.png").write_bytes((patterns / name / f"{name}_0000.png").read_bytes())
    done = medwave("identify", tmp_path / "x.npz", gallery, "--weights", weights, "-o", tmp_path / "m.csv")
    assert done.code == 0, done.err
    assert "of 16 whose identity the gallery has; 4 strangers" in done.out
    assert len((tmp_path / "m.csv").read_text().splitlines()) == 21
    words = ("identify", tmp_path / "x.npz", gallery, "--weights", weights)
    found = json.loads(medwave(*words, "--json", "-").out)
    assert (found["probes"], found["known"], len(found["matches"])) == (20, 16, 20)
    assert f"rank 1: {100 * found['rank1']:.2f} % of 16" in medwave(*words, "--json", tmp_path / "found.json").out
    assert json.loads((tmp_path / "found.json").read_text()) == found
    with (tmp_path / "m.csv").open(newline="") as stream:
        rows = [{**row, "score": float(row["score"])} for row in csv.DictReader(stream)]
    assert rows == [{**match, "score": round(match["score"], 6)} for match in found["matches"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "recognise", "nowhere", "-o", "run"), "nowhere: no such folder"),
        (("train", "recognise", "{faces}", "-o", "run", "--margin", "9", *TRAIN), "margin must be"),
        (("train", "recognise", "{faces}", "-o", "run", "--size", "big"), "size: a number of pixels"),
        (("embed", "{faces}", "--weights", "no.safetensors", "-o", "x.npz"), "there is no such weight file"),
        (("embed", "{faces}", "--weights", "no.safetensors", "-o", "x.txt"), "written as .npz or .parquet"),
        (("embed", "{faces}", "--weights", "no.safetensors", "-o", "no/x.npz"), "the folder no does not exist"),
        (("verify", "no.txt", "--weights", "w.safetensors", "--images", "{faces}"), "no.txt: no such file"),
        (("verify", "no.txt"), "--weights of a network or by --embeddings"),
        (("verify", "no.txt", "--far", "5"), "far: rates between 0 and 1"),
        (("identify", "{faces}", "{faces}"), "would find itself"),
        (("identify", "no", "gone", "--weights", "w.safetensors", "-o", "no/m.csv"), "the folder no does not exist"),
    ],
)
def test_errors_are_one_line(medwave, patterns, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    done = medwave(*(str(word).format(faces=patterns) for word in words))
    assert done.code == 2
    assert message in done.err
    assert len(done.errors) == 1
    assert not list(tmp_path.iterdir())


CONFIGS = (Path(__file__).parents[2] / "pipelines/recognise_faces/configs").glob("*.yaml")
RECIPES = sorted(path for path in CONFIGS if "\nrun:" not in path.read_text())  # those are of the MONAI bundle


def test_there_are_recipes():
    assert {"casia", "glint360k", "webface4m", "webface42m", "omniglot", "orl"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_configurations(recipe):
    from medwave.workflows.recognition_options import TrainRecogniseOptions
    from medwave.workflows.train_recognise import recognition_head

    options = TrainRecogniseOptions(**yaml.safe_load(recipe.read_text()))
    assert recognition_head(options, 20).classes == 20


def test_the_page_about_recognition_names_options_that_exist(medwave):
    """Each command of the page is known with each of its options; heads of its table are all heads."""
    from medwave.workflows.recognition_options import HEADS

    page = (Path(__file__).parents[2] / "docs" / "recognition.md").read_text()
    commands = re.findall(r"^medwave ((?:train )?[a-z]+)(.*)$", page, flags=re.MULTILINE)
    assert {name for name, _ in commands} == {"train recognise", "embed", "verify", "identify"}
    for name, rest in commands:
        known = medwave(*name.split(), "--help").out
        for option in re.findall(r"(?<= )--[a-z-]+", rest.partition("#")[0]):
            assert option in known, (name, option)
    table = page[page.index("| `--head` |") : page.index("`--wavelet haar`")]
    first_cells = "".join(line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|"))
    assert set(re.findall(r"`([a-z0-9_]+)`", first_cells)) == set(HEADS)
