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
    for name, doc in NAMES[what]().items():
        print(f"{name:20} {' '.join(doc.split())}")
    return 0


# Each loads what it is about and nothing else: all together take seconds.
def _presets() -> dict[str, str]:
    from foretune.tuner.config.presets import PRESETS

    return {name: _begin(preset) for name, preset in PRESETS.items()}


def _spaces() -> dict[str, str]:
    from foretune.search_spaces import SPACES, space_module

    modules = {name: space_module(name) for name in SPACES}
    presets = {name: getattr(module, "PRESET", "") for name, module in modules.items()}
    ends = {name: f" (preset {preset})" if preset else "" for name, preset in presets.items()}
    return {name: _begin(module) + ends[name] for name, module in modules.items()}


def _interventions() -> dict[str, str]:
    from foretune.tuner.config.interventions import INTERVENTIONS

    return {name: row.about for name, row in INTERVENTIONS.items()}


def _quantizers() -> dict[str, str]:
    from foretune.tuner.config.quantizers import QUANTIZERS

    return {name: row.about for name, row in QUANTIZERS.items()}


def _models() -> dict[str, str]:
    from foretune.models import MODELS

    return {name: _begin(model) for name, model in MODELS.items()}


def _datasets() -> dict[str, str]:
    from foretune.tuner.config.images import SOURCES
    from foretune.tuner.config.tokens import NAMES as TOKENS

    texts = {name: TEXTS.get(name, "") for name in TOKENS}
    return {**texts, **{name: source.about for name, source in SOURCES.items()}}


def _figures() -> dict[str, str]:
    from foretune.tuner.reproduce.catalog import FIGURES

    return {name: figure.question for name, figure in FIGURES.items()}


def _begin(thing: object) -> str:
    """The first paragraph of what a thing says of itself."""
    return (thing.__doc__ or "").strip().split("\n\n")[0]


NAMES = {
    "presets": _presets,
    "spaces": _spaces,
    "interventions": _interventions,
    "quantizers": _quantizers,
    "models": _models,
    "datasets": _datasets,
    "figures": _figures,
}
