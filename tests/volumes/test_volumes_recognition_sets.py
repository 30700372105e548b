"""Pictures, record files, packed and listed pairs: what was written is read, and nothing in a file is ever run."""

import io
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from medwave.core.errors import InputError, MissingFileError, VolumeFormatError
from medwave.volumes import RecordFile, read_pair_bin, read_pair_list, read_picture
from medwave.volumes.pictures import picture_files

MAGIC = struct.pack("<I", 0xCED7230A)


def png(value, size=(6, 5)):
    stream = io.BytesIO()
    Image.new("RGB", size, (value, 0, 255 - value)).save(stream, "PNG")
    return stream.getvalue()


def noise():
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


NOISE = noise()

# pictures


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 3), ("P", 3), ("1", 1), ("LA", 1)])
def test_pictures_of_each_kind_have_one_or_three_channels(tmp_path, mode, channels):
    path = tmp_path / "p.png"
    Image.new("RGB", (7, 4), (255, 255, 255)).convert(mode).save(path)
    picture = read_picture(path)
    assert picture.shape == (4, 7, channels)
    assert (picture == 255).all()


def test_the_turn_that_a_camera_noted_is_carried_out(tmp_path):
    image = Image.fromarray(np.array([[250, 10, 10]], np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    image.save(tmp_path / "p.png", exif=exif)
    assert read_picture(tmp_path / "p.png")[:, 0, 0].tolist() == [250, 10, 10]


@pytest.mark.parametrize("content", [b"", b"hello " * 30, NOISE[:60], NOISE[:-900]])
def test_what_is_no_whole_picture_is_refused_by_name(tmp_path, content):
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(VolumeFormatError, match=r"p\.png: not a readable picture, or damaged"):
        read_picture(tmp_path / "p.png")


def test_sixteen_bits_and_absurd_sizes_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(VolumeFormatError, match="8 bits per channel"):
        read_picture(tmp_path / "deep.png")
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    with pytest.raises(VolumeFormatError, match="9000 x 9000 pixels are too many"):
        read_picture(tmp_path / "huge.png")


def test_pictures_of_a_folder_come_in_order_and_hidden_ones_do_not(tmp_path):
    for name in ("b/2.png", "b/1.PNG", "a/deep/x.jpg", ".hidden/y.png", "a/.z.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = [p.relative_to(tmp_path).as_posix() for p in picture_files(tmp_path)]
    assert names == ["a/deep/x.jpg", "b/1.PNG", "b/2.png"]


# record files


def part(flag, content):
    return MAGIC + struct.pack("<I", flag << 29 | len(content)) + content + b"\0" * (-len(content) % 4)


def header(labels, number):
    if len(labels) == 1:
        return struct.pack("<IfQQ", 0, labels[0], number, 0)
    return struct.pack(f"<IfQQ{len(labels)}f", len(labels), 0, number, 0, *labels)


def write_records(path, records):
    """Records by key; one whose content holds the magic number at a multiple of four is written in parts."""
    content, lines = b"", []
    for key, body in records.items():
        lines.append(f"{key}\t{len(content)}")
        pieces, start = [], 0
        for place in range(0, len(body) - 3, 4):
            if body[place : place + 4] == MAGIC:
                pieces.append(body[start:place])
                start = place + 4
        pieces.append(body[start:])
        for n, piece in enumerate(pieces):
            flag = 0 if len(pieces) == 1 else 1 if n == 0 else 3 if n == len(pieces) - 1 else 2
            content += part(flag, piece)
    path.write_bytes(content)
    path.with_suffix(".idx").write_text("\n".join(lines) + "\n")


def test_records_of_identities_are_no_pictures_beyond_what_float32_counts(tmp_path):
    """The first key that is no picture, 33554435, stands as 33554436 in the first record."""
    first, end = 2**25 + 1, 2**25 + 3
    pictures = {key: header([7.0], key) + png(key % 200) for key in range(first, end)}
    identity = {end: header([float(first), float(end)], end)}
    write_records(tmp_path / "train.rec", {0: header([float(end), float(end + 1)], 0)} | pictures | identity)
    records = RecordFile(tmp_path / "train.rec")
    assert records.keys.tolist() == list(pictures)
    assert records.labels().tolist() == [7, 7]


@pytest.fixture
def record_path(tmp_path):
    path = tmp_path / "train.rec"
    pictures = {key: header([label], key) + png(key) for key, label in ((1, 4.0), (2, 4.0), (3, 9.0))}
    pictures[3] = header([9.0, 0.5], 3) + png(3)
    identities = {4: header([1.0, 3.0], 4), 5: header([3.0, 4.0], 5)}
    write_records(path, {0: header([4.0, 6.0], 0)} | pictures | identities)
    return path


def test_records_of_pictures_are_told_from_those_of_identities(record_path):
    records = RecordFile(record_path)
    assert records.keys.tolist() == [1, 2, 3]
    assert records.labels().tolist() == [4, 4, 9]
    assert records.read(2).content == png(2)
    assert records.read(3).labels.tolist() == [9.0, 0.5]
    assert records.read(0).content == b""


def test_a_record_that_holds_the_magic_number_comes_back_whole(tmp_path):
    body = header([1.0], 1) + MAGIC + b"abcd" + MAGIC + MAGIC + b"end"
    write_records(tmp_path / "t.rec", {1: body, 2: header([2.0], 2) + b"x"})
    records = RecordFile(tmp_path / "t.rec")
    assert records.read(1).content == body[24:]
    assert records.read(2).content == b"x"
    assert records.keys.tolist() == [1, 2]


def test_damaged_record_files_are_refused(record_path):
    whole = record_path.read_bytes()
    record_path.write_bytes(whole[:-5] + b"\0" * 5)
    RecordFile(record_path)
    index = record_path.with_suffix(".idx")
    last = int(index.read_text().split()[-1])
    record_path.write_bytes(whole[: last + 10])
    with pytest.raises(VolumeFormatError, match="record 5 is cut short"):
        RecordFile(record_path).read(5)
    record_path.write_bytes(whole)
    index.write_text(index.read_text().replace(f"5\t{last}", f"5\t{last - 4}"))
    with pytest.raises(VolumeFormatError, match="record 5 is cut short or not where its index says"):
        RecordFile(record_path).read(5)
    with pytest.raises(VolumeFormatError, match="has no record 77"):
        RecordFile(record_path).read(77)
    for text, message in (("1\t999999\n", "lies outside"), ("one two\n", "key TAB offset"), ("", "names no record")):
        index.write_text(text)
        with pytest.raises(VolumeFormatError, match=message):
            RecordFile(record_path)
    index.unlink()
    with pytest.raises(MissingFileError, match=r"train\.idx: a record file is read by its index"):
        RecordFile(record_path)


# packed pairs


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("outer", [tuple, list])
def test_packed_pairs_of_each_protocol_are_read(tmp_path, protocol, outer):
    if protocol < 3:  # bytes as Python 2 wrote them: Python 3 cannot
        body = b"".join(b"T" + struct.pack("<I", len(png(v))) + png(v) for v in (1, 2, 1, 3))
        answers = b"\x88\x89" if protocol == 2 else b"I01\nI00\n"
        content = (b"\x80\x02" if protocol == 2 else b"") + b"(](" + body + b"e](" + answers + b"et."
    else:
        pictures = [png(1), png(2), png(1), png(3)]
        content = pickle.dumps(outer([pictures, [True, False]]), protocol=protocol)
    (tmp_path / "lfw.bin").write_bytes(content)
    pictures, same = read_pair_bin(tmp_path / "lfw.bin")
    assert pictures == [png(1), png(2), png(1), png(3)]
    assert same.tolist() == [True, False]


class Opens:
    """What an attacker would put into a file: unpickling it would write another one."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_program_in_a_file_is_never_run(tmp_path, protocol):
    for value in (Opens(tmp_path / "hacked"), ([Opens(tmp_path / "hacked"), b""], [True])):
        (tmp_path / "evil.bin").write_bytes(pickle.dumps(value, protocol=protocol))
        with pytest.raises(VolumeFormatError, match=r"evil\.bin: holds more than bytes.*could run code"):
            read_pair_bin(tmp_path / "evil.bin")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a pickle, or damaged"),
        (b"hello", "not a pickle, or damaged"),
        (pickle.dumps(([b"a", b"b"], [True]))[:-4], "not a pickle, or damaged"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.", "not a pickle, or damaged"),
        (b"e.", "not a pickle, or damaged"),
        (b"h\x07.", "not a pickle, or damaged"),
        (pickle.dumps([1, 2, 3]), "pair of lists"),
        (pickle.dumps(([b"a"], [True])), "two pictures per pair"),
        (pickle.dumps(([b"a", 5], [True])), "pictures must be bytes"),
        (pickle.dumps(([b"a", b"b"], [7])), "answers True or False"),
        (pickle.dumps(([], [])), "two pictures per pair"),
    ],
)
def test_what_is_no_set_of_pairs_is_refused(tmp_path, content, message):
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(VolumeFormatError, match=message):
        read_pair_bin(tmp_path / "x.bin")


def test_each_cut_of_a_file_is_an_error_of_ours(tmp_path):
    content = pickle.dumps(([png(1), png(2)], [True]), protocol=4)
    for length in range(0, len(content), 7):
        (tmp_path / "x.bin").write_bytes(content[:length])
        with pytest.raises(VolumeFormatError):
            read_pair_bin(tmp_path / "x.bin")


# listed pairs


def test_pairs_in_the_form_of_lfw(tmp_path):
    (tmp_path / "pairs.txt").write_text("2\t1\nAnn Lee\t1\t12\nAnn Lee\t2\tBo\t3\nBo\t1\t2\nBo\t1\tCy\t4\n")
    pairs = read_pair_list(tmp_path / "pairs.txt")
    assert pairs.folds == 2
    assert pairs.same.tolist() == [True, False, True, False]
    assert pairs.first == ("Ann Lee/Ann Lee_0001", "Ann Lee/Ann Lee_0002", "Bo/Bo_0001", "Bo/Bo_0001")
    assert pairs.second[:2] == ("Ann Lee/Ann Lee_0012", "Bo/Bo_0003")


def test_plain_pairs_and_a_line_with_their_number(tmp_path):
    (tmp_path / "pairs.txt").write_text("\ufeff2\na/1.png b/2.png 0\n\nc d.png\te.png\t1\n", encoding="utf-8")
    pairs = read_pair_list(tmp_path / "pairs.txt")
    assert (pairs.first, pairs.second) == (("a/1.png", "c d.png"), ("b/2.png", "e.png"))
    assert pairs.same.tolist() == [False, True]
    assert pairs.folds == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no pair"),
        ("10\t300\n", "names no pair"),
        ("a b\n", r"line 1: a pair is .*got 'a b'"),
        ("a 1 2\na x 2\n", "line 2: a pair is"),
        ("3\t1\na\t1\t2\na\t1\tb\t2\n", "3 folds, which do not divide 2 pairs"),
    ],
)
def test_lists_that_are_none_are_refused(tmp_path, text, message):
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_pair_list(tmp_path / "pairs.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(InputError, match="text file in UTF-8"):
        read_pair_list(tmp_path / "binary.txt")
