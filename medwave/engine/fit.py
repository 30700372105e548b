"""Training on MONAI's engines: mixed precision, moving average of the weights, exact resume, best by a score.

An epoch is a fixed number of steps; its items follow from the seed and the epoch alone. After each epoch everything
that matters is written to ``checkpoint.pt`` (whole or not at all), so that a run that was stopped goes on to the
weights of a run that was not. ``torchrun`` trains in several processes (see :mod:`medwave.engine.ranks`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from medwave.core.errors import InputError
from medwave.core.files import StrPath, atomic_path
from medwave.core.optional import require
from medwave.engine.ranks import Ranks, join_ranks, whole_batch_norm
from medwave.losses.recognition import RecognitionLoss
from medwave.models.weights import save_weights

Batch = dict[str, torch.Tensor]
Loss = Callable[[torch.Tensor, Batch], torch.Tensor]
Run = Callable[[nn.Module, Batch], torch.Tensor]

OPTIMISERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "polynomial", "steps", "constant")

_DAMAGE = (UnpicklingError, RuntimeError, OSError, EOFError, LookupError, TypeError, ValueError, AttributeError)
"""What reading contents that are no checkpoint's may raise."""


@dataclass(frozen=True)
class FitOptions:
    """How a network is trained.

    Attributes:
        epochs: number of epochs.
        steps: steps per epoch.
        batch: items per step, of all processes together.
        learning_rate: highest rate; it warms up and then falls as ``schedule`` says.
        weight_decay: not applied to biases and norms.
        gradient_norm: gradients are clipped to this length.
        average: decay of the moving average of the weights, which is what is validated and shipped.
        bfloat16: run the network in bfloat16 autocast.
        workers: processes that prepare items.
        seed: of everything that is drawn.
        optimiser: ``"adamw"`` or ``"sgd"`` (with Nesterov's momentum off).
        momentum: of SGD.
        schedule: ``"cosine"`` to 0, ``"polynomial"``: to 0 by the square of what is left, ``"steps"``: a tenth from
            each of ``milestones`` on, or ``"constant"``.
        milestones: epochs, counted from 0.
        warm_up: epochs over which the rate rises to its highest; 0 starts there.
    """

    epochs: int = 30
    steps: int = 100
    batch: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    gradient_norm: float = 5.0
    average: float = 0.99
    bfloat16: bool = False
    workers: int = 0
    seed: int = 0
    optimiser: str = "adamw"
    momentum: float = 0.9
    schedule: str = "cosine"
    milestones: tuple[int, ...] = ()
    warm_up: int = 1

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS or self.schedule not in SCHEDULES:
            raise InputError(
                f"optimiser is one of {', '.join(OPTIMISERS)} and schedule one of {', '.join(SCHEDULES)}, got "
                f"{self.optimiser!r} and {self.schedule!r}"
            )
        if not self.gradient_norm > 0 or not 0 <= self.momentum < 1:
            raise InputError(
                f"gradient_norm is above 0 and momentum from 0 to below 1, got {self.gradient_norm} and {self.momentum}"
            )


@dataclass(frozen=True)
class FitResult:
    """What training ended with: the best score, the last epoch that had it, and the file of that epoch's weights."""

    best_score: float
    best_epoch: int
    weights: Path
    history: tuple[float, ...]


class _Steps(Sampler[int]):
    """Indices of the items of one epoch: the next ones, so that no item comes twice; of each batch a rank's part."""

    def __init__(self, steps: int, batch: int, ranks: Ranks) -> None:
        super().__init__()
        self.steps, self.batch, self.epoch = steps, batch, 0
        self.share = ranks.share(batch)
        self.first = ranks.rank * self.share

    def __iter__(self) -> Iterator[int]:
        for step in range(self.epoch * self.steps, (self.epoch + 1) * self.steps):
            start = step * self.batch + self.first
            yield from range(start, start + self.share)

    def __len__(self) -> int:
        return self.steps * self.share


class _Running(nn.Module):
    """A network as the loss sees it, in one call, so that processes can meet about it."""

    def __init__(self, model: nn.Module, run: Run) -> None:
        super().__init__()
        self.model, self.run = model, run

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.run(self.model, batch)


def spare_start(init: StrPath | None, folder: StrPath) -> None:
    """Refuse weights to start from that training into a folder would replace, after which it could not go on.

    Raises:
        InputError: naming them.
    """
    best = Path(folder) / "best.safetensors"
    if init is not None and best.exists() and Path(init).exists() and best.samefile(init):
        raise InputError(f"{init}: training would replace the weights that it starts from; train into another folder")


