"""Should weight decay be independent of the learning rate, and how much of it is right?
(Source A, figure 6 and appendix E.10.)

Independent decay of 0 to 1e-3 a step, and the coupled form 0.1 x learning rate, with qk-layernorm
on, x size x learning rate. The paper found that the independent form is less sensitive to the
learning rate, and that more of it moves the best learning rate slightly up. Cost of 75 combinations
and a seed: at `tiny` (300 steps, widths 16-64) two and a half minutes on one core of an AMD Zen 5;
at `small` 48 trials, 3.4e16 FLOP; at `paper` 98 trials, 7.6e21 FLOP, 5,369 H100 hours (`foretune
reproduce fig6 --dry-run`).
"""

from foretune.search_spaces.grids import cross


def _independent(decay: float) -> dict[str, object]:
    return {
        "optimizer.decay": "independent",
        "optimizer.weight_decay": decay,
        "model.qk_norm": True,
    }


FORMS = {
    "independent 1e-4": _independent(1e-4),
    "coupled 0.1": {
        "optimizer.decay": "coupled",
        "optimizer.weight_decay": 0.1,
        "model.qk_norm": True,
    },
}
"""Figure 6: the two forms at the paper's values."""
VALUES = {
    "0": _independent(0.0),
    "1e-5": _independent(1e-5),
    "1e-4": _independent(1e-4),
    "1e-3": _independent(1e-3),
}
"""Appendix E.10: how much, in the independent form."""
VARIANTS = FORMS | {f"independent {name}": fields for name, fields in VALUES.items()}
SPACE = cross(FORMS | {name: VALUES[name] for name in ("0", "1e-5", "1e-3")})
