"""Moving images, labels and points: directions, chains and interpolation against SimpleITK and the known truth."""

import json
import re

import numpy as np
import phantom
import pytest
import SimpleITK as sitk

import medwave
from medwave.core.errors import GeometryError, InputError, MissingFileError, OutputError
from medwave.core.geometry import Grid, Volume
from medwave.volumes import (
    FieldStep,
    LinearStep,
    PointTable,
    SpatialTransform,
    read_points,
    read_volume,
    write_affine,
    write_field,
    write_points,
    write_volume,
)
from medwave.workflows.apply import apply_to_files
from medwave.workflows.options import ApplyOptions
from medwave.workflows.pullback import Pullback
from medwave.workflows.run_folder import RunFolder


@pytest.fixture(scope="module")
def pair():
    return phantom.make_pair(moving_grid=phantom.turned(spacing_mm=(2.5, 3.0, 3.5), angle=0.2, signs=(1, -1, 1)))


@pytest.fixture(scope="module")
def result(pair):
    return medwave.register(pair.fixed, pair.moving, preset="fast", init=phantom.MATRIX, affine="none", threads=1)


@pytest.fixture(scope="module")
def files(pair, result, tmp_path_factory):
    """Paths of the inputs by role, and the folder of the run."""
    folder = tmp_path_factory.mktemp("files")
    inputs = pair.write(folder)
    result.save(folder / "run", inputs={role: str(path) for role, path in inputs.items()})
    return inputs, folder / "run"


@pytest.fixture
def points_file(tmp_path):
    """Points of the fixed head with names, as a CSV in RAS."""
    points = phantom.inside_points()[::211]
    rows = tuple((f"p{n}", "", "", "") for n in range(len(points)))
    write_points(tmp_path / "points.csv", PointTable(points, ("name", "x", "y", "z"), rows))
    return tmp_path / "points.csv"


def itk(path, kind=sitk.sitkFloat32):
    return sitk.ReadImage(str(path), kind)


def itk_resample(image, reference, transform, interpolator=sitk.sitkLinear):
    return sitk.GetArrayFromImage(sitk.Resample(image, reference, transform, interpolator)).T


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_moving_to_fixed_is_the_warped_image_of_the_run(files, pair):
    inputs, run = files
    moved = medwave.apply_transform(run, inputs["moving"], labels=[inputs["moving_labels"]])
    warped = read_volume(run / "warped.nii.gz")
    np.testing.assert_allclose(moved.images[0].data, warped.data, atol=0.5)
    assert moved.images[0].grid.matches(pair.fixed.grid, 1e-4)
    assert moved.images[0].data.dtype == np.float32
    agree = moved.labels[0].data == pair.fixed_labels.data
    assert agree[pair.fixed_labels.data > 0].mean() > 0.85
    assert moved.labels[0].data.dtype == np.uint8


@pytest.mark.parametrize("direction", ["moving-to-fixed", "fixed-to-moving"])
def test_both_directions_are_those_of_the_composites_in_simpleitk(files, direction):
    """Images by the map to where they come from, points by the map to where they go."""
    inputs, run = files
    forward, backward = (run / "transform" / name for name in ("composite.h5", "inverse_composite.h5"))
    source, target = direction.split("-to-")
    pull, push = (forward, backward) if source == "moving" else (backward, forward)
    points = phantom.inside_points()[::301]
    moved = medwave.apply_transform(
        run, inputs[source], labels=inputs[f"{source}_labels"], points=PointTable(points), direction=direction
    )
    expected = itk_resample(itk(inputs[source]), itk(inputs[target]), sitk.ReadTransform(str(pull)))
    assert np.abs(moved.images[0].data - expected).mean() < 1e-3 * np.ptp(expected)
    labels = itk_resample(
        itk(inputs[f"{source}_labels"], sitk.sitkUInt8), itk(inputs[target]),
        sitk.ReadTransform(str(pull)), sitk.sitkNearestNeighbor,
    )  # fmt: skip
    assert (moved.labels[0].data != labels).mean() < 1e-3
    lps = np.array([-1.0, -1.0, 1.0])
    mover = sitk.ReadTransform(str(push))
    there = [np.array(mover.TransformPoint(tuple(p * lps))) * lps for p in points]
    np.testing.assert_allclose(moved.points[0].points_mm, there, atol=0.01)


