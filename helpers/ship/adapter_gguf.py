"""A stored LoRA adapter for llama.cpp: a GGUF file that it lays over the base's, or one of both.

The adapter's own file is a tenth of the base and can be taken away again. Merged there is nothing
to multiply beside each layer, which a small model answers noticeably faster.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import CourseError

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}
KINDS = {
    "F16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "Q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "Q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}
WRITTEN = (gguf.Keys.General.ARCHITECTURE, gguf.Keys.General.FILE_TYPE)  # not copied
# what PEFT writes beside an adapter and what changes nothing of how its weights are applied; every
# other setting that is switched on is refused, one that a later PEFT invents too
# fmt: off
HARMLESS = {
    "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config",
    "exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform", "lora_alpha",
    "lora_dropout", "megatron_core", "peft_version", "qalora_group_size", "r", "rank_pattern",
    "revision", "runtime_config", "target_modules", "task_type",
}
# fmt: on
ONLY = {  # the values of these that leave the base as it is
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),
}
PLAIN = "train a plain LoRA adapter, or let the model answer in this process"


def write_adapter_gguf(adapter: Path, base: Path, target: Path) -> Path:
    """Write the PEFT adapter in the folder `adapter` as the GGUF file `target`; returns `target`.

    `base`: the folder of its base model, llama or qwen2, of which config.json is read. The same
    adapter gives the same bytes, in one step. Raises CourseError for an adapter that is missing, is
    of another shape than the base, or has what llama.cpp would leave out.
    """
    adapter, base, target = Path(adapter), Path(base), Path(target)
    alpha = _alpha(read_settings(adapter))
    config = _served_config(base)
    tensors = _renamed(lora_pairs(adapter), config)
    with _written(target) as half:
        writer = gguf.GGUFWriter(half, config.model_type)  # the name of the architecture as well
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
        for name in sorted(tensors):
            writer.add_tensor(name, tensors[name])
        _finish(writer)
    return target


def write_merged_gguf(
    adapter: Path, base: Path, base_gguf: Path | None, target: Path, kind: str = "Q8_0"
) -> Path:
    """Write base and adapter as one GGUF file `target`, which llama.cpp serves alone; returns it.

    `base`, `adapter`: as in write_adapter_gguf; `base_gguf`: the base's weights and vocabulary.
    `kind`: F16, or Q8_0 or Q4_0: one byte or half a byte a number and a scale for each 32. What it
    rounds away is not measured here: compare answers. Raises CourseError as write_adapter_gguf.
    """
    adapter, base, target = Path(adapter), Path(base), Path(target)
    if kind not in KINDS:
        raise CourseError(f"Merged weights are written as {' or '.join(KINDS)}, not as {kind!r}.")
    if base_gguf is None:
        raise CourseError(f"The base in {base.name}/ came without a GGUF file; let it answer here.")
    alpha, config = _alpha(read_settings(adapter)), _served_config(base)
    sides = _renamed(lora_pairs(adapter), config)
    number, file_type = KINDS[kind]
    with _written(target) as half:
        read = gguf.GGUFReader(str(base_gguf))
        writer = gguf.GGUFWriter(half, config.model_type)
        for name, field in read.fields.items():
            if not name.startswith("GGUF.") and name not in WRITTEN:
                of = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(name, field.contents(), field.types[0], sub_type=of)
        writer.add_file_type(file_type)
        for tensor in read.tensors:
            weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            small = sides.pop(f"{tensor.name}.lora_a", None)
            if small is not None:
                large = sides.pop(f"{tensor.name}.lora_b").astype(np.float32)
                weight += alpha / len(small) * large @ small.astype(np.float32)
            if weight.ndim == 1:  # norms and biases
                writer.add_tensor(tensor.name, weight)
            else:
                rounded = gguf.quants.quantize(weight, number)
                writer.add_tensor(tensor.name, rounded, raw_dtype=number)
        if sides:
            what = f"{base_gguf.name} has no layer for {next(iter(sides))}"
            raise CourseError(f"{what}; name the base that the adapter was trained on.")
        _finish(writer)
    return target


def check_adapter(adapter: Path, base: Path) -> None:
    """Raise CourseError for an adapter that the base in the folder `base` cannot be used with.

    That is one that cannot be read, that is of another shape, or that has numbers which are not
    finite; `adapter` and `base` as in write_adapter_gguf, a base of any kind.
    """
    settings, pairs = read_settings(adapter), lora_pairs(adapter)
    check_fit(pairs, read_config(base))
    for layer, pair in pairs.items():
        if not all(matrix.float().isfinite().all() for matrix in pair.values()):
            what = f"{WEIGHTS} has numbers for {layer} that are not finite"
            raise CourseError(f"{what}; train it again with a lower learning rate.")
        said, rank = settings.get("r"), len(pair["A"])
        if said != rank and not settings.get("rank_pattern"):
            what = f"{SETTINGS} has r {json.dumps(said)}, but the matrices for {layer} have {rank}"
            raise CourseError(f"{what}; bring back the settings of these weights.")


@contextmanager
def _written(target: Path) -> Iterator[Path]:
    """A file that takes its place in one step; CourseError where it cannot be written."""
    half = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield half
        os.replace(half, target)
    except OSError as problem:
        what = f"{target.name} could not be written ({problem.strerror})"
        raise CourseError(f"{what}; free some space or name another folder.") from None
    finally:
        with suppress(OSError):
            half.unlink(missing_ok=True)


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_settings(adapter: Path) -> dict[str, Any]:
    """What adapter_config.json says; CourseError where it cannot be read."""
    try:
        settings = json.loads((adapter / SETTINGS).read_text(encoding="utf-8"))
        return dict(settings)
    except (OSError, ValueError, TypeError):
        cure = "run the chapter that trains it once more"
        raise CourseError(f"{adapter.name}/ has no {SETTINGS} that can be read; {cure}.") from None


def _alpha(settings: Mapping[str, Any]) -> float:
    """The adapter's alpha; CourseError where a setting asks for more than plain LoRA."""
    for name, value in settings.items():
        fits = value in ONLY[name] if name in ONLY else name in HARMLESS or not value
        if not fits:
            what = f"{SETTINGS} has {name} {json.dumps(value)}, which llama.cpp cannot apply"
            raise CourseError(f"{what}; {PLAIN}.")
    alpha = settings.get("lora_alpha")
    if not isinstance(alpha, int | float) or alpha <= 0:  # llama.cpp takes 0 for "not said"
        what = f"{SETTINGS} has lora_alpha {json.dumps(alpha)}; it must be a number above 0"
        raise CourseError(f"{what}; {PLAIN}.")
    return float(alpha)


