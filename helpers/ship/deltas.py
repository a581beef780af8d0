"""What tuning changed, made small: ways to keep the difference of two models in fewer bytes.

A delta is {weight's name: tuned minus base, float32}. Each way packs one matrix into small tensors
and unpacks them again; a file of them says which base it belongs to.
"""

import hashlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from helpers import CourseError

Delta = dict[str, torch.Tensor]
Parts = dict[str, torch.Tensor]
EMBEDDINGS = ("embed_tokens", "lm_head")  # one and the same where they are tied


def delta_of(base: Mapping[str, torch.Tensor], tuned: Mapping[str, torch.Tensor]) -> Delta:
    """Tuned minus base for every weight, float32; CourseError where they are no such pair."""
    if base.keys() != tuned.keys():
        name = sorted(base.keys() ^ tuned.keys())[0]
        raise CourseError(f"Only one of the two models has {name}; compare a model with its base.")
    delta = {}
    for name, weight in tuned.items():
        if weight.shape != base[name].shape:
            cure = "compare a model with its base"
            raise CourseError(f"{name} has another shape in the two models; {cure}.")
        delta[name] = weight.detach().cpu().float() - base[name].detach().cpu().float()
    return delta


def is_matrix(name: str, weight: torch.Tensor) -> bool:
    """Whether a way makes it smaller: norms are short, and embeddings are not changed alike."""
    return weight.ndim == 2 and not any(part in name for part in EMBEDDINGS)


# Ways to pack one matrix ------------------------------------------------------------------------


class Packing(Protocol):
    """Packs a matrix of shape (outputs, inputs), and unpacks it as nearly as it can."""

    def pack(self, matrix: torch.Tensor) -> Parts:
        """The tensors that are shipped."""
        ...

    def unpack(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, int]) -> torch.Tensor:
        """The float32 matrix they stand for."""
        ...


@dataclass(frozen=True)
class Whole:
    """Every number in 16 bits: what a full tuning ships."""

    def pack(self, matrix: torch.Tensor) -> Parts:
        """Shape (outputs, inputs), bfloat16."""
        return {"all": matrix.bfloat16()}

    def unpack(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, int]) -> torch.Tensor:
        """What was packed."""
        return parts["all"].float()


@dataclass(frozen=True)
class LowRank:
    """The largest `rank` singular values (SVD) in 16 bits: the nearest two thin matrices."""

    rank: int

    def pack(self, matrix: torch.Tensor) -> Parts:
        """ "left" (outputs, rank) and "right" (rank, inputs), bfloat16."""
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        root = values[: self.rank].sqrt()
        thin = {"left": left[:, : self.rank] * root, "right": root[:, None] * right[: self.rank]}
        return {name: part.bfloat16().contiguous() for name, part in thin.items()}

    def unpack(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, int]) -> torch.Tensor:
        """Their product."""
        return parts["left"].float() @ parts["right"].float()


@dataclass(frozen=True)
class Signs:
    """One bit a number, and one scale a matrix: BitDelta (arXiv 2402.10193) before distillation.

    Its mean absolute value is the scale that comes nearest to the matrix.
    """

    def pack(self, matrix: torch.Tensor) -> Parts:
        """ "signs", eight to a byte, and "scale", one float32."""
        return {"signs": packed_bits(matrix > 0), "scale": matrix.abs().mean().reshape(1)}

    def unpack(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, int]) -> torch.Tensor:
        """Plus or minus the scale."""
        return (2.0 * unpacked_bits(parts["signs"], shape) - 1.0) * parts["scale"]


@dataclass(frozen=True)
class Rounded:
    """Every number in 8, 4 or 2 `bits`, each row with a step of its own."""

    bits: int

    def pack(self, matrix: torch.Tensor) -> Parts:
        """ "whole" numbers, packed, and a "steps" for each row, float16."""
        steps, whole = rounded(matrix, self.bits)
        return {"whole": whole, "steps": steps}

    def unpack(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, int]) -> torch.Tensor:
        """The middle of each step."""
        return unrounded(parts["whole"], parts["steps"], self.bits, shape[1])


@dataclass(frozen=True)
class Mixed:
    """Singular vectors with more bits for larger values: Delta-CoMe (arXiv 2406.08903).

    `groups`: (vectors, bits) from the largest on; bits are 8, 4 or 2. Each vector is rounded to the
    nearest step of its own; the paper rounds one after the other so that errors cancel (GPTQ).
    """

    groups: tuple[tuple[int, int], ...] = ((8, 8), (24, 4), (64, 2))

    def pack(self, matrix: torch.Tensor) -> Parts:
        """For each group "left" and "right" of whole numbers, and a step for each vector."""
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        root, parts, begin = values.sqrt(), {}, 0
        for number, (vectors, bits) in enumerate(self.groups):
            own = slice(begin, begin + vectors)
            sides = {"left": (left[:, own] * root[own]).T, "right": root[own, None] * right[own]}
            for name, side in sides.items():
                steps, whole = rounded(side, bits)
                parts[f"{name}{number}"], parts[f"{name}{number}_steps"] = whole, steps
            begin += vectors
        return parts

    def unpack(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, int]) -> torch.Tensor:
        """The sum of the groups' products."""
        matrix = torch.zeros(shape)
        for number, (_, bits) in enumerate(self.groups):
            sides = []
            for name, width in zip(("left", "right"), shape):
                steps = parts[f"{name}{number}_steps"].float()
                sides.append(unrounded(parts[f"{name}{number}"], steps, bits, width))
            matrix += sides[0].T @ sides[1]
        return matrix


