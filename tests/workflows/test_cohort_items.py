"""Which registrations a cohort asks for: tables, folders, BIDS datasets and their names."""

import pytest

from medwave.core.errors import InputError, MissingFileError
from medwave.workflows.bids import BidsName, parse_name
from medwave.workflows.cohort_items import cohort_pairs, cohort_subjects


def files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_a_table_names_files_beside_it(tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("fixed,moving,fixed_labels,name\na.nii.gz,sub/b.nii,la.nii.gz,\na.nii.gz,c.nii,,own\n")
    first, second = cohort_pairs(table)
    assert first.name == "b_to_a"
    assert first.files == {
        "fixed": tmp_path / "a.nii.gz", "moving": tmp_path / "sub/b.nii", "fixed_labels": tmp_path / "la.nii.gz"
    }  # fmt: skip
    assert (second.name, set(second.files)) == ("own", {"fixed", "moving"})


@pytest.mark.parametrize(
    ("head", "meant"),
    [
        ("labels_fixed", "fixed_labels"), ("--labels-fixed", "fixed_labels"), ("lesion_fixd", "lesion_fixed"),
        ("Mask_moving", "mask_moving"), ("fixed_label", "fixed_labels"), ("names", "name"),
    ],
)  # fmt: skip
def test_a_column_that_is_misspelt_is_refused(tmp_path, head, meant):
    table = tmp_path / "pairs.csv"
    table.write_text(f"fixed,moving,{head}\na.nii.gz,b.nii.gz,c.nii.gz\n")
    with pytest.raises(InputError, match=rf"pairs\.csv: no column '{head}' is read; did you mean {meant}\?"):
        cohort_pairs(table)


@pytest.mark.parametrize("head", ["site", "age_moving", "fixed_id", "comment", "", "label of scanner"])
def test_a_column_of_something_else_is_left_alone(tmp_path, head):
    table = tmp_path / "pairs.csv"
    table.write_text(f"fixed,moving,{head},mask_moving \na.nii.gz,b.nii.gz,c,m.nii\n")
    (item,) = cohort_pairs(table)
    assert set(item.files) == {"fixed", "moving", "mask_moving"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fixed,moving\na.nii.gz,b.nii.gz,labels.nii.gz\n", r"line 2: has more values than there are columns"),
        ("fixed,moving,moving\na.nii.gz,b.nii.gz,c.nii.gz\n", "there are two columns moving"),
    ],
)
def test_values_that_belong_to_no_column_of_their_own_are_refused(tmp_path, text, said):
    table = tmp_path / "pairs.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=rf"pairs\.csv: {said}"):
        cohort_pairs(table)