def read_config(base: Path) -> Any:
    """The base's configuration, as transformers reads it; CourseError where it cannot."""
    try:
        return AutoConfig.from_pretrained(base, local_files_only=True)
    except (OSError, ValueError):
        what = f"The base model in {base.name}/ has no config.json that can be read"
        raise CourseError(f"{what}; name the folder that holds the model.") from None


def _served_config(base: Path) -> Any:
    config = read_config(base)
    if config.model_type not in ARCHITECTURES:
        what = f"The base is a {config.model_type} model, and adapters are written for"
        cure = "let the model answer in this process"
        raise CourseError(f"{what} {' and '.join(ARCHITECTURES)} only; {cure}.")
    return config


def lora_pairs(adapter: Path) -> dict[str, dict[str, torch.Tensor]]:
    """{layer: {"A": shape (rank, inputs), "B": shape (outputs, rank)}} of the stored weights.

    Raises CourseError for weights that cannot be read, and for any that are no plain LoRA.
    """
    try:
        stored = load_file(adapter / WEIGHTS)
    except (OSError, SafetensorError):
        cure = "run the chapter that trains it once more"
        raise CourseError(f"{adapter.name}/ has no {WEIGHTS} that can be read; {cure}.") from None
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for name, weight in stored.items():
        layer, _, side = name.removesuffix(".weight").rpartition(".lora_")
        if side not in ("A", "B") or not name.startswith("base_model.model.model.layers."):
            what = f"{WEIGHTS} holds {name}, which is no LoRA matrix of a layer"
            raise CourseError(f"{what}; {PLAIN}.")
        pairs.setdefault(layer.removeprefix("base_model.model."), {})[side] = weight
    if not pairs:
        raise CourseError(f"{WEIGHTS} holds no weights; run the chapter that trains it once more.")
    return pairs


def _renamed(pairs: Mapping[str, Mapping[str, torch.Tensor]], config: Any) -> dict[str, np.ndarray]:
    """{llama.cpp's name: float16 or float32 matrix}, rows in the order that llama.cpp has them."""
    check_fit(pairs, config)
    names = gguf.get_tensor_name_map(ARCHITECTURES[config.model_type], config.num_hidden_layers)
    tensors = {}
    for layer, pair in pairs.items():
        name = names.get_name(layer)
        if name is None:
            raise _unfit(layer)
        for side, weight in pair.items():
            # numpy has no bfloat16
            numbers = (weight.float() if weight.dtype != torch.float16 else weight).numpy()
            if side == "B":
                numbers = numbers[_row_order(layer, len(numbers), config)]
            tensors[f"{name}.weight.lora_{side.lower()}"] = numbers
    return tensors


def check_fit(pairs: Mapping[str, Mapping[str, torch.Tensor]], config: Any) -> None:
    """Raise CourseError for a layer of `lora_pairs` that the base does not have in that shape."""
    try:
        with torch.device("meta"):  # shapes without weights
            shapes = AutoModelForCausalLM.from_config(config).state_dict()
    except ValueError:
        what = f"The base is a {config.model_type} model, which writes no text"
        raise CourseError(f"{what}; name the base that the adapter was trained on.") from None
    for layer, pair in pairs.items():
        shape = shapes.get(f"{layer}.weight")
        if shape is None or not _fits(pair, shape):
            raise _unfit(layer)


def _unfit(layer: str) -> CourseError:
    what = f"The adapter's matrices for {layer} do not fit this base model"
    return CourseError(f"{what}; name the base that it was trained on.")


def _fits(pair: Mapping[str, torch.Tensor], weight: torch.Tensor) -> bool:
    """Whether both matrices are there and their product has the shape of the base's weight."""
    if set(pair) != {"A", "B"} or any(matrix.dim() != 2 for matrix in pair.values()):
        return False
    (rank, inputs), (outputs, same) = pair["A"].shape, pair["B"].shape
    return rank == same and (outputs, inputs) == tuple(weight.shape)


def _row_order(layer: str, rows: int, config: Any) -> np.ndarray:
    """Which row of a layer comes where in llama.cpp, shape (rows,).

    Rotary embeddings turn pairs of numbers. In a head of a Llama from the hub the two of a pair lie
    half a head apart, in its GGUF they are neighbours: q and k have their rows in another order.
    """
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    places = np.arange(rows)
    of = layer.rpartition(".")[2]
    if config.model_type != "llama" or of not in heads:
        return places
    return places.reshape(heads[of], 2, -1).transpose(0, 2, 1).ravel()
