"""Does the batch size change how sensitive training is to the learning rate, at equal data?
(Source A, appendix E.9.)

Half, one and two times the batch at two, one and half times the steps, with qk-layernorm on, x size
x learning rate. The paper found the same shape of curve at 256, 512 and 1024 sequences. Cost of 30
combinations and a seed: at `tiny` (widths 32 and 64) a minute and a half on one core of an AMD Zen
5; at `small` 36 trials, 1.3e16 FLOP; at `paper` 42 trials, 2.5e20 FLOP, 178 H100 hours (`foretune
reproduce figE9 --dry-run`).
"""

from foretune.search_spaces.grids import Variants, cross


def variants(batch_size: int, steps: int) -> Variants:
    """Returns half, one and two times a batch at equal data."""
    return {
        f"batch {size}": {
            "batch_size": size,
            "micro_batch_size": size,
            "steps": steps * batch_size // size,
            "model.qk_norm": True,
        }
        for size in (batch_size // 2, batch_size, batch_size * 2)
    }


VARIANTS = variants(8, 300)
SPACE = cross(VARIANTS, sizes=[32, 64])
