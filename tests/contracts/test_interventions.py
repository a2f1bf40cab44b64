"""What every intervention promises: it changes the settings that it states and nothing else, acts
first where it states, is no change at zero strength, survives a resume, and composes.

How each mechanism computes is checked against independent formulas in tests/models and tests/tuner;
here every name is held against the same claims.
"""

from collections.abc import Iterable, Iterator
from itertools import combinations, islice
from pathlib import Path

import pytest
import torch

from foretune.search_spaces import interventions as space
from foretune.tuner.config.apply import changed_fields, intervene
from foretune.tuner.config.interventions import INTERVENTIONS
from foretune.tuner.config.override import dotted, override
from foretune.tuner.config.resolve import resolve
from foretune.tuner.config.run import Run
from foretune.tuner.training.losses import cross_entropy, z_loss
from foretune.tuner.training.train import Training

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]

STATED: dict[str, tuple[str, dict[str, object]]] = {
    "qk-layernorm": ("forward", {"model.qk_norm": True}),
    "qk-layernorm-whole": ("forward", {"model.qk_norm": True, "model.qk_norm_span": "width"}),
    "qkv-norm": ("forward", {"model.qk_norm": True, "model.v_norm": True}),
    "attention-softcap": ("forward", {"model.attention_softcap": 50.0}),
    "logit-softcap": ("forward", {"model.logit_softcap": 30.0}),
    "pointwise-attention": ("forward", {"model.attention": "relu2"}),
    "linear-head-scale": ("forward", {"model.attention_scale": "linear"}),
    "zero-query": ("start", {"model.zero_query": True}),
    "kappa-normalisation": ("forward", {"model.kappa": 10.0}),
    "sigma-reparam": ("forward", {"model.sigma_reparam": True}),
    "rmsnorm": ("forward", {"model.norm": "rmsnorm"}),
    "post-norm": ("forward", {"model.norm_placement": "post"}),
    "reordered-norm": ("forward", {"model.norm_placement": "reordered"}),
    "depth-scaling": ("forward", {"parametrization.base_depth": 2}),
    "mup-simple": ("update", {"parametrization.name": "mup-simple"}),
    "mup-intermediate": ("start", {"parametrization.name": "mup-intermediate"}),
    "mup-full": ("start", {"parametrization.name": "mup-full"}),
    "z-loss": ("gradient", {"loss.z_loss": 1e-4}),
    "long-warmup": ("update", {"schedule.warmup_steps": 20}),
    "no-warmup": ("update", {"schedule.warmup_steps": 0}),
    "linear-schedule": ("later", {"schedule.name": "linear"}),
    "wsd-schedule": ("later", {"schedule.name": "wsd"}),
    "constant-schedule": ("later", {"schedule.name": "constant"}),
    "coupled-decay": ("update", {"optimizer.decay": "coupled", "optimizer.weight_decay": 0.1}),
    "no-decay": ("update", {"optimizer.weight_decay": 0.0}),
    "decay-matrices": ("update", {"optimizer.decay_on": "matrices"}),
    "decay-linear": ("update", {"optimizer.decay_on": "linear"}),
    "small-epsilon": ("update", {"optimizer.epsilon": 1e-15}),
    "large-epsilon": ("update", {"optimizer.epsilon": 1e-6}),
    "no-clipping": ("update", {"optimizer.clip_norm": 0.0}),
    "agc": ("update", {"optimizer.clip_norm": 0.0, "optimizer.agc": 0.1}),
    "adagc": ("later", {"optimizer.clip_norm": 0.0, "optimizer.adagc": 1.05}),
    "zclip": ("update", {"optimizer.clip_norm": 0.0, "optimizer.zclip": 2.5}),
    "update-clipping": ("later", {"optimizer.update_clip": 1.0}),
    "rms-scaled-lr": ("update", {"optimizer.lr_scale": "rms"}),
    "low-qk-lr": ("update", {"optimizer.qk_lr": 0.1}),
    "qk-clip": ("update", {"optimizer.qk_clip": 100.0}),
    "skip-step": ("later", {"optimizer.skip_sigma": 6.0}),
    "atan2": ("update", {"optimizer.name": "adamw-atan2"}),
    "muon": ("update", {"optimizer.name": "muon"}),
}
"""Where a run with it first differs from one without, and every field that it sets."""

