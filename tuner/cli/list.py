"""`foretune list`: what there is, one line each."""

from typing import Literal

from tyro.conf import Positional

TEXTS = {
    "stdlib": "The running Python's own standard-library sources, as bytes (embedded).",
    "prose": "The language reference that Python's help() shows, as bytes (embedded, English).",
    "text": "A local file, or all files of a folder, as bytes: data.path.",
    "tokens": "A memory-mapped token file, .npy or .bin (uint16): data.path, data.vocab_size.",
    "c4": "English C4 as tokens, from the hub or a folder: data.tokenizer, data.tokens (extra hf).",
    "hf": "Any data set of Hugging Face as tokens: data.path, data.tokenizer, data.tokens.",
}


def list_names(
    what: Positional[
        Literal["presets", "spaces", "interventions", "quantizers", "models", "datasets", "figures"]
    ],
    /,
) -> int:
    """What there is, one line each.

    Args:
        what: which names.
    """
    from foretune.models import MODELS
    from foretune.search_spaces import SPACES, space_module
    from foretune.tuner.config.images import SOURCES
    from foretune.tuner.config.interventions import INTERVENTIONS
    from foretune.tuner.config.presets import PRESETS
    from foretune.tuner.config.quantizers import QUANTIZERS
    from foretune.tuner.config.tokens import NAMES as DATASETS
    from foretune.tuner.reproduce.catalog import FIGURES

    families: dict[str, dict[str, object]] = {
        "presets": dict(PRESETS),
        "spaces": {name: space_module(name) for name in SPACES},
        "interventions": dict(INTERVENTIONS),
        "quantizers": dict(QUANTIZERS),
        "models": dict(MODELS),
        "datasets": {name: None for name in (*DATASETS, *SOURCES)},
        "figures": dict(FIGURES),
    }
    about = {
        "datasets": {**TEXTS, **{name: source.about for name, source in SOURCES.items()}},
        "quantizers": {name: row.about for name, row in QUANTIZERS.items()},
        "interventions": {name: row.about for name, row in INTERVENTIONS.items()},
        "figures": {name: figure.question for name, figure in FIGURES.items()},
    }.get(what, {})
    for name, thing in families[what].items():
        doc = about.get(name) or (thing.__doc__ or "").strip().split("\n\n")[0]
        preset = getattr(thing, "PRESET", "") if what == "spaces" else ""
        print(f"{name:20} {' '.join(doc.split())}" + (f" (preset {preset})" if preset else ""))
    return 0
