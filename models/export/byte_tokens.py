"""The tokenizer of a byte model in the terms of GGUF's readers: GPT-2's, without merges.

GPT-2 writes each byte as one printable character and merges pairs of them. Without merges it gives
one token per byte. (SentencePiece's byte tokens won't do: readers write a space as three bytes.)
"""

from gguf import GGUFWriter, TokenType

BYTES = 256
NEVER = 255
"""A byte that UTF-8 text never holds: it stands for begin and end of text, since readers would
otherwise take token 11, the vertical tab, for them."""
PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
"""Bytes that GPT-2 writes as the character of their own code."""
NO_MERGE = f"{chr(NEVER)} {chr(NEVER)}"
"""Readers want one merge at least; no text holds this pair of bytes."""


def byte_characters() -> list[str]:
    """Returns GPT-2's character of every byte (Radford et al. 2019, `bytes_to_unicode`)."""
    others = iter(range(BYTES, 2 * BYTES))
    return [chr(b) if b in PRINTABLE else chr(next(others)) for b in range(BYTES)]


def add_tokenizer(writer: GGUFWriter, vocab_size: int) -> None:
    """Writes the byte tokenizer; for another vocabulary than bytes, that there is none."""
    if vocab_size != BYTES:
        writer.add_tokenizer_model("none")
        return
    writer.add_tokenizer_model("gpt2")
    # How text is split before merging: no matter here, but this rule's readers keep all spaces.
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(byte_characters())
    writer.add_token_types([TokenType.NORMAL] * BYTES)
    writer.add_token_merges([NO_MERGE])
    writer.add_bos_token_id(NEVER)
    writer.add_eos_token_id(NEVER)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