NO_DIFFERENCE_BY_ITSELF = {
    "zclip": {"steps": 80, "optimizer.zclip": 0.2},
    "skip-step": {"steps": 80, "optimizer.skip_sigma": 0.5},
    "qk-clip": {"optimizer.qk_clip": 0.1},
}
"""What makes those act that only act on something unusual."""

ZERO: dict[str, dict[str, object]] = {
    "attention-softcap": {"model.attention_softcap": 0.0},
    "logit-softcap": {"model.logit_softcap": 0.0},
    "kappa-normalisation": {"model.kappa": 0.0},
    "depth-scaling": {"parametrization.base_depth": 3},
    "mup-simple": {"parametrization.base_width": 32},
    "mup-intermediate": {"parametrization.base_width": 32},
    "z-loss": {"loss.z_loss": 0.0},
    "update-clipping": {"optimizer.update_clip": 0.0},
    "agc": {"optimizer.agc": 0.0, "optimizer.clip_norm": 1.0},
    "adagc": {"optimizer.adagc": 0.0, "optimizer.clip_norm": 1.0},
    "zclip": {"optimizer.zclip": 0.0, "optimizer.clip_norm": 1.0},
    "low-qk-lr": {"optimizer.qk_lr": 1.0},
    "qk-clip": {"optimizer.qk_clip": 0.0},
    "skip-step": {"optimizer.skip_sigma": 0.0},
    "long-warmup": {"schedule.warmup_steps": 4},
    "no-warmup": {"schedule.warmup_steps": 4},
    "no-clipping": {"optimizer.clip_norm": 1.0},
    "no-decay": {"optimizer.weight_decay": 1e-4},
    "coupled-decay": {"optimizer.decay": "independent", "optimizer.weight_decay": 1e-4},
    "small-epsilon": {"optimizer.epsilon": 1e-8},
    "large-epsilon": {"optimizer.epsilon": 1e-8},
}
"""The setting at which an intervention that has a strength changes nothing."""
CHOICES = sorted(STATED.keys() - ZERO.keys())
"""Those that are on or off; docs/interventions.md lists them."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    text = tmp_path_factory.mktemp("text") / "os.txt"
    text.write_bytes(Path(torch.__file__).read_bytes()[:40_000])
    changes = {
        "steps": 80,
        "batch_size": 2,
        "micro_batch_size": 2,
        "eval_every": 4,
        "telemetry_every": 4,
        "model.width": 32,
        "model.head_dim": 8,
        "model.max_positions": 16,
        "data.name": "text",
        "data.path": str(text),
        "data.sequence_length": 16,
        "data.validation_sequences": 4,
        "optimizer.lr": 0.03,
    }
    return resolve("lm-tiny", overrides=changes)


Stage = tuple[str, dict[str, torch.Tensor]]
MOST_UPDATES = 76


@pytest.fixture(scope="module")
def plain(base: Run) -> list[Stage]:
    """What the run without an intervention computes."""
    return list(stages(base, MOST_UPDATES))


def training(run: Run) -> Training:
    return Training(run, lambda step, row: None, device="cpu")


def by_name(run: Training, flat: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(zip(run.flat.names, (v.clone() for v in run.flat.views(flat)), strict=True))


def stages(run: Run, updates: int) -> Iterator[Stage]:
    """What a run computes, in order: weights at the start, logits, gradients, weights after."""
    trained = training(run)
    tokens, targets = trained.stream.batch(run.seed, 0)
    yield "start", by_name(trained, trained.flat.values)
    logits = trained.model(tokens)
    yield "forward", {"": logits.detach()}
    loss = cross_entropy(logits, targets)
    if run.loss.z_loss:
        loss = loss + run.loss.z_loss * z_loss(logits)
    loss.backward()
    yield "gradient", by_name(trained, trained.flat.grads)
    trained = training(run)
    trained._validate()
    for _ in range(updates):
        trained._update()
        yield "update", by_name(trained, trained.flat.values)


def first_difference(one: list[Stage], other: Run, updates: int) -> str:
    """The first stage in which parameters that both have differ in a bit."""
    steps = 0
    first: Iterable[Stage] = islice(one, len(one) - MOST_UPDATES + updates)
    for (stage, left), (_, right) in zip(first, stages(other, updates), strict=True):
        steps += stage == "update"
        shared = left.keys() & right.keys()
        if any(not torch.equal(left[name], right[name]) for name in shared):
            return "later" if steps > 1 else stage
    return "nowhere"


def test_every_intervention_is_held_against_these_claims_and_swept_in_a_space():
    assert list(INTERVENTIONS) == list(STATED)
    assert list(INTERVENTIONS) == space.ALONE
    for names in space.TOGETHER:
        intervene(resolve("lm-tiny"), names.split("+"))


@pytest.mark.parametrize("name", STATED)
def test_it_sets_the_fields_that_it_states_and_no_other(name, base):
    before, after = dotted(base), dotted(intervene(base, [name]))
    assert {field: after[field] for field in changed_fields(before, after)} == STATED[name][1]


@pytest.mark.parametrize("name", STATED)
def test_it_acts_first_where_it_states_and_all_before_is_the_same_to_the_bit(name, base, plain):
    quiet = NO_DIFFERENCE_BY_ITSELF.get(name, {})
    changed = override(intervene(base, [name]), quiet)
    updates = MOST_UPDATES if name == "skip-step" else 8
    assert first_difference(plain, changed, updates) == STATED[name][0]


@pytest.mark.parametrize("name", ZERO)
def test_it_is_no_change_at_zero_strength(name, base, plain):
    run = override(intervene(base, [name]), ZERO[name])
    assert first_difference(plain, run, 6) == "nowhere"


@pytest.mark.parametrize("name", STATED)
def test_a_resumed_run_goes_on_as_one_that_was_never_interrupted(name, base, tmp_path):
    changes = {"steps": 8, "schedule.warmup_steps": 2, **NO_DIFFERENCE_BY_ITSELF.get(name, {})}
    run = override(intervene(override(base, {"schedule.warmup_steps": 2}), [name]), changes)
    rows: list[tuple[int, dict[str, float]]] = []

    def sink(step: int, row) -> None:
        rows.append((step, {k: v for k, v in row.items() if k != "seconds"}))

    whole = Training(run, sink, device="cpu")
    while whole.outcome is None:
        whole.advance()
    straight, saved_at = list(rows), 4 * (run.steps // 8)
    rows.clear()
    first = Training(run, sink, device="cpu")
    while first.step < saved_at:
        first.advance()
    first.save(tmp_path)
    rows[:] = [row for row in rows if row[0] < saved_at]
    second = Training(run, sink, device="cpu", restore=tmp_path)
    while second.outcome is None:
        second.advance()
    assert rows == straight
    assert torch.equal(second.flat.values, whole.flat.values)


def test_two_that_set_different_fields_give_one_run_in_either_order_and_others_are_refused(base):
    told, refused = 0, set[str]()
    for one, other in combinations(INTERVENTIONS, 2):
        runs = []
        for names in ((one, other), (other, one)):
            try:
                runs.append(intervene(base, names))
            except ValueError as error:
                refused.add(str(error))
                runs.append(None)
        assert runs[0] == runs[1], (one, other)
        told += runs[0] is not None
    assert told > 600
    assert all(text.startswith("intervention") and text.endswith(".") for text in refused)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["qk-layernorm", "qk-clip"], "qk_clip"),
        (["qk-layernorm", "kappa-normalisation"], "kappa"),
        (["mup-simple", "mup-full"], "interventions must set different fields"),
        (["zclip", "adagc"], "optimizer"),
        (["attention-softcap", "pointwise-attention"], "softcap"),
        (["no-decay", "coupled-decay"], "optimizer.weight_decay"),
        (["agc", "no-clipping"], "both set optimizer.clip_norm"),
        (["no-clipping", "agc"], "both set optimizer.clip_norm"),
    ],
)
def test_what_makes_no_sense_together_is_one_sentence(names, sentence, base):
    with pytest.raises(ValueError, match=sentence) as refusal:
        intervene(base, names)
    assert "\n" not in str(refusal.value)


def test_the_page_names_every_intervention_and_which_are_choices_without_a_strength():
    page = (ROOT / "docs" / "interventions.md").read_text()
    rows = {
        cells[0].strip("` "): [cell.strip() for cell in cells]
        for line in page.splitlines()
        if line.startswith("| `") and len(cells := line.strip("|").split("|")) >= 4
    }
    assert list(rows) == list(INTERVENTIONS)
    assert sorted(name for name, cells in rows.items() if cells[3] == "none") == CHOICES
