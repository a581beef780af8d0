"""Ask a model for records: a transformers model in batches, or any OpenAI-compatible server in parallel.

Both hold the answer to the pilot's grammar, both write every answer down as it arrives and go on after a kill.
"""

import copy
import os
import socket
import time
import weakref
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from helpers import CourseError
from helpers.core.runtime import progress

_KNOWN = weakref.WeakKeyDictionary()  # reading a vocabulary takes a second: once per tokenizer


class HoldToGrammar(LogitsProcessor):
    """Masks every token that would leave the grammar of its row (llguidance does the work)."""

    def __init__(self, tokenizer, grammars, prompt_length):
        import llguidance.hf
        from llguidance import LLMatcher
        from llguidance.gbnf_to_lark import gbnf_to_lark

        if tokenizer not in _KNOWN:
            _KNOWN[tokenizer] = llguidance.hf.from_tokenizer(tokenizer, n_vocab=len(tokenizer))
        self.matchers = [
            LLMatcher(_KNOWN[tokenizer], gbnf_to_lark(grammar)) for grammar in grammars
        ]
        for matcher in self.matchers:
            if matcher.get_error():
                raise CourseError(
                    f"The pilot's grammar was refused: {matcher.get_error().splitlines()[0]}"
                )
        self.prompt_length, self.end = prompt_length, tokenizer.eos_token_id

    def __call__(self, input_ids, scores):
        for i, matcher in enumerate(self.matchers):
            if input_ids.shape[1] > self.prompt_length and not matcher.is_stopped():
                matcher.consume_token(int(input_ids[i, -1]))
            if matcher.is_stopped():  # the record is complete: nothing but the end token may follow
                scores[i].fill_(float("-inf"))
                scores[i, self.end] = 0.0
                continue
            bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            allowed = torch.from_numpy(
                np.unpackbits(bits, bitorder="little")[: scores.shape[1]].astype(bool)
            )
            scores[i, : allowed.numel()].masked_fill_(~allowed.to(scores.device), float("-inf"))
        return scores


def prompt(pilot, tokenizer, text, shots=(), full=True, max_tokens=None):
    """The prompt as text, in the tokenizer's chat template. With max_tokens the message, never the rest, is cut to fit."""
    if not tokenizer.chat_template:
        raise CourseError(
            f"The tokenizer of {Path(tokenizer.name_or_path).name} has no chat template: choose a base_model that was "
            "tuned to follow instructions."
        )

    def build(part):
        return tokenizer.apply_chat_template(
            pilot.chat(part, shots, full), tokenize=False, add_generation_prompt=True
        )

    whole = build(text)
    if max_tokens is None or len(text.encode()) < max_tokens:  # a token is at least a byte of text
        return whole
    over = len(tokenizer(whole, add_special_tokens=False).input_ids) - max_tokens
    if over <= 0:
        return whole
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    keep = len(offsets) - over - 1
    if keep < 8:
        raise CourseError(
            f"The instruction and examples alone fill the window of {max_tokens} tokens; use fewer examples."
        )
    return build(text[: offsets[keep][0]])


def _inputs(model, tokenizer, texts, known=None, shortest=64):
    """(arguments of model.generate for a batch of prompts, the prefix to hand in with the next batch).

    A start that all prompts share (instruction and examples) is read once and its keys and values are copied to every row.
    Shorter texts are padded between that start and the message, or on the left when nothing is shared; the mask hides it.
    """
    ids = tokenizer(texts, add_special_tokens=False).input_ids
    same = next(
        (i for i, column in enumerate(zip(*ids)) if len(set(column)) > 1), min(map(len, ids)) - 1
    )
    if known and all(row[: len(known[0])] == known[0] and len(row) > len(known[0]) for row in ids):
        same = len(known[0])
    elif same >= shortest and len(ids) > 1:
        with torch.inference_mode():
            start = torch.tensor([ids[0][:same]], device=model.device)
            known = ids[0][:same], model(input_ids=start, use_cache=True).past_key_values
    else:
        same, known = 0, None
    width = max(map(len, ids))
    filled = [
        row[:same] + [tokenizer.pad_token_id] * (width - len(row)) + row[same:] for row in ids
    ]
    mask = [[1] * same + [0] * (width - len(row)) + [1] * (len(row) - same) for row in ids]
    inputs = {
        "input_ids": torch.tensor(filled, device=model.device),
        "attention_mask": torch.tensor(mask, device=model.device),
    }
    if known:
        inputs["past_key_values"] = copy.deepcopy(known[1])
        inputs["past_key_values"].batch_repeat_interleave(len(ids))
    return inputs, known


