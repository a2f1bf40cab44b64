"""Does AdamW's epsilon hold back large models, whose gradients are small? (Source A, figures 12 and
13 and appendix E.15.)

Epsilon x size x learning rate, with qk-layernorm on. The paper found that gradients fall to 1e-8 at
4.8B parameters and learning rate 0.3, that 1e-15 then gives a better loss, and that 1e-6 diverges.
Small models have larger gradients, so larger epsilons stand in: 1e-4 and 1e-3. Cost of 75
combinations and a seed: at `tiny` (300 steps, widths 16-64) two and a half minutes on one core of
an AMD Zen 5; at `small` 120 trials, 8.4e16 FLOP; at `paper` 245 trials, 1.9e22 FLOP, 13,422 H100
hours (`foretune reproduce fig12 --dry-run`).
"""

from collections.abc import Mapping

from foretune.search_spaces.grids import cross

EPSILONS = {"1e-15": 1e-15, "1e-8": 1e-8, "1e-6": 1e-6, "1e-4": 1e-4, "1e-3": 1e-3}
MORE = {"1e-5": 1e-5, "1e-2": 1e-2}
"""Between and beyond, for where epsilon begins to cost loss: `foretune reproduce epsilon-onset`."""


def _variants(epsilons: Mapping[str, float]) -> dict[str, dict[str, object]]:
    return {
        name: {"optimizer.epsilon": value, "model.qk_norm": True}
        for name, value in epsilons.items()
    }


VARIANTS = _variants(EPSILONS)
MORE_VARIANTS = _variants(MORE)
SPACE = cross(VARIANTS)
