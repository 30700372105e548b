"""Training: it learns, and a run that was interrupted ends with the weights of one that was not."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from medwave.core.errors import InputError
from medwave.engine.fit import FitOptions, fit, spare_start
from medwave.models import load_weights

pytest.importorskip("ignite", reason="training needs the extra train")

OPTIONS = FitOptions(epochs=4, steps=6, batch=2, learning_rate=0.05, average=0.5, seed=3)


class Edges(Dataset):
    """Noise, and whether each voxel is brighter than its left neighbour: one convolution can learn it."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        image = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(index))
        return {"image": image, "label": (image > image.roll(1, -1)).float()}


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.options = {}
        self.body = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Conv3d(4, 1, 3, padding=1)

    def forward(self, image):
        return self.head(self.body(image))


def loss(output, batch):
    return nn.functional.binary_cross_entropy_with_logits(output, batch["label"])


def validate(network):
    item = Edges()[63]
    return float(((network(item["image"][None]) > 0) == (item["label"] > 0)).float().mean())


def train(folder, model=None, **changes):
    model = model or Small()
    return model, fit(model, Edges(), loss, validate, folder, options=replace(OPTIONS, **changes))


def test_the_score_rises_and_the_best_weights_are_kept(tmp_path):
    _, result = train(tmp_path, epochs=5)
    assert result.history[-1] > validate(Small().eval()) + 0.15
    assert result.best_score == max(result.history) == result.history[result.best_epoch - 1]
    best = Small()
    load_weights(best, result.weights)
    assert validate(best.eval()) == pytest.approx(result.best_score)
    assert any((tmp_path / "tensorboard").iterdir())


class Stopped(Exception):
    pass


def test_of_epochs_with_equal_scores_the_last_is_named_and_kept(tmp_path):
    result = fit(Small(), Edges(), loss, lambda network: 0.5, tmp_path, options=OPTIONS)
    assert result.best_epoch == OPTIONS.epochs
    last = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["average"]
    best = Small()
    load_weights(best, result.weights)
    for name, tensor in best.state_dict().items():
        assert torch.equal(tensor, last[f"module.{name}"])


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    whole, expected = train(tmp_path / "whole")

    def stop(epoch, mean, score):
        if epoch == 2:
            raise Stopped

    with pytest.raises(Stopped):
        fit(Small(), Edges(), loss, validate, tmp_path / "parts", options=OPTIONS, report=stop)
    resumed, result = train(tmp_path / "parts")
    assert result.history == expected.history
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_processes_that_prepare_items_change_nothing_not_even_dropout(tmp_path):
    """In one piece without any; in two with one, then two, which start anew as the run goes on."""
    whole, expected = train(tmp_path / "whole")

    def stop(epoch, mean, score):
        if epoch == 2:
            raise Stopped

    options = replace(OPTIONS, workers=1)
    with pytest.raises(Stopped):
        fit(Small(), Edges(), loss, validate, tmp_path / "parts", options=options, report=stop)
    resumed, result = train(tmp_path / "parts", workers=2)
    assert result.history == expected.history
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_weights_to_start_from_are_not_those_that_are_replaced(tmp_path):
    best = tmp_path / "best.safetensors"
    spare_start(best, tmp_path)  # where there is none, whoever opens it says so
    best.touch()
    spare_start(None, tmp_path)
    spare_start(best, tmp_path / "other")
    with pytest.raises(InputError, match=r"best\.safetensors: training would replace the weights that it starts from"):
        spare_start(best, tmp_path)


def test_a_finished_run_is_not_trained_again(tmp_path):
    _, first = train(tmp_path)
    _, again = train(tmp_path)
    assert first == again


def test_a_folder_of_another_run_and_too_few_items_are_refused(tmp_path):
    train(tmp_path, epochs=1)
    with pytest.raises(InputError, match="other options"):
        train(tmp_path, epochs=2)
    with pytest.raises(InputError, match="needs 1200 items, got 64"):
        train(tmp_path, epochs=100)


def test_bfloat16_trains_too(tmp_path):
    _, result = train(tmp_path, bfloat16=True)
    assert result.history[-1] > 0.65


def test_a_damaged_checkpoint_and_one_with_code_are_refused(tmp_path):
    train(tmp_path, epochs=1)
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"checkpoint\.pt: is damaged"):
        train(tmp_path, epochs=1)
    torch.save({"run": print}, path)
    with pytest.raises(InputError, match=r"checkpoint\.pt: is damaged"):
        train(tmp_path, epochs=1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: torch.zeros(3),
        lambda state: [1],
        lambda state: {name: value for name, value in state.items() if name != "model"},
        lambda state: state | {"model": dict(list(state["model"].items())[1:])},
        lambda state: state | {"optimiser": {"state": {}, "param_groups": []}},
        lambda state: state | {"history": []},
        lambda state: state | {"run": [1]},
        lambda state: state | {"run": state["run"] | {"options": None}},
        lambda state: state | {"schedule": None},
    ],
    ids=["tensor", "list", "no model", "no tensor", "no groups", "no scores", "no run", "no options", "no schedule"],
)
def test_checkpoints_with_other_contents_are_refused(tmp_path, damage):
    train(tmp_path, epochs=1, steps=1)
    path = tmp_path / "checkpoint.pt"
    torch.save(damage(torch.load(path, weights_only=True)), path)
    with pytest.raises(InputError, match=r"checkpoint\.pt: is damaged or no checkpoint of medwave"):
        train(tmp_path, epochs=1, steps=1)


def test_a_loss_that_is_not_finite_is_told_before_anything_is_validated(tmp_path):
    def refuse(network):
        raise InputError("features are not finite")

    with pytest.raises(InputError, match="training diverged in epoch 1: the loss is nan"):
        fit(Small(), Edges(), lambda output, batch: output.sum() * torch.nan, refuse, tmp_path, options=OPTIONS)


def test_a_score_that_is_no_number_ends_the_training(tmp_path):
    with pytest.raises(InputError, match="the score of epoch 1 is not a number"):
        fit(Small(), Edges(), loss, lambda network: float("nan"), tmp_path, options=OPTIONS)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    train(tmp_path, epochs=1)
    other = Small()
    other.options = {"width": 5}
    with pytest.raises(InputError, match="other options"):
        train(tmp_path, other, epochs=1)


@pytest.mark.parametrize("change", [{"gradient_norm": 0.0}, {"gradient_norm": -5.0}, {"momentum": 1.0}])
def test_steps_that_climb_or_learn_nothing_are_refused(change):
    with pytest.raises(InputError, match="gradient_norm is above 0 and momentum from 0 to below 1"):
        FitOptions(**change)
