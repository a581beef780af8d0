"""Ask a model for records: a transformers model in batches, or any OpenAI-compatible server in parallel.

Both hold the answer to the pilot's grammar, both write every answer down as it arrives and go on after a kill.
"""

import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from helpers import CourseError
from helpers.runtime import progress


class HoldToGrammar(LogitsProcessor):
    """Masks every token that would leave the grammar of its row (llguidance does the work)."""

    def __init__(self, tokenizer, grammars, prompt_length):
        import llguidance.hf
        from llguidance import LLMatcher
        from llguidance.gbnf_to_lark import gbnf_to_lark

        cached = getattr(tokenizer, "_llguidance", None)
        if cached is None:
            cached = tokenizer._llguidance = llguidance.hf.from_tokenizer(tokenizer, n_vocab=len(tokenizer))
        self.matchers = [LLMatcher(cached, gbnf_to_lark(grammar)) for grammar in grammars]
        for matcher in self.matchers:
            if matcher.get_error():
                raise CourseError(f"The pilot's grammar was refused: {matcher.get_error().splitlines()[0]}")
        self.prompt_length = prompt_length

    def __call__(self, input_ids, scores):
        for i, matcher in enumerate(self.matchers):
            if input_ids.shape[1] > self.prompt_length and not matcher.is_stopped():
                matcher.consume_token(int(input_ids[i, -1]))
            if matcher.is_stopped():
                continue
            bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            allowed = torch.from_numpy(np.unpackbits(bits, bitorder="little")[: scores.shape[1]].astype(bool))
            scores[i, : allowed.numel()].masked_fill_(~allowed.to(scores.device), float("-inf"))
        return scores


def prompt(pilot, tokenizer, text, shots=(), full=True, max_tokens=None):
    """The prompt as text, in the tokenizer's chat template. With max_tokens the message, never the rest, is cut to fit."""
    def build(part):
        return tokenizer.apply_chat_template(pilot.chat(part, shots, full), tokenize=False, add_generation_prompt=True)

    whole = build(text)
    if max_tokens is None or len(text) < max_tokens:  # a token is at least a character of text
        return whole
    over = len(tokenizer(whole, add_special_tokens=False).input_ids) - max_tokens
    if over <= 0:
        return whole
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    keep = len(offsets) - over - 1
    if keep < 8:
        raise CourseError(f"The instruction and examples alone fill the window of {max_tokens} tokens; use fewer examples.")
    return build(text[: offsets[keep][0]])


def generate(model, tokenizer, pilot, rows, journal, shots=(), full=False, hold=True, batch_size=32, max_tokens=512,
             max_new_tokens=160):
    """Greedy answers of a transformers model to `rows`, shortest first, batch by batch; returns the answers in row order.

    With hold=True every answer follows the pilot's grammar: labels from the list, spans and patterns from the text.
    """
    side, tokenizer.padding_side = tokenizer.padding_side, "left"  # a decoder must see the prompt end beside the answer
    was_training = model.training
    model.eval()
    todo = sorted(journal.missing(rows), key=lambda row: len(row[pilot.text]))
    half = torch.bfloat16 if model.device.type == "cpu" else model.dtype
    try:
        for start in progress(range(0, len(todo), batch_size), "answering"):
            clock, batch = time.perf_counter(), todo[start : start + batch_size]
            texts = [prompt(pilot, tokenizer, row[pilot.text], shots, full, max_tokens) for row in batch]
            inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
            length = inputs.input_ids.shape[1]
            processors = LogitsProcessorList()
            if hold:
                grammars = [pilot.grammar(row[pilot.text][:4000]) for row in batch]
                processors.append(HoldToGrammar(tokenizer, grammars, length))
            with torch.inference_mode(), torch.autocast(model.device.type, dtype=half, enabled=model.dtype != torch.float32):
                out = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, logits_processor=processors)
            answers = tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)
            journal.add({row["id"]: answer for row, answer in zip(batch, answers)}, time.perf_counter() - clock)
    except torch.OutOfMemoryError:
        raise CourseError(f"The GPU ran out of memory while answering; {len(journal.answers)} answers are kept. Lower "
                          f"eval_batch_size (now {batch_size}) and run the cell again.") from None
    finally:
        tokenizer.padding_side = side
        model.train(was_training)
    return journal.of(rows)


def ask(address, pilot, rows, journal, shots=(), parallel=8, max_new_tokens=160, model="default", key="none"):
    """Greedy answers of an OpenAI-compatible server that takes GBNF grammars (llama.cpp does), several at a time.

    A refused or lost request is tried again by the client; raises CourseError when the server stays away.
    """
    import openai

    client = openai.OpenAI(base_url=address, api_key=key, max_retries=3, timeout=300)

    def one(row):
        clock = time.perf_counter()
        reply = client.chat.completions.create(
            model=model, messages=pilot.chat(row[pilot.text][:4000], shots), temperature=0, max_tokens=max_new_tokens,
            extra_body={"grammar": pilot.grammar(row[pilot.text][:4000]), "cache_prompt": True})
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
                journal.add({row["id"]: text for row, text, _ in (job.result() for job in done)}, now - last)
                last = now
                bar.update(len(done))
        except openai.OpenAIError as problem:
            raise CourseError(f"The model server stopped answering ({type(problem).__name__}); {len(journal.answers)} answers are "
                              "kept. Run the cell again: it goes on where it stopped.") from None
        finally:
            for job in waiting:
                job.cancel()
            bar.close()
    return journal.of(rows)
