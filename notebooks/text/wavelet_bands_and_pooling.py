# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Wavelet bands and pooling
#
# A network halves its images several times. Taking every second sample folds fine patterns into coarse ones (aliasing);
# the low band of a wavelet transform does not, and the bands that it leaves out are there to be used.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from medwave.wavelets import dwt, idwt, named_bands, replace_downsampling, shrinkage, wavedec, waverec

torch.set_num_threads(1)
y, x = np.mgrid[-1:1:256j, -1:1:256j]
radius = np.hypot(x, y)
rings = torch.from_numpy((0.5 + 0.5 * np.cos(170 * radius**2)).astype(np.float32))[None, None]  # ever finer rings

# %% [markdown]
# ## One level
#
# Four bands: low along both axes, and details along one or both. They hold everything: the inverse is exact.

# %%
bands = dwt(rings, "bior4.4", ndim=2, mode="symmetric")
back = idwt(bands, "bior4.4", ndim=2, output_size=rings.shape[2:], mode="symmetric")
print("largest error of the round trip:", float((back - rings).abs().max()))
assert torch.allclose(back, rings, atol=1e-5)

figure, axes = plt.subplots(1, 5, figsize=(15, 3.3), layout="constrained")
axes[0].imshow(rings[0, 0], cmap="gray")
axes[0].set_title("image")
for axis, (name, band) in zip(axes[1:], named_bands(bands, 2).items(), strict=True):
    axis.imshow(band[0, 0], cmap="gray" if name == "LL" else "PuOr")
    axis.set_title(name)
for axis in axes:
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Three ways to halve
#
# Every second sample shows rings that are not there. The mean of two by two is better; the low band of a longer filter
# better still.

# %%
halves = {
    "every second sample": rings[..., ::2, ::2],
    "mean of 2 x 2 (haar)": dwt(rings, "haar", ndim=2)[:, :, 0] / 2,
    "low band of bior4.4": bands[:, :, 0] / 2,
}
figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
for axis, (name, half) in zip(axes, halves.items(), strict=True):
    axis.imshow(half[0, 0], cmap="gray", vmin=0, vmax=1)
    axis.set_title(name)
    axis.axis("off")
plt.show()


# %% [markdown]
# How much of what is seen is false? In the corners the rings are finer than half the grid can show: there the right
# answer is even grey.


# %%
def contrast_in_corners(half):
    return float(half[0, 0, -16:, -16:].std())


for name, half in halves.items():
    print(f"{name}: contrast {contrast_in_corners(half):.3f} where there should be none")
assert contrast_in_corners(halves["low band of bior4.4"]) < 0.5 * contrast_in_corners(halves["every second sample"])

# %% [markdown]
# ## In a finished network
#
# `replace_downsampling` exchanges pools and strides in place. Names, shapes and numbers of weights stay. The network
# then answers more alike when the image moves by a pixel.


# %%
def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 4, 1),
    )  # fmt: skip


def change_when_moved(network):
    with torch.no_grad():
        first, moved = network(rings), network(torch.roll(rings, (1, 1), (2, 3)))
    return float((first - moved).norm() / (first - first.mean()).norm())


plain, wavelet = small_network().eval(), small_network().eval()
print(replace_downsampling(wavelet, "haar"))
print(f"change of the answer for one pixel: {change_when_moved(plain):.3f} with pools, {change_when_moved(wavelet):.3f} with haar")

# %% [markdown]
# ## Several levels, and what small details are worth
#
# Noise is small in every band, structure is large in few: shrinking what is small removes noise.

# %%
torch.manual_seed(0)
disc = torch.from_numpy((radius < 0.6).astype(np.float32))[None, None]
noisy = disc + 0.3 * torch.randn_like(disc)
pyramid = wavedec(noisy, "sym4", ndim=2, levels=4, mode="symmetric")
clean = waverec(pyramid.map_details(shrinkage("soft", 0.6)), "sym4", ndim=2, output_size=disc.shape[2:], mode="symmetric")
errors = [float((image - disc).square().mean().sqrt()) for image in (noisy, clean)]
print(f"root mean square error: {errors[0]:.3f} before, {errors[1]:.3f} after")
assert errors[1] < 0.5 * errors[0]
