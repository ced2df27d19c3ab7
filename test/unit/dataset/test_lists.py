import pytest

from dataset import lists
from dataset.lists import ListError, Row

ROWS = [Row("Walk/v_Walk_g01_c01.avi", 0, 12), Row("Run fast/b é.avi", 2, 0), Row("Run fast/c 7.avi", 2, 31)]
TEXT = {
    "reference": "0\t0\tWalk/v_Walk_g01_c01.avi\n1\t2\tRun fast/b é.avi\n2\t2\tRun fast/c 7.avi\n",
    "videos": "Walk/v_Walk_g01_c01.avi 0\nRun fast/b é.avi 2\nRun fast/c 7.avi 2\n",
    "rawframes": "Walk/v_Walk_g01_c01.avi 12 0\nRun fast/b é.avi 0 2\nRun fast/c 7.avi 31 2\n",
}


def write(folder, name, text):
    path = folder / name
    path.write_bytes(text.encode("utf-8"))
    return str(path)


@pytest.mark.parametrize("family", sorted(TEXT))
def test_families_are_written_and_read(tmp_path, family):
    path = str(tmp_path / "list.txt")
    lists.write_list(path, family, ROWS)
    with open(path, "rb") as file:
        assert file.read() == TEXT[family].encode("utf-8")
    expected = ROWS if family == "rawframes" else [row._replace(num_frames=0) for row in ROWS]
    assert lists.read_list(path, family, 3) == expected


def test_byte_order_mark_blank_lines_and_line_ends_do_not_matter(tmp_path):
    path = write(tmp_path, "list.txt", "\ufeffa/b.avi 1\r\n\r\n  a/c.avi\t0  \r\n")
    assert lists.read_list(path, "videos", 2) == [Row("a/b.avi", 1), Row("a/c.avi", 0)]


def test_reference_list_with_spaces_between_columns(tmp_path):
    path = write(tmp_path, "list.txt", "7 1 a/b c.avi\n")
    assert lists.read_list(path, "reference", 2) == [Row("a/b c.avi", 1)]


@pytest.mark.parametrize("family, line, words", [
    ("reference", "0\t1", ["2 column(s), not 3", "video_id, label and relative/path"]),
    ("reference", "0\ta/b.avi\t1", ["label is 'a/b.avi'", "columns are in order"]),
    ("videos", "a/b.avi", ["1 column(s), not 2", "path and label"]),
    ("videos", "a/b.avi one", ["label is 'one'"]),
    ("videos", "a/b.avi 3", ["label 3 is out of range", "0 to 2", "--dataset"]),
    ("videos", "a/b.avi -1", ["label -1 is out of range"]),
    ("videos", "../b.avi 1", ["leaves the data root"]),
    ("videos", "a/../../b.avi 1", ["leaves the data root"]),
    ("videos", "/etc/b.avi 1", ["leaves the data root"]),
    ("rawframes", "a/b 1", ["2 column(s), not 3", "dir, total_frames and label"]),
    ("rawframes", "a/b x 1", ["total_frames is 'x'"]),
    ("rawframes", "a/b -4 1", ["total_frames is -4"]),
])
def test_a_wrong_line_is_named(tmp_path, family, line, words):
    good = {"reference": "0\t0\ta/a.avi", "videos": "a/a.avi 0", "rawframes": "a/a 5 0"}[family]
    path = write(tmp_path, "list.txt", "%s\n\n%s\n" % (good, line))
    with pytest.raises(ListError) as caught:
        lists.read_list(path, family, 3)
    assert str(caught.value).startswith(path + ":3: ")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("path", ["a/b\nc.avi", "a\tb.avi"])
def test_a_path_that_no_list_can_hold(tmp_path, path):
    with pytest.raises(ValueError, match="cannot stand in a list"):
        lists.write_list(str(tmp_path / "list.txt"), "videos", [Row(path, 0)])
    assert not (tmp_path / "list.txt").exists()


