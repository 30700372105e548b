# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Register a pair
#
# Registration answers one question for each voxel of the fixed image: where in the moving image does the same piece of
# anatomy lie? With patients nobody knows the true answer. Here it is known: the moving image is a template of the human
# brain under an affine and a deformation of our own, with another contrast, uneven brightness, noise and another grid.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import medwave
from medwave.core.geometry import Grid, Volume
from medwave.volumes import read_transform, write_affine
from medwave.workflows.demo_brains import make_brain_sample, true_error_mm

torch.set_num_threads(1)
folder = Path(tempfile.mkdtemp())
sample = make_brain_sample(folder / "sample")
print("fixed: ", sample.fixed.grid.describe())
print("moving:", sample.moving.grid.describe())

# %% [markdown]
# An image is more than its array. Its grid says by an affine where each voxel lies in the world, in millimetres; the two
# arrays above differ in size, voxel size and orientation, and need not be brought into line by hand. To be quick we take
# both at half the resolution: means of two by two by two voxels, and an affine that knows where their centres are.


# %%
def halved(volume):
    data = torch.nn.functional.avg_pool3d(torch.from_numpy(volume.data.astype(np.float32))[None], 2)[0].numpy()
    corner = np.array([[2, 0, 0, 0.5], [0, 2, 0, 0.5], [0, 0, 2, 0.5], [0, 0, 0, 1]])
    return Volume(data, Grid(data.shape, volume.grid.affine @ corner), volume.name)


fixed, moving = halved(sample.fixed), halved(sample.moving)
print(fixed.grid.describe())

# %% [markdown]
# ## Register
#
# First an affine is sought over all rotations by mutual information, then a deformation refines it from coarse to fine.
# Files would do as well: `medwave.register("fixed.nii.gz", "moving.nii.gz")`.

# %%
result = medwave.register(fixed, moving, threads=1, on_stage=print)
print("warnings:", result.warnings)

# %% [markdown]
# ## Look
#
# Correlation of brightness over the brain is a number; a checkerboard of the two images shows where they do not meet:
# edges must go on from one tile to the next. The left column is what the headers alone say.


# %%
def checkerboard(first, second, size=12):
    y, x = np.indices(first.shape) // size
    return np.where((y + x) % 2, first, second)


def matched(cut, like):  # the same ranks, the values of the fixed image: contrasts differ
    inside = (cut > 0) & (like > 0)
    order = np.sort(like[inside])
    ranks = cut[inside].argsort().argsort()
    found = np.zeros_like(like)
    found[inside] = order[ranks]
    return found


def through(matrix):  # the moving image on the fixed grid, by a linear transform alone
    write_affine(folder / "linear.tfm", matrix)
    return medwave.apply_transform(folder / "linear.tfm", moving, reference=fixed).images[0].data


images = {"headers": through(np.eye(4)), "affine": through(result.matrix), "deformed": result.warped.data}
middle = fixed.data.shape[2] // 2
figure, axes = plt.subplots(2, 3, figsize=(11, 8), layout="constrained")
for column, (name, image) in enumerate(images.items()):
    inside = result.subject
    correlation = np.corrcoef(fixed.data[inside], image[inside])[0, 1]
    left, right = fixed.data[:, :, middle].T, image[:, :, middle].astype(np.float32).T
    axes[0, column].imshow(right, cmap="gray", origin="lower")
    axes[0, column].set_title(f"moving image, {name}")
    axes[1, column].imshow(checkerboard(left, matched(right, left)), cmap="gray", origin="lower")
    axes[1, column].set_title(f"with the fixed one; correlation {correlation:.3f}")
for axis in axes.flat:
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Measure
#
# The transform takes points of the fixed world to points of the moving world. Where the truth is known, the distance to
# the true point is the error; it is measured in every voxel of the brain at full resolution, since a transform belongs to
# no grid.

# %%
before, after = true_error_mm(sample), true_error_mm(sample, result.transform.apply_points_mm)
print(f"mean error {before.mean_mm:.1f} mm before, {after.mean_mm:.2f} mm after; 95th percentile {after.p95_mm:.2f} mm")
folds = int((result.jacobian[result.subject] <= 0).sum())
print("folded voxels:", folds)
assert after.mean_mm < 1.5
assert folds == 0

figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.6), layout="constrained")
cut = after.map_mm[:, :, after.map_mm.shape[2] // 2].T
picture = axes[0].imshow(np.where(cut > 0, cut, np.nan), origin="lower", cmap="magma", vmin=0, vmax=3)
axes[0].set_title("true error, mm")
figure.colorbar(picture, ax=axes[0], shrink=0.8)
jacobian = np.where(result.subject, result.jacobian, np.nan)[:, :, middle].T
picture = axes[1].imshow(jacobian, origin="lower", cmap="RdBu_r", vmin=0.4, vmax=1.6)
axes[1].set_title("change of volume (1: none, 0 and below: a fold)")
figure.colorbar(picture, ax=axes[1], shrink=0.8)
for axis in axes:
    axis.axis("off")
plt.show()

# %% [markdown]
# Correlation had no part in this number: two images can be made alike by a wrong deformation. Where no truth is known,
# overlap of labels (`medwave evaluate`) and points that a person placed (`--landmarks-fixed`) take its place.
#
# ## Keep it and use it
#
# The folder holds the warped image, the transform as ITK, ANTs and 3D Slicer read it, and a page to judge it by.

# %%
report = result.save(folder / "result")
print(*sorted(str(path.relative_to(folder)) for path in (folder / "result").rglob("*") if path.is_file()), sep="\n")

points = fixed.grid.to_mm(np.argwhere(result.subject)[::5000])
again = read_transform(folder / "result" / "transform" / "composite.h5").apply_points_mm(points)
assert np.allclose(again, result.transform.apply_points_mm(points), atol=0.01)

# %% [markdown]
# On the command line: `medwave register fixed.nii.gz moving.nii.gz -o result`, then `medwave apply result --labels
# moving_labels.nii.gz -o moved` for what is to come along, and `medwave view result` to turn through it. Next:
# *Read and trust a displacement field*.
