"""Does longer training change how sensitive it is to the learning rate? (Source A, appendix E.7.)

Half, one and two times the steps, with qk-layernorm on, x size x learning rate. The paper found the
same shape of curve at 5e4, 1e5 and 2e5 steps. Cost of 30 combinations and a seed: at `tiny` (150,
300 and 600 steps at widths 32 and 64) two minutes on one core of an AMD Zen 5; at `small` 36
trials, 1.5e16 FLOP; at `paper` 42 trials, 3.0e20 FLOP, 207 H100 hours (`foretune reproduce figE7
--dry-run`).
"""

from foretune.search_spaces.grids import Variants, cross


def variants(steps: int) -> Variants:
    """Returns half, one and two times a length."""
    return {
        f"{length:,} steps": {"steps": length, "model.qk_norm": True}
        for length in (steps // 2, steps, steps * 2)
    }


VARIANTS = variants(300)
SPACE = cross(VARIANTS, sizes=[32, 64])
