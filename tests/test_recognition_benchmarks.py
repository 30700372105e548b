"""The benchmark of recognition heads: its order, its intervals, and that an interrupted one goes on."""

import argparse
import io
import json
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ignite", reason="training needs the extra train")

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)  # they are scripts: each finds the others beside it


def options(folder: Path, **changes: object) -> argparse.Namespace:
    given = {"data": folder, "sets": "orl", "heads": "softmax", "seeds": 1, "minutes": 9.0, "output": folder / "o.json"}
    return argparse.Namespace(**given | changes)


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    people = rng.integers(0, 256, (40, 1, 14, 11)).repeat(5, axis=1).repeat(8, axis=2).repeat(8, axis=3)[..., :88]
    (tmp_path / "orl_faces").mkdir()
    images, subject = people.reshape(200, 112, 88).astype(np.uint8), np.arange(40, dtype=np.uint8).repeat(5)
    np.savez(tmp_path / "orl_faces" / "orl_faces.npz", images=images, subject=subject)
    (tmp_path / "omniglot").mkdir()
    for part in (1, 2):
        with zipfile.ZipFile(tmp_path / "omniglot" / f"images_background_small{part}.zip", "w") as packed:
            for character in range(2):
                for drawing in range(1, 21):
                    stream = io.BytesIO()
                    Image.new("1", (105, 105), 1).save(stream, "PNG")
                    packed.writestr(f"set{part}/Runes/character{character}/0001_{drawing:02d}.png", stream.getvalue())
    return tmp_path


def test_strangers_are_scored_and_ten_drawings_taken(sets: Path) -> None:
    module, runs = import_module("_recognition_sets"), import_module("recognition_runs")
    chosen = runs.TrainRecogniseOptions(**runs.NETWORK, **runs.SETTINGS["orl"])
    orl = module.load("orl", sets, chosen)
    assert (len(orl.training), len(orl.scored)) == (150, 50)
    assert not set(orl.training.names) & set(orl.scored.names)
    drawings = module.load("omniglot", sets, runs.TrainRecogniseOptions(**runs.NETWORK, **runs.SETTINGS["omniglot"]))
    assert len(drawings.training) == len(drawings.scored) == 20
    assert not set(drawings.training.names) & set(drawings.scored.names)


def test_a_run_that_is_there_is_not_made_again(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = import_module("recognition_runs")
    monkeypatch.setattr(runs, "SETTINGS", {"orl": runs.SETTINGS["orl"] | {"epochs": 1}})
    first = runs.run(options(sets))
    assert [(row["wavelet"], row["seed"]) for row in first["runs"]] == [(None, 0), ("haar", 0)]
    assert all(0 <= row["eer"] <= 1 and row["same_pairs"] == 100 for row in first["runs"])
    kept = json.loads((sets / "o.json").read_text())
    (sets / "o.json").write_text(json.dumps(kept | {"runs": kept["runs"][1:]}))
    made = []
    train = runs.train
    monkeypatch.setattr(runs, "train", lambda *given: made.append(given[:4]) or train(*given))
    again = runs.run(options(sets))
    assert made == [("orl", "softmax", None, 0)]
    assert again["runs"][1]["eer"] == first["runs"][0]["eer"]
    monkeypatch.setattr(runs, "NETWORK", runs.NETWORK | {"width": 9})
    with pytest.raises(runs.BenchmarkError, match="other settings"):
        runs.run(options(sets))


def test_classification_comes_last_and_without_heads_that_lack_classes() -> None:
    runs = import_module("recognition_runs")
    planned = runs.plan(options(Path(), sets="cifar,orl", heads="uss,softmax", seeds=2))
    assert [name for name, *_ in planned] == ["orl"] * 8 + ["cifar"] * 4
    assert [seed for *_, seed in planned] == [0] * 4 + [1] * 4 + [0, 0, 1, 1]
    assert not any(name == "cifar" and head == "uss" for name, head, *_ in planned)


def test_intervals_are_those_of_student_and_differences_by_seed() -> None:
    runs = import_module("recognition_runs")
    assert runs._interval([0.1, 0.2, 0.3], 100) == "20.00 ± 24.84"  # 4.303 * 10 / sqrt(3)
    assert runs._interval([0.25], 100) == "25.00"
    assert runs._interval([None, 0.2], 1) == ""
    rows = [
        {"head": head, "wavelet": wavelet, "seed": seed, "eer": value}
        for head, wavelet, seed, value in (
            ("softmax", None, 0, 0.20), ("softmax", None, 1, 0.10), ("epl", None, 0, 0.15), ("epl", None, 1, 0.07),
            ("epl", "haar", 1, 0.05),
        )
    ]  # fmt: skip
    said = runs._differences(rows, "eer")
    assert any(line.startswith("- epl - softmax, wavelet none: -4.00") and "(-5.00, -3.00)" in line for line in said)
    assert "- epl: haar - none: -2.00 (-2.00)" in said


def test_the_shipped_results_are_those_of_this_program() -> None:
    runs = import_module("recognition_runs")
    found = sorted((BENCHMARKS / "results").glob("recognition_runs-*.json"))
    if not found:
        pytest.skip("no results are shipped")
    results = runs.read(found[-1])
    readme = (BENCHMARKS / "README.md").read_text()
    for line in runs.markdown(results).splitlines():
        assert line in readme