def test_points_go_where_the_anatomy_is(files):
    """Fixed points sent to moving, and back: home; and they show the same label there."""
    _, run = files
    points = phantom.inside_points()[::37]
    there = medwave.apply_transform(run, points=PointTable(points), direction="fixed-to-moving").points[0].points_mm
    assert (phantom.label(phantom.to_fixed(there)) == phantom.label(points)).mean() > 0.9
    back = medwave.apply_transform(run, points=PointTable(there)).points[0].points_mm
    assert np.linalg.norm(back - points, axis=1).mean() < 0.5


def test_points_and_labels_move_together(files, pair):
    """The centre of a label, moved as a point, is the centre of the moved label."""
    _, run = files
    marker = np.zeros(pair.moving.grid.shape, np.uint16)
    at = pair.moving.grid.to_voxels(phantom.to_moving(np.array([[10.0, -12.0, 8.0]])))[0]
    box = tuple(slice(n - 2, n + 3) for n in np.rint(at).astype(int))
    marker[box] = 700
    centre = pair.moving.grid.to_mm(np.argwhere(marker == 700)).mean(0)
    moved = medwave.apply_transform(
        run, labels=Volume(marker, pair.moving.grid), points=PointTable(centre[None]), direction="moving-to-fixed"
    )
    found = moved.labels[0].grid.to_mm(np.argwhere(moved.labels[0].data == 700)).mean(0)
    assert np.linalg.norm(found - moved.points[0].points_mm[0]) < 2.0, "two thirds of a voxel"
    assert np.linalg.norm(found - centre) > 4


def test_a_result_in_memory_moves_like_its_folder(files, result):
    inputs, run = files
    points = PointTable(phantom.inside_points()[::301])
    for direction in ("moving-to-fixed", "fixed-to-moving"):
        source = inputs[direction.split("-to-")[0]]
        memory, disk = (medwave.apply_transform(t, source, points=points, direction=direction) for t in (result, run))
        assert memory.images[0].grid.matches(disk.images[0].grid, 1e-4)
        np.testing.assert_allclose(memory.images[0].data, disk.images[0].data, atol=1.0)
        np.testing.assert_allclose(memory.points[0].points_mm, disk.points[0].points_mm, atol=2e-3)


def test_labels_of_another_byte_order_move_too(files, pair):
    """As ``nibabel.load("aseg.mgz").dataobj`` gives them."""
    _, run = files
    labels = (pair.moving.data > 0.5).astype(np.int32)
    turned = Volume(labels.astype(">i4"), pair.moving.grid)
    moved, expected = (medwave.apply_transform(run, labels=v).labels[0] for v in (turned, Volume(labels, turned.grid)))
    assert expected.data.any()
    np.testing.assert_array_equal(moved.data, expected.data)


def test_another_reference_grid(files, pair):
    inputs, run = files
    grid = phantom.turned(spacing_mm=(2.0, 4.0, 3.0), order=(1, 2, 0), angle=0.3)
    moved = medwave.apply_transform(run, inputs["moving"], reference=grid).images[0]
    assert moved.grid == grid
    image = sitk.Image([int(n) for n in grid.shape], sitk.sitkFloat32)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetSpacing(grid.spacing_mm.tolist())
    image.SetDirection((lps[:3, :3] / grid.spacing_mm).ravel().tolist())
    expected = itk_resample(itk(inputs["moving"]), image, sitk.ReadTransform(str(run / "transform/composite.h5")))
    assert np.abs(moved.data - expected).mean() < 1e-3 * np.ptp(expected)


def test_transform_files_are_maps_of_points_in_the_order_given(files, pair, tmp_path):
    """The run's two files, field first, are its composite: for images from the reference grid, for points as is."""
    inputs, run = files
    chain = [run / "transform/field.nii.gz", run / "transform/affine.tfm"]
    whole = run / "transform/composite.h5"
    points = PointTable(phantom.inside_points()[::301])
    expected = medwave.apply_transform(run, inputs["moving"]).images[0].data
    for transform in (chain, whole, [whole]):
        image = medwave.apply_transform(transform, inputs["moving"], reference=pair.fixed).images[0]
        np.testing.assert_allclose(image.data, expected, atol=1.0)
        there = medwave.apply_transform(transform, points=points).points[0].points_mm
        np.testing.assert_allclose(there, RunFolder(run).fixed_to_moving.apply_points_mm(points.points_mm), atol=2e-3)
    turned_round = medwave.apply_transform(chain[::-1], points=points).points[0].points_mm
    assert np.linalg.norm(turned_round - there, axis=1).mean() > 0.1