@dataclass(frozen=True)
class Dropped:
    """A random share is left out, the rest is scaled up to the same mean: DARE (arXiv 2311.03099).

    Which ones are kept follows from a number that is shipped, so no list of places is. That number
    comes from `seed` and from the matrix: no two matrices are drawn alike.
    """

    share: float
    seed: int = 0

    def pack(self, matrix: torch.Tensor) -> Parts:
        """The numbers that are "kept", bfloat16, already scaled, and the "draw", one int64."""
        digest = hashlib.sha256(f"{self.seed} ".encode() + matrix.contiguous().numpy().tobytes())
        draw = int.from_bytes(digest.digest()[:7], "big")
        kept = matrix[self._kept(draw, matrix.shape)] / (1 - self.share)
        return {"kept": kept.bfloat16(), "draw": torch.tensor([draw])}

    def unpack(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, int]) -> torch.Tensor:
        """Zero where nothing was kept."""
        matrix = torch.zeros(shape)
        matrix[self._kept(int(parts["draw"]), shape)] = parts["kept"].float()
        return matrix

    def _kept(self, draw: int, shape: tuple[int, ...]) -> torch.Tensor:
        # the raw stream of a bit generator is the one that numpy promises not to change
        drawn = np.random.Philox(draw).random_raw(int(np.prod(shape)))
        return torch.from_numpy(drawn >= np.uint64(self.share * 2**64)).reshape(tuple(shape))


@dataclass(frozen=True)
class Ternary:
    """The largest numbers as plus or minus one scale, the others zero: ComPEFT (arXiv 2311.13171).

    `share` is kept. The scale is the mean of what is kept; the paper tunes it on held-out rows.
    """

    share: float

    def pack(self, matrix: torch.Tensor) -> Parts:
        """ "places" and "signs", squeezed by zlib, and "scale", one float32."""
        count = max(1, round(self.share * matrix.numel()))
        least = matrix.abs().flatten().kthvalue(matrix.numel() - count + 1).values
        kept = matrix.abs() >= least
        scale = matrix.abs()[kept].mean().reshape(1)
        places, signs = squeezed(packed_bits(kept)), packed_bits(matrix[kept] > 0)
        return {"places": places, "signs": signs, "scale": scale}

    def unpack(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, int]) -> torch.Tensor:
        """Plus or minus the scale where something was kept."""
        kept = unpacked_bits(unsqueezed(parts["places"]), shape)
        signs = unpacked_bits(parts["signs"], (int(kept.sum()),))
        matrix = torch.zeros(shape)
        matrix[kept] = (2.0 * signs - 1.0) * parts["scale"]
        return matrix


WAYS: dict[str, Callable[..., Packing]] = {
    way.__name__: way for way in (Whole, LowRank, Signs, Rounded, Mixed, Dropped, Ternary)
}


# Bits -------------------------------------------------------------------------------------------


def packed_bits(mask: torch.Tensor) -> torch.Tensor:
    """Booleans of any shape, eight to a byte."""
    return torch.from_numpy(np.packbits(mask.numpy().ravel()))


def unpacked_bits(packed: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The booleans of packed_bits, in their shape."""
    count = int(np.prod(shape))
    return torch.from_numpy(np.unpackbits(packed.numpy())[:count].astype(bool)).reshape(shape)


def squeezed(data: torch.Tensor) -> torch.Tensor:
    """Bytes, compressed: few places in a long row of bits take few bytes."""
    return torch.frombuffer(bytearray(zlib.compress(data.numpy().tobytes(), 9)), dtype=torch.uint8)


def unsqueezed(data: torch.Tensor) -> torch.Tensor:
    """The bytes of squeezed."""
    return torch.frombuffer(bytearray(zlib.decompress(data.numpy().tobytes())), dtype=torch.uint8)


# steps of the best even rounding of normal numbers, in their standard deviation (Max 1960)
STEPS = {8: 0.0308, 4: 0.3352, 2: 0.9957}


def rounded(vectors: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(a step for each vector, float16; whole numbers of `bits`, packed) of shape (n, width)."""
    steps = (STEPS[bits] * vectors.std(1, keepdim=True)).clamp(min=1e-7).half()
    half = 2 ** (bits - 1)
    levels = torch.floor(vectors / steps.float()).clamp(-half, half - 1) + half
    bits_apart = np.unpackbits(levels.to(torch.uint8).numpy()[..., None], axis=-1)[..., 8 - bits :]
    return steps.flatten(), torch.from_numpy(np.packbits(bits_apart.ravel()))


def unrounded(packed: torch.Tensor, steps: torch.Tensor, bits: int, width: int) -> torch.Tensor:
    """The float32 vectors of rounded, shape (n, width): the middle of each step."""
    count = len(steps) * width
    bits_apart = np.unpackbits(packed.numpy())[: count * bits].reshape(count, bits)
    whole = bits_apart @ (1 << np.arange(bits)[::-1])
    levels = torch.from_numpy(whole.astype(np.float32)).reshape(len(steps), width)
    return (levels - 2 ** (bits - 1) + 0.5) * steps.float()[:, None]