def test_class_names_and_class_index(tmp_path):
    names = ["Apply Eye", "Bowling", "Éclair"]
    path = str(tmp_path / "classes.txt")
    lists.write_class_names(path, names)
    assert lists.read_class_names(path) == names
    assert lists.read_class_index(write(tmp_path, "classInd.txt", "1 Apply Eye\n2 Bowling\n")) == names[:2]
    with pytest.raises(ListError, match=r"gap.txt:2: class number 3, 2 expected"):
        lists.read_class_index(write(tmp_path, "gap.txt", "1 Apply\n3 Bowling\n"))
    with pytest.raises(ListError, match=r"short.txt:1: has 1 column"):
        lists.read_class_index(write(tmp_path, "short.txt", "Apply\n"))


def test_official_ucf_lists(tmp_path):
    names = ["Archery", "HandstandPushups"]
    train = write(tmp_path, "trainlist01.txt",
                  "Archery/v_Archery_g08_c01.avi 1\r\nHandstandPushups/v_HandStandPushups_g08_c01.avi 2\r\n")
    test = write(tmp_path, "testlist01.txt", "HandStandPushups/v_HandStandPushups_g01_c01.avi\n")
    assert [row.label for row in lists.read_ucf_official(train, names)] == [0, 1]
    assert lists.read_ucf_official(test, names) == [Row("HandStandPushups/v_HandStandPushups_g01_c01.avi", 1)]


@pytest.mark.parametrize("line, problem", [
    ("Archery/v.avi 2", "number 2 is not that of class Archery, which is 1"),
    ("Bowling/v.avi", "'Bowling' is none of the 2 classes"),
    ("Archery", "is no Class/video.avi"),
    ("Archery/../../v.avi 1", "leaves the data root"),
])
def test_wrong_official_lines(tmp_path, line, problem):
    path = write(tmp_path, "trainlist01.txt", "Archery/a.avi 1\n%s\n" % line)
    with pytest.raises(ListError) as caught:
        lists.read_ucf_official(path, ["Archery", "HandstandPushups"])
    assert str(caught.value).startswith(path + ":2: ") and problem in str(caught.value)


def test_hmdb_split_files(tmp_path):
    write(tmp_path, "catch_test_split2.txt", "a b.avi 1 \nc.avi 2 \nd.avi 0 \n")
    write(tmp_path, "chew_test_split2.txt", "e.avi 2 \n")
    names = ["catch", "chew"]
    assert lists.read_hmdb_split(str(tmp_path), names, 2, lists.TRAIN) == [Row("catch/a b.avi", 0)]
    assert lists.read_hmdb_split(str(tmp_path), names, 2, lists.TEST) == [Row("catch/c.avi", 0), Row("chew/e.avi", 1)]
    write(tmp_path, "chew_test_split2.txt", "e.avi 3\n")
    with pytest.raises(ListError, match=r"chew_test_split2.txt:1: .*0, 1 or 2"):
        lists.read_hmdb_split(str(tmp_path), names, 2, lists.TEST)


def test_kinetics_csv(tmp_path):
    names = ["abseiling", "massaging_person's_head"]
    path = write(tmp_path, "train.csv", "label,youtube_id,time_start,time_end,split\n"
                                        "massaging person's head,-Ab_9,7,17,train\n\"abseiling\",xyz,120,130,train\n")
    assert lists.read_kinetics_csv(path, names) == [
        Row("massaging_person's_head/-Ab_9_000007_000017.mp4", 1), Row("abseiling/xyz_000120_000130.mp4", 0)]
    for text, problem in (("youtube_id,label\n", ":1: the head line must name"),
                          ("label,youtube_id,time_start,time_end\nabseiling,x,1\n", ":2: has fewer columns"),
                          ("label,youtube_id,time_start,time_end\nsailing,x,1,2\n", ":2: 'sailing' is none"),
                          ("label,youtube_id,time_start,time_end\nabseiling,x,soon,2\n", ":2: time_start is 'soon'"),
                          ("label,youtube_id,time_start,time_end\nabseiling,../../x,1,2\n", ":2: path")):
        with pytest.raises(ListError) as caught:
            lists.read_kinetics_csv(write(tmp_path, "bad.csv", text), names)
        assert problem in str(caught.value)
