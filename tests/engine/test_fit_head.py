"""Training with a head that learns too: prototypes, memories and thresholds move; an interruption leaves no trace."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from medwave.core.errors import InputError
from medwave.engine.fit import FitOptions, fit
from medwave.losses import CosFaceLoss, EPLLoss, UCELoss, UniTSFaceLoss

pytest.importorskip("ignite", reason="training needs the extra train")

CLASSES, DIMENSION = 5, 8
OPTIONS = FitOptions(
    epochs=4, steps=5, batch=10, optimiser="sgd", learning_rate=0.05, schedule="steps", milestones=(3,), warm_up=0,
    average=0.0, gradient_norm=10.0, seed=2,
)  # fmt: skip


class Groups(Dataset):
    """Noise around one direction per class."""

    def __len__(self):
        return 400

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        label = index % CLASSES
        image = 0.5 * torch.randn(12, generator=generator)
        image[label] += 1
        return {"image": image, "label": torch.tensor(label), "sample": torch.tensor(index)}


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.options = {}
        self.layers = nn.Sequential(nn.Linear(12, 16), nn.PReLU(), nn.Dropout(0.1), nn.Linear(16, DIMENSION))

    def forward(self, image):
        return self.layers(image)


def make_head(kind, **options):
    torch.manual_seed(1)
    return kind(CLASSES, DIMENSION, scale=16.0, **options)


def train(folder, head, report=lambda *said: None, **changes):
    body = Body()
    result = fit(
        body, Groups(), lambda out, batch: head(out, batch["label"], samples=batch["sample"]).total,
        lambda network: float(network.layers[0].weight.detach().sum()), folder, options=replace(OPTIONS, **changes),
        head=head, report=report,
    )  # fmt: skip
    return body, result


def test_prototypes_and_threshold_are_optimised_with_the_network(tmp_path):
    head = make_head(UCELoss)
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    losses = []
    body, _ = train(tmp_path, head, lambda epoch, loss, score: losses.append(loss))
    assert losses[-1] < 0.7 * losses[0]
    assert not torch.equal(head.prototypes, before["prototypes"])
    assert not torch.equal(head.bias, before["bias"])
    scores = head.eval().class_scores(body.eval()(torch.eye(12)[:CLASSES]))
    assert scores.argmax(dim=1).tolist() == list(range(CLASSES))


def test_thresholds_have_no_weight_decay(tmp_path):
    """With a rate of decay that empties kernels in a step, a bias whose loss is held out of reach stays."""
    head = make_head(UCELoss, initial_bias=3.0)
    body = Body()
    fit(
        body, Groups(), lambda out, batch: 0.0 * head(out, batch["label"]).total, lambda network: 0.0, tmp_path,
        options=replace(OPTIONS, weight_decay=15.0, momentum=0.0), head=head,
    )  # fmt: skip
    assert float(head.bias.detach()) == 3.0
    assert float(head.prototypes.detach().abs().max()) < 1e-3


class Stopped(Exception):
    pass


def stop(epoch, loss, score):
    if epoch == 2:
        raise Stopped


@pytest.mark.parametrize(("kind", "options"), [(UniTSFaceLoss, {}), (EPLLoss, {}), (CosFaceLoss, {"sample_rate": 0.6})])
def test_a_run_that_was_interrupted_ends_with_the_same_head_and_weights(tmp_path, kind, options):
    whole_head, head = make_head(kind, **options), make_head(kind, **options)
    whole, expected = train(tmp_path / "whole", whole_head)
    with pytest.raises(Stopped):
        train(tmp_path / "parts", head, stop)
    fresh = make_head(kind, **options)
    resumed, result = train(tmp_path / "parts", fresh)
    assert result.history == expected.history
    for one, other in ((whole, resumed), (whole_head, fresh)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name


def test_schedules_of_losses_are_told_the_epoch(tmp_path):
    head = make_head(UniTSFaceLoss)
    seen = []
    forward = head._parts
    head._parts = lambda *given: seen.append(float(head.progress[0])) or forward(*given)
    train(tmp_path, head)
    assert seen == pytest.approx([step / 5 for step in range(20)])


def test_a_checkpoint_without_the_head_is_refused(tmp_path):
    body = Body()
    fit(body, Groups(), lambda out, batch: out.square().mean(), lambda network: 0.0, tmp_path, options=OPTIONS)
    with pytest.raises(InputError, match="other options"):
        train(tmp_path, make_head(CosFaceLoss))


def test_a_checkpoint_from_before_an_option_goes_on(tmp_path):
    old = replace(OPTIONS, optimiser="adamw", schedule="cosine", warm_up=1, milestones=(), learning_rate=0.01)

    def run():
        return fit(Body(), Groups(), lambda out, batch: out.square().mean(), lambda network: 0.0, tmp_path, options=old)

    first = run()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    for name in ("optimiser", "momentum", "schedule", "milestones", "warm_up"):
        del state["run"]["options"][name]
    torch.save(state, tmp_path / "checkpoint.pt")
    assert run() == first


def test_what_follows_an_update_runs_before_the_average(tmp_path):
    head, body = make_head(CosFaceLoss), Body()

    def bound():
        with torch.no_grad():
            body.layers[1].weight.fill_(0.7)

    lowest = []

    def validate(network):
        lowest.append(float(network.layers[1].weight.detach()))
        return 0.0

    fit(
        body, Groups(), lambda out, batch: head(out, batch["label"]).total, validate, tmp_path, options=OPTIONS,
        head=head, after_update=bound,
    )  # fmt: skip
    assert lowest == pytest.approx([0.7] * 4)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schedule": "steps", "milestones": (1, 3)}, [1, 0.1, 0.1, 0.01]),
        ({"schedule": "polynomial"}, [1, 0.5625, 0.25, 0.0625]),
        ({"schedule": "polynomial", "warm_up": 1}, [0.2, 1, 4 / 9, 1 / 9]),
        ({"schedule": "cosine"}, [1, 0.853553, 0.5, 0.146447]),
        ({"schedule": "constant"}, [1, 1, 1, 1]),
    ],
)
def test_the_rate_follows_its_schedule(tmp_path, changes, expected, monkeypatch):
    rates = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self, *given: rates.append(self.param_groups[0]["lr"]) or step(self, *given)
    )
    train(tmp_path, make_head(CosFaceLoss), **changes)
    assert rates[::5] == pytest.approx([0.05 * share for share in expected], rel=1e-5)


def test_unknown_words_are_refused():
    with pytest.raises(InputError, match="optimiser is one of adamw, sgd"):
        FitOptions(optimiser="adam")
    with pytest.raises(InputError, match="schedule one of cosine, polynomial"):
        FitOptions(schedule="linear")