def generate(
    model,
    tokenizer,
    pilot,
    rows,
    journal,
    shots=(),
    full=False,
    hold=True,
    batch_size=32,
    max_tokens=512,
    max_new_tokens=160,
):
    """Greedy answers of a transformers model to `rows`, shortest first, batch by batch; returns the answers in row order.

    With hold=True every answer follows the pilot's grammar: labels from the list, spans and patterns from the text.
    """
    was_training = model.training
    model.eval()
    todo = sorted(journal.missing(rows), key=lambda row: len(row[pilot.text]))
    prefix = None
    half = torch.bfloat16 if model.device.type == "cpu" else model.dtype
    try:
        for start in progress(range(0, len(todo), batch_size), "answering"):
            clock, batch = time.perf_counter(), todo[start : start + batch_size]
            texts = [
                prompt(pilot, tokenizer, row[pilot.text], shots, full, max_tokens) for row in batch
            ]
            inputs, prefix = _inputs(model, tokenizer, texts, prefix)
            length = inputs["input_ids"].shape[1]
            processors = LogitsProcessorList()
            if hold:
                grammars = [pilot.grammar(row[pilot.text][:4000]) for row in batch]
                processors.append(HoldToGrammar(tokenizer, grammars, length))
            with (
                torch.inference_mode(),
                torch.autocast(model.device.type, dtype=half, enabled=model.dtype != torch.float32),
            ):
                out = model.generate(
                    **inputs,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    logits_processor=processors,
                )
            answers = tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)
            journal.add(
                {row["id"]: answer for row, answer in zip(batch, answers)},
                time.perf_counter() - clock,
            )
    except torch.OutOfMemoryError:
        raise CourseError(
            f"The GPU ran out of memory while answering; {len(journal.answers)} answers are kept. Lower batch_size "
            f"(now {batch_size}) and run the cell again."
        ) from None
    finally:
        model.train(was_training)
    return journal.of(rows)


def surprise(model, tokenizer, pilot, rows, shots=(), full=True, max_tokens=512, batch_size=8):
    """Bits per character of each row's right answer, an array of shape (rows,): 0 for a model that knew every letter.

    Counted per character and not per token, so that models with different tokenizers can be compared.
    """
    bits, half = [], torch.bfloat16 if model.device.type == "cpu" else model.dtype
    was_training = model.training
    model.eval()
    for start in progress(range(0, len(rows), batch_size), "reading"):
        batch = [rows[i] for i in range(start, min(start + batch_size, len(rows)))]
        asked = [
            tokenizer(
                prompt(pilot, tokenizer, row[pilot.text], shots, full, max_tokens),
                add_special_tokens=False,
            ).input_ids
            for row in batch
        ]
        right = [tokenizer(pilot.answer(row), add_special_tokens=False).input_ids for row in batch]
        width, keep = max(len(a) + len(r) for a, r in zip(asked, right)), max(map(len, right)) + 1
        ids = [
            [tokenizer.pad_token_id] * (width - len(a) - len(r)) + a + r
            for a, r in zip(asked, right)
        ]
        mask = [
            [0] * (width - len(a) - len(r)) + [1] * (len(a) + len(r)) for a, r in zip(asked, right)
        ]
        ids, mask = torch.tensor(ids, device=model.device), torch.tensor(mask, device=model.device)
        with (
            torch.inference_mode(),
            torch.autocast(model.device.type, dtype=half, enabled=model.dtype != torch.float32),
        ):
            logits = (
                model(input_ids=ids, attention_mask=mask, logits_to_keep=keep)
                .logits[:, :-1]
                .float()
            )
        picked = torch.log_softmax(logits, -1).gather(-1, ids[:, 1 - keep :, None])[..., 0]
        for row, r, logp in zip(batch, right, picked):
            bits.append(-float(logp[-len(r) :].sum()) / np.log(2) / len(pilot.answer(row)))
    model.train(was_training)
    return np.array(bits)


@contextmanager
def llama_server(gguf, parallel=8, context=2048, threads=None):
    """A llama.cpp server in this process; yields its OpenAI-compatible address (…/v1).

    `context` is the window in tokens for each of `parallel` slots.
    """
    import xllamacpp

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_parallel, params.n_ctx = parallel, context * parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads or os.cpu_count()
    params.port, params.verbosity = port, -1  # listens on this machine only
    server = xllamacpp.Server(params)
    try:
        yield f"{server.listening_address}/v1"
    finally:
        del server


def ask(
    address,
    pilot,
    rows,
    journal,
    shots=(),
    parallel=8,
    max_new_tokens=160,
    model="default",
    key="none",
):
    """Greedy answers of an OpenAI-compatible server that takes GBNF grammars (llama.cpp does), several at a time.

    A refused or lost request is tried again by the client; raises CourseError when the server stays away.
    """
    import openai

    client = openai.OpenAI(base_url=address, api_key=key, max_retries=3, timeout=300)

    def one(row):
        clock = time.perf_counter()
        reply = client.chat.completions.create(
            model=model,
            messages=pilot.chat(row[pilot.text][:4000], shots),
            temperature=0,
            max_tokens=max_new_tokens,
            extra_body={"grammar": pilot.grammar(row[pilot.text][:4000]), "cache_prompt": True},
        )
        return row, reply.choices[0].message.content, time.perf_counter() - clock

    todo = journal.missing(rows)
    last = time.perf_counter()
    with ThreadPoolExecutor(parallel) as pool:
        waiting = {pool.submit(one, row) for row in todo}
        bar = progress(None, "asking", total=len(todo))
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                now = time.perf_counter()
                journal.add(
                    {row["id"]: text for row, text, _ in (job.result() for job in done)}, now - last
                )
                last = now
                bar.update(len(done))
        except openai.OpenAIError as problem:
            raise CourseError(
                f"The model server stopped answering ({type(problem).__name__}); {len(journal.answers)} answers are "
                "kept. Run the cell again: it goes on where it stopped."
            ) from None
        finally:
            for job in waiting:
                job.cancel()
            bar.close()
    return journal.of(rows)
