"""Random shifts and mirror images of a batch. Shapes: B images, C channels, H x W pixels."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def augment(
    images_BCHW: np.ndarray, rng: np.random.Generator, *, shift: int, flip: bool
) -> np.ndarray:
    """Returns images moved by -shift to shift pixels each way and, with flip, mirrored by chance.

    What moves in is black (0), as in a random crop after padding by `shift` (He et al., 2015,
    section 4.2, with 4).
    """
    batch, _, height, width = images_BCHW.shape
    down_B, right_B = rng.integers(0, 2 * shift, size=(2, batch), endpoint=True)
    mirrored_B = rng.integers(0, 2, size=batch, dtype=np.int8).astype(bool)
    padded = np.pad(images_BCHW, ((0, 0), (0, 0), (shift, shift), (shift, shift)))
    windows = sliding_window_view(padded, (height, width), axis=(2, 3))
    moved_BCHW = windows[np.arange(batch), :, down_B, right_B]
    if not flip:
        return moved_BCHW
    return np.where(mirrored_B[:, None, None, None], moved_BCHW[..., ::-1], moved_BCHW)