def test_empty_cells_at_the_end_of_a_row_do_not_count(tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("fixed,moving\na.nii.gz,b.nii.gz,,\n")
    assert cohort_pairs(table)[0].name == "b_to_a"


def test_images_of_a_folder_with_their_labels(tmp_path):
    files(tmp_path, "1_T1_brain.nii.gz", "1_labels.nii.gz", "2_T1_brain.nii.gz", "2_T1_brain_seg.nii.gz", "n.txt")
    one, two = cohort_subjects(tmp_path)
    assert (one.name, one.labels) == ("1_T1_brain", tmp_path / "1_labels.nii.gz")
    assert two.labels == tmp_path / "2_T1_brain_seg.nii.gz"


def test_a_label_map_of_the_very_name_comes_first(tmp_path):
    files(tmp_path, "1_T1.nii.gz", "1_T1_seg.nii.gz", "1_labels.nii.gz")
    (one,) = cohort_subjects(tmp_path)
    assert one.labels == tmp_path / "1_T1_seg.nii.gz"


def test_two_label_maps_of_an_image_are_refused(tmp_path):
    files(tmp_path, "1.nii.gz", "1_labels.nii.gz", "1_seg.nii.gz", "2.nii.gz")
    with pytest.raises(InputError, match=r"1\.nii\.gz: 1_labels\.nii\.gz and 1_seg\.nii\.gz are both label maps of it"):
        cohort_subjects(tmp_path)


def test_masks_are_no_images(tmp_path):
    files(tmp_path, "1.nii.gz", "1_mask.nii.gz", "2.nii.gz", "2_brain_mask.nii.gz")
    assert [subject.name for subject in cohort_subjects(tmp_path)] == ["1", "2"]


def test_a_pair_has_one_image_of_each_role(tmp_path):
    folder = files(tmp_path / "a", "fixed.nhdr", "fixed.raw", "moving.nii.gz", "moving.txt", "init.tfm").parent
    (pair,) = cohort_pairs(folder)
    assert {role: path.name for role, path in pair.files.items()} == {
        "fixed": "fixed.nhdr", "moving": "moving.nii.gz", "init": "init.tfm"
    }  # fmt: skip
    files(tmp_path / "a", "moving.mgz")
    with pytest.raises(InputError, match=r"moving\.mgz and moving\.nii\.gz are both moving; keep one"):
        cohort_pairs(folder)


def test_a_folder_must_say_what_goes_where(tmp_path):
    files(tmp_path, "a.nii", "a_labels.nii", "b.nii", "c.nii")
    with pytest.raises(InputError, match=r"--to-template FILE.*--all-pairs"):
        cohort_pairs(tmp_path)
    to = cohort_pairs(tmp_path, template="t.nii", template_labels="tl.nii")
    assert [item.name for item in to] == ["a", "b", "c"]
    assert set(to[0].files) == {"fixed", "moving", "fixed_labels", "moving_labels"}
    assert set(to[1].files) == {"fixed", "moving"}
    (tmp_path / "a_labels.nii").unlink()
    with pytest.raises(InputError, match=r"tl\.nii: .* none of the 3 of .* has a label map"):
        cohort_pairs(tmp_path, template="t.nii", template_labels="tl.nii")
    assert len(cohort_pairs(tmp_path, all_pairs=True)) == 6
    with pytest.raises(InputError, match="choose one"):
        cohort_pairs(tmp_path, template="t.nii", all_pairs=True)
    with pytest.raises(MissingFileError):
        cohort_pairs(tmp_path / "absent")


def test_subfolders_with_a_pair_each(tmp_path):
    files(tmp_path, "x/fixed.nii.gz", "x/moving.mha", "x/lesion_fixed.nii", "x/notes.txt", "y/moving.nii", "z.txt")
    item, half = cohort_pairs(tmp_path)
    assert item.name == "x"
    assert set(item.files) == {"fixed", "moving", "lesion_fixed"}
    assert half.files == {"fixed": tmp_path / "y/fixed.nii.gz", "moving": tmp_path / "y/moving.nii"}


def test_links_to_content_that_was_not_fetched_are_images(tmp_path):
    files(tmp_path, "a.nii.gz", "pair/fixed.nii.gz", "bids/dataset_description.json", "bids/sub-1/anat/sub-1_T1w.nii")
    links = ("b.nii.gz", "b_labels.nii.gz", "pair/moving.nii.gz", "bids/sub-1/anat/sub-1_dseg.nii.gz")
    for link in (tmp_path / name for name in links):
        link.symlink_to(".git/annex/objects/absent")
    (tmp_path / "c.nii.gz").symlink_to(tmp_path / "bids", target_is_directory=True)
    assert [(s.name, s.labels) for s in cohort_subjects(tmp_path)] == [("a", None), ("b", tmp_path / links[1])]
    (pair,) = cohort_pairs(tmp_path)
    assert pair.files["moving"] == tmp_path / links[2]
    assert cohort_subjects(tmp_path / "bids")[0].labels == tmp_path / links[3]


def test_a_bids_dataset(tmp_path):
    files(
        tmp_path, "dataset_description.json", "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_dseg.nii.gz",
        "sub-01/anat/sub-01_T2w.nii.gz", "sub-02/ses-a/anat/sub-02_ses-a_acq-x_T1w.nii", "sub-02/func/sub-02_bold.nii",
    )  # fmt: skip
    one, two = cohort_pairs(tmp_path, template="MNI.nii.gz")
    assert one.name == "sub-01_T1w"
    assert one.bids == (None, BidsName((("sub", "01"),), "T1w"))
    assert two.bids[1].folder == "sub-02/ses-a/anat"
    assert cohort_subjects(tmp_path)[0].labels == tmp_path / "sub-01/anat/sub-01_dseg.nii.gz"
    assert len(cohort_subjects(tmp_path, suffix="T2w")) == 1
    with pytest.raises(InputError, match="choose --suffix"):
        cohort_pairs(tmp_path, template="MNI.nii.gz", suffix="FLAIR")


@pytest.mark.parametrize("name", ["T1w.nii.gz", "sub-01.nii.gz", "sub-01_foo_T1w.nii.gz", "notes_T1w.nii"])
def test_names_that_are_not_of_bids(name):
    assert parse_name(name) is None


def test_names_of_derivatives():
    name = parse_name("sub-01_ses-2_T1w.nii.gz")
    assert name.file("xfm", ".h5", **{"from": "T1w", "to": "MNI", "mode": "image"}) == (
        "sub-01_ses-2_from-T1w_to-MNI_mode-image_xfm.h5"
    )
    assert name.file("T1w", ".nii.gz", space="MNI", desc="warped") == "sub-01_ses-2_space-MNI_desc-warped_T1w.nii.gz"
