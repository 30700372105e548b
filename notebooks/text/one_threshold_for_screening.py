# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One threshold for all: screening in two stages
#
# A screening programme looks at many pictures, most of them healthy. In the first stage a network scores each picture
# for each finding, and whatever lies above a threshold goes to a reader in the second stage. A clinic fixes that threshold
# **once**, for all patients and all findings: nobody can tune it per picture. Ordinary accuracy hides this, since
# `argmax` lets every picture have a threshold of its own.
#
# This lesson trains the same small network twice, with softmax and with the binary cross-entropy of one learned threshold
# (`UnifiedBCELoss`, arXiv 2403.07289), and asks what one threshold can do. The pictures are synthetic, so that the truth is
# exact: patches from scanners of different brightness, contrast and noise, with four kinds of findings, the rarest of
# which is in one patch of two hundred. The figures below tell of these patches alone, not of patients.

# %%
import numpy as np
import torch
from torch import nn

from medwave.losses import SoftmaxLoss, UnifiedBCELoss
from medwave.metrics import ClassificationScores

torch.set_num_threads(1)
KINDS = ("healthy", "bright spot", "dark spot", "ring", "band")
SHARES = (0.88, 0.07, 0.03, 0.015, 0.005)
SIZE = 14


def patches(count, seed):
    """Patches (count, 1, 14, 14) and their kinds."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(len(KINDS), count, p=SHARES)
    y, x = np.mgrid[:SIZE, :SIZE]
    cy, cx = rng.uniform(4, SIZE - 5, (2, count, 1, 1))
    radius = rng.uniform(2, 3.5, (count, 1, 1))
    distance = np.hypot(y - cy, x - cx)
    spot, ring = np.exp(-((distance / radius) ** 2)), np.exp(-((distance - radius) ** 2))
    band = np.exp(-(((y - cy) + (x - cx)) ** 2) / 4)
    shapes = np.stack([0 * spot, spot, -spot, ring, band])
    strength = rng.uniform(0.6, 1.4, (count, 1, 1))
    scene = strength * shapes[kind, np.arange(count)] + rng.normal(0, 1, (count, 1, 1))
    image = rng.uniform(0.5, 2.0, (count, 1, 1)) * (scene + rng.normal(0, 0.35, (count, SIZE, SIZE)))
    return torch.from_numpy(image[:, None].astype(np.float32)), torch.from_numpy(kind)


train, train_kind = patches(12_000, seed=1)
chosen, chosen_kind = patches(4_000, seed=2)  # where a threshold is chosen
test, test_kind = patches(8_000, seed=3)  # where it is used
for name, share in zip(KINDS, np.bincount(test_kind, minlength=len(KINDS)) / len(test_kind), strict=True):
    print(f"{name:12} {100 * share:5.1f} % of the test patches")


# %% [markdown]
# ## The same network, two losses
#
# Both heads score a patch for each kind by an inner product `z`. Softmax learns differences of scores within a patch: adding
# a number to all scores of a patch changes nothing for it. The binary head compares every score with one learned `b`, so
# its scores must mean the same in every patch. `b` has no weight decay (`parameter_groups` sees to it).

# %%
def train_head(make_head, seed=0, steps=700, batch=128):
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
    )
    head = make_head(len(KINDS), 24)
    groups = [{"params": body.parameters(), "weight_decay": 5e-4}, *head.parameter_groups(5e-4)]
    optimiser = torch.optim.AdamW(groups, lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        picked = torch.randint(len(train), (batch,))
        loss = head(body(train[picked]), train_kind[picked]).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    body.eval()
    head.eval()

    def scores(images):
        with torch.inference_mode():
            return head.class_scores(body(images)).numpy()

    return scores, head


softmax, _ = train_head(SoftmaxLoss)
binary, binary_head = train_head(UnifiedBCELoss)
b = float(binary_head.bias.detach())
print(f"learned threshold b = {b:.2f}")


# %% [markdown]
# ## Three accuracies
#
# A threshold `t` is right about a patch when the score of its true kind lies above `t` and all others do not. *Sample-wise*
# accuracy lets each patch choose its `t` (ordinary accuracy), *class-wise* each kind, *uniform* accuracy has one for all.
# `t*` is the best one in hindsight; a good `b` lies close to it.

# %%
def accuracies(scores, learned=None):
    store = ClassificationScores()
    store.update(scores(test), test_kind)
    return store.result(learned)


found = {"softmax": accuracies(softmax), "one threshold": accuracies(binary, b)}
print(f"{'loss':14} sample-wise  class-wise  uniform      t*   at b")
for name, a in found.items():
    at_b = "   -" if a.at_learned is None else f"{100 * a.at_learned:.1f}"
    print(
        f"{name:14} {100 * a.sample_wise:11.1f} {100 * a.class_wise:11.1f} {100 * a.uniform:8.1f} "
        f"{a.threshold:7.2f}   {at_b}"
    )
    assert a.uniform <= a.class_wise <= a.sample_wise


# %% [markdown]
# ## Two stages
#
# First stage: a patch goes on when the score of any finding lies above the threshold. Second stage: a reader sees those
# alone. What counts is how many findings reach the reader, how many patches the reader has to look at, and how the rare
# kinds fare. The threshold is chosen on patches of their own, so that nine findings in ten go on, and then used on the test
# patches; for the binary head there is also `b`, which nobody had to choose.

# %%
def highest_finding(scores, images):
    return scores(images)[:, 1:].max(axis=1)


def threshold_for(scores, sensitivity=0.9):
    ill = chosen_kind.numpy() > 0
    return float(np.quantile(highest_finding(scores, chosen)[ill], 1 - sensitivity))


def two_stages(scores, threshold):
    goes_on = highest_finding(scores, test) > threshold
    kind = test_kind.numpy()
    by_kind = [100 * goes_on[kind == k].mean() for k in range(1, len(KINDS))]
    return [100 * goes_on[kind > 0].mean(), 100 * goes_on.mean(), 100 * goes_on[kind == 0].mean(), *by_kind]


rows = {
    "softmax, chosen threshold": two_stages(softmax, threshold_for(softmax)),
    "one threshold, chosen": two_stages(binary, threshold_for(binary)),
    "one threshold, b": two_stages(binary, b),
}
print(f"{'percent':27} findings  all read  healthy  {'  '.join(KINDS[1:])}")
for name, values in rows.items():
    print(f"{name:27} " + "  ".join(f"{v:8.1f}" for v in values))

# %% [markdown]
# ## What the numbers say, and what they do not
#
# By sample-wise accuracy alone softmax is at least as good. On the way to one threshold for all it loses several times as
# much as the binary head, because nothing in its loss makes the scores of two patches comparable. The binary head brings
# its own threshold, and is about as accurate there as at the best one in hindsight. One network, one draw of patches: run
# the cells with other seeds before you believe a difference of a percent.
#
# A threshold that maximises uniform accuracy is no clinical threshold. Most patches are healthy, so that `b` is strict:
# hardly a healthy patch passes, and more than half of the findings stay behind. A missed finding costs more than a needless
# reading. Where a sensitivity is asked for, choose the threshold on pictures of your own clinic, as above, and check it on
# others: both chosen thresholds held about nine in ten on patches that they had not seen.
