"""Training of recognition networks as a job: strangers are told apart, an interruption leaves no trace."""

import shutil

import numpy as np
import pytest
import torch

from medwave.core.errors import InputError, MedwaveError
from medwave.models import FaceNet, IResNet, WaveIResNet, open_network, read_weights_info
from medwave.workflows.recognition_options import HEADS, TrainRecogniseOptions
from medwave.workflows.train_recognise import recognition_head, train_recognise

pytest.importorskip("ignite", reason="training needs the extra train")

SMALL = TrainRecogniseOptions(
    depth=18, width=4, size="16", channels=1, dimension=16, dropout=0.0, head="cosface", scale=16.0, mirror=False,
    holdout=0.25, epochs=3, batch=16, learning_rate=0.05, schedule="cosine", warm_up=1, seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def textures(tmp_path_factory):
    """Twelve patterns, eight noisy views of each."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(40, 216, (12, 4, 4)).repeat(4, axis=1).repeat(4, axis=2)
    views = patterns[:, None] + rng.normal(0, 25, (12, 8, 16, 16))
    path = tmp_path_factory.mktemp("textures") / "set.npz"
    images = np.clip(views, 0, 255).astype(np.uint8).reshape(96, 16, 16)
    np.savez(path, images=images, labels=np.arange(12).repeat(8))
    return path


def test_it_learns_and_its_weights_open(textures, tmp_path):
    losses, steps = [], []
    result = train_recognise(
        textures, tmp_path, options=SMALL, on_epoch=lambda epoch, loss, score: losses.append(loss),
        on_step=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert losses[-1] < 0.8 * losses[0]
    assert steps[-1] == (12, 12)  # 9 identities are trained on: 72 pictures, 4 steps of 16 an epoch
    assert result.best_score == max(result.history) > 0.7
    network = open_network(result.weights, FaceNet)
    assert type(network) is IResNet
    assert "9 identities, 72 pictures" in read_weights_info(result.weights).provenance


@pytest.mark.parametrize("head", ["unitsface", "epl"])
def test_a_run_that_was_interrupted_goes_on_to_the_same_weights(textures, tmp_path, head):
    options = {"head": head, "wavelet": "haar", "shift": 1, "steps": 2}
    whole = train_recognise(textures, tmp_path / "whole", options=SMALL, **options)

    def stop(epoch, loss, score):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_recognise(textures, tmp_path / "parts", options=SMALL, on_epoch=stop, **options)
    parts = train_recognise(textures, tmp_path / "parts", options=SMALL, **options)
    assert parts.history == whole.history
    first, second = (open_network(r.weights, FaceNet) for r in (whole, parts))
    assert type(first) is WaveIResNet
    assert all(torch.equal(t, second.state_dict()[name]) for name, t in first.state_dict().items())


def test_channels_that_explain_are_trained_and_resumed(textures, tmp_path):
    """The second loss moves weights, and what it remembers survives an interruption."""
    options = {"explain": 0.5, "steps": 2, "epochs": 2}
    plain = train_recognise(textures, tmp_path / "plain", options=SMALL, **options | {"explain": 0.0})
    whole = train_recognise(textures, tmp_path / "whole", options=SMALL, **options)

    def stop(epoch, loss, score):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_recognise(textures, tmp_path / "parts", options=SMALL, on_epoch=stop, **options)
    parts = train_recognise(textures, tmp_path / "parts", options=SMALL, **options)
    states = [torch.load(r.weights.parent / "checkpoint.pt", weights_only=True) for r in (plain, whole, parts)]
    assert states[1]["head"].keys() == states[2]["head"].keys() > {"levels", "face.prototypes"}
    for part in ("model", "head"):
        assert all(torch.equal(t, states[2][part][name]) for name, t in states[1][part].items())
    name = "stages.0.0.conv1.weight"
    assert not torch.equal(states[0]["model"][name], states[1]["model"][name])


def test_strangers_are_validated_on_where_they_are_given(textures, tmp_path):
    result = train_recognise(textures, tmp_path, options=SMALL, validation=str(textures), epochs=1, steps=1)
    assert "12 identities, 96 pictures" in read_weights_info(result.weights).provenance


def test_a_folder_of_another_head_or_margin_is_refused(textures, tmp_path):
    first, other = (shutil.copy(textures, tmp_path / name) for name in ("first.npz", "other.npz"))
    shared = {"epochs": 1, "steps": 1, "validation": str(first)}
    train_recognise(textures, tmp_path, options=SMALL, **shared)
    for change in ({"head": "arcface"}, {"margin": 0.3}, {"seed": 4}, {"wavelet": "db2"}, {"validation": str(other)}):
        with pytest.raises(InputError, match=r"checkpoint\.pt: belongs to a run with other options"):
            train_recognise(textures, tmp_path, options=SMALL, **shared | change)


@pytest.mark.parametrize("name", HEADS)
def test_each_head_is_built_with_its_scale_and_takes_a_batch(name):
    options = TrainRecogniseOptions(head=name, dimension=8, scale=20.0)
    head = recognition_head(options, 6)
    x, y = torch.randn(12, 8, requires_grad=True), torch.arange(12) % 6
    head.set_progress(5, 10)
    for step in range(2):  # the first fills memories
        total = head(x, y, samples=torch.arange(12) + 12 * step).total
    total.backward()
    assert x.grad.abs().sum() > 0
    scales = {module.scale for module in head.modules() if hasattr(module, "scale")}
    assert scales == {20.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": "20"}, "multiples of 16"),
        ({"size": "wide"}, "size: a number of pixels"),
        ({"depth": 20}, "depth is one of"),
        ({"head": "triplet"}, "head: one of softmax"),
        ({"margin": 0.2, "head": "bce"}, "margin: bce has none"),
        ({"margin": 7.0}, "margin must be"),
        ({"holdout": 0.95}, "two identities besides the 12 held out"),
        ({"holdout": 0.05}, "validation needs two identities or more"),
        ({"milestones": "one"}, "milestones: epochs separated by commas"),
        ({"wavelet": "haarr"}, "haarr"),
        ({"channels": 2}, "channels: 1 or 3"),
        ({"batch": 1}, "batch: 2 or more"),
        ({"device": "foo"}, "device 'foo' is not usable here"),
        ({"gradient_norm": 0.0}, "gradient_norm: above 0, got 0"),
        ({"gradient_norm": -5.0}, "gradient_norm: above 0, got -5"),
        ({"momentum": -1.0}, "momentum: from 0 to below 1, got -1"),
        ({"momentum": 5.0}, "momentum: from 0 to below 1, got 5"),
    ],
)
def test_options_that_make_no_sense_are_refused(textures, tmp_path, change, message):
    with pytest.raises(MedwaveError, match=message):
        train_recognise(textures, tmp_path, options=SMALL, **change)