def test_a_long_chain_is_simpleitks(pair, tmp_path):
    """affine, field on a grid of its own, affine, second field: on an oblique reference."""
    rng = np.random.default_rng(0)
    matrices, transforms, paths = [np.eye(4), np.eye(4)], [], []
    for matrix in matrices:
        matrix[:3] += rng.normal(scale=0.03, size=(3, 4))
        matrix[:3, 3] *= 60
    grids = phantom.turned(spacing_mm=(4, 3, 5), angle=0.2), phantom.turned(order=(1, 0, 2), signs=(1, -1, 1))
    for n, (matrix, grid) in enumerate(zip(matrices, grids, strict=True)):
        at = phantom.world(grid)
        field = np.stack([np.sin(at @ rng.normal(scale=0.03, size=3) + k) for k in range(3)]).astype(np.float32)
        write_affine(tmp_path / f"{n}.tfm", matrix)
        write_field(tmp_path / f"{n}.nii.gz", field, grid)
        transforms += [
            sitk.ReadTransform(str(tmp_path / f"{n}.tfm")),
            sitk.DisplacementFieldTransform(itk(tmp_path / f"{n}.nii.gz", sitk.sitkVectorFloat64)),
        ]
        paths += [tmp_path / f"{n}.tfm", tmp_path / f"{n}.nii.gz"]
    whole = sitk.CompositeTransform(3)
    for transform in reversed(transforms):
        whole.AddTransform(transform)
    inputs = pair.write(tmp_path)
    expected = itk_resample(itk(inputs["fixed"]), itk(inputs["moving"]), whole)
    found = medwave.apply_transform(paths, pair.fixed, reference=pair.moving).images[0].data
    assert np.abs(found - expected).mean() < 1e-3 * np.ptp(expected)
    assert np.quantile(np.abs(found - expected), 0.999) < 5e-3 * np.ptp(expected)


@pytest.fixture(scope="module")
def still(pair):
    """A small rotation onto the moving grid."""
    turn = np.eye(4)
    turn[:3, :3] = phantom.turned(angle=0.15, spacing_mm=(1, 1, 1)).affine[:3, :3]
    return Pullback.through(SpatialTransform((LinearStep(turn),)), pair.moving.grid), turn


def test_cubic_is_itks_spline(pair, still, tmp_path):
    pull, turn = still
    inputs = pair.write(tmp_path)
    write_affine(tmp_path / "turn.tfm", turn)
    expected = itk_resample(
        itk(inputs["fixed"]), itk(inputs["moving"]), sitk.ReadTransform(str(tmp_path / "turn.tfm")), sitk.sitkBSpline
    )
    found = pull.image(pair.fixed, "cubic").data
    assert np.abs(found - expected).max() < 1e-3 * np.ptp(expected)
    assert np.abs(pull.image(pair.fixed).data - expected).max() > 0.01 * np.ptp(expected), "linear is another thing"


def test_nearest_and_label_make_no_new_values(pair, still):
    pull, _ = still
    for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.int64):
        labels = Volume((pair.fixed_labels.data * np.int64(10)).astype(dtype), pair.fixed.grid)
        for interpolation in ("nearest", "label"):
            moved = pull.labels(labels, interpolation).data
            assert moved.dtype == dtype
            assert set(np.unique(moved)) == set(np.unique(labels.data))
    image = Volume(np.arange(pair.fixed.data.size, dtype=np.int16).reshape(pair.fixed.data.shape), pair.fixed.grid)
    assert pull.image(image, "nearest").data.dtype == np.int16


def test_label_interpolation_is_smoother_and_as_true(pair, still):
    pull, turn = still
    truth = phantom.label(phantom.world(pair.moving.grid) @ turn[:3, :3].T + turn[:3, 3])
    inside = truth > 0
    nearest, smooth = (pull.labels(pair.fixed_labels, kind).data for kind in ("nearest", "label"))
    assert (smooth == truth)[inside].mean() > (nearest == truth)[inside].mean()


