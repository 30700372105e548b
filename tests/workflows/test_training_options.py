"""What every training refuses, in the same words: the option, its bounds and its value."""

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
