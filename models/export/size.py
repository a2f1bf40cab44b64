"""What an exported model takes: ternary bytes apart from full-precision bytes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSize:
    """Weights and bytes of one exported file."""

    ternary_weights: int
    """Weights stored as packed trits."""
    ternary_bytes: int
    """Their bytes, scales included."""
    fallback_weights: int
    """Ternary weights that the format couldn't pack (GGUF's blocks)."""
    fallback_bytes: int
    """Their bytes."""
    full_weights: int
    """All other values: embedding, head, norms, buffers."""
    full_bytes: int
    """Their bytes."""
    file_bytes: int
    """Size of the file; what the parts don't sum up to is its header and padding."""

    @property
    def weights(self) -> int:
        """All values of the model."""
        return self.ternary_weights + self.fallback_weights + self.full_weights

    @property
    def header_bytes(self) -> int:
        """Bytes that hold no weight: names, metadata, padding."""
        return self.file_bytes - self.ternary_bytes - self.fallback_bytes - self.full_bytes

    @property
    def bits_per_weight(self) -> float:
        """Bits of the file per value of the model."""
        return 8 * self.file_bytes / self.weights

    @property
    def fp32_bytes(self) -> int:
        """Bytes of the same values in fp32, without a header."""
        return 4 * self.weights

    def __str__(self) -> str:
        rows = [("ternary", self.ternary_weights, self.ternary_bytes)]
        if self.fallback_weights:
            rows.append(("ternary, not packed", self.fallback_weights, self.fallback_bytes))
        rows.append(("full precision", self.full_weights, self.full_bytes))
        lines = [f"{'part':<20}{'weights':>14}{'bytes':>14}{'bits/weight':>13}"]
        for name, weights, size in rows:
            bits = f"{8 * size / weights:.4f}" if weights else "-"
            lines.append(f"{name:<20}{weights:>14,}{size:>14,}{bits:>13}")
        lines.append(f"{'header':<20}{'':>14}{self.header_bytes:>14,}{'':>13}")
        lines.append(
            f"{'file':<20}{self.weights:>14,}{self.file_bytes:>14,}{self.bits_per_weight:>13.4f}"
        )
        ratio = self.fp32_bytes / self.file_bytes
        return "\n".join([*lines, f"fp32 would take {self.fp32_bytes:,} bytes: {ratio:.2f}x"])
