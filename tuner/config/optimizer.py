"""The update rule, what surrounds it, and its learning rate over time: parts of a `Run`."""

from dataclasses import dataclass

from foretune.tuner.config.checks import check_below_one, check_number, check_one_of, check_whole

RULES = ("adamw", "adamw-atan2", "muon")
"""Update rules by name; see `tuner.optim.update_rules`."""
CLIPPINGS = ("clip_norm", "agc", "adagc", "zclip")
"""Fields that clip gradients, of which one may be on; see `tuner.optim.gradient_clipping`."""
SCHEDULES = ("cosine", "linear", "wsd", "constant")
"""Learning rates over time; see `tuner.optim.lr_schedule`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """The update rule and what surrounds it. A tensor is one parameter of the model."""

    name: str = "adamw"
    """Update rule: adamw; adamw-atan2, the same without epsilon; muon, for the matrices of the
    blocks, with AdamW for all else."""
    lr: float = 1e-2
    """Peak learning rate eta: the schedule's maximum."""
    weight_decay: float = 1e-4
    """Decay lambda."""
    decay: str = "independent"
    """independent: theta loses s_t lambda theta a step; coupled: s_t eta lambda theta, eta with the
    factors of its parametrization and of qk_lr."""
    decay_on: str = "all"
    """What decays: all; matrices, tensors of two axes or more; linear, those but embeddings."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.95
    """Decay of the second moment."""
    epsilon: float = 1e-8
    """Added to the root of the second moment."""
    momentum: float = 0.95
    """Decay of Muon's moment; muon only."""
    clip_norm: float = 1.0
    """Largest global gradient norm; 0 switches clipping off."""
    agc: float = 0.0
    """Largest ratio of a tensor's gradient norm to its weight norm (Brock et al. 2021); 0 is
    off."""
    adagc: float = 0.0
    """Largest ratio of a tensor's gradient norm to its running mean (AdaGC, Wang et al. 2025:
    1.05); 0 is off."""
    zclip: float = 0.0
    """Largest z-score of the global gradient norm (ZClip, Kumar et al. 2025: 2.5); 0 is off."""
    update_clip: float = 0.0
    """RMS_t above which a tensor's learning rate is divided by RMS_t / update_clip (StableAdamW,
    Wortsman et al. 2023: 1); 0 is off."""
    lr_scale: str = "none"
    """rms: a tensor's learning rate times max(RMS of its weights, 1e-3) (Adafactor; source A,
    appendix E.14); none."""
    qk_lr: float = 1.0
    """Factor on the learning rate of the weights that make queries and keys."""
    qk_clip: float = 0.0
    """Largest attention logit tau: after an update, the query and key weights of a head whose
    largest logit S was above are scaled by sqrt(tau / S) (Kimi K2: 100); 0 is off."""
    skip_sigma: float = 0.0
    """Standard deviations above the mean of the last 128 steps at which a loss or gradient norm
    makes a step be skipped (OLMo-core: 6); 0 is off."""

    def __post_init__(self) -> None:
        check_one_of("optimizer.name", self.name, RULES)
        for name in ("lr", "qk_lr"):
            check_number(f"optimizer.{name}", getattr(self, name), low=0.0, open_low=True)
        check_number("optimizer.weight_decay", self.weight_decay, low=0.0)
        check_one_of("optimizer.decay", self.decay, ("independent", "coupled"))
        check_one_of("optimizer.decay_on", self.decay_on, ("all", "matrices", "linear"))
        for name in ("beta1", "beta2", "momentum"):
            check_below_one(f"optimizer.{name}", getattr(self, name))
        for name in ("epsilon", *CLIPPINGS, "update_clip", "qk_clip", "skip_sigma"):
            check_number(f"optimizer.{name}", getattr(self, name), low=0.0)
        check_one_of("optimizer.lr_scale", self.lr_scale, ("none", "rms"))
        self._check_together()

    def _check_together(self) -> None:
        clipping = [name for name in CLIPPINGS if getattr(self, name)]
        if len(clipping) > 1:
            given = " and ".join(f"{name}={getattr(self, name)!r}" for name in clipping)
            raise ValueError(
                f"optimizer must clip gradients in one way, got {given}; "
                f"set optimizer.{clipping[0]}=0, say."
            )
        if self.update_clip and self.name == "muon":
            raise ValueError(
                f"optimizer.update_clip must be 0 with optimizer.name=muon, whose matrices have no "
                f"second moment, got {self.update_clip!r}; set optimizer.name=adamw."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Linear warm-up to the peak, then a fall to `final_lr` at the last step.

    The first step after the warm-up is at the peak: where it is the last one, too (warmup_steps =
    steps - 1), the run ends at the peak.
    """

    name: str = "cosine"
    """Shape of the fall: cosine, linear, wsd (none, then linear at the end) or constant (none)."""
    warmup_steps: int = 10
    """Steps of linear warm-up; 0 starts at the peak."""
    final_lr: float = 1e-5
    """Learning rate of the last step, absolute (source A: 1e-5)."""
    decay_share: float = 0.2
    """Share of all steps in which wsd falls; wsd only."""

    def __post_init__(self) -> None:
        check_one_of("schedule.name", self.name, SCHEDULES)
        check_whole("schedule.warmup_steps", self.warmup_steps, low=0)
        check_number("schedule.final_lr", self.final_lr, low=0.0)
        check_number("schedule.decay_share", self.decay_share, low=0.0, open_low=True)
        if self.decay_share > 1:
            raise ValueError(f"schedule.decay_share must be at most 1, got {self.decay_share!r}.")

    def decay_steps(self, steps: int) -> int:
        """Returns the number of steps, of so many in all, in which wsd falls: at least 1."""
        return max(1, round(self.decay_share * steps))
