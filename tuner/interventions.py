"""Named changes meant to alter stability: each a function Run -> Run.

The mechanism is a typed field where it acts; an intervention only names a setting of it. To add
one, write a function here and a line in `INTERVENTIONS`.
"""

from collections.abc import Callable, Iterable, Mapping

from tuner.config import Run, dotted, near, override
from tuner.override import UnknownField


def qk_layernorm(run: Run) -> Run:
    """LayerNorm on q and k of every head, which bounds the attention logits."""
    return override(run, {"model.qk_norm": True})


def z_loss(run: Run) -> Run:
    """Adds 1e-4 log^2 Z to the training loss, which holds the output logits near zero."""
    return override(run, {"loss.z_loss": 1e-4})


def long_warmup(run: Run) -> Run:
    """Warm-up over a quarter of the steps instead of a twentieth."""
    return override(run, {"schedule.warmup_steps": max(1, run.steps // 4)})


def no_warmup(run: Run) -> Run:
    """Starts at the peak learning rate."""
    return override(run, {"schedule.warmup_steps": 0})


def coupled_decay(run: Run) -> Run:
    """Weight decay 0.1 times the learning rate, PyTorch's default form, instead of independent."""
    return override(run, {"optimizer.decay": "coupled", "optimizer.weight_decay": 0.1})


def no_decay(run: Run) -> Run:
    """No weight decay."""
    return override(run, {"optimizer.weight_decay": 0.0})


def no_clipping(run: Run) -> Run:
    """No limit on the gradient norm."""
    return override(run, {"optimizer.clip_norm": 0.0})


def small_epsilon(run: Run) -> Run:
    """AdamW epsilon 1e-15, so that small gradients still make full updates."""
    return override(run, {"optimizer.epsilon": 1e-15})


INTERVENTIONS: dict[str, Callable[[Run], Run]] = {
    "qk-layernorm": qk_layernorm,
    "z-loss": z_loss,
    "long-warmup": long_warmup,
    "no-warmup": no_warmup,
    "coupled-decay": coupled_decay,
    "no-decay": no_decay,
    "no-clipping": no_clipping,
    "small-epsilon": small_epsilon,
}
"""Interventions by name."""


def intervene(run: Run, names: Iterable[str]) -> Run:
    """Returns the run changed from left to right.

    Raises ValueError for an unknown name, one given twice and one that doesn't fit the model.
    """
    done: list[str] = []
    for name in names:
        if name not in INTERVENTIONS:
            raise ValueError(
                f"intervention must be one of {', '.join(INTERVENTIONS)}, got {name!r}."
                f"{near(name, INTERVENTIONS)}"
            )
        if name in done:
            raise ValueError(f"intervention must be given once, got {name} twice; leave one out.")
        try:
            run = INTERVENTIONS[name](run)
        except UnknownField as error:
            raise ValueError(
                f"intervention {name} needs a field {error.path}, which {error.owner} doesn't have."
            ) from None
        done.append(name)
    return run


def check_undone(
    run: Run, names: Iterable[str], changes: Mapping[str, object], origin: Mapping[str, str]
) -> None:
    """ValueError where a change that came after the interventions has undone one of them.

    run is what came out; origin says where a change's path is from if not from --set: `space`, or
    an option.
    """
    names = list(names)
    now, again = dotted(run), dotted(intervene(run, names))
    for field, value in again.items():
        paths = [p for p in changes if field == p or field.startswith(f"{p}.")]
        if not paths or repr(now[field]) == repr(value):
            continue
        (*_, name) = (
            n for n in names if repr(dotted(intervene(run, [n]))[field]) != repr(now[field])
        )
        place = origin.get(paths[0], "--set")
        if place == "space":
            end = f"which the space varies; add --drop {paths[0]}."
        elif place == "--set":
            end = f"which --set sets to {now[field]!r}; leave one out."
        else:
            end = f"which {place} varies; leave one out."
        raise ValueError(f"intervention {name} sets {field}, {end}")
