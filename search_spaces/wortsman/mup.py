"""Does muP hold the best learning rate still as the model grows, and is training any stabler for
it? (Source A, figure 8 and appendices E.4 and E.5.)

Standard, simple, intermediate and full parametrisation x qk-layernorm x size x learning rate. The
base width is 16, the smallest of the ladder. The paper found a steadier best learning rate, but no
better loss and no lower sensitivity; muP does not replace qk-layernorm. Cost of 120 combinations
and a seed: at `tiny` (300 steps, widths 16-64) four minutes on one core of an AMD Zen 5; at `small`
96 trials, 6.7e16 FLOP; at `paper` 112 trials, 1.2e21 FLOP, 847 H100 hours (`foretune reproduce fig8
--dry-run`).
"""

from foretune.search_spaces.grids import Variants, cross

NAMES = ("standard", "mup-simple", "mup-intermediate", "mup-full")


def variants(base_width: int, *, qk_norm: bool) -> Variants:
    """Returns the parametrisations from a base width on."""
    fields = {name: {"parametrization.name": name, "model.qk_norm": qk_norm} for name in NAMES}
    for name in NAMES[1:]:
        fields[name]["parametrization.base_width"] = base_width
    return fields


VARIANTS = variants(16, qk_norm=True)
SPACE = cross(VARIANTS) + cross(variants(16, qk_norm=False))
