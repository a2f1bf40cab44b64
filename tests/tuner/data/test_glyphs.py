"""100 glyphs: every class has a shape of its own in every face; validation has its own faces."""

import unicodedata

import numpy as np
from image_files import ridge_accuracy

from foretune.tuner.config.images import ImageData
from foretune.tuner.data.glyphs import CHARACTERS, FACES, glyphs, masters


def test_there_are_100_different_characters_none_a_mere_variant_of_another():
    assert len(CHARACTERS) == len(set(CHARACTERS)) == 100
    assert len({unicodedata.normalize("NFKC", c) for c in CHARACTERS}) == 100


def test_no_face_is_in_both_splits_and_every_family_is():
    train, validation = FACES
    assert not set(train) & set(validation)
    families = ("DejaVuSans-", "DejaVuSansMono", "DejaVuSerif", "STIX")
    for split in FACES:
        assert all(any(face.startswith(family) for face in split) for family in families)
    assert not {m.tobytes() for m in masters(0).reshape(-1, 56 * 56)} & {
        m.tobytes() for m in masters(1).reshape(-1, 56 * 56)
    }


def test_every_face_has_every_character_whole_and_no_two_alike():
    for split in (0, 1):
        for face, pictures in zip(FACES[split], masters(split), strict=True):
            assert (pictures.max(axis=(1, 2)) > 200).all(), face
            rim = pictures.copy()
            rim[:, 1:-1, 1:-1] = 0
            assert not rim.any(), face
            flat = pictures.reshape(100, -1).astype(float)
            flat /= np.linalg.norm(flat, axis=1, keepdims=True)
            likeness = flat @ flat.T - np.eye(100)
            a, b = np.unravel_index(likeness.argmax(), likeness.shape)
            # 0.979 are H and Π in STIX's bold italic, which the place of one bar tells apart.
            assert likeness.max() < 0.985, (face, CHARACTERS[a], CHARACTERS[b], likeness.max())


def test_glyph_i_does_not_depend_on_how_many_are_made():
    few, few_labels = glyphs(30, data_seed=5, split=0)
    more, more_labels = glyphs(700, data_seed=5, split=0)
    assert np.array_equal(few, more[:30])
    assert np.array_equal(few_labels, more_labels[:30])


def test_glyphs_differ_by_seed_by_split_and_from_each_other():
    made = [glyphs(600, data_seed=seed, split=split)[0] for seed, split in ((0, 0), (1, 0), (0, 1))]
    assert len({x.tobytes() for x in np.concatenate(made)}) == 1800


def test_pixels_tell_the_class_far_above_chance_in_faces_never_seen():
    assert 0.05 < ridge_accuracy(ImageData(name="glyphs", train_images=8000)) < 0.6
