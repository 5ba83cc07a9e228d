"""Data sets, folders of files, preprocessing and augmentation."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dia_models import ModelInputError
from dia_models.data import (
    FileImages,
    MemoryImages,
    data_names,
    data_root,
    evenly_spaced,
    open_data,
    open_files,
)
from dia_models.data.images import warn_of_unreadable


def put(folder, names, size=(8, 8), value=0):
    """Write one grey image per name below a folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (size[1], size[0]), value).save(path)
    return folder


def numbered(*classes):
    """The names of images of several classes, given each class's name and number of images."""
    return [f"{name}/{i:02d}.png" for name, count in classes for i in range(count)]


def names_of(source):
    return [source.name(i) for i in range(len(source))]


def opened(folder, split="any", **options):
    return open_data(f"folder:{folder}", split, **options)


def refusal(name, split="any", root=None, match=None):
    with pytest.raises(ModelInputError, match=match) as caught:
        open_data(name, split, root)
    assert caught.value.argument == "data"
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def random_pixels(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def test_digits_are_split_in_order_and_use_the_whole_range_of_bytes():
    from sklearn.datasets import load_digits

    original = load_digits()
    for split, part in (("train", slice(0, 1437)), ("test", slice(1437, 1797)), ("any", slice(1437, 1797))):
        digits = open_data("digits", split)
        assert len(digits) == part.stop - part.start
        assert digits.pixels.shape == (len(digits), 8, 8, 1)
        assert digits.labels.tolist() == original.target[part].tolist()
        expected = np.array([0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255])
        assert np.array_equal(digits.pixels[..., 0].numpy(), expected[original.images[part].astype(int)])
    assert digits.classes == tuple("0123456789")
    assert (digits.name(0), digits.pixels.min().item(), digits.pixels.max().item()) == ("#0", 0, 255)


def test_a_folder_with_parts_gives_the_part_asked_for(tmp_path):
    train, test = numbered(("cat", 3), ("dog", 2)), numbered(("cat", 1), ("dog", 1))
    put(tmp_path / "train", train)
    put(tmp_path / "test", test)
    assert names_of(opened(tmp_path, "train")) == train
    assert names_of(opened(tmp_path, "test")) == names_of(opened(tmp_path, "any")) == test
    assert opened(tmp_path, "train").classes == ("cat", "dog")
    assert opened(tmp_path, "train").labels == (0, 0, 0, 1, 1)


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_a_folder_with_val_and_no_test_takes_val_for_it_and_says_so(tmp_path, name):
    train, test = numbered(("cat", 3), ("dog", 2)), numbered(("cat", 1), ("dog", 1))
    put(tmp_path / "train", train)
    put(tmp_path / name, test)
    with pytest.warns(UserWarning, match=f"has no test/; {name.lower()}/ is taken as the test part") as said:
        found = [names_of(opened(tmp_path, split)) for split in ("train", "test", "any")]
    assert found == [train, test, test]
    assert len(said) == 1


def test_parts_may_be_called_training_and_testing(tmp_path):
    put(tmp_path / "Training", ["cat/1.png"])
    put(tmp_path / "Testing", ["cat/2.png"])
    assert names_of(opened(tmp_path, "train")) == ["cat/1.png"]
    assert names_of(opened(tmp_path, "test")) == ["cat/2.png"]


def test_what_lies_beside_the_parts_is_left_out_and_named(tmp_path):
    for part in ("train", "test", "val", "extra"):
        put(tmp_path / part, ["cat/1.png"])
    with pytest.warns(UserWarning, match="left out beside the train and the test part: extra, val"):
        assert names_of(opened(tmp_path, "test")) == ["cat/1.png"]


@pytest.mark.parametrize("parts", [("train",), ("val",), ("test", "val")])
def test_one_part_without_the_other_is_refused_rather_than_taken_for_classes(tmp_path, parts):
    for part in parts:
        put(tmp_path / part, ["cat/1.png", "dog/1.png"])
    refusal(
        f"folder:{tmp_path}", match=rf"has {parts[0]}/.* but not both parts; accepted: train/ with test/ \(or val/\)"
    )


def test_images_in_folders_inside_class_folders_count_for_the_class(tmp_path):
    put(tmp_path, ["a/1.png", "a/more/2.png", "a/more/still/3.png", "b/deep/4.png"])
    with pytest.warns(UserWarning, match="3 images in a/more, a/more/still, b/deep counted for the class they are in"):
        source = opened(tmp_path)
    assert names_of(source) == ["a/1.png", "a/more/2.png", "a/more/still/3.png", "b/deep/4.png"]
    assert source.labels == (0, 0, 0, 1)
    assert source.classes == ("a", "b")


def test_a_folder_around_the_class_folders_is_no_class(tmp_path):
    put(tmp_path, ["data/cat/1.png", "data/dog/1.png"])
    refusal(f"folder:{tmp_path}", match=rf"has one folder, which holds cat/, dog/; give folder:{tmp_path}/data")
    put(tmp_path, ["data/1.png"])
    with pytest.warns(UserWarning, match="2 images in data/cat, data/dog counted"):
        assert opened(tmp_path).classes == ("data",)


LEFT_BEHIND = ("__MACOSX/a/._1.png", "@eaDir/1.png", ".hidden/1.png", "a/.ipynb_checkpoints/1.png", "a/._1.png")


def test_what_systems_leave_behind_is_no_class_and_no_image(tmp_path):
    put(tmp_path, ["a/1.png", "b/2.png", *LEFT_BEHIND])
    for name in (".DS_Store", "Thumbs.db", "a/Thumbs.db", "b/.DS_Store", "desktop.ini"):
        (tmp_path / name).write_bytes(b"\0" * 200)
    source = opened(tmp_path)
    assert source.classes == ("a", "b")
    assert names_of(source) == names_of(open_files([tmp_path])) == ["a/1.png", "b/2.png"]


def test_images_beside_class_folders_are_left_out_and_counted(tmp_path):
    put(tmp_path, ["a/1.png", "b/2.png", "c.png"])
    with pytest.warns(UserWarning, match="1 image beside the class folders left out"):
        assert names_of(opened(tmp_path)) == ["a/1.png", "b/2.png"]


def test_pictures_of_other_kinds_are_left_out_and_counted(tmp_path):
    put(tmp_path, ["a/1.png", "b/2.png"])
    for name in ("a/3.HEIC", "a/4.heic", "b/5.avif", "b/notes.txt"):
        (tmp_path / name).write_bytes(b"...")
    with pytest.warns(UserWarning, match="left out, since") as said:
        assert names_of(opened(tmp_path)) == ["a/1.png", "b/2.png"]
    assert [str(warning.message) for warning in said] == [
        f"{tmp_path}/a: left out, since they cannot be read: .heic (2)",
        f"{tmp_path}/b: left out, since they cannot be read: .avif (1)",
    ]


def test_links_are_followed_once_and_those_that_lead_nowhere_are_said(tmp_path):
    elsewhere = put(tmp_path / "elsewhere", ["1.png", "deep/2.png"])
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "a" / "one.png").symlink_to(elsewhere / "1.png")
    (tmp_path / "set" / "a" / "round").symlink_to(tmp_path / "set" / "a")
    (tmp_path / "set" / "a" / "gone.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "set" / "b").symlink_to(elsewhere)
    broken, deep = r"set/a: left out, since they cannot be read: broken links \(1\)", "1 image in b/deep counted"
    with pytest.warns(UserWarning, match=broken), pytest.warns(UserWarning, match=deep):
        source = opened(tmp_path / "set")
    assert names_of(source) == ["a/one.png", "b/1.png", "b/deep/2.png"]
    (batch,) = source.batches(range(3), 3, None, 1)
    assert batch.labels.tolist() == [0, 1, 1]


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    put(tmp_path, ["a/1.png", "a/closed/2.png"])
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("os.scandir", refuse)
    refusal(f"folder:{tmp_path}", match="cannot be opened: .*Permission denied")


def test_a_file_named_twice_is_read_once(tmp_path):
    put(tmp_path, ["a.png", "b.png"])
    with pytest.warns(UserWarning, match="2 of the 4 images are named a second time; each is read once"):
        source = open_files([tmp_path / "b.png", tmp_path, tmp_path / "b.png"])
    assert names_of(source) == ["b.png", "a.png"]


def test_files_of_one_name_in_two_folders_are_told_apart(tmp_path):
    put(tmp_path, ["x/1.png", "y/1.png"])
    assert names_of(open_files([tmp_path / "y" / "1.png", tmp_path / "x"])) == ["y/1.png", "x/1.png"]


def test_suffixes_may_be_in_capitals_and_of_every_spelling(tmp_path):
    names = ["a/1.JPG", "a/2.Jpeg", "a/3.PNG", "a/4.TIFF", "a/5.jfif", "a/6.jpe", "a/7.PNM"]
    put(tmp_path, names)
    assert names_of(opened(tmp_path)) == names


def test_every_fifth_image_of_a_class_is_held_out(tmp_path):
    put(tmp_path, numbered(("a", 7), ("b", 11), ("c", 5)))
    train, test, everything = (names_of(opened(tmp_path, split)) for split in ("train", "test", "any"))
    assert set(train).isdisjoint(test)
    assert sorted(train + test) == everything == numbered(("a", 7), ("b", 11), ("c", 5))
    assert opened(tmp_path, "train").classes == opened(tmp_path, "test").classes == ("a", "b", "c")
    assert test == ["a/04.png", "b/04.png", "b/09.png", "c/04.png"]
    assert opened(tmp_path, "test").labels == (0, 1, 1, 2)


def test_a_folder_of_loose_images_has_no_classes(tmp_path):
    put(tmp_path, ["b.png", "a.JPG", "c.Tif", ".hidden/x.png"])
    (tmp_path / "notes.txt").write_text("no image")
    source = opened(tmp_path)
    assert names_of(source) == ["a.JPG", "b.png", "c.Tif"]
    assert (source.classes, source.labels) == ((), (-1, -1, -1))
    assert [batch.labels.tolist() for batch in source.batches(range(3), 2, None, 1)] == [[-1, -1], [-1]]


def test_folders_without_images_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    refusal(f"folder:{tmp_path / 'empty'}", match=r"no images found; looked for \.bmp, ")
    put(tmp_path / "classes", ["cat/1.png"])
    (tmp_path / "classes" / "dog").mkdir()
    (tmp_path / "classes" / "eel").mkdir()
    refusal(f"folder:{tmp_path / 'classes'}", match=r"no images in dog, eel \(2 of 3 class folders\)")
    refusal(f"folder:{tmp_path / 'missing'}", match="missing is not a folder")
    refusal(f"folder:{put(tmp_path, ['a.png']) / 'a.png'}", match=r"a\.png is not a folder")


def test_many_class_folders_without_images_make_a_short_line(tmp_path):
    put(tmp_path, ["cat/1.png"])
    for number in range(50):
        (tmp_path / f"{'x' * 200}{number:02d}").mkdir()
    message = refusal(f"folder:{tmp_path}", match=r"50 of 51 class folders\); remove what is no class")
    assert len(message) - len(str(tmp_path)) <= 300


@pytest.mark.parametrize("path", ["~no-such-user/images", pytest.param("a" * 5000, id="long")])
def test_a_folder_that_cannot_be_is_refused(path):
    refusal(f"folder:{path}")


def test_a_folder_too_small_to_hold_a_part_out_is_not_called_unreadable(tmp_path):
    put(tmp_path, ["a.png", "b.png"])
    with pytest.raises(ModelInputError) as caught:
        opened(tmp_path, "test").load(None, 1)
    assert "can be read" not in str(caught.value)


def test_class_names_that_no_file_could_hold_are_refused(tmp_path):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")).mkdir()
    except OSError:
        pytest.skip("this file system has only names in Unicode")
    put(tmp_path, [f"{name}/1.png" for name in (*os.listdir(tmp_path), "b")])  # noqa: PTH208
    refusal(f"folder:{tmp_path}")


def test_an_unknown_data_set_shows_the_closest():
    refusal("cifar01", match="did you mean 'cifar10'")
    for name in ("", "folder:", "fodler:x"):
        message = refusal(name)
        assert all(accepted in message for accepted in [*data_names(), "folder:PATH"])


def test_missing_cifar10_says_what_to_put_where(tmp_path):
    message = refusal("cifar10", "train", tmp_path)
    assert f"cifar10 is not in {tmp_path}" in message
    assert all(what in message for what in ("cifar-10-batches-py/", "cifar10/{train,test}/<class>/", "data_dir"))


def test_cifar10_may_be_a_folder_of_images(tmp_path, monkeypatch):
    put(tmp_path / "cifar10" / "train", numbered(("cat", 2), ("dog", 2)))
    put(tmp_path / "cifar10" / "test", numbered(("cat", 1), ("dog", 1)))
    assert names_of(open_data("cifar10", "train", tmp_path)) == numbered(("cat", 2), ("dog", 2))
    monkeypatch.setenv("DIA_DATA_DIR", str(tmp_path))
    assert names_of(open_data("cifar10", "any")) == numbered(("cat", 1), ("dog", 1))
    assert data_root() == tmp_path
    assert data_root(tmp_path / "b") == tmp_path / "b"


def test_changed_cifar10_files_are_refused_and_do_not_run(tmp_path):
    folder, target = tmp_path / "cifar-10-batches-py", tmp_path / "it-ran"
    folder.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (folder / name).write_bytes(f"cos\nmkdir\n(S'{target}'\ntR.".encode())  # a pickle that makes a folder
    for split in ("train", "test"):
        refusal("cifar10", split, tmp_path, match="cifar-10-batches-py")
    assert not target.exists()


def test_files_come_in_batches_in_the_order_asked_for(tmp_path):
    for value in range(6):
        put(tmp_path, [f"{'ab'[value % 2]}/{value}.png"], size=(8, 12), value=value)
    order = [5, 0, 3, 1, 0]  # of a/0 a/2 a/4 b/1 b/3 b/5
    for size, workers in ((1, 2), (2, 1), (4, 0), (99, 3)):
        batches = list(opened(tmp_path, workers=workers).batches(order, size, (8, 10), 3))
        assert [len(batch.names) for batch in batches] == {1: [1] * 5, 2: [2, 2, 1], 4: [4, 1]}.get(size, [5])
        pixels = torch.cat([batch.pixels for batch in batches])
        assert pixels.shape == (5, 8, 10, 3)
        assert pixels[:, 0, 0, 0].tolist() == [5, 0, 1, 2, 0]
        assert torch.equal(pixels, pixels[:, :1, :1, :1].expand_as(pixels))
        assert [label for batch in batches for label in batch.labels.tolist()] == [1, 0, 1, 0, 0]
        names = [name for batch in batches for name in batch.names]
        assert names == ["b/5.png", "a/0.png", "b/1.png", "a/2.png", "a/0.png"]


def damaged_folder(folder):
    put(folder, numbered(("a", 3), ("b", 3)))
    (folder / "a/00.png").write_bytes(b"")
    (folder / "a/01.png").write_bytes(b"text")
    (folder / "b/01.png").write_bytes((folder / "b/01.png").read_bytes()[:43])
    return folder


def test_unreadable_files_are_skipped_and_remembered(tmp_path):
    source = opened(damaged_folder(tmp_path))
    batches = list(source.batches(range(6), 2, None, 1))  # of the first batch nothing is left
    assert [batch.names for batch in batches] == [("a/02.png", "b/00.png"), ("b/02.png",)]
    assert [batch.labels.tolist() for batch in batches] == [[0, 1], [1]]
    assert source.unreadable.keys() == {"a/00.png", "a/01.png", "b/01.png"}
    assert all(source.unreadable.values())


def test_many_unreadable_files_make_one_short_line_with_reasons():
    unreadable = {f"{'x' * 150}{n:03d}.png": "y" * 200 for n in range(500)} | {"a.png": "the file is empty"}
    with pytest.warns(
        UserWarning, match=r"501 images cannot be read and are left out: a.png \(the file is empty\), x"
    ) as said:
        warn_of_unreadable(unreadable)
    assert len(str(said[0].message)) <= 300
    with pytest.warns(UserWarning, match=r"^1 image cannot be read and is left out: a.png \(no\)$"):
        warn_of_unreadable({"a.png": "no"})


def test_a_strict_source_names_the_first_unreadable_file(tmp_path):
    with pytest.raises(ModelInputError, match=r"a/00\.png: the file is empty") as caught:
        list(opened(damaged_folder(tmp_path), strict=True).batches(range(6), 3, None, 1))
    assert caught.value.argument == "data"


def test_only_unreadable_files_are_an_error(tmp_path):
    source = opened(damaged_folder(tmp_path))
    with pytest.raises(
        ModelInputError, match=r"none of the 2 files .* can be read \(a/00.png: the file is empty\)"
    ) as caught:
        list(source.batches([0, 1], 1, None, 1))
    assert caught.value.argument == "data"


@pytest.mark.parametrize("count", [2, 1025])
def test_images_of_several_sizes_need_a_size(tmp_path, count):
    for i in range(count):  # the last one is larger
        width = 1 + i // (count - 1)
        (tmp_path / f"{i:04d}.pgm").write_bytes(b"P5 %d 1 255\n" % width + bytes(width))
    with pytest.raises(ModelInputError, match=r"several sizes \(1x1, 1x2\)") as caught:
        opened(tmp_path).load(None, 1)
    assert caught.value.argument == "image_size"
    assert opened(tmp_path).load((3, 4), 1).pixels.shape == (count, 3, 4, 1)


def test_a_folder_loads_into_memory_with_its_names(tmp_path):
    images = opened(damaged_folder(tmp_path)).load((4, 5), 3)
    assert images.pixels.shape == (3, 4, 5, 3)
    assert images.labels.tolist() == [0, 1, 1]
    assert names_of(images) == ["a/02.png", "b/00.png", "b/02.png"]
    assert images.classes == ("a", "b")


def test_a_set_too_large_for_memory_is_refused_before_it_is_read(tmp_path):
    files = FileImages(tmp_path, (tmp_path / "none.png",) * 400, (0,) * 400, ("a",))
    with pytest.raises(ModelInputError, match="400 images of 4096x4096 take 19 GiB; at most 16 fit"):
        files.load((4096, 4096), 3)


def test_images_in_memory_come_in_batches_and_are_taken_in_order():
    pixels, labels = random_pixels(5, 4, 6, 3), torch.tensor([4, 3, 2, 1, 0])
    images = MemoryImages(pixels, labels, tuple("vwxyz"), tuple("abcde"))
    batches = list(images.batches([4, 0, 2], 2, (4, 6), 3))
    assert [batch.names for batch in batches] == [("e", "a"), ("c",)]
    assert torch.equal(torch.cat([batch.pixels for batch in batches]), pixels[[4, 0, 2]])
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0, 4, 2]
    assert [len(batch.names) for batch in images.batches(range(5), 1, None, 3)] == [1] * 5
    taken = images.take(torch.tensor([3, 1, 3]))
    assert torch.equal(taken.pixels, pixels[[3, 1, 3]])
    assert (taken.labels.tolist(), taken.names, taken.classes) == ([1, 3, 1], ("d", "b", "d"), images.classes)
    nameless = MemoryImages(pixels, labels, tuple("vwxyz")).take(torch.tensor([3]))
    assert (len(nameless), nameless.name(0)) == (1, "#0")


