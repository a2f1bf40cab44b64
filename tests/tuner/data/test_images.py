"""What image data a run may ask for: everything else is refused in one sentence."""

import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from foretune.tuner.config.images import SOURCES, ImageData
from foretune.tuner.data.image_corpus import load_image_corpus
from foretune.tuner.data.image_stream import ImageStream

ROOT = Path(__file__).parents[3]
FILES = ("mnist", "fashion-mnist", "cifar10", "cifar100")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("digits", (1, 10, 8)),
        ("cluttered", (1, 10, 32)),
        ("glyphs", (1, 100, 32)),
        ("mnist", (1, 10, 28)),
        ("fashion-mnist", (1, 10, 28)),
        ("cifar10", (3, 10, 32)),
        ("cifar100", (3, 100, 32)),
    ],
)
def test_a_source_says_its_channels_classes_and_side(name, shape):
    data = ImageData(name=name, path="/data" if name in FILES else "")
    assert (data.channels, data.classes, data.side) == shape
    assert data.source.about


def test_every_source_has_a_mean_and_a_deviation_for_each_channel():
    assert all(len(source.mean) == len(source.std) in (1, 3) for source in SOURCES.values())


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "cluttred"}, "data.name must be one of .*'cluttred'. Did you mean cluttered?"),
        ({"name": "MNIST"}, "data.name must be one of .*, got 'MNIST'"),
        ({"name": 3}, "data.name must be text, got 3"),
        ({"name": "mnist"}, "data.path must name the root folder .*; set data.path=DIR"),
        ({"name": "digits", "path": "/x"}, "data.path must be empty .*'/x'; leave it out"),
        ({"name": "mnist", "path": __file__}, "data.path must be a folder, got the file"),
        ({"name": "glyphs", "download": True}, "data.download must be False .* leave it out"),
        ({"augment": "yes"}, "data.augment must be true or false, got 'yes'"),
        ({"augment": 1}, "data.augment must be true or false, got 1"),
        ({"image_size": 28}, "data.image_size must be 8 for data.name=digits, got 28"),
        ({"name": "mnist", "path": "/x", "image_size": 30}, "must be 28 or 32 .* got 30"),
        ({"train_images": -1}, "data.train_images must be a whole number from 0 up, got -1"),
        ({"validation_images": 1.5}, "data.validation_images must be a whole number .* got 1.5"),
        ({"validation_images": float("nan")}, "data.validation_images .* got nan"),
        ({"train_images": True}, "data.train_images must be a whole number .* got True"),
        ({"name": "glyphs", "train_images": 10**9}, "data.train_images must be at most 200000"),
        ({"distractors": 5}, "data.distractors is of data.name=cluttered alone, got 5"),
        ({"name": "cluttered", "distractors": 33}, "data.distractors must be at most 32, got 33"),
        ({"data_seed": 1}, "data.data_seed is of generated images alone .* set seed"),
        ({"name": "glyphs", "data_seed": 2**63}, "data.data_seed must be below 2.63"),
    ],
)
def test_a_field_that_breaks_a_rule_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        ImageData(**fields)
    assert "\n" not in str(caught.value)


def test_image_data_is_frozen_and_hashable():
    data = ImageData()
    with pytest.raises(FrozenInstanceError):
        data.name = "glyphs"  # type: ignore[misc]
    assert len({data, ImageData(), ImageData(augment=True)}) == 2


def test_a_batch_larger_than_the_training_set_is_refused():
    with pytest.raises(ValueError, match=r"batch_size must be at most .* got 1298 and 1297"):
        ImageStream(ImageData(), batch_size=1298)
    assert ImageStream(ImageData(), batch_size=1297).batch(0, 0)[0].shape == (1297, 1, 8, 8)


def test_more_images_than_the_file_has_are_refused():
    with pytest.raises(ValueError, match=r"data.validation_images must .* got 501 and 500"):
        load_image_corpus(ImageData(validation_images=501))


HEAVY = ("ray", "mlflow", "optuna", "tyro", "sklearn", "matplotlib", "PIL", "torchvision", "scipy")


def loaded(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.slow
def test_importing_the_stream_loads_no_library_of_any_source():
    assert loaded("import tuner.data.image_stream") == set()


@pytest.mark.slow
def test_digits_load_neither_matplotlib_nor_torchvision_and_glyphs_no_scikit_learn():
    get = (
        "from foretune.tuner.data.image_corpus import *\n"
        "load_image_corpus(ImageData(name={!r}, train_images=9))"
    )
    assert loaded(get.format("digits")) & {"matplotlib", "PIL", "torchvision"} == set()
    assert loaded(get.format("glyphs")) & {"sklearn", "torchvision", "scipy"} == set()


@pytest.mark.parametrize(
    ("module", "name"),
    [("sklearn.datasets", "digits"), ("PIL", "glyphs"), ("torchvision", "mnist")],
)
def test_a_library_that_is_not_installed_is_named_in_a_sentence(tmp_path, module, name):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    path = str(tmp_path) if name == "mnist" else ""
    script = (
        f"import sys\nsys.modules[{module!r}] = None\nfrom tuner.data.image_corpus import *\n"
        f"load_image_corpus(ImageData(name={name!r}, path={path!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ValueError: data.name={name}"), last
    assert "pip install" in last
