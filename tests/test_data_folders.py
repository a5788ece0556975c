"""Folders of image files: their three forms, their splits, and what is refused."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from robustjax import data
from robustjax.cli.evaluate import images_to_attack


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTJAX_CACHE", str(tmp_path / "cache"))


def draw(path, level=0, size=(4, 3), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 0, 255)).convert(mode).save(path)


@pytest.fixture
def pets(tmp_path):
    """Sixty images in two class folders, some deeper; the red channel is the number."""
    root = tmp_path / "pets"
    for i in range(60):
        draw(root / ("dog", "Cat")[i % 2] / ("", "more")[i % 3 == 0] / f"{i:02}.png", i)
    return root


def load(root, split="train", settings=""):
    return data.load(f"folder:{root}{settings}", split)


def numbers(part):
    return part.images[:, 0, 0, 0]


def test_class_folders_become_classes_and_splits(pets):
    (pets / ".DS_Store").touch()
    (pets / "dog" / ".thumb.txt").touch()
    (pets / ".git").mkdir()
    (pets / "LICENSE").touch()
    parts = {split: load(pets, split) for split in data.SPLITS}
    for part in parts.values():
        assert part.class_names == ("Cat", "dog") and part.image_shape == (3, 4, 3)
        np.testing.assert_array_equal(part.labels, 1 - numbers(part) % 2)
        assert (part.images[..., 2] == 255).all()
    both, test = parts["train+validation"], parts["test"]
    assert sorted([*numbers(both), *numbers(test)]) == list(range(60))
    assert len(both) == len(parts["train"]) + len(parts["validation"]) and 6 < len(test) < 20


def test_a_new_file_moves_no_other(pets):
    parts = ("train", "validation", "test")
    order = numbers(load(pets, "train")).tolist()
    before = {split: set(numbers(load(pets, split))) for split in parts}
    for i in range(100, 140):
        draw(pets / "Cat" / f"{i}.png", i)
    after = {split: set(numbers(load(pets, split))) for split in parts}
    assert all(before[split] <= after[split] for split in parts)
    assert all(len(after[split]) > len(before[split]) for split in parts)
    assert [n for n in numbers(load(pets, "train")) if n < 100] == order


def test_the_first_examples_are_a_fair_sample(pets):
    both = load(pets, "train+validation")
    assert 7 < both.head(30).labels.sum() < 23


def test_split_folders(pets, tmp_path):
    root = tmp_path / "split"
    shutil.copytree(pets, root / "train")
    draw(root / "val" / "dog" / "x.JPG", mode="L")
    draw(root / "val" / "Cat" / "y.jpeg")
    assert len(load(root, "test")) == 2  # as on ImageNet
    assert len(load(root, "train+validation")) == 60 and len(load(root, "validation")) < 20
    draw(root / "test" / "dog" / "z.png")
    assert len(load(root, "test")) == 1 and len(load(root, "validation")) == 2
    assert load(root, "test").labels.tolist() == [1]
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "val")
    assert load(root, "test").class_names == ("dog",)
    with pytest.raises(ValueError, match="has no train split; it has test"):
        load(root)


def test_a_list_of_files(pets):
    files = [p.relative_to(pets).as_posix() for p in sorted(pets.rglob("*.png"))]
    rows = [f"{file},{i % 11}" for i, file in enumerate(files)]
    (pets / "labels.csv").write_text("\n".join(["file,label", *rows]))
    train = load(pets)
    assert train.class_names == tuple(map(str, range(11)))
    splits = ["test", "train", "val"]
    rows = [f"{file},{'ab'[i % 2]},{splits[i % 3]}" for i, file in enumerate(files)]
    (pets / "labels.csv").write_text("\n".join(["file,label,split", *rows]))
    assert [len(load(pets, split)) for split in data.SPLITS] == [20, 20, 20, 40]
    assert load(pets).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png,1", "its first line must name the columns, file,label"),
        ("file,label\n", "labels.csv lists no files"),
        ("file,label\ndog/02.png", "line 2 has another number of columns"),
        ("file,label\ndog/02.png,", "line 2 has no label"),
        ("file,label,split\ndog/02.png,1,dev", "line 2: the split 'dev' must be one of train"),
        (
            "file,label\ndog/02.png,1\ndog/../dog/02.png,2",
            "line 3: dog/../dog/02.png is listed twic",
        ),
        ("file,label\n../outside.png,1", "outside.png leads out of"),
        ("file,label\n/etc/passwd,1", "passwd leads out of"),
        ("file,label\ndog/nothing.png,1", "nothing.png cannot be read: No such file"),
        ("file,label\ndog,1", "pets/dog is not a file"),
    ],
)
def test_lists_that_are_refused(pets, text, message):
    (pets / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=r"pets/labels\.csv") as error:
        load(pets)
    assert message in str(error.value)


def damage(what):
    """A change of the folder of pets."""

    def change(root):
        path = root / "dog" / "02.png"
        made = {
            "torn": lambda: path.write_bytes(path.read_bytes()[:-30]),
            "text": lambda: path.write_text("no picture"),
            "empty": lambda: path.write_bytes(b""),
            "gif": lambda: (root / "dog" / "a.gif").touch(),
            "16 bits": lambda: Image.fromarray(np.zeros((3, 4), np.uint16)).save(path),
            "transparent": lambda: Image.new("RGBA", (4, 3), (0, 0, 0, 9)).save(path),
            "no images": lambda: (root / "bird").mkdir(),
            "one class": lambda: shutil.rmtree(root / "dog"),
            "no class": lambda: [shutil.rmtree(root / name) for name in ("dog", "Cat")],
            "stray": lambda: draw(root / "x.png"),
            "size": lambda: draw(path, size=(5, 3)),
            "out": lambda: (root / "dog" / "l.png").symlink_to("/etc/passwd"),
            "broken": lambda: (root / "dog" / "l.png").symlink_to("nothing.png"),
            "link": lambda: (root / "bird").symlink_to(root / "dog"),
            "beside": lambda: draw(root / "train" / "dog" / "1.png"),
            "alone": lambda: draw(root / "cow" / "more" / "7.png"),  # for testing
        }
        made[what]()

    return change


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("torn", "02.png cannot be read: "),
        ("text", "02.png is neither a PNG nor a JPEG file; convert or delete it"),
        ("empty", "02.png is neither a PNG nor a JPEG file"),
        ("gif", "dog/a.gif is neither a PNG nor a JPEG file; convert or remove it"),
        ("16 bits", "02.png cannot be read: it has 16 bits a channel; save it with 8"),
        ("transparent", "02.png cannot be read: it has transparent pixels; flatten it"),
        ("no images", "the class folder .*bird has no images; add some, or delete it"),
        ("one class", "has one class, 'Cat', and a classifier needs two: write DIR/CLASS"),
        ("no class", "has no class folders: write .*/CLASS/.*labels.csv"),
        ("stray", "x.png is in no class: images go into .*/CLASS"),
        ("size", r"vary in size .*4.*02.png 3x5\): after its name, :size=64 resizes"),
        ("out", "l.png leads out of .*; copy the file into it"),
        ("broken", "l.png cannot be read: No such file"),
        ("link", "bird is a link to a folder; put the folder there"),
        ("beside", "pets/Cat is not a split: beside train there may be validation, val, test"),
        ("alone", "class 'cow' of .*more/7.png .* has no image to train on"),
    ],
)
def test_folders_that_are_refused(pets, what, message):
    damage(what)(pets)
    with pytest.raises(ValueError, match=message) as error:
        for split in data.SPLITS:
            load(pets, split)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there_or_not_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*/nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="write the folder after the colon, folder:DIR"):
        data.load("folder")


def test_pixels_of_every_kind_that_loses_nothing(tmp_path):
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    colour = Image.fromarray(np.stack([levels, levels[::-1], 255 - levels], -1))
    kinds = {"a": colour, "b": colour.convert("RGBA"), "c": colour.quantize(12)}
    kinds |= {"d": Image.fromarray(levels), "e": Image.fromarray(levels).convert("LA")}
    for name, image in kinds.items():
        for label in ("one", "two"):
            (tmp_path / "set" / "test" / label).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "set" / "test" / label / f"{name}.png")
    found = load(tmp_path / "set", "test").images
    wanted = [np.asarray(colour)] * 6 + [np.stack([levels] * 3, -1)] * 4
    assert sorted(image.tobytes() for image in found) == sorted(w.tobytes() for w in wanted)


def test_a_set_of_grey_images_is_grey_and_any_size_can_be_resized(tmp_path):
    for i in range(20):
        draw(tmp_path / "set" / "train" / "ab"[i % 2] / f"{i}.png", size=(9 + i, 12), mode="L")
        draw(tmp_path / "set" / "test" / "ab"[i % 2] / f"{i}.png", size=(9, 12 + i), mode="1")
    for split in data.SPLITS:
        found = load(tmp_path / "set", split, ":size=6")
        assert found.image_shape == (6, 6, 1) and found.name.endswith(":size=6")
    with pytest.raises(
        ValueError, match=r"size of folder:.* must be a whole number in \[1, 1024\]"
    ):
        load(tmp_path / "set", "train", ":size=0")


def test_evaluation_matches_classes_by_name(pets, capsys):
    options = SimpleNamespace(data=f"folder:{pets}", data_dir=None, run="runs/a", n=9)
    about = {
        "data": {"name": "zoo"},
        "image_shape": [3, 4, 3],
        "class_names": ["ant", "dog", "Cat"],
    }
    found = images_to_attack(options, about)
    np.testing.assert_array_equal(found.labels, 1 + numbers(found) % 2)
    assert found.num_classes == 3 and not capsys.readouterr().out
    images_to_attack(options, about | {"class_names": ["ant", "dog", "cat"]})
    assert "name their classes differently: only numbers count" in capsys.readouterr().out


def test_changed_files_are_decoded_again(pets):
    first = load(pets)
    assert load(pets).digest == first.digest
    draw(pets / "dog" / "02.png", 200, mode="L")
    assert load(pets, "train+validation").digest != first.digest
    assert 200 not in numbers(first)
    assert any(
        (numbers(load(pets, s)) == load(pets, s).images[:, 0, 0, 2]).any() for s in data.SPLITS
    )
