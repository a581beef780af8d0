"""What answers a teacher's requests: a model in this process, batch by batch, or an OpenAI-compatible server; and the journal.

A request is a dict: `messages` or a raw `prompt`, `seed`, max_tokens, temperature, top_p, top_k, stop, grammar (GBNF). A reply is a
dict: key, text (None when it failed), reason, tokens_in, tokens_out, estimated.
"""

import email.utils
import random
import threading
import time
from itertools import groupby
from pathlib import Path

import torch
from transformers import LogitsProcessorList, StoppingCriteria

from helpers import CourseError
from helpers.ask import answers
from helpers.choose import models
from helpers.core.files import append_entry, fingerprint, read_entries
from helpers.core.runtime import detect

SETTINGS = {
    "max_tokens": 80,
    "temperature": 0.8,
    "top_p": 0.95,
    "top_k": 0,
    "stop": None,
}  # what a request leaves out
ANYTHING = "root ::= [^\\x00]*\n"
FATAL = {401: "refused the key", 403: "refused the key", 404: "knows no such model or address"}


def reply(request, text=None, reason=None, tokens_in=0, tokens_out=0, estimated=False):
    """A reply to a request, under the request's fingerprint."""
    return {
        "key": fingerprint(request),
        "text": text,
        "reason": reason,
        "tokens_in": tokens_in,
        "tokens_out": tokens_out,
        "estimated": estimated,
    }


def length(request):
    """Tokens of a prompt, estimated as a third of its characters (English has about four to a token)."""
    return len(request.get("prompt") or "".join(m["content"] for m in request["messages"])) // 3 + 1


def cut(text, stop):
    """Text up to the first stop string, without white space around it."""
    for mark in stop or ():
        text = text.lstrip().split(mark)[0]
    return text.strip()


class _StopTokens(StoppingCriteria):
    """Ends a row of a batch at a token that holds a stop string."""

    def __init__(self, tokenizer, stop, known={}):
        name = (tokenizer.name_or_path, *stop)
        if name not in known:
            pieces = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
            known[name] = torch.tensor([any(mark in piece for mark in stop) for piece in pieces])
        self.table, self.first = known[name], None

    def __call__(self, input_ids, scores, **_):
        self.first = input_ids.shape[1] if self.first is None else self.first
        ends = self.table.to(input_ids.device)[input_ids[:, -1]]
        return (
            torch.zeros_like(ends) if input_ids.shape[1] == self.first else ends
        )  # a line break right at the start is white space


class Batches:
    """A transformers model in this process. The rows of a batch are drawn together, so the batches are fixed by the requests alone:
    a run that was killed makes the same texts as one that was not (on the same machine and versions).
    """

    parallel = 1

    def __init__(self, teacher, size=32):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.teacher, self.size, self.stop = teacher, size, threading.Event()
        base, here = models.resolve(teacher.model), detect()
        with models.loading(base):
            self.tokenizer = AutoTokenizer.from_pretrained(base.path, padding_side="left")
            self.model = (
                AutoModelForCausalLM.from_pretrained(base.path, dtype=here.torch_dtype)
                .to(here.device)
                .eval()
            )
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def units(self, requests):
        """Lists of up to `size` requests in order, each with the same sampling settings."""
        settings = lambda r: [r.get(name, usual) for name, usual in SETTINGS.items()]  # noqa: E731
        for _, group in groupby(requests, settings):
            group = list(group)
            yield from (group[i : i + self.size] for i in range(0, len(group), self.size))

    def answer(self, requests):
        """Replies to one unit; the seed of the draw comes from the requests themselves."""
        wanted = {name: requests[0].get(name, usual) for name, usual in SETTINGS.items()}
        template = self.tokenizer.apply_chat_template
        texts = [
            r["prompt"]
            if "prompt" in r
            else template(r["messages"], tokenize=False, add_generation_prompt=True)
            for r in requests
        ]
        inputs = self.tokenizer(
            texts, return_tensors="pt", padding=True, add_special_tokens=False
        ).to(self.model.device)
        width, processors = inputs.input_ids.shape[1], LogitsProcessorList()
        if any(r.get("grammar") for r in requests):
            processors.append(
                answers.HoldToGrammar(
                    self.tokenizer, [r.get("grammar") or ANYTHING for r in requests], width
                )
            )
        stopping = [_StopTokens(self.tokenizer, wanted["stop"])] if wanted["stop"] else None
        draw = {"do_sample": wanted["temperature"] > 0, "pad_token_id": self.tokenizer.pad_token_id}
        if draw["do_sample"]:
            draw |= {name: wanted[name] for name in ("temperature", "top_p", "top_k")}
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(int(fingerprint(requests), 16) % 2**31)
            out = self.model.generate(
                **inputs,
                max_new_tokens=wanted["max_tokens"],
                logits_processor=processors,
                stopping_criteria=stopping,
                **draw,
            )
        new = out[:, width:]
        spent = (new != self.tokenizer.pad_token_id).sum(1).tolist()
        read = inputs.attention_mask.sum(1).tolist()
        return [
            reply(r, cut(text, wanted["stop"]), None, a, b)
            for r, text, a, b in zip(
                requests, self.tokenizer.batch_decode(new, skip_special_tokens=True), read, spent
            )
        ]