def test_the_identity_changes_nothing(pair):
    nothing = Pullback.through(SpatialTransform(()), pair.fixed.grid)
    for interpolation in ("linear", "cubic", "nearest"):
        np.testing.assert_allclose(nothing.image(pair.fixed, interpolation).data, pair.fixed.data, atol=0.05)
    for interpolation in ("nearest", "label"):
        np.testing.assert_array_equal(nothing.labels(pair.fixed_labels, interpolation).data, pair.fixed_labels.data)


def test_outside_is_zero(pair):
    away = np.eye(4)
    away[0, 3] = 1e4
    far = Pullback.through(SpatialTransform((LinearStep(away),)), pair.fixed.grid)
    assert not any(far.image(pair.fixed, kind).data.any() for kind in ("linear", "cubic", "nearest"))
    assert not any(far.labels(pair.fixed_labels, kind).data.any() for kind in ("nearest", "label"))


def test_a_field_on_the_grid_is_used_as_it_is(pair):
    field = np.random.default_rng(0).normal(size=(3, *pair.fixed.grid.shape)).astype(np.float32)
    pull = Pullback.through(SpatialTransform((FieldStep(field, pair.fixed.grid),)), pair.fixed.grid)
    assert pull.shift_voxels is field


def test_files_are_named_after_their_inputs(files, points_file, tmp_path):
    inputs, run = files
    told = []
    written = apply_to_files(
        run, tmp_path / "a" / "b", images=[inputs["moving"], inputs["fixed"]], labels=[inputs["moving_labels"]],
        points=[points_file], on_file=told.append,
    )  # fmt: skip
    names = ["moving_to-fixed.nii.gz", "fixed_to-fixed.nii.gz", "moving_labels_to-fixed.nii.gz", "points_to-fixed.csv"]
    assert [path.name for path in written] == names
    assert listing(tmp_path / "a" / "b") == sorted(names)
    assert told == [inputs["moving"], inputs["fixed"], inputs["moving_labels"], points_file]
    assert read_volume(written[2], dtype=None).data.dtype == np.uint8
    assert read_points(written[3]).rows[0][0] == "p0"
    back = apply_to_files(run, tmp_path, points=[written[3]], direction="fixed-to-moving", suffix="_again")
    start = read_points(points_file).points_mm
    assert back == [tmp_path / "points_to-fixed_again.csv"]
    assert np.linalg.norm(read_points(back[0]).points_mm - start, axis=1).mean() < 0.5


def test_lps_points(files, points_file, tmp_path):
    _, run = files
    flipped = tmp_path / "lps.csv"
    write_points(flipped, read_points(points_file), space="LPS")
    ras, lps = (
        medwave.apply_transform(run, points=path, space=space).points[0].points_mm
        for path, space in ((points_file, "RAS"), (flipped, "LPS"))
    )
    np.testing.assert_allclose(ras, lps, atol=1e-4)
    options = ApplyOptions(space="LPS")
    written = apply_to_files(run, tmp_path, points=[flipped], options=options)
    np.testing.assert_allclose(read_points(written[0], space="LPS").points_mm, ras, atol=1e-4)


def test_what_seems_not_to_be_of_the_space_is_doubted(files, points_file, pair, tmp_path):
    inputs, run = files
    warnings = []
    there = {"images": [inputs["fixed"]], "points": [points_file], "direction": "fixed-to-moving"}
    apply_to_files(run, tmp_path / "a", **there, on_warning=warnings.append)
    assert not warnings
    far = pair.moving_labels.grid.affine + np.pad([[1e4]], ((0, 3), (3, 0)))
    write_volume(tmp_path / "far.nii.gz", Volume(pair.moving_labels.data, Grid(pair.moving_labels.grid.shape, far)))
    (tmp_path / "far.csv").write_text("x,y,z\n0,0,0\n1e4,0,0\n")
    written = apply_to_files(
        run, tmp_path / "b", labels=[tmp_path / "far.nii.gz"], points=[tmp_path / "far.csv"], on_warning=warnings.append
    )
    assert all(path.exists() for path in written)
    assert re.search(r"far\.nii\.gz: all of the result is 0", warnings[0])
    assert re.search(r"far\.csv: 1 of 2 points arrive outside of the image.*RAS \(--space\)", warnings[1])
    assert len(warnings) == 2


