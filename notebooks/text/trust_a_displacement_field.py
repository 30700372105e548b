# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Read and trust a displacement field
#
# A displacement field says for each voxel of the fixed image where in the moving image to read. Before its numbers are
# used, for volume change or for surgery, three questions: does it fold, can it be undone, and is it as smooth as the
# anatomy?

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from medwave import fields
from medwave.metrics import folding, inverse_consistency_mm, log_jacobian_sd
from medwave.transforms import random_velocity

torch.set_num_threads(1)
shape = (48, 64, 64)
velocity = torch.from_numpy(random_velocity(shape, seed=5, amplitude_mm=9, smoothness_mm=7))[None]
u = fields.integrate(velocity)
print("u", tuple(u.shape), "batch, axis, D, H, W; voxels; longest", round(float(u.norm(dim=1).max()), 2))

# %% [markdown]
# ## Which way does it point?
#
# `warped(p) = moving(p + u(p))`: the arrow starts in the fixed image and ends where the moving image is read. A bright
# dot at `q` in the moving image is therefore seen at the `p` with `p + u(p) = q`, against the arrow.

# %%
dot = torch.zeros(1, 1, *shape)
dot[..., 24, 30:34, 30:34] = 1
seen = fields.warp(dot, u)
where = (seen[0, 0] > 0.5).nonzero().float().mean(dim=0).round().long()
arrow = u[0, :, where[0], where[1], where[2]]
print("dot at (24, 31.5, 31.5); seen at", where.tolist(), "+ u there =", [round(float(v), 1) for v in where + arrow])
assert torch.allclose(where + arrow, torch.tensor([24, 31.5, 31.5]), atol=1.5)

# %% [markdown]
# ## Does it fold?
#
# The determinant of the Jacobian of `p + u(p)` is the factor by which volume changes; 0 and below is a fold. The flow of
# a velocity does not fold. The same displacement three times as strong does: nothing in the numbers of `u` warns of it.

# %%
middle = shape[0] // 2
figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
for axis, (title, field) in zip(axes[:2], [("u", u), ("3 u", 3 * u)], strict=True):
    determinant = fields.jacobian_determinant(field)[0, 0, middle].numpy()
    picture = axis.imshow(determinant, cmap="RdBu_r", vmin=0, vmax=2)
    axis.contourf(determinant <= 0, levels=[0.5, 1.5], colors=["magenta"])
    axis.set_title(f"{title}: {folding(field[0].numpy()).count} voxels fold")
    axis.axis("off")
    figure.colorbar(picture, ax=axis, shrink=0.8)
y, x = np.mgrid[0 : shape[1] : 3, 0 : shape[2] : 3]
in_plane = u[0, 1:, middle].numpy()
axes[2].quiver(x, y, in_plane[1, y, x], in_plane[0, y, x], angles="xy", scale_units="xy", scale=1, width=0.003)
axes[2].invert_yaxis()
axes[2].set_aspect("equal")
axes[2].set_title("u in the plane, from where it is read")
plt.show()
assert folding(u[0].numpy()).count == 0
assert folding(3 * u[0].numpy()).count > 0

# %% [markdown]
# ## Can it be undone?
#
# Inverse consistency is how far a point lands from home after going there and back. For a velocity the inverse is the
# flow backwards; for any other field Newton steps find it.

# %%
backward = fields.integrate(-velocity)
newton, _ = fields.invert(u)
affine = np.eye(4)
for name, inverse in (("flow backwards", backward), ("Newton steps", newton)):
    error = inverse_consistency_mm(u[0].numpy(), inverse[0].numpy(), affine)
    print(f"{name}: {error:.4f} mm from home on average")

# %% [markdown]
# ## Is it as smooth as the anatomy?
#
# The standard deviation of the logarithm of the determinant says how uneven volume change is. Two registrations may
# overlap labels equally well; the one with the lower spread did so with less.

# %%
noisy = u + 0.25 * torch.randn_like(u)
print(f"spread: {log_jacobian_sd(u[0].numpy()):.3f}; with a quarter voxel of noise: {log_jacobian_sd(noisy[0].numpy()):.3f}")
