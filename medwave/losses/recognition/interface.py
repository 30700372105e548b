"""What all recognition losses keep to, and what those with one prototype per class share.

Conventions
    ``loss(features, labels)`` with features ``(B, d)`` of any floating type and whole-number labels ``(B,)`` in
    ``[0, classes)`` gives a :class:`LossParts`: ``total`` is the sum of the named ``parts``, weights included. Sums
    run over classes, means over samples, so that a learning rate means the same for any batch.
    Scores ``z`` are ``scale * cosine`` (normalised) or plain inner products. A bias is SUBTRACTED: ``z - b``; on the
    scale of cosines the threshold is ``b / scale``.
    Arithmetic is float32 (float64 for float64 features), also under autocast and for half-precision features.

Training and evaluation
    In training mode negatives may be drawn and memories and running means move; in evaluation mode a call changes
    nothing and all classes count. What a loss remembers lies in buffers and is saved and loaded with it.

Many processes
    In training mode, with ``torch.distributed`` initialised, features and labels of all processes are gathered with
    gradient and each computes the loss of the whole batch: loss, gradients, memories and biases are those of one
    process with that batch, whether or not the loss itself is wrapped in ``DistributedDataParallel`` (with
    ``broadcast_buffers=False`` large memories are not sent around each step). Start with equal weights everywhere.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medwave.core.errors import GeometryError, InputError
from medwave.losses.recognition.gathering import gather_batch
from medwave.losses.recognition.scores import unit


class LossParts(NamedTuple):
    """A loss and what it is the sum of.

    Attributes:
        total: the scalar to minimise.
        parts: name -> scalar; they add up to the total.
    """

    total: Tensor
    parts: dict[str, Tensor]


class RecognitionLoss(nn.Module):
    """Base of the losses that compare samples with classes.

    Args:
        classes: number of classes, two or more.
        dimension: length of a feature.

    Raises:
        InputError: for fewer than two classes or an empty feature.
    """

    progress: Tensor

    def __init__(self, classes: int, dimension: int) -> None:
        super().__init__()
        if classes < 2 or dimension < 1:
            raise InputError(f"recognition needs 2 classes and 1 feature or more, got {classes} and {dimension}")
        self.classes = int(classes)
        self.dimension = int(dimension)
        self.register_buffer("progress", torch.tensor([0.0, 1.0]))

    def forward(self, features: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> LossParts:
        """The loss.

        Args:
            features: ``(B, d)``.
            labels: ``(B,)``, class of each.
            samples: ``(B,)`` whole numbers, 0 or more, that tell images apart; losses with a memory use them to keep
                a sample from being its own partner, the others have no need of them.

        Raises:
            GeometryError: when shapes do not fit.
            InputError: when labels are not whole numbers or not classes of this loss.
        """
        features, labels, samples = self._whole_batch(features, labels, samples)
        with torch.autocast(features.device.type, enabled=False):
            return added(self._parts(features, labels, samples))

    def set_progress(self, epoch: float, epochs: float = 1.0) -> None:
        """Say how far training has come: ``epoch`` epochs done of ``epochs``; fractions are fine.

        Losses with a schedule (UniTSFace, EPL, ECLoss) go by it; the others pay no heed.
        """
        if not 0 <= epoch < math.inf or not 0 < epochs < math.inf:
            raise InputError(f"progress is epochs done (0 or more) of epochs planned (above 0), got {epoch}, {epochs}")
        self.progress.copy_(torch.tensor([float(epoch), float(epochs)]))

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameters for an optimiser, biases without weight decay, which would pull the threshold to 0."""
        parameters = list(self.parameters())
        return [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def _parts(self, features: Tensor, labels: Tensor, samples: Tensor | None) -> dict[str, Tensor]:
        """The named parts for the whole batch, in exact arithmetic."""
        raise NotImplementedError

    def _whole_batch(
        self, features: Tensor, labels: Tensor, samples: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Everything checked, in an exact type, and gathered from all processes."""
        if features.ndim != 2 or features.shape[1] != self.dimension or labels.shape != features.shape[:1]:
            raise GeometryError(
                f"recognition losses take features (B, {self.dimension}) and labels (B,), got "
                f"{tuple(features.shape)} and {tuple(labels.shape)}"
            )
        if samples is not None and (samples.shape != labels.shape or not _whole(samples) or bool((samples < 0).any())):
            raise InputError(f"samples are whole numbers of 0 or more, one per label, got {tuple(samples.shape)}")
        if not _whole(labels):
            raise InputError(f"labels must be whole numbers, got {labels.dtype}; convert them, such as with .long()")
        if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= self.classes):
            raise InputError(
                f"labels must lie in 0 to {self.classes - 1} for {self.classes} classes, got "
                f"{int(labels.min())} to {int(labels.max())}"
            )
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        labels = labels.long()
        if self.training:
            features, labels = gather_batch(features), gather_batch(labels)
            samples = samples if samples is None else gather_batch(samples.long())
        return features, labels, samples


class Rows(NamedTuple):
    """What a batch is compared with.

    Attributes:
        others: rows ``(K, d)`` that the negatives are taken from.
        ids: class of each, ascending; None when all classes are there in order.
        own: column of each sample's class among them, -1 for none, ``(B,)``.
    """

    others: Tensor
    ids: Tensor | None
    own: Tensor


class Draw(nn.Module):
    """Random negatives: the same classes on all processes, and the same after a resume.

    Args:
        classes: to draw from.
        rate: share of the classes that is drawn, in (0, 1], and two classes at least; 1 takes all of them.
        seed: of the draws.

    Raises:
        InputError: when ``rate`` is not in (0, 1].
    """

    count: Tensor

    def __init__(self, classes: int, rate: float, seed: int) -> None:
        super().__init__()
        if not 0 < rate <= 1:
            raise InputError(f"sample_rate is the share of the classes that is drawn, in (0, 1], got {rate}")
        self.classes, self.rate, self.seed = classes, float(rate), int(seed)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self) -> Tensor | None:
        """Class numbers, ascending; None for all."""
        if self.rate == 1 or not self.training:
            return None
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + int(self.count)) % (1 << 63))
        self.count += 1
        amount = max(2, math.ceil(self.rate * self.classes))
        drawn = torch.randperm(self.classes, generator=generator)[:amount]
        return drawn.sort().values.to(self.count.device)


class ClassHead(RecognitionLoss):
    """Base of the losses with one learned prototype per class.

    Args:
        classes: number of classes.
        dimension: length of a feature.
        scale: of the cosines (gamma); used with ``normalised`` only.
        normalised: compare directions, not lengths.
        sample_rate: share of the classes that negatives are drawn from in each step, without weights to make up for
            it; below 1 a step costs that share of the memory and the time of all classes.
        sparse_gradients: give the prototypes a sparse gradient (rows that took part only); needs ``sample_rate``
            below 1 and an optimiser that takes such, as SGD without weight decay or SparseAdam.
        seed: of the draws.

    Raises:
        InputError: when ``scale`` is not positive, ``sample_rate`` is not in (0, 1], or gradients shall be sparse
            without draws.
    """

    def __init__(
        self,
        classes: int,
        dimension: int,
        *,
        scale: float = 64.0,
        normalised: bool = True,
        sample_rate: float = 1.0,
        sparse_gradients: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(classes, dimension)
        if not 0 < scale < math.inf:
            raise InputError(f"scale must be above 0 and finite, got {scale}")
        if sparse_gradients and sample_rate == 1:
            raise InputError("sparse_gradients needs a sample_rate below 1: with all classes every row has a gradient")
        self.scale = float(scale) if normalised else 1.0
        self.normalised = bool(normalised)
        self.sparse_gradients = bool(sparse_gradients)
        self.draw = Draw(self.classes, sample_rate, seed)
        self.prototypes = nn.Parameter(torch.empty(self.classes, self.dimension))
        nn.init.normal_(self.prototypes, std=self.dimension**-0.5)

    def class_scores(self, features: Tensor) -> Tensor:
        """The scores that decide, ``(B, classes)``, without margin; a bias per class is taken off, a common one not."""
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        with torch.autocast(features.device.type, enabled=False):
            prototypes = self.prototypes.to(features.dtype)
            scores = self._directed(features) @ (unit(prototypes) if self.normalised else prototypes).T
            offsets = self._offsets()
            return scores if offsets is None else scores - offsets.to(scores.dtype)

    def _offsets(self) -> Tensor | None:
        """What is taken off the scores of each class, one per class."""
        return None

    def _directed(self, features: Tensor) -> Tensor:
        """Features with the scale in them."""
        return self.scale * unit(features) if self.normalised else features

    def _compared(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Rows]:
        """The score of each sample with its own prototype, and the prototypes that negatives come from."""
        prototypes = self.prototypes.to(features.dtype)
        ids = self.draw()
        if ids is None:
            rows, own_rows = prototypes, prototypes[labels]
        else:  # one look-up for both, so that there is one gradient of the prototypes' size, or none
            both = F.embedding(torch.cat([ids, labels]), prototypes, sparse=self.sparse_gradients)
            rows, own_rows = both[: len(ids)], both[len(ids) :]
        positive = (self._directed(features) * (unit(own_rows) if self.normalised else own_rows)).sum(dim=1)
        return positive, Rows(rows, ids, columns_of(labels, ids))


def columns_of(labels: Tensor, ids: Tensor | None) -> Tensor:
    """Where each label stands among ascending class numbers, -1 where it does not; the label itself without them."""
    if ids is None:
        return labels
    if not len(ids):
        return torch.full_like(labels, -1)
    column = torch.searchsorted(ids, labels).clamp_max(len(ids) - 1)
    return torch.where(ids[column] == labels, column, -1)


def batch_mean(values: Tensor) -> Tensor:
    """Mean over the samples of a batch; 0 for an empty one."""
    return values.sum() / max(1, len(values))


def added(parts: dict[str, Tensor]) -> LossParts:
    """The parts with their sum."""
    return LossParts(torch.stack(list(parts.values())).sum(), parts)


def _whole(values: Tensor) -> bool:
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
