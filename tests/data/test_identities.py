"""Sets of identities: folders, record files and arrays tell the same; items follow from the seed alone."""

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from medwave.core.errors import InputError, MissingFileError, VolumeFormatError
from medwave.data import ArraySet, FaceItems, open_identities, open_pairs
from medwave.data.identities import PartOfSet

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (6, 20, 18, 3), dtype=np.uint8)
PEOPLE = [2, 0, 2, 1, 0, 2]


def png(picture):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def write_folder(folder):
    for n, person in enumerate(PEOPLE):
        (folder / "part" / f"person{person}").mkdir(parents=True, exist_ok=True)
        (folder / "part" / f"person{person}" / f"{n}.png").write_bytes(png(PICTURES[n]))
    return folder


def write_records(path):
    content, lines = b"", []
    for n, person in enumerate(PEOPLE):
        body = struct.pack("<IfQQ", 0, person, n + 1, 0) + png(PICTURES[n])
        lines.append(f"{n + 1}\t{len(content)}")
        content += struct.pack("<II", 0xCED7230A, len(body)) + body + b"\0" * (-len(body) % 4)
    path.write_bytes(content)
    path.with_suffix(".idx").write_text("\n".join(lines))
    return path


def test_folders_records_and_arrays_hold_the_same(tmp_path):
    np.savez(tmp_path / "set.npz", images=PICTURES, labels=np.array(PEOPLE, np.uint8))
    folder = open_identities(write_folder(tmp_path / "faces"))
    assert folder.names == ("part/person0", "part/person1", "part/person2")
    assert folder.sources[0] == "part/person0/1.png"
    records, arrays = open_identities(write_records(tmp_path / "train.rec")), open_identities(tmp_path / "set.npz")
    assert records.labels.tolist() == arrays.labels.tolist() == PEOPLE
    order = [int(source.rpartition("/")[2].removesuffix(".png")) for source in folder.sources]
    assert folder.labels.tolist() == [PEOPLE[n] for n in order]
    for place, n in enumerate(order):
        for found in (folder.picture(place), records.picture(n), arrays.picture(n)):
            np.testing.assert_array_equal(found, PICTURES[n])


def test_a_part_counts_its_identities_anew():
    part = PartOfSet(ArraySet(PICTURES, PEOPLE), np.array([0, 2]))
    assert part.labels.tolist() == [1, 0, 1, 0, 1]
    assert part.names == ("0", "2")
    np.testing.assert_array_equal(part.picture(3), PICTURES[4])


def test_what_is_no_set_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match="no such folder"):
        open_identities(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match="holds no picture"):
        open_identities(tmp_path / "empty")
    (tmp_path / "set.csv").touch()
    with pytest.raises(VolumeFormatError, match=r"come as a folder, a \.rec"):
        open_identities(tmp_path / "set.csv")
    np.savez(tmp_path / "set.npz", images=PICTURES)
    with pytest.raises(VolumeFormatError, match="needs the arrays images and labels or subject, has images"):
        open_identities(tmp_path / "set.npz")
    np.savez(tmp_path / "set.npz", images=PICTURES, labels=np.array([{}] * 6, dtype=object))
    with pytest.raises(VolumeFormatError, match=r"not an \.npz of plain arrays"):
        open_identities(tmp_path / "set.npz")
    (tmp_path / "set.npz").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(VolumeFormatError, match=r"not an \.npz"):
        open_identities(tmp_path / "set.npz")
    for pictures, people in ((PICTURES[..., :2], PEOPLE), (PICTURES.astype(float), PEOPLE), (PICTURES, PEOPLE[:2])):
        with pytest.raises(InputError):
            ArraySet(pictures, people)


def test_each_pass_brings_every_picture_once_in_another_order():
    items = FaceItems(ArraySet(PICTURES, PEOPLE), 24, (16, 32), mirror=False)
    passes = [[int(items[6 * n + place]["sample"]) for place in range(6)] for n in range(4)]
    assert all(sorted(each) == list(range(6)) for each in passes)
    assert len({tuple(each) for each in passes}) > 1
    for item in map(items.__getitem__, range(24)):
        assert int(item["label"]) == PEOPLE[int(item["sample"])]
        assert item["image"].shape == (3, 16, 32)


def test_items_depend_on_seed_and_index_alone():
    options = {"mirror": True, "shift": 3, "seed": 5}
    there, back = (FaceItems(ArraySet(PICTURES, PEOPLE), 18, (16, 16), **options) for _ in range(2))
    forth = [there[n]["image"] for n in range(18)]
    for n in reversed(range(18)):
        assert torch.equal(back[n]["image"], forth[n])
    other = FaceItems(ArraySet(PICTURES, PEOPLE), 18, (16, 16), **options | {"seed": 6})
    assert any(not torch.equal(other[n]["image"], forth[n]) for n in range(18))


def test_half_of_the_items_are_mirrored():
    ramp = np.broadcast_to(np.arange(0, 160, 10, dtype=np.uint8), (2, 16, 16))
    items = FaceItems(ArraySet(ramp, [0, 1]), 400, (16, 16), channels=1)
    rising = [bool(items[n]["image"][0, 0, 0] < items[n]["image"][0, 0, -1]) for n in range(400)]
    assert 160 < sum(rising) < 240


def test_one_identity_and_wide_shifts_are_refused():
    with pytest.raises(InputError, match="2 or more are needed"):
        FaceItems(ArraySet(PICTURES, [3] * 6), 6, (16, 16))
    with pytest.raises(InputError, match="shift"):
        FaceItems(ArraySet(PICTURES, PEOPLE), 6, (16, 16), shift=16)


def test_listed_pairs_find_pictures_with_and_without_ending(tmp_path):
    folder = write_folder(tmp_path / "faces") / "part"
    (folder / "person1" / "3.png").rename(folder / "person1" / "person1_0001.png")
    (folder / "person2" / "0.png").rename(folder / "person2" / "person2_0007.png")
    (tmp_path / "pairs.txt").write_text("person1\t1\tperson2\t7\n")
    pairs = open_pairs(tmp_path / "pairs.txt", folder)
    np.testing.assert_array_equal(pairs.picture(1), PICTURES[0])
    (tmp_path / "plain.txt").write_text("person0/1.png person0/4 1\nperson0/1.png person2/2 0\n")
    pairs = open_pairs(tmp_path / "plain.txt", folder)
    assert len(pairs) == 3
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0, 0], [1, 2])
    (tmp_path / "pairs.txt").write_text("person1\t1\t2\n")
    with pytest.raises(MissingFileError, match="person1_0002: no such picture"):
        open_pairs(tmp_path / "pairs.txt", folder)
    with pytest.raises(InputError, match="give their folder with --images"):
        open_pairs(tmp_path / "pairs.txt", None)


@pytest.mark.data
def test_real_sets_have_their_published_numbers(data_folder, tmp_path):
    import zipfile

    people = open_identities(data_folder / "images" / "orl_faces" / "orl_faces.npz")
    assert (len(people), len(people.names), people.picture(0).shape) == (400, 40, (112, 92, 1))
    with zipfile.ZipFile(data_folder / "images" / "omniglot" / "images_background_small1.zip") as packed:
        packed.extractall(tmp_path)
    drawings = open_identities(tmp_path)
    assert (len(drawings), len(drawings.names), drawings.picture(0).shape) == (2720, 136, (105, 105, 1))
    assert drawings.names[0] == "images_background_small1/Balinese/character01"
    assert np.bincount(drawings.labels).tolist() == [20] * 136
