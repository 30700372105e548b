# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Train WaveUNet on your own cubes
#
# The networks that come with medwave learnt from grown trees and many kinds of noise. A stain or a microscope that they
# have not seen may need a network of its own: a dozen labelled cubes and a few minutes. WaveUNet is a U-Net whose pools
# are wavelet transforms: what each halving sets aside as detail is given back where the image is enlarged again.
#
# The cubes here are synthetic, so that their truth is known: fibres that look like tubes, bright at the wall
# and dim inside, as membrane stains give. A network that learnt from solid fibres draws them too thin.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tifffile
import torch
from scipy import ndimage

import medwave
from medwave.metrics import voxel_scores
from medwave.models import FibreNet, open_network
from medwave.transforms import Growth, grow_tree, render_neuron
from medwave.volumes import open_stack
from medwave.workflows.train_waveunet import train_waveunet

torch.set_num_threads(1)
folder = Path(tempfile.mkdtemp())
growth = Growth(stems=3, branch_every=40, length=90, soma_radius=5, stem_radius=3.5, tip_radius=2.5, flatness=0.5)


def membrane_stain(shape, seed):
    """An image and its mask: bright walls, dim lumen, photon noise."""
    mask = render_neuron(grow_tree(shape, growth, seed=seed), shape, seed=seed).mask > 0
    depth = ndimage.distance_transform_edt(mask)
    light = np.where(mask, np.where(depth <= 1.5, 60, 12), 4.0)
    light = ndimage.gaussian_filter(light, (1.0, 0.6, 0.6))
    return np.random.default_rng(seed).poisson(light).astype(np.uint16), mask


# %% [markdown]
# ## Cubes on disk
#
# Two folders, `training` and `validation`, with `volume_N.tif` and `labels_N.tif`. In labels 1 is background, 2 fibre,
# and 0 means *nobody looked*: such voxels count neither way, so that sparse labelling of a few planes is enough. Here
# every second plane is labelled.

# %%
for split, seeds in (("training", range(6)), ("validation", range(6, 8))):
    (folder / "cubes" / split).mkdir(parents=True)
    for number, seed in enumerate(seeds, start=1):
        image, mask = membrane_stain((32, 64, 64), seed)
        labels = np.where(mask, 2, 1).astype(np.uint8)
        labels[::2] = 0
        tifffile.imwrite(folder / "cubes" / split / f"volume_{number}.tif", image, photometric="minisblack")
        tifffile.imwrite(folder / "cubes" / split / f"labels_{number}.tif", labels, photometric="minisblack")

figure, axes = plt.subplots(1, 2, figsize=(8.5, 4.4), layout="constrained")
plane = 2 * int(mask.any(axis=(1, 2)).nonzero()[0].mean() // 2) + 1
axes[0].imshow(image[plane], cmap="gray")
axes[0].set_title("a plane of a cube")
axes[1].imshow(labels[plane], cmap="viridis", vmin=0, vmax=2)
axes[1].set_title("its labels: 1 background, 2 fibre")
for axis in axes:
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Train
#
# Crops of the cubes are turned, mirrored and changed in brightness, so that six cubes become many. The loss is
# cross-entropy with Dice and the share of the centre lines that is missed: a gap of two voxels costs little Dice and a
# whole branch of the tree. After each epoch the network is scored on the validation cubes; the best is kept. Called again
# after a stop it goes on, to the same weights.

# %%
history = []
result = train_waveunet(
    folder / "run", axons=str(folder / "cubes"), synthetic=0, width=4, size=(16, 32, 32), epochs=5, steps=30, batch=4,
    learning_rate=0.01, average=0.9, on_epoch=lambda epoch, loss, score: history.append((epoch, loss, score)),
)  # fmt: skip
for epoch, loss, score in history:
    print(f"epoch {epoch}: loss {loss:.3f}, fibre IoU on the validation cubes {score:.3f}")
print(f"best: {result.best_score:.3f} in epoch {result.best_epoch}")

network = open_network(result.weights, FibreNet)
print(type(network).__name__, sum(p.numel() for p in network.parameters()), "weights")

# %% [markdown]
# ## Segment a volume that it has not seen
#
# The volume is larger than the cubes: it is predicted in cubes that overlap, in memory that does not grow with it, and
# lands as OME-Zarr. Beside it the network that comes with medwave, which knows solid fibres only.

# %%
image, truth = membrane_stain((40, 128, 128), 99)
tifffile.imwrite(folder / "stack.tif", image, photometric="minisblack", metadata={"axes": "ZYX"})
masks = {}
for name, weights in (("shipped", None), ("own", result.weights)):
    made = medwave.segment(folder / "stack.tif", folder / name, weights=weights, threads=1)
    with open_stack(made.mask) as stack:
        masks[name] = stack.read() > 0
ious = {name: voxel_scores(truth, found).iou for name, found in masks.items()}
print("fibre IoU on the new volume:", {name: round(float(iou), 3) for name, iou in ious.items()})

figure, axes = plt.subplots(1, 4, figsize=(15, 4.2), layout="constrained")
axes[0].imshow(image.max(axis=0), cmap="gray")
axes[0].set_title("image, brightest voxel along z")
shown = {"truth": truth, "shipped network": masks["shipped"], "own network": masks["own"]}
for axis, (name, found) in zip(axes[1:], shown.items(), strict=True):
    axis.imshow(found.max(axis=0), cmap="gray")
    axis.set_title(f"{name}, IoU {ious[name.split()[0]]:.2f}" if name != "truth" else name)
for axis in axes:
    axis.axis("off")
plt.show()
assert ious["own"] > ious["shipped"]
assert ious["own"] > 0.6

# %% [markdown]
# On the command line: `medwave train waveunet --axons cubes --synthetic 0 -o run`, then `medwave reconstruct stack.tif
# --weights run/best.safetensors -o result` for the tree. For a real stain start from what is there: `--init` takes the
# weights of a network of the same kind and width, `--synthetic 1` mixes grown trees in, and twenty minutes on a GPU do more
# than the half minute above.