def test_float_labels_become_whole_and_fractions_are_refused(files, pair, tmp_path):
    _, run = files
    whole = Volume(pair.moving_labels.data.astype(np.float32), pair.moving.grid)
    write_volume(tmp_path / "whole.nii.gz", whole)
    assert medwave.apply_transform(run, labels=tmp_path / "whole.nii.gz").labels[0].data.dtype == np.int32
    write_volume(tmp_path / "image.nii.gz", pair.moving)
    with pytest.raises(InputError, match="labels are whole numbers"):
        medwave.apply_transform(run, labels=tmp_path / "image.nii.gz")


def test_a_run_that_does_not_tell_its_moving_grid_asks_for_a_reference(files, result, pair, tmp_path):
    inputs, _ = files
    result.save(tmp_path / "run")
    mark = tmp_path / "run" / "run.json"
    record = json.loads(mark.read_text())
    del record["grids"]
    mark.write_text(json.dumps(record))
    with pytest.raises(InputError, match="--reference"):
        medwave.apply_transform(tmp_path / "run", inputs["fixed"], direction="fixed-to-moving")
    moved = medwave.apply_transform(
        tmp_path / "run", inputs["fixed"], direction="fixed-to-moving", reference=inputs["moving"]
    )
    assert moved.images[0].grid.matches(pair.moving.grid, 1e-4)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda f, run: medwave.apply_transform(run), InputError, "nothing to move"),
        (lambda f, run: medwave.apply_transform([], f["moving"]), InputError, "no transform"),
        (lambda f, run: medwave.apply_transform(run.parent, f["moving"]), InputError, "run.json"),
        (lambda f, run: medwave.apply_transform(run / "absent", f["moving"]), MissingFileError, "absent: no such file"),
        (lambda f, run: medwave.apply_transform(run, f["moving"], direction="up"), InputError, "direction: one of"),
        (lambda f, run: medwave.apply_transform(run, f["moving"], interpolation="x"), InputError, "interpolation"),
        (lambda f, run: medwave.apply_transform(run / "transform/affine.tfm", f["moving"]), InputError, "--reference"),
        (
            lambda f, run: medwave.apply_transform(
                run / "transform/affine.tfm", f["moving"], direction="moving-to-fixed", reference=f["fixed"]
            ),
            InputError,
            "leave --direction out",
        ),
        (
            lambda f, run: medwave.apply_transform(
                run / "transform/affine.tfm", f["moving"], points=PointTable(np.zeros((1, 3))), reference=f["fixed"]
            ),
            InputError,
            "opposite maps",
        ),
        (
            lambda f, run: medwave.apply_transform(run / "warped.nii.gz", f["moving"], reference=f["fixed"]),
            GeometryError,
            "displacement field",
        ),
    ],
)
def test_unusable_calls_are_refused(files, call, error, match):
    with pytest.raises(error, match=match):
        call(*files)


def test_all_files_or_none(files, tmp_path):
    inputs, run = files
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(inputs["moving"].read_bytes()[:5000])
    kept = tmp_path / "kept"
    kept.mkdir()
    old = kept / "moving_to-fixed.nii.gz"
    old.write_text("older result")
    for folder in (tmp_path / "new" / "folder", kept):
        with pytest.raises(ValueError, match=r"broken\.nii\.gz: the compressed data is truncated"):
            apply_to_files(run, folder, images=[inputs["moving"], broken])
    assert listing(tmp_path) == ["broken.nii.gz", "kept", "kept/moving_to-fixed.nii.gz"]
    assert old.read_text() == "older result"


def test_inputs_and_each_other_are_never_replaced(files, pair, tmp_path):
    _, run = files
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_volume(tmp_path / name / "x.nii.gz", pair.moving)
    before = (tmp_path / "a" / "x.nii.gz").read_bytes()
    with pytest.raises(OutputError, match="would replace an input"):
        apply_to_files(run, tmp_path / "a", images=[tmp_path / "a" / "x.nii.gz"], suffix="")
    with pytest.raises(OutputError, match="same name"):
        apply_to_files(run, tmp_path / "c", images=[tmp_path / n / "x.nii.gz" for n in "ab"])
    with pytest.raises(OutputError, match="would replace an input"):
        apply_to_files(
            run, tmp_path / "b", images=[tmp_path / "a" / "x.nii.gz"], reference=tmp_path / "b" / "x.nii.gz", suffix=""
        )
    assert (tmp_path / "a" / "x.nii.gz").read_bytes() == before
    assert listing(tmp_path) == ["a", "a/x.nii.gz", "b", "b/x.nii.gz"]
