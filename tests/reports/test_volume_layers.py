"""Layers of the page of volumes: what is kept at half the resolution, and where it lies."""

import nibabel as nib
import numpy as np
import pytest
from report_cases import ORIENTATIONS, ball, stored

from medwave.core.geometry import Grid, Volume
from medwave.reports.colours import distinct
from medwave.reports.volumes import volume_page, volume_set


def layers(data, affine=None, **more):
    fixed = Volume(data, Grid(data.shape, np.eye(4) if affine is None else affine), "fixed")
    return volume_set(fixed, [("warped", "Warped", data)], **more)


def read(volumes, name, folder, **how):
    """A layer as nibabel reads it: values and affine."""
    content = volumes.file(name, **how)
    path = folder / ("a.nii.gz" if content[:2] == b"\x1f\x8b" else "a.nii")
    path.write_bytes(content)
    image = nib.load(path)
    return image.get_fdata(), image.affine


@pytest.mark.parametrize("stored_as", ORIENTATIONS[::11])
def test_half_the_resolution_keeps_every_place_and_value_within_a_level(tmp_path, stored_as):
    data, affine = stored(ball((21, 24, 18), radius_mm=7), (1.0, 1.5, 2.0), *stored_as)
    volumes = layers(data, affine)
    half, placed = read(volumes, "fixed", tmp_path, half=True)
    assert half.shape == tuple(-(-n // 2) for n in data.shape)
    even = tuple(slice(0, 2 * (n // 2)) for n in data.shape)
    means = data[even].reshape(*(x for n in data.shape for x in (n // 2, 2))).mean(axis=(1, 3, 5))
    inner = half[tuple(slice(0, n // 2) for n in data.shape)]
    fixed = volumes.layers[0]
    step = (fixed.high - fixed.low) / 255
    assert np.abs(inner - np.clip(means, fixed.low, fixed.high)).max() <= 0.51 * step
    first = np.mean([(affine @ [*corner, 1])[:3] for corner in np.ndindex(2, 2, 2)], axis=0)
    assert np.allclose(placed[:3, 3], first)
    assert np.allclose(placed[:3, :3], 2 * affine[:3, :3])


def test_no_fold_vanishes_and_change_of_volume_is_in_doublings(tmp_path):
    data = ball((20, 20, 20), radius_mm=7)
    jacobian = np.full(data.shape, 2.0, dtype=np.float32)
    jacobian[:10] = 0.5
    jacobian[5, 5, 5] = -0.1
    volumes = layers(data, jacobian=jacobian)
    full, _ = read(volumes, "jacobian", tmp_path)
    assert full[5, 5, 5] == -5
    assert (full[0, 0, 0], full[15, 0, 0]) == (-1, 1)
    half, _ = read(volumes, "jacobian", tmp_path, half=True)
    layer = next(layer for layer in volumes.layers if layer.name == "jacobian")
    lowest = half == half.min()
    assert lowest.sum() == 1
    assert lowest[2, 2, 2]
    assert half[0, 0, 0] == pytest.approx(max(-1, layer.low), abs=0.02)


def test_labels_become_indices_that_lead_back(tmp_path):
    data = ball((20, 20, 20), radius_mm=7)
    labels = np.where(data > 50, 1035, 0)
    labels[0] = 17
    volumes = layers(data, labels=[("fixed-labels", "Fixed labels", labels)])
    index, _ = read(volumes, "fixed-labels", tmp_path)
    layer = volumes.layers[-1]
    assert np.array_equal(np.array(layer.values)[index.astype(int)], labels)
    assert len(np.unique(distinct(256), axis=0)) > 250
    assert not distinct(256)[0].any()


def test_the_page_escapes_names_and_holds_volumes_only_when_asked():
    volumes = layers(ball((20, 20, 20), radius_mm=7))
    page = volume_page(volumes, title="<b>&", notes=["<i>"])
    assert "&lt;b&gt;&amp;" in page
    assert "<i>" not in page.split("<script")[0]
    assert '"data": ""' in page
    inline = volume_page(volumes, title="x", inline=True)
    assert '"address": ""' in inline
    assert len(inline) > len(page)
