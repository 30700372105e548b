# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Register a cohort
#
# One registration is looked at; a hundred are not, unless something says which ones. `medwave batch` registers all
# images of a study, goes on past those that fail, goes on after a stop, and puts first what stands out.
#
# The cohort here is made on the spot: a template of the human brain under eight deformations, small enough to be quick,
# with labels of fluid, grey and white matter that come from the brightness of the template. One subject has lost the
# upper part of the brain, as with a field of view that was set too low, and one file is damaged.

# %%
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from medwave import fields
from medwave.core.geometry import Grid, Volume
from medwave.transforms import add_noise, contrast_curve, random_velocity
from medwave.volumes import write_volume
from medwave.workflows.demo_brains import make_brain_sample

torch.set_num_threads(1)
folder = Path(tempfile.mkdtemp())
sample = make_brain_sample(folder / "sample")
data = torch.nn.functional.avg_pool3d(torch.from_numpy(sample.fixed.data.astype(np.float32))[None, None], 4) / 1000
corner = np.array([[4, 0, 0, 1.5], [0, 4, 0, 1.5], [0, 0, 4, 1.5], [0, 0, 0, 1]])
grid = Grid(tuple(data.shape[2:]), sample.fixed.grid.affine @ corner)
tissue = torch.bucketize(data, torch.tensor([0.02, 0.4, 0.7])).float()  # 0 air, 1 fluid and edges, 2 grey, 3 white
print(grid.describe())

cohort = folder / "cohort"
cohort.mkdir()


def save(name, image, labels):
    write_volume(cohort / f"{name}.nii.gz", Volume((1000 * image).astype(np.int16), grid))
    write_volume(cohort / f"{name}_labels.nii.gz", Volume(labels.astype(np.uint8), grid))


save("template", data[0, 0].numpy(), tissue[0, 0].numpy())
subjects = [f"subject{number}" for number in range(1, 9)]
for number, name in enumerate(subjects):
    velocity = random_velocity(grid.shape, seed=number, amplitude_mm=3, smoothness_mm=5)  # in voxels of 4 mm
    u = fields.integrate(torch.from_numpy(velocity)[None])
    image = contrast_curve(seed=number)(fields.warp(data, u)[0, 0].numpy())
    image = np.clip(add_noise(image, seed=number, sigma=0.02), 0, 1) * (image > 0.02)
    labels = fields.warp(tissue, u, interpolation="nearest")[0, 0].numpy()
    if name == "subject4":
        image[:, :, 25:], labels[:, :, 25:] = 0, 0
    save(name, image, labels)
whole = (cohort / "subject6.nii.gz").read_bytes()
(cohort / "subject6.nii.gz").write_bytes(whole[:9000])

# %% [markdown]
# ## A table says what belongs together
#
# One row per registration; paths are relative to the table. Columns for masks, lesions, further channels and a transform
# to start from are free. A BIDS dataset, or a folder of images with `--to-template`, needs no table.

# %%
columns = ("name", "fixed", "fixed_labels", "moving", "moving_labels")
with (cohort / "pairs.csv").open("w", newline="") as stream:
    writer = csv.writer(stream)
    writer.writerow(columns)
    writer.writerows((n, "template.nii.gz", "template_labels.nii.gz", f"{n}.nii.gz", f"{n}_labels.nii.gz") for n in subjects)
print((cohort / "pairs.csv").read_text()[:230], "...")


# %% [markdown]
# ## Run it
#
# `python -m medwave` is the command `medwave`. Each registration says how it went when it is done. The exit code is 1
# since one failed; the others did not wait for somebody to find out.


# %%
def medwave(*words):
    done = subprocess.run([sys.executable, "-m", "medwave", *map(str, words)], capture_output=True, text=True, check=False)
    print(done.stderr + done.stdout + f"exit code {done.returncode}")
    return done.returncode


options = ("--preset", "fast", "--threads", "1")
code = medwave("batch", cohort / "pairs.csv", "-o", folder / "out", *options)
assert code == 1

# %% [markdown]
# ## What stands out
#
# `summary.csv` has a row per registration, `failed.csv` what went wrong in one line. Which of the others deserve a look?
# Not those below a threshold that fits no other study: those that lie more than 3.5 robust standard deviations (from the
# median and the median deviation) from their own cohort, on the bad side.

# %%
with (folder / "out" / "summary.csv").open(newline="") as stream:
    rows = list(csv.DictReader(stream))
for row in rows:
    print(f"{row['name']:<10}{row['status']:<9}" + (row["error"][:90] if row["error"] else f"Dice {float(row['dice']):.3f}, "
          f"{float(row['dice_affine']):.3f} by the affine; correlation {float(row['similarity_after']):.3f}"))  # fmt: skip

good = [row for row in rows if row["status"] != "failed"]
figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
for axis, (key, label) in zip(axes, [("dice", "Dice of three tissues"), ("largest_mm", "largest displacement, mm")], strict=True):
    values = np.array([float(row[key]) for row in good])
    middle = np.median(values)
    robust = 1.4826 * np.median(np.abs(values - middle))
    axis.scatter(range(len(good)), values, c=["crimson" if r["name"] == "subject4" else "black" for r in good])
    axis.axhspan(middle - 3.5 * robust, middle + 3.5 * robust, color="tab:blue", alpha=0.15)
    axis.set_xticks(range(len(good)), [row["name"].removeprefix("subject") for row in good])
    axis.set_xlabel("subject")
    axis.set_title(label)
plt.show()
assert min(good, key=lambda row: float(row["dice"]))["name"] == "subject4"

# %% [markdown]
# The page `out/index.html` shows the same with pictures, worst first. `medwave view out` serves it: step through by
# keys, mark each pass or fail, and find the marks in `qc.csv`. Its pictures lie beside
# the results: the warped image, and in orange the edges of the fixed one.

# %%
figure, axes = plt.subplots(1, 2, figsize=(12, 3.4), layout="constrained")
for axis, name in zip(axes, ("subject4", "subject5"), strict=True):
    axis.imshow(plt.imread(folder / "out" / "runs" / name / "preview.jpg"), cmap="gray")
    axis.set_title(name)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Mend it and go on
#
# The damaged file is replaced, the command repeated as it was. Only what is not complete, or was asked something else,
# is registered; hashes of the inputs tell.

# %%
(cohort / "subject6.nii.gz").write_bytes(whole)
code = medwave("batch", cohort / "pairs.csv", "-o", folder / "out", *options)
assert code == 0
assert not (folder / "out" / "failed.csv").exists()

# %% [markdown]
# For scripts, `--json -` prints the rows in place of all that. `--jobs 4` runs four at a time, `--cluster slurm:FILE.yaml`
# on the nodes of a cluster, with the same files as a result.
