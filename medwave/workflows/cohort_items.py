"""Which registrations a cohort asks for: from a table, a folder or a BIDS dataset.

A table of pairs has the columns ``fixed`` and ``moving`` and, where wanted, ``name`` and any further input of ``medwave
register`` (:data:`ROLES`, :data:`CHANNELS`); its paths are relative to it. In a folder each subfolder that holds a file
named ``fixed`` or ``moving`` is a pair, which fails when it lacks one of them, and its other files go by their role;
images that lie in the folder itself are registered to a template or to each other. A file ``X_labels``, ``X_seg`` or
``X_dseg`` is the label map of the image ``X``, or else of the one image whose name begins with ``X_``; a file
``X_mask`` is no image. In a BIDS dataset the images of one suffix are taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

from medwave.core.errors import InputError, MissingFileError
from medwave.core.files import StrPath, input_file
from medwave.workflows.batch import own_names, read_table
from medwave.workflows.bids import BidsName, bids_images, is_bids

ROLES = (
    "fixed", "moving", "fixed_labels", "moving_labels", "mask_fixed", "mask_moving", "lesion_fixed", "lesion_moving",
    "init", "landmarks_fixed", "landmarks_moving",
)  # fmt: skip
SIDES = ("fixed", "moving")
CHANNELS = tuple(f"{side}_channel_{number}" for number in range(1, 5) for side in SIDES)
"""Further images of the two subjects: columns and file names; those of one number belong together."""
ENDINGS = (".nii.gz", ".nii", ".mgz", ".mgh", ".nrrd", ".nhdr", ".mha", ".mhd")
_LABELS = ("_labels", "_label", "_dseg", "_seg")
_NO_IMAGES = (*_LABELS, "_mask")
_TAKEN = ("index.html", "failed.csv", "summary.csv", "dataset_description.json", ".bidsignore")


@dataclass(frozen=True)
class PairItem:
    """One registration of a cohort.

    Attributes:
        name: of its folder.
        files: role -> path, as the arguments of :func:`medwave.register`.
        bids: names of the fixed (None: a template) and of the moving image in a BIDS dataset; None outside one.
    """

    name: str
    files: Mapping[str, Path] = field(default_factory=dict)
    bids: tuple[BidsName | None, BidsName] | None = None


@dataclass(frozen=True)
class Subject:
    """One image of a cohort, with its label map where there is one."""

    name: str
    image: Path
    labels: Path | None = None
    bids: BidsName | None = None


def stem(path: Path) -> str:
    """A file's name without its ending: ``a.b`` of ``a.b.nii.gz``."""
    ending = next((e for e in ENDINGS if path.name.lower().endswith(e)), path.suffix)
    return path.name[: len(path.name) - len(ending)]


def cohort_subjects(source: StrPath, *, suffix: str = "T1w") -> list[Subject]:
    """The images of a folder, of a BIDS dataset, or of a table with the column ``image`` (``labels``, ``name`` free).

    Raises:
        MissingFileError, InputError: when there is none.
    """
    path = Path(source)
    if not path.is_dir():
        rows = [row for _, row in read_table(input_file(path), ("image",), ("image", "labels", "name"))]
        names = own_names((row["name"] or stem(Path(row["image"])) for row in rows), _TAKEN)
        return [
            Subject(name, path.parent / row["image"], path.parent / row["labels"] if row["labels"] else None)
            for name, row in zip(names, rows, strict=True)
        ]
    if is_bids(path):
        return [
            Subject(stem(image), image, _beside(image, name), name)
            for image, name in sorted(bids_images(path, suffix).items())
        ]
    images = [p for p in sorted(path.iterdir()) if _is_image(p) and not stem(p).endswith(_NO_IMAGES)]
    if not images:
        raise InputError(
            f"{path}: holds no image ({', '.join(ENDINGS)}; {', '.join(_NO_IMAGES)} before it are none); name a folder "
            "of images or a table"
        )
    labels = _labels_of(images, [p for p in sorted(path.iterdir()) if _is_image(p) and stem(p).endswith(_LABELS)])
    names = own_names((stem(image) for image in images), _TAKEN)
    return [Subject(name, image, labels.get(image)) for name, image in zip(names, images, strict=True)]


