"""What every row of the table of interventions promises: it changes the settings that it states, it
acts first where it states, is no change at zero strength, survives a resume, and composes.

How each mechanism computes is checked against independent formulas in tests/models and tests/tuner;
here every row is held against the same claims.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, islice
from pathlib import Path

import pytest
import torch

from benchmarks.science import intervention_page
from foretune.search_spaces.interventions import TOGETHER
from foretune.tuner.config.apply import changed_fields, intervene
from foretune.tuner.config.intervention import Own
from foretune.tuner.config.interventions import INTERVENTIONS
from foretune.tuner.config.override import dotted, override
from foretune.tuner.config.resolve import resolve
from foretune.tuner.config.run import Run
from foretune.tuner.planning.spaces import named_space
from foretune.tuner.training.losses import cross_entropy, z_loss
from foretune.tuner.training.train import Training

torch.set_num_threads(1)
each = pytest.mark.parametrize(("name", "row"), INTERVENTIONS.items(), ids=list(INTERVENTIONS))


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


def test_all_are_swept_in_their_space_alone_and_some_together():
    space = named_space("interventions")
    assert isinstance(space, Mapping)
    names = space["intervention"]["grid_search"]
    assert names == ["none", *INTERVENTIONS, *TOGETHER]
    for together in TOGETHER:
        intervene(resolve("lm-tiny"), together.split("+"))


@each
def test_it_changes_every_field_that_it_states_and_no_other(name, row, base):
    before, after = dotted(base), dotted(intervene(base, [name]))
    stated = row.sets(base) if callable(row.sets) else row.sets
    assert {field: after[field] for field in changed_fields(before, after)} == stated


@each
def test_it_acts_first_where_it_states_and_all_before_is_the_same_to_the_bit(
    name, row, base, plain
):
    changed = override(intervene(base, [name]), row.provoked)
    assert first_difference(plain, changed, MOST_UPDATES) == row.acts


@pytest.mark.parametrize("name", [n for n, row in INTERVENTIONS.items() if row.zero is not None])
def test_it_is_no_change_at_zero_strength(name, base, plain):
    before, zero = dotted(base), INTERVENTIONS[name].zero.items()
    changes = {path: before[v.path] if isinstance(v, Own) else v for path, v in zero}
    assert first_difference(plain, override(intervene(base, [name]), changes), 6) == "nowhere"


@each
def test_a_resumed_run_goes_on_as_one_that_was_never_interrupted(name, row, base, tmp_path):
    changes = {"steps": 80 if row.provoked else 8, "schedule.warmup_steps": 2, **row.provoked}
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
    accepted, refused = 0, set[str]()
    for one, other in combinations(INTERVENTIONS, 2):
        runs = []
        for names in ((one, other), (other, one)):
            try:
                runs.append(intervene(base, names))
            except ValueError as error:
                refused.add(str(error))
                runs.append(None)
        assert runs[0] == runs[1], (one, other)
        accepted += runs[0] is not None
    assert accepted > 600
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


def test_the_page_has_the_table_of_the_rows():
    """If not: python -m benchmarks.science.intervention_page --write."""
    assert intervention_page.SECTION.read() == intervention_page.table()


def test_a_row_says_what_it_does_in_a_sentence_and_who_proposed_it_without_breaking_a_table():
    for name, row in INTERVENTIONS.items():
        assert row.about.endswith("."), name
        assert not set("|\n") & set(row.about + row.source), name