class Server:
    """An OpenAI-compatible server, `teacher.parallel` requests at a time. A seed repeats a text only as far as the server keeps it."""

    size = 1

    def __init__(self, teacher, address=None):
        import openai

        self.teacher, self.parallel, self.stop = teacher, teacher.parallel, threading.Event()
        self._key, self._llama = teacher.key(), teacher.address == "embedded"
        self._client = openai.OpenAI(
            base_url=address or teacher.address,
            api_key=self._key,
            max_retries=0,
            timeout=teacher.timeout,
        )

    def units(self, requests):
        return ([request] for request in requests)

    def answer(self, requests):
        """The reply to one request: tried again with growing, random pauses; what fails for good carries its reason.

        Raises CourseError when the key or the model is refused: no other request would fare better.
        """
        import openai

        request, reason = requests[0], ""
        for attempt in range(self.teacher.retries + 1):
            pause = random.uniform(0.5, 1) * min(
                0.5 * 2**attempt, 20
            )  # full back-off with jitter: servers recover unevenly
            try:
                return [self._once(request)]
            except openai.APITimeoutError:
                reason = f"no answer within {self.teacher.timeout:g} s"
            except openai.APIConnectionError:
                reason = "the server is not reachable"
            except (
                openai.APIStatusError
            ) as problem:  # its text may repeat the key: only the number is kept
                reason = f"the server answered with status {problem.status_code}"
                if problem.status_code in FATAL:
                    raise CourseError(
                        f"The teacher's server {FATAL[problem.status_code]} (status {problem.status_code}); check address, "
                        "model and key_from under teacher in pilot.yaml. What was answered before is kept."
                    ) from None
                if problem.status_code < 500 and problem.status_code not in (408, 409, 425, 429):
                    break
                pause = max(pause, _retry_after(problem.response.headers.get("retry-after")))
            except (
                ValueError,
                TypeError,
                AttributeError,
                KeyError,
                IndexError,
                openai.OpenAIError,
            ):
                reason = "the server's answer could not be read"
            if attempt < self.teacher.retries and self.stop.wait(pause):
                reason = "stopped"
                break
        return [reply(request, None, reason)]

    def _once(self, request):
        extra = (
            {"grammar": request["grammar"]}
            if request.get("grammar") and (self._llama or self.teacher.gbnf)
            else {}
        )
        if self._llama:
            extra |= {"cache_prompt": True, "top_k": request.get("top_k", SETTINGS["top_k"])}
        common = {
            name: request.get(name, SETTINGS[name])
            for name in ("max_tokens", "temperature", "top_p")
        }
        common |= {"model": self.teacher.name, "seed": request["seed"], "extra_body": extra}
        common |= {"stop": request["stop"]} if request.get("stop") else {}
        if "prompt" in request and not self.teacher.chat_only:
            got = self._client.completions.create(prompt=request["prompt"], **common)
            text = got.choices[0].text
        else:
            messages = request.get("messages") or [{"role": "user", "content": request["prompt"]}]
            got = self._client.chat.completions.create(messages=messages, **common)
            text = got.choices[0].message.content
        if not isinstance(text, str):
            raise ValueError("no text")
        if self._key != "none":
            text = text.replace(self._key, "[key]")
        usage = getattr(got, "usage", None)
        known = (
            usage is not None
            and isinstance(usage.prompt_tokens, int)
            and isinstance(usage.completion_tokens, int)
        )
        return reply(
            request,
            cut(text, request.get("stop")),
            None,
            usage.prompt_tokens if known else length(request),
            usage.completion_tokens if known else len(text) // 3 + 1,
            not known,
        )


def _retry_after(said):
    """Seconds that a Retry-After header asks for (a number or a date), at most two minutes, 0 without one."""
    if not said:
        return 0.0
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(seconds, 0.0), 120.0)


class RowJournal:
    """Replies by the fingerprint of their request in a JSONL file that grows as they arrive; half a last line is cut off.

    A reply: {key, text (None when it failed), reason, tokens_in, tokens_out, estimated}. `seconds` adds up over every start.
    """

    def __init__(self, path):
        self.path, self.replies, self.seconds = Path(path), {}, 0.0
        for entry in read_entries(self.path):
            self.replies.update({reply["key"]: reply for reply in entry["replies"]})
            self.seconds += entry["seconds"]

    def add(self, replies, seconds):
        append_entry(
            self.path,
            {"replies": replies, "seconds": round(seconds, 3)},
            "The teacher's answers",
            len(self.replies),
        )
        self.replies.update({reply["key"]: reply for reply in replies})
        self.seconds += seconds
