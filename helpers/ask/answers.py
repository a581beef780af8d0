"""Records from a transformers model: the prompt, the grammar of an answer, answers in batches.

Every answer is written down as it arrives, under everything it was made from; a kill loses none.
"""

import copy
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import llguidance.hf
import numpy as np
import torch
from jinja2 import TemplateError
from llguidance import LLMatcher
from transformers import AutoTokenizer, DynamicCache, LogitsProcessor
from transformers.cache_utils import DynamicLayer

from helpers import CourseError
from helpers.ask.likelihood import (
    control_tokens,
    evaluating,
    half_precision,
    log_likelihoods,
    pad_token,
)
from helpers.choose import memory, models
from helpers.core.files import Journal, fingerprint
from helpers.core.pilot import Pilot
from helpers.core.progress import progress
from helpers.core.runtime import give_back_memory
from helpers.core.text import as_text, cleaned
from helpers.make.grammar import lark_grammar, record_grammar

SHARED_START = 64  # tokens; a shorter common start is not worth reading on its own
SURPRISE_BATCH = 8  # rows; in other company 16 bits round to figures about 1 % away


def open_base(pilot: Pilot) -> tuple[models.Base, Any]:
    """The pilot's base model and its tokenizer.

    Raises CourseError when it cannot be fetched, or has no chat template.
    """
    base = models.resolve(pilot.base_model, pilot.folder)
    with base.loading():
        tokenizer = AutoTokenizer.from_pretrained(base.path)
    _refuse_without_template(tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return base, tokenizer


def _refuse_without_template(tokenizer) -> None:
    if not tokenizer.chat_template:
        what = f"The tokenizer of {Path(tokenizer.name_or_path).name} has no chat template"
        raise CourseError(f"{what}: choose a base_model that was tuned to follow instructions.")


@lru_cache(maxsize=2)  # reading a vocabulary takes a second
def vocabulary(tokenizer: Any) -> Any:
    """The tokens as llguidance reads them, for `len(tokenizer)` ids."""
    return llguidance.hf.from_tokenizer(tokenizer, n_vocab=len(tokenizer))


def _matcher(tokenizer, grammar: str) -> LLMatcher:
    matcher = LLMatcher(vocabulary(tokenizer), lark_grammar(grammar))
    if matcher.get_error():
        reason = matcher.get_error().splitlines()[0]
        raise CourseError(f"The pilot's grammar was refused: {reason}")
    return matcher


def accepts(pilot: Pilot, tokenizer: Any, text: str, answer: str) -> bool:
    """Whether the grammar of this message lets the model write exactly this answer."""
    matcher = _matcher(tokenizer, record_grammar(pilot, text))
    # what an answer copies is text, even where it spells a control token
    ids = tokenizer(answer, add_special_tokens=False, split_special_tokens=True).input_ids
    return matcher.consume_tokens(ids) and matcher.is_accepting()


class HoldToGrammar(LogitsProcessor):
    """Masks every token that would leave the grammar of its row (llguidance does the work)."""

    def __init__(self, tokenizer, grammars: Sequence[str], prompt_length: int) -> None:
        self.prompt_length, self.end = prompt_length, tokenizer.eos_token_id
        self.matchers = [_matcher(tokenizer, grammar) for grammar in grammars]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores of shape (rows, ids), -inf where the grammar of the row does not go on."""
        # the prompt is not part of the answer: at the first call there is no token to follow
        begun = input_ids.shape[1] > self.prompt_length
        for row, matcher in enumerate(self.matchers):
            if begun and not matcher.is_stopped():
                matcher.consume_token(int(input_ids[row, -1]))
            if matcher.is_stopped():  # the record is complete: only the end token may follow
                scores[row].fill_(float("-inf"))
                scores[row, self.end] = 0.0
                continue
            allowed = torch.frombuffer(bytearray(matcher.compute_logit_bias()), dtype=torch.uint8)
            # a model may score more ids than its tokenizer has: those stand for nothing
            beyond = scores.shape[1] - len(allowed)
            closed = torch.nn.functional.pad(allowed, (0, beyond)) == 0
            scores[row].masked_fill_(closed.to(scores.device), float("-inf"))
        return scores


def chat_prompt(tokenizer: Any, chat: Sequence[Mapping[str, str]]) -> str:
    """Messages ({"role", "content"}) in the tokenizer's chat template, ready to be answered.

    A control token in a message is text. The instruction goes before the first message where the
    template has no system role. Raises CourseError when there is no template, or it alters
    messages.
    """
    _refuse_without_template(tokenizer)
    marks = control_tokens(tokenizer)
    turns = [{**turn, "content": as_text(turn["content"], marks)} for turn in chat]
    if turns[0]["role"] == "system" and not _has_system_role(tokenizer, tokenizer.chat_template):
        system, first, *rest = turns
        turns = [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


# what a template might cut, trim, escape or fold
PROBE = "Aé  <b>&amp; 'x' \"y\" {{ z }}\n\n\tI 東京 ½ " * 40 + "end"


@lru_cache(maxsize=8)
def _has_system_role(tokenizer, template: str) -> bool:
    """Whether a system message arrives; CourseError where another message does not, as it is."""

    def rendered(chat: list[dict]) -> str:
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))

    one, reply, two = "first " + PROBE, "then " + PROBE, "last " + PROBE
    talk = [{"role": "user", "content": one}, {"role": "assistant", "content": reply}]
    talk.append({"role": "user", "content": two})
    text = rendered(talk)
    if any(message not in text for message in (one, reply, two)):
        what = f"The chat template of {Path(tokenizer.name_or_path).name} alters or drops messages"
        raise CourseError(f"{what}: choose another base_model, or put its template right.")
    try:
        return PROBE in rendered([{"role": "system", "content": PROBE}, *talk[:1]]).replace(one, "")
    except TemplateError:  # a template without that role says so
        return False


def prompt(
    pilot: Pilot,
    tokenizer,
    text: str,
    shots: Sequence[Mapping] = (),
    full: bool = True,
    max_length: int | None = None,
) -> str:
    """The prompt as text, in the tokenizer's chat template; `full` explains every field.

    With max_length (tokens) the message is cut to fit, never the rest. Raises CourseError when a
    tokenizer has no chat template, or when nothing of the message would be left.
    """
    whole = chat_prompt(tokenizer, pilot.chat(text, shots, full))
    if max_length is None or len(text.encode()) < max_length:  # a token is at least a byte of text
        return whole
    # what the template adds counts too, so the whole prompt is measured
    excess = len(tokenizer(whole, add_special_tokens=False).input_ids) - max_length
    if excess <= 0:
        return whole
    message = as_text(text, control_tokens(tokenizer))
    words = tokenizer(message, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    kept = len(words) - excess - 1  # one more, since tokens may join differently at the cut
    if kept < 8:
        what = f"The instruction and examples alone fill the window of {max_length} tokens"
        raise CourseError(f"{what}; use fewer examples.")
    return chat_prompt(tokenizer, pilot.chat(message[: words[kept][0]], shots, full))


@dataclass(frozen=True)
class Answers:
    """`texts` in the order of the rows, the working `seconds` of all starts, the file at `path`."""

    texts: list[str]
    seconds: float
    path: Path


def generate(
    model,
    tokenizer,
    pilot: Pilot,
    rows: Sequence[Mapping],
    at: str | Path,
    *,
    shots: Sequence[Mapping] = (),
    full: bool = False,
    batch_size: int = 32,
    max_length: int = 512,
    max_new_tokens: int = 160,
) -> Answers:
    """Greedy answers of a transformers model to `rows`, shortest first, batch by batch.

    A batch has `batch_size` rows, or fewer where memory is short.

    Every answer is held to the pilot's grammar. The answers lie in `<at>-<made from>.jsonl` (`made
    from`: a hash of all that shapes them but the text), each under its text: another model, example
    or setting never finds them, another row number always does.
    """
    grammar_kind = [pilot.copies, pilot.model_dump(mode="json")["fields"]]
    if any(spec.type == "span" and not spec.whole_words for spec in pilot.fields.values()):
        grammar_kind.append("spans of any characters")
    chat, limits = pilot.chat("", list(shots), full), [max_length, max_new_tokens]
    weights = hash_of_weights(model)  # a name or a path would not notice another training
    made_from = fingerprint(weights, tokenizer.chat_template, chat, grammar_kind, limits, True)
    journal = Journal(f"{at}-{made_from}.jsonl")

    # rows that were loaded are clean; a message typed in a cell may not be
    texts = [cleaned(row[pilot.text]) for row in rows]
    keys = [fingerprint(made_from, text) for text in texts]
    # rows with the same text are asked once
    text_of = dict(zip(keys, texts))
    # like lengths share a batch, so that little is padded
    todo = sorted(journal.missing(keys), key=lambda key: len(text_of[key]))
    if todo:
        # fewer at once where a batch of the longest would not fit into memory
        last = prompt(pilot, tokenizer, text_of[todo[-1]], shots, full, max_length)
        tokens = len(tokenizer(last, add_special_tokens=False).input_ids) + max_new_tokens
        dtype, on_card = str(model.dtype).removeprefix("torch."), model.device.type == "cuda"
        batch_size = memory.answers_at_once(model.config, dtype, tokens, batch_size, on_card)
    start = None  # what all prompts begin with, as the model has read it
    try:
        with evaluating(model):
            for first in progress(range(0, len(todo), batch_size), "answering"):
                clock, batch = time.perf_counter(), todo[first : first + batch_size]
                prompts, grammars = [], []
                for key in batch:
                    message = text_of[key]
                    prompts.append(prompt(pilot, tokenizer, message, shots, full, max_length))
                    grammars.append(record_grammar(pilot, message))
                inputs, start = _inputs(model, tokenizer, prompts, start, max_new_tokens)
                answers = _greedy(model, tokenizer, inputs, grammars, max_new_tokens)
                journal.add(dict(zip(batch, answers)), time.perf_counter() - clock)
    except KeyboardInterrupt:
        what = f"Stopped: {len(journal.entries)} answers are kept"
        raise CourseError(f"{what}. Run the cell again to go on.") from None
    except torch.OutOfMemoryError:
        kept = f"{len(journal.entries)} answers are kept"
        cure = f"Lower batch_size (now {batch_size}) and run the cell again"
        what = f"The GPU ran out of memory while answering; {kept}. {cure}."
        raise CourseError(what) from None
    give_back_memory()
    return Answers(journal.of(keys), journal.seconds, journal.path)


def _greedy(model, tokenizer, inputs: dict, grammars: list[str], max_new_tokens: int) -> list[str]:
    length = inputs["input_ids"].shape[1]
    with half_precision(model):
        out = model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,  # the likeliest token each time: a run repeats
            logits_processor=[HoldToGrammar(tokenizer, grammars, length)],
            pad_token_id=pad_token(tokenizer),
        )
    return tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)


def hash_of_weights(model) -> str:
    """Hex SHA-256 of every weight in memory, and of the adapters that are switched on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            # dtype and shape as well: the same bytes may be read in two ways
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            # numpy knows no bfloat16, so the bytes are hashed
            flat = tensor.detach().reshape(-1).contiguous().cpu()
            digest.update(flat.view(torch.uint8).numpy().data)
    for name, module in model.named_modules():
        # a layer of PEFT: its scale is not among the weights
        if hasattr(module, "disable_adapters"):
            state = [module.disable_adapters]
            for part in ("active_adapters", "merged_adapters", "scaling"):
                state.append(getattr(module, part, None))
            digest.update(f"{name} {state}".encode())
    return digest.hexdigest()


class _Room(DynamicLayer):
    """The keys and values of one layer, in a place that is large enough from the beginning.

    A DynamicLayer copies all of them for every new token. That takes time, and on a CPU most of the
    memory: the next size, a little larger, never fits into the gap that the last one left.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.length = room, 0  # both in tokens

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values, shape (rows, heads, tokens, width), with the new ones at the end."""
        begin, end = self.length, self.length + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.places = [_place(new, end + self.room) for new in (key_states, value_states)]
        elif end > self.places[0].shape[-2]:  # more than was asked for: another place
            old = self.places
            self.places = [_place(new, end + self.room) for new in (key_states, value_states)]
            for place, kept in zip(self.places, old):
                place[..., :begin, :] = kept[..., :begin, :]
        for place, new in zip(self.places, (key_states, value_states)):
            place[..., begin:end, :] = new
        self.length = end
        self.keys, self.values = (place[..., :end, :] for place in self.places)
        return self.keys, self.values


def _place(like: torch.Tensor, tokens: int) -> torch.Tensor:
    return like.new_empty((*like.shape[:2], tokens, like.shape[3]))


def _copied(start: DynamicCache, rows: int, room: int) -> DynamicCache:
    """The start for so many rows, with room for so many tokens behind it."""
    cache = copy.copy(start)
    cache.layers = []
    for layer in start.layers:
        if type(layer) is DynamicLayer:
            own = _Room(room)
            own.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1))
        else:  # of a model that keeps something else
            own = copy.deepcopy(layer)
            own.batch_repeat_interleave(rows)
        cache.layers.append(own)
    return cache


def _inputs(
    model, tokenizer, texts: list[str], start: tuple | None = None, room: int = 16
) -> tuple[dict, tuple | None]:
    """(arguments of model.generate for a batch of prompts, the start to hand in with the next one).

    What all prompts begin with (instruction and examples) is read once, and its keys and values are
    copied to every row. Shorter texts are padded between that start and the message, or on the left
    when nothing is shared; the mask hides it.
    """
    rows = tokenizer(texts, add_special_tokens=False).input_ids
    # at least one token of each row is left to read
    common = min(len(os.path.commonprefix(rows)), min(map(len, rows)) - 1)
    # the start of the batch before is used again where it fits
    if not (start and rows[0][:common][: len(start[0])] == start[0]):
        start = None
        if common >= SHARED_START and len(rows) > 1:
            begin = torch.tensor([rows[0][:common]], device=model.device)
            with torch.inference_mode():
                start = rows[0][:common], model(input_ids=begin, use_cache=True).past_key_values
    same = len(start[0]) if start else 0
    longest, pad = max(map(len, rows)), pad_token(tokenizer)
    filled, mask = [], []
    for row in rows:
        # the padding stands behind the start: its keys were read at these very places
        missing = longest - len(row)
        filled.append(row[:same] + [pad] * missing + row[same:])
        mask.append([1] * same + [0] * missing + [1] * (len(row) - same))
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor(filled, device=model.device),
        "attention_mask": torch.tensor(mask, device=model.device),
    }
    if start:
        inputs["past_key_values"] = _copied(start[1], len(rows), longest - same + room)
    return inputs, start


def surprise(
    model, tokenizer, pilot: Pilot, rows: Sequence[Mapping], max_length: int = 512
) -> np.ndarray:
    """Bits per character of each row's right answer, shape (rows,): 0 if it knew every letter.

    Per character and not per token, so that models with different tokenizers can be compared.
    """
    prompts, right, bits = [], [], []
    for row in rows:
        prompts.append(prompt(pilot, tokenizer, row[pilot.text], max_length=max_length))
        right.append(pilot.answer(row))
    for start in progress(range(0, len(right), SURPRISE_BATCH), "reading"):
        # in the order of the rows, not of their lengths: the company of a row is part of its figure
        batch = slice(start, start + SURPRISE_BATCH)
        read = log_likelihoods(model, tokenizer, prompts[batch], right[batch])
        for answer, (logs, _) in zip(right[batch], read):
            bits.append(-logs.sum() / np.log(2) / len(answer))
    return np.array(bits)
