"""Data sets from arrays in memory: what is taken, and what is refused with which advice."""

import numpy as np
import pytest

from robustjax.data import from_arrays, load

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
LABELS = np.arange(40) % 4


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_are_the_bytes_that_they_stand_for(kind):
    found = from_arrays((IMAGES / 255).astype(kind), LABELS)
    np.testing.assert_array_equal(found.images, IMAGES)
    assert found.images.dtype == np.uint8 and found.num_classes == 4


def test_grey_images_get_their_channel():
    assert from_arrays(IMAGES[..., 0], LABELS).image_shape == (4, 4, 1)


def test_names_are_numbered_in_their_order_or_in_the_one_given():
    labels = ["dog", "cat", "dog", "eel"] * 10
    found = from_arrays(IMAGES, labels)
    assert found.class_names == ("cat", "dog", "eel") and found.labels[:4].tolist() == [1, 0, 1, 2]
    names = ("eel", "dog", "cat", "ant")
    found = from_arrays(IMAGES, labels, class_names=names)
    assert [names[k] for k in found.labels] == labels and found.num_classes == 4


def test_with_names_a_class_may_have_no_example():
    assert from_arrays(IMAGES, LABELS + 1, class_names=tuple("abcdef")).num_classes == 6


def test_it_is_carved_as_a_set_that_is_loaded():
    digits = load("digits", "train+validation")
    train, validation = from_arrays(digits.images, digits.labels).carved()
    np.testing.assert_array_equal(train.labels, load("digits", "train").labels)
    np.testing.assert_array_equal(validation.images, load("digits", "validation").images)
    assert (train.split, validation.split) == ("train", "validation")
    assert not set(train.indices) & set(validation.indices)


@pytest.mark.parametrize(
    ("images", "labels", "names", "advice"),
    [
        (IMAGES.astype(np.float32), LABELS, None, "divide by 255"),
        (IMAGES / 127.5 - 1, LABELS, None, "undo the normalisation"),
        (IMAGES / 255 * np.nan, LABELS, None, r"must lie in \[0, 1\]"),
        (IMAGES.astype(np.int32), LABELS, None, r"astype\(np.uint8\)"),
        (np.zeros((40, 3, 32, 32), np.uint8), LABELS, None, r"transpose\(0, 2, 3, 1\)"),
        (IMAGES, np.eye(4)[LABELS], None, r"argmax\(-1\)"),
        (IMAGES, LABELS + 1, None, "number the classes from 0"),
        (IMAGES, LABELS * 1.0, None, "integers or names"),
        (IMAGES, LABELS[1:], None, "labels must be 40 integers"),
        (IMAGES, LABELS - 1, tuple("abcd"), r"labels must lie in \[0, 4\), got -1"),
        (IMAGES, ["cat", "dgo"] * 20, ("cat", "dog"), "'dgo', which is none"),
    ],
)
def test_what_does_not_fit_is_refused_with_advice(images, labels, names, advice):
    with pytest.raises(ValueError, match=advice):
        from_arrays(images, labels, class_names=names)


def test_few_examples_cannot_be_carved():
    with pytest.raises(ValueError, match="9 examples are too few"):
        from_arrays(IMAGES[:9], LABELS[:9]).carved()