@pytest.mark.parametrize(
    ("pixels", "size", "expected"),
    [
        ([[1, 2, 3, 4], [5, 6, 7, 8]], (2, 2), [[2, 3], [6, 7]]),
        ([[1], [2], [3], [4], [5]], (3, 1), [[2], [3], [4]]),
        ([[0, 200]] * 2, (4, 4), [[0, 50, 150, 200]] * 4),
        ([[0, 0, 255, 255]] * 4, (2, 2), [[36, 219]] * 2),
    ],
)
def test_images_in_memory_are_scaled_to_cover_a_size_and_cropped_as_files_are(pixels, size, expected):
    images = MemoryImages(torch.tensor(pixels, dtype=torch.uint8)[None, :, :, None], torch.tensor([0]), ("a",))
    for channels in (1, 3):
        (batch,) = images.batches([0], 1, size, channels)
        assert batch.pixels.shape == (1, *size, channels)
        assert all(batch.pixels[0, :, :, c].tolist() == expected for c in range(channels))


def test_colours_in_memory_become_the_greys_that_they_become_in_files(tmp_path):
    colours = torch.tensor([[[[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]]], dtype=torch.uint8)
    Image.fromarray(colours[0].numpy()).save(tmp_path / "a.png")
    for source in (opened(tmp_path), MemoryImages(colours, torch.tensor([0]), ())):
        (batch,) = source.batches([0], 1, None, 1)
        assert batch.pixels.flatten().tolist() == [255, 76, 150, 29, 9]


def test_evenly_spaced_indices_reach_every_class():
    assert evenly_spaced(3, 3) == [0, 1, 2]
    assert evenly_spaced(4, 10) == [0, 2, 5, 7]
    assert evenly_spaced(1, 7) == [0]
    assert evenly_spaced(0, 7) == []
    for count, total in ((7, 100), (99, 100), (1000, 12_345)):
        chosen = evenly_spaced(count, total)
        gaps = np.diff([*chosen, total])
        assert len(chosen) == count
        assert {total // count, -(-total // count)} >= set(gaps.tolist())
