# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a TIFF to an SWC
#
# A stack of microscopy becomes a tree: nodes with a position, a radius and a parent. The stack here is synthetic, so that
# the true tree is known: a grown neuron imaged with blur, photon noise and a dim stretch.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tifffile
import torch

from medwave.metrics import score_trace
from medwave.tracing import TraceOptions, topology, trace
from medwave.transforms import Growth, Microscope, grow_tree, render_neuron
from medwave.volumes import open_stack, read_swc, validate_swc, write_swc

torch.set_num_threads(1)
folder = Path(tempfile.mkdtemp())
shape = (40, 160, 160)
growth = Growth(stems=4, branch_every=45, length=110, soma_radius=5, stem_radius=2.2, tip_radius=1.0, flatness=0.3)
truth = grow_tree(shape, growth, seed=11)
microscope = Microscope(signal_photons=30, background_photons=3, read_noise=1.0, dim_share=0.05)
neuron = render_neuron(truth, shape, microscope, seed=11)
tifffile.imwrite(folder / "stack.tif", neuron.image, imagej=True, resolution=(2, 2), metadata={"axes": "ZYX", "spacing": 0.5, "unit": "um"})

# %% [markdown]
# ## Open it
#
# Axes are z, y, x whatever the file; the voxel size is what the file says, in micrometres. Nothing is read before it is
# asked for, so that volumes larger than memory open as well.

# %%
with open_stack(folder / "stack.tif") as stack:
    print(stack)
    volume, spacing = stack.read(), stack.spacing_um

# %% [markdown]
# ## Trace it
#
# Foreground is what lies above the background; fast marching from the thickest bright place gives a tree with far too
# many branches, pruning keeps those that the image supports, and gaps are bridged.

# %%
tree = trace(volume, options=TraceOptions(bridge_distance=15))
print(topology(tree))

figure, axes = plt.subplots(1, 2, figsize=(12, 6), layout="constrained")
axes[0].imshow(volume.max(axis=0), cmap="gray", vmax=np.percentile(volume.max(axis=0), 99.5))
axes[0].set_title("brightest voxel along z")
axes[1].imshow(volume.max(axis=0), cmap="gray", vmax=2 * np.percentile(volume.max(axis=0), 99.5))
for found, colour, width in ((truth, "deepskyblue", 3.0), (tree, "orange", 1.2)):
    child = found.edges
    ends = np.stack([found.positions[found.parent[child]], found.positions[child]])
    axes[1].plot(ends[..., 0], ends[..., 1], color=colour, linewidth=width)
axes[1].set_title("blue: true tree, orange: trace")
for axis in axes:
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Score it
#
# Within two voxels of the true tree: precision is how much of the trace is right, recall how much of the truth was found.

# %%
scores = score_trace(tree, truth)
found = scores.at_tolerance.by_samples
print(f"precision {found.precision:.3f}, recall {found.recall:.3f}, F1 {found.f1:.3f}; mean distance {scores.distances.esa:.2f} voxels")
assert found.f1 > 0.8

# %% [markdown]
# ## Write it
#
# The SWC file says its units in its header, and is checked against each rule of the format.

# %%
write_swc(folder / "tree.swc", tree, units="voxels")
print((folder / "tree.swc").read_text()[:200])
print("findings:", validate_swc(folder / "tree.swc"))
assert len(read_swc(folder / "tree.swc")) == len(tree)

# %% [markdown]
# On the command line: `medwave trace stack.tif -o tree.swc --report tree.html`; for noisy volumes with gaps
# `medwave reconstruct stack.tif -o result`, which asks the network first.