def run_on_image(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The network's output for a batch of images."""
    output: torch.Tensor = model(batch["image"])
    return output


def fit(
    model: nn.Module,
    data: Dataset[Batch],
    loss: Loss,
    validate: Callable[[nn.Module], float],
    folder: StrPath,
    *,
    options: FitOptions,
    device: str = "cpu",
    provenance: str = "",
    head: RecognitionLoss | None = None,
    after_update: Callable[[], None] = lambda: None,
    report: Callable[[int, float, float], None] = lambda epoch, loss, score: None,
    on_step: Callable[[int], None] = lambda done: None,
    run: Run = run_on_image,
) -> FitResult:
    """Train a network; call again with the same arguments to go on after an interruption.

    Args:
        model: a medwave network (it carries its ``options``).
        data: items; at least ``epochs * steps * batch`` of them.
        loss: (output, batch) -> scalar.
        validate: network -> score, higher is better; called once per epoch.
        folder: for ``checkpoint.pt``, ``best.safetensors`` and tensorboard's logs.
        options: see :class:`FitOptions`.
        device: where to train.
        provenance: text kept in the weight file.
        head: a loss that learns too, which ``loss`` calls: its parameters are optimised with those of the network, its
            state lies in the checkpoint, and it is told how far training has come.
        after_update: called after each step of the optimiser, before the average is taken, such as to keep parameters
            in bounds.
        report: told the epoch, its mean loss and its score.
        on_step: told the number of steps done, those before an interruption counted.
        run: (network, batch) -> output; by itself the network of what the batch holds under ``image``.

    Raises:
        InputError: when there are too few items, the folder holds a damaged checkpoint or one of another run, or a loss
            or score is not a number.
    """
    training = _Run(
        model, data, loss, validate, Path(folder), options, device, provenance, head, after_update, report, on_step, run
    )
    return training()


class _Run:
    def __init__(
        self, model: nn.Module, data: Dataset[Batch], loss: Loss, validate: Callable[[nn.Module], float],
        folder: Path, options: FitOptions, device: str, provenance: str, head: RecognitionLoss | None,
        after_update: Callable[[], None], report: Callable[[int, float, float], None], on_step: Callable[[int], None],
        run: Run,
    ) -> None:  # fmt: skip
        needed = options.epochs * options.steps * options.batch
        if len(data) < needed:  # type: ignore[arg-type]
            raise InputError(f"training of {options.epochs} epochs needs {needed} items, got {len(data)}")  # type: ignore[arg-type]
        folder.mkdir(parents=True, exist_ok=True)
        self.ranks = join_ranks(device)
        torch.manual_seed(options.seed)
        model = whole_batch_norm(model)
        self.model, self.loss, self.validate, self.report = model.to(device), loss, validate, report
        self.on_step, self.after_update = on_step, after_update
        self.running = self.ranks.parallel(_Running(self.model, run))
        self.head = None if head is None else head.to(device).train()
        self.folder, self.options, self.device, self.provenance = folder, options, torch.device(device), provenance
        self.sampler = _Steps(options.steps, options.batch, self.ranks)
        self.loader = DataLoader(
            data, self.sampler.share, sampler=self.sampler, num_workers=options.workers,
            persistent_workers=options.workers > 0, generator=torch.Generator(),  # what it draws moves no dropout
        )  # fmt: skip
        groups = _groups(model, options.weight_decay)
        if head is not None:
            groups += [group for group in head.parameter_groups(options.weight_decay) if group["params"]]
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimiser = _optimiser(groups, options, self.device.type == "cuda")
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self._rate)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(options.average), use_buffers=True
        )
        self.history: list[float] = []
        self.losses: list[torch.Tensor] = []

    def _rate(self, step: int) -> float:
        warm = self.options.warm_up * self.options.steps
        total = self.options.epochs * self.options.steps
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1, total - warm)
        match self.options.schedule:
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * done))
            case "polynomial":
                return (1 - done) ** 2
            case "steps":
                return 0.1 ** sum(step >= milestone * self.options.steps for milestone in self.options.milestones)
        return 1.0

    def __call__(self) -> FitResult:
        ignite = require("ignite.engine", extra="train", purpose="training")
        from monai.engines import SupervisedTrainer
        from torch.utils.tensorboard import SummaryWriter

        start = self._resume()
        trainer = SupervisedTrainer(
            device=self.device, max_epochs=self.options.epochs, train_data_loader=self.loader, network=self.model,
            optimizer=self.optimiser, loss_function=self.loss, iteration_update=self._step,
        )  # fmt: skip
        trainer.logger.setLevel("WARNING")
        trainer.state.epoch, trainer.state.iteration = start, start * self.options.steps
        events = ignite.Events
        trainer.add_event_handler(events.EPOCH_STARTED, self._begin_epoch)
        with SummaryWriter(str(self.folder / "tensorboard")) if self.ranks.first else contextlib.nullcontext() as log:
            trainer.add_event_handler(events.EPOCH_COMPLETED, self._end_epoch, log)
            if start < self.options.epochs:
                trainer.run()
        best = max(range(len(self.history)), key=lambda epoch: (self.history[epoch], epoch))  # as _keep does
        return FitResult(self.history[best], best + 1, self.folder / "best.safetensors", tuple(self.history))

    def _begin_epoch(self, engine: Any) -> None:
        self.sampler.epoch = engine.state.epoch - 1
        self.losses = []
        self.model.train()
        torch.manual_seed(self.options.seed + engine.state.epoch + (self.ranks.rank << 32))

    def _step(self, engine: Any, batch: Batch) -> dict[str, Any]:
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        self.optimiser.zero_grad(set_to_none=True)
        if self.head is not None:
            self.head.set_progress((engine.state.iteration - 1) / self.options.steps, self.options.epochs)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bfloat16):
            output = self._output(batch)
        value = self.loss(output.float(), batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.options.gradient_norm)
        self.optimiser.step()
        self.after_update()
        self.schedule.step()
        self.average.update_parameters(self.model)
        self.losses.append(value.detach())  # not read before the epoch ends: a GPU would wait for this process
        if self.ranks.first:
            self.on_step(engine.state.iteration)
        return {"loss": self.losses[-1]}

    def _output(self, batch: Batch) -> torch.Tensor:
        try:
            return self.running(batch)  # type: ignore[no-any-return]
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"batch: {self.options.batch} with maps of one value is too little for batch normalisation; give a "
                "larger batch, or larger images"
            ) from None

    def _end_epoch(self, engine: Any, log: Any) -> None:
        epoch, mean = engine.state.epoch, self.ranks.mean(float(torch.stack(self.losses).double().mean()))
        network = self.average.module.eval()
        if not math.isfinite(mean):
            raise InputError(f"training diverged in epoch {epoch}: the loss is {mean}; lower the learning rate")
        with torch.inference_mode():
            score = self.ranks.of_first(self.validate(network) if self.ranks.first else math.nan)
        if math.isnan(score):
            raise InputError(
                f"the score of epoch {epoch} is not a number: what it is measured on holds nothing to find (no fibre, "
                "no labels); validate on other data, or on more"
            )
        self.history.append(score)
        if self.ranks.first:
            self._keep(epoch, mean, score, network, log)

    def _keep(self, epoch: int, mean: float, score: float, network: nn.Module, log: Any) -> None:
        log.add_scalar("train/loss", mean, epoch)
        log.add_scalar("train/learning_rate", self.schedule.get_last_lr()[0], epoch)
        log.add_scalar("validation/score", score, epoch)
        if score >= max(self.history):
            save_weights(network, self.folder / "best.safetensors", provenance=self.provenance)
        with atomic_path(self.folder / "checkpoint.pt") as partial:
            torch.save(self._state(epoch), partial)
        self.report(epoch, mean, score)

    def _identity(self) -> dict[str, Any]:
        """What a run that goes on must have in common with its checkpoint."""
        network = {"class": type(self.model).__name__, **self.model.options}  # type: ignore[dict-item]
        return {"options": asdict(self.options), "network": network, "provenance": self.provenance}

    def _state(self, epoch: int) -> dict[str, Any]:
        return {
            "epoch": epoch, "history": self.history, "run": self._identity(),
            "model": self.model.state_dict(), "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(), "schedule": self.schedule.state_dict(),
            **({} if self.head is None else {"head": self.head.state_dict()}),
        }  # fmt: skip

    def _resume(self) -> int:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return 0
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            run = state["run"]
            run["options"] = asdict(FitOptions()) | run["options"]  # a checkpoint may be older than an option
            run["options"]["workers"] = self.options.workers  # which has no say in the weights
            if run != self._identity() or ("head" in state) != (self.head is not None):
                raise InputError(f"{path}: belongs to a run with other options; train into another folder")
            return self._load(state)
        except (InputError, torch.OutOfMemoryError):
            raise
        except _DAMAGE as error:
            raise InputError(
                f"{path}: is damaged or no checkpoint of medwave ({type(error).__name__}); train into another folder"
            ) from None

    def _load(self, state: dict[str, Any]) -> int:
        """Takes on the state of a checkpoint; the number of epochs that it has seen."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        if self.head is not None:
            self.head.load_state_dict(state["head"])
        self.history = list(state["history"])
        epoch = int(state["epoch"])
        if len(self.history) != epoch:
            raise ValueError("a score for each epoch is needed")
        return epoch


def _optimiser(groups: list[dict[str, Any]], options: FitOptions, on_gpu: bool) -> torch.optim.Optimizer:
    if options.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum)
    return torch.optim.AdamW(groups, lr=options.learning_rate, fused=on_gpu)  # one kernel rather than one a tensor


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for kernels only: biases and norms have one axis."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
