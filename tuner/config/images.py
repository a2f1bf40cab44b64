"""What image data there is, and which of it a run asks for; `image_stream` makes the batches."""

from dataclasses import dataclass
from pathlib import Path

from foretune.tuner.config.override import near


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """A kind of image: what a data set offers, how it is normalised and augmented."""

    about: str
    """One line for a list."""
    classes: int
    sides: tuple[int, ...]
    """Sides that it can be had in, in pixels; its own first, others padded with black."""
    mean: tuple[float, ...]
    """Mean over the training set by channel, on a scale from 0 (black) to 1 (white)."""
    std: tuple[float, ...]
    """Standard deviation over the training set by channel, on the same scale."""
    shift: int
    """Augmentation moves an image by up to this many pixels each way; black comes in."""
    flip: bool
    """Augmentation mirrors every other image left to right."""
    white: int = 255
    """Largest pixel value."""
    folder: str = ""
    """Folder under data.path that holds the files; empty for embedded sources."""
    train_images: int = 0
    """Training images, for generated sources; 0 where the files say."""
    validation_images: int = 0
    """Validation images, for generated sources; 0 where the files say."""


SOURCES: dict[str, ImageSource] = {
    "digits": ImageSource(
        about="scikit-learn's 1,797 real handwritten digits, 8x8; a smoke test",
        classes=10,
        sides=(8,),
        mean=(0.306,),
        std=(0.376,),
        shift=1,
        flip=False,
        white=16,
    ),
    "cluttered": ImageSource(
        about="32x32 scenes of real digits among fragments; the class is the largest digit's",
        classes=10,
        sides=(32,),
        mean=(0.292,),
        std=(0.256,),
        shift=2,
        flip=False,
        train_images=20_000,
        validation_images=2_000,
    ),
    "glyphs": ImageSource(
        about="100 characters in the faces that matplotlib ships, distorted, in noise, 32x32",
        classes=100,
        sides=(32,),
        mean=(0.373,),
        std=(0.243,),
        shift=2,
        flip=False,
        train_images=20_000,
        validation_images=2_000,
    ),
    # Means and deviations of the four below are the ones in common use since torchvision's and
    # PyTorch's own examples.
    "mnist": ImageSource(
        about="70,000 handwritten digits, 28x28, from torchvision",
        classes=10,
        sides=(28, 32),
        mean=(0.1307,),
        std=(0.3081,),
        shift=2,
        flip=False,
        folder="MNIST/raw",
    ),
    "fashion-mnist": ImageSource(
        about="70,000 pieces of clothing, 28x28, from torchvision",
        classes=10,
        sides=(28, 32),
        mean=(0.2860,),
        std=(0.3530,),
        shift=2,
        flip=True,
        folder="FashionMNIST/raw",
    ),
    "cifar10": ImageSource(
        about="60,000 colour photographs of 10 classes, 32x32, from torchvision",
        classes=10,
        sides=(32,),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        shift=4,
        flip=True,
        folder="cifar-10-batches-py",
    ),
    "cifar100": ImageSource(
        about="60,000 colour photographs of 100 classes, 32x32, from torchvision",
        classes=100,
        sides=(32,),
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        shift=4,
        flip=True,
        folder="cifar-100-python",
    ),
}
"""Image data by name."""

MOST_DISTRACTORS = 32
MOST_GENERATED = 200_000
"""Images of 32x32 that a generated split may have: 205 MB, 5 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageData:
    """A source of images with one class each, and the batches drawn from it."""

    name: str = "digits"
    """digits, cluttered or glyphs (embedded), mnist, fashion-mnist, cifar10 or cifar100."""
    path: str = ""
    """Root folder of torchvision's data sets; empty for embedded ones."""
    download: bool = False
    """Fetch a torchvision data set into path where it is absent."""
    augment: bool = False
    """Shift (and, where a mirror image keeps its class, mirror) training images at random."""
    image_size: int = 0
    """Side in pixels; 0 takes the source's own. MNIST's 28 can be padded with black to 32."""
    train_images: int = 0
    """Images to train on; 0 takes all that the source has (generated ones: 20,000)."""
    validation_images: int = 0
    """Fixed held-out images; 0 takes all that the source has (generated ones: 2,000)."""
    distractors: int = 3
    """Fragments of other digits in a cluttered scene; more of them make it harder."""
    data_seed: int = 0
    """Seed of the generated images themselves; batches depend on the run's seed."""

    def __post_init__(self) -> None:
        self._check_types()
        if self.name not in SOURCES:
            raise ValueError(
                f"data.name must be one of {', '.join(SOURCES)}, got {self.name!r}."
                f"{near(str(self.name), SOURCES)}"
            )
        self._check_place()
        self._check_fits_source()

    @property
    def predictions(self) -> int:
        """Positions of the loss in one sample: an image has one class."""
        return 1

    @property
    def source(self) -> ImageSource:
        """What the data set offers."""
        return SOURCES[self.name]

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return len(self.source.mean)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.source.classes

    @property
    def side(self) -> int:
        """Rows and columns of an image, in pixels."""
        return self.image_size or self.source.sides[0]

    def _check_types(self) -> None:
        for name in ("name", "path"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise ValueError(f"data.{name} must be text, got {value!r}.")
        for name in ("download", "augment"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise ValueError(f"data.{name} must be true or false, got {value!r}.")
        for name in ("image_size", "train_images", "validation_images", "distractors", "data_seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"data.{name} must be a whole number from 0 up, got {value!r}.")

    def _check_place(self) -> None:
        if self.source.folder and not self.path:
            raise ValueError(
                f"data.path must name the root folder of {self.source.folder} for "
                f"data.name={self.name}, got nothing; set data.path=DIR, and data.download=True "
                f"to fetch it there."
            )
        if not self.source.folder and self.path:
            raise ValueError(
                f"data.path must be empty for data.name={self.name}, which is embedded, got "
                f"{self.path!r}; leave it out."
            )
        if not self.source.folder and self.download:
            raise ValueError(
                f"data.download must be False for data.name={self.name}, which is embedded, got "
                f"True; leave it out."
            )
        if self.path and Path(self.path).is_file():
            raise ValueError(f"data.path must be a folder, got the file {self.path!r}.")

    def _check_fits_source(self) -> None:
        if self.side not in self.source.sides:
            raise ValueError(
                f"data.image_size must be {' or '.join(map(str, self.source.sides))} for "
                f"data.name={self.name}, got {self.image_size}; 0 takes its own."
            )
        if self.name != "cluttered" and self.distractors != 3:
            raise ValueError(
                f"data.distractors is of data.name=cluttered alone, got {self.distractors} for "
                f"{self.name}; leave it out."
            )
        if self.distractors > MOST_DISTRACTORS:
            raise ValueError(
                f"data.distractors must be at most {MOST_DISTRACTORS}, got {self.distractors}."
            )
        if not self.source.train_images and self.data_seed:
            raise ValueError(
                f"data.data_seed is of generated images alone (cluttered, glyphs), got "
                f"{self.data_seed} for {self.name}, whose images are fixed; set seed for batches."
            )
        if self.data_seed >= 2**63:
            raise ValueError(f"data.data_seed must be below 2^63, got {self.data_seed}.")
        for name in ("train_images", "validation_images"):
            if self.source.train_images and getattr(self, name) > MOST_GENERATED:
                raise ValueError(
                    f"data.{name} must be at most {MOST_GENERATED} for data.name={self.name}, got "
                    f"{getattr(self, name)}."
                )