def cohort_pairs(
    source: StrPath,
    *,
    template: StrPath | None = None,
    template_labels: StrPath | None = None,
    all_pairs: bool = False,
    suffix: str = "T1w",
) -> list[PairItem]:
    """The registrations that a source asks for.

    Args:
        source: table of pairs, folder, or BIDS dataset.
        template: every image is registered to this one.
        template_labels: its label map.
        all_pairs: every image is registered to every other one.
        suffix: of the images of a BIDS dataset.

    Raises:
        MissingFileError, InputError: when the source asks for nothing, or it is not clear for what.
    """
    path = Path(source)
    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder; check the name")
    if template is not None and all_pairs:
        raise InputError("--to-template and --all-pairs: images go to a template or to each other; choose one")
    if template is not None:
        subjects = cohort_subjects(path, suffix=suffix)
        if template_labels is not None and not any(subject.labels for subject in subjects):
            raise InputError(
                f"{template_labels}: labels of the template are compared with those of the images, and none of the "
                f"{len(subjects)} of {path} has a label map (X_labels, X_seg or X_dseg beside X, or the column labels)"
            )
        return [_to(Path(template), template_labels, subject) for subject in subjects]
    if all_pairs:
        return [_between(*two) for two in permutations(cohort_subjects(path, suffix=suffix), 2)]
    if not path.is_dir():
        return _table_pairs(path)
    pairs = [PairItem(folder.name, files) for folder in sorted(path.iterdir()) if (files := _pair_in(folder))]
    if not pairs:
        raise InputError(
            f"{path}: it is not said what is registered to what; name a template (--to-template FILE), or --all-pairs, "
            "or give a table with the columns fixed and moving, or subfolders with files named fixed and moving"
        )
    return pairs


def _table_pairs(path: Path) -> list[PairItem]:
    roles = (*ROLES, *CHANNELS)
    rows = read_table(path, ("fixed", "moving"), (*roles, "name"))
    files = [{role: path.parent / row[role] for role in roles if row[role]} for _, row in rows]
    for (line, _), one in zip(rows, files, strict=True):
        _check_channels(f"{path}: line {line}", one)
    names = [
        row["name"] or f"{stem(one['moving'])}_to_{stem(one['fixed'])}"
        for (_, row), one in zip(rows, files, strict=True)
    ]
    return [PairItem(name, one) for name, one in zip(own_names(names, _TAKEN), files, strict=True)]


def _pair_in(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    named: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if stem(file) in (*ROLES, *CHANNELS) and _is_file(file):
            named.setdefault(stem(file), []).append(file)
    files: dict[str, Path] = {}
    for role, each in named.items():
        images = [file for file in each if _is_image(file)] or each  # others, such as notes, go by the same name
        if len(images) > 1:
            raise InputError(f"{folder}: {images[0].name} and {images[1].name} are both {role}; keep one of them there")
        files[role] = images[0]
    _check_channels(str(folder), files)
    if not files.keys() & set(SIDES):
        return {}
    return {side: folder / f"{side}.nii.gz" for side in SIDES} | files  # one that is missing fails by this name


def _check_channels(where: str, files: Mapping[str, Path]) -> None:
    for role in CHANNELS:
        side, number = role.split("_channel_")
        other = f"{'moving' if side == 'fixed' else 'fixed'}_channel_{number}"
        if role in files and other not in files:
            raise InputError(f"{where}: {role} has no counterpart; name {other} too")


def _to(template: Path, labels: StrPath | None, subject: Subject) -> PairItem:
    files = {"fixed": template, "moving": subject.image}
    if labels is not None and subject.labels is not None:
        files |= {"fixed_labels": Path(labels), "moving_labels": subject.labels}
    return PairItem(subject.name, files, None if subject.bids is None else (None, subject.bids))


def _between(fixed: Subject, moving: Subject) -> PairItem:
    files = {"fixed": fixed.image, "moving": moving.image}
    if fixed.labels is not None and moving.labels is not None:
        files |= {"fixed_labels": fixed.labels, "moving_labels": moving.labels}
    bids = None if fixed.bids is None or moving.bids is None else (fixed.bids, moving.bids)
    return PairItem(f"{moving.name}_to_{fixed.name}", files, bids)


def _is_file(path: Path) -> bool:
    """Whether it is a file, or a link to one that is not there, such as content not fetched: that fails by its name."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _is_image(path: Path) -> bool:
    return _is_file(path) and not path.name.startswith(".") and path.name.lower().endswith(ENDINGS)


def _labels_of(images: Sequence[Path], maps: Sequence[Path]) -> dict[Path, Path]:
    """Image -> its label map: that of its own name, else that of the beginning of it.

    Raises:
        InputError: when it is not clear which.
    """
    own: dict[Path, list[Path]] = {}
    others: dict[Path, list[Path]] = {}
    for path in maps:
        base = stem(path)[: -len(next(e for e in _LABELS if stem(path).endswith(e)))]
        exact = [image for image in images if stem(image) == base]
        begin = [image for image in images if stem(image).startswith(f"{base}_")]
        if len(chosen := exact or begin) == 1:
            (own if exact else others).setdefault(chosen[0], []).append(path)
    found = others | own
    for image, each in found.items():
        if len(each) > 1:
            raise InputError(
                f"{image}: {each[0].name} and {each[1].name} are both label maps of it; move one away, or name pairs "
                "and label maps in a table"
            )
    return {image: each[0] for image, each in found.items()}


def _beside(image: Path, name: BidsName) -> Path | None:
    """The segmentation with the same entities in the same folder."""
    path = image.with_name(name.file("dseg", ".nii.gz"))
    return path if _is_file(path) else None
