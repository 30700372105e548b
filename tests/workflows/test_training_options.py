"""What every training refuses, in the same words: the option, its bounds and its value."""

import importlib
import math

import pytest

from medwave.core.errors import InputError
from medwave.workflows.image_options import TrainClassifierOptions, TrainSegmenterOptions
from medwave.workflows.recognition_options import TrainRecogniseOptions
from medwave.workflows.train_options import TrainDetectorOptions, TrainFibreOptions, TrainPairOptions

TRAININGS = (
    TrainClassifierOptions, TrainDetectorOptions, TrainFibreOptions, TrainPairOptions, TrainRecogniseOptions,
    TrainSegmenterOptions,
)  # fmt: skip


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("epochs", 0, "at least 1"), ("batch", 0, "at least 1"), ("steps", -1, "at least"),
        ("workers", -2, "at least 0"), ("weight_decay", -0.1, "at least 0"), ("weight_decay", math.nan, "at least 0"),
        ("learning_rate", 0.0, "between 0 and 1"), ("learning_rate", 10.0, "between 0 and 1"),
        ("learning_rate", math.nan, "between 0 and 1"), ("average", 1.0, "from 0 to below 1"),
        ("seed", -1, "at least 0"), ("average", -0.1, "from 0 to below 1"),
    ],
)  # fmt: skip
def test_trainings_refuse_what_cannot_be(training, name, value, rule):
    with pytest.raises(InputError, match=rf"^{name}: {rule}.*, got {value:g}$|^{name}: {rule}.*, got {value}$"):
        training(**{name: value})


@pytest.mark.parametrize("train", ["classifier", "segmenter", "waveunet", "winet"])
def test_trainings_do_not_replace_the_weights_that_they_start_from(tmp_path, train):
    best = tmp_path / "best.safetensors"
    best.touch()
    module = "train_images" if train in ("classifier", "segmenter") else f"train_{train}"
    run = getattr(importlib.import_module(f"medwave.workflows.{module}"), f"train_{train}")
    data = ("data",) if module == "train_images" else ()
    with pytest.raises(InputError, match="would replace the weights that it starts from"):
        run(*data, tmp_path, init=str(best))
