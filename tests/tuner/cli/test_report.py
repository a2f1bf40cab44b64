"""`foretune report` says what the page says; `predict` refuses what asks for nothing."""

import pytest
from commands import call
from synthetic import Truth, start_sweep, write_run, write_sweep

from foretune import analysis


def test_the_headline_and_the_path_are_printed(tmp_path, capsys):
    root = write_sweep(tmp_path / "s", widths=(16, 32), qk_norms=(False,))
    code, out, err = call(capsys, f"report '{root}'")
    assert (code, err) == (0, "")
    assert out.startswith("Keep the learning rate of all runs below ")
    assert f"report: {root / 'report' / 'index.html'}" in out


@pytest.mark.slow
def test_a_sweep_of_formats_prints_how_they_compare(tmp_path, capsys):
    root = start_sweep(tmp_path / "s")
    for form, gap in (("none", 0.0), ("ternary", 0.3)):
        for seed in (0, 1, 2):
            extra = (("quantization.format", form), ("quantization.scale", "mean"))
            noise = 0.001 * seed * (form == "none")
            write_run(root, Truth(seed=seed, gap=gap + noise, extra=extra))
    code, out, _ = call(capsys, f"report '{root}'")
    assert code == 0
    assert out.startswith("At size 32, the final loss of ternary mean is 0.299 nats above that of")


def test_a_check_prints_its_verdict(tmp_path, capsys):
    root = write_sweep(tmp_path / "s", qk_norms=(False,))
    prediction = tmp_path / "p.json"
    found = analysis.predict(root, n_params=Truth(width=128).n_params)
    prediction.write_text(found.to_json())
    check = write_sweep(tmp_path / "check", widths=(128,), qk_norms=(False,))
    code, out, _ = call(capsys, f"report '{root}' --check '{prediction}:{check}'")
    assert code == 0
    assert out.startswith("Confirmed: at 589,824 parameters")
    code, _, err = call(capsys, f"report '{root}' --check p.json")
    assert (code, err) == (
        2,
        "foretune: --check must look like PREDICTION.json:DIR, got 'p.json'.\n",
    )


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--level=2", "--level must be above 0 and below 1, got 2; 0.9 gives 90 % intervals."),
        ("--level=nan", "--level must be above 0 and below 1, got nan; 0.9 gives 90 % intervals."),
        ("--lr=0", "--lr must be positive and finite, got 0; 1e-2 is an example."),
        ("--threshold=-3", "--threshold must be a positive number or auto, got -3; 100 is usual."),
        ("--threshold=word", "--threshold must be a number or auto, got 'word'."),
    ],
)
def test_a_question_that_asks_for_nothing_is_one_sentence(tmp_path, capsys, option, sentence):
    """Where no law was fitted, too: the directory isn't even read."""
    code, out, err = call(capsys, f"predict '{tmp_path}/none' --size 64 {option}")
    assert (code, out, err) == (2, "", f"foretune: {sentence}\n")
