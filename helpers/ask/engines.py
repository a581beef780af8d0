"""What answers a teacher's requests: a model in this process, or an OpenAI-compatible server.

A request is a dict in that server's words: `messages` or a raw `prompt`, `seed`, max_tokens,
temperature, top_p, top_k, stop, grammar (GBNF). A reply is a dict: text (None when it failed),
reason, tokens_in, tokens_out, estimated.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import openai
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, StopStringCriteria

from helpers import CourseError
from helpers.ask.answers import HoldToGrammar, chat_prompt, hash_of_weights
from helpers.ask.likelihood import control_tokens, pad_token
from helpers.choose import gguf_parts, models
from helpers.core.files import fingerprint
from helpers.core.runtime import detect
from helpers.core.text import as_text, cleaned

# what a request leaves out
SETTINGS = {"max_tokens": 80, "temperature": 0.8, "top_p": 0.95, "top_k": 0, "stop": None}
ANYTHING = "root ::= [^\\x00]*\n"
# no other request would fare better
FATAL = {401: "refused the key", 403: "refused the key", 404: "knows no such model or address"}


def reply(text: str | None, tokens: tuple[int, int] = (0, 0), estimated: bool = False) -> dict:
    """A reply as it is kept: a text and its `tokens` (in, out); a failed one gets its reason."""
    text = text and cleaned(text)  # as rows are when they are read
    counted = {"tokens_in": tokens[0], "tokens_out": tokens[1], "estimated": estimated}
    return {"text": text, "reason": None, **counted}


def estimated_tokens(request: dict) -> int:
    """Tokens of a prompt: a third of its characters (English has about four to a token)."""
    text = request.get("prompt")
    if not text:
        text = "".join(message["content"] for message in request["messages"])
    return len(text) // 3 + 1


def _settings(request: dict) -> dict:
    return {name: request.get(name, usual) for name, usual in SETTINGS.items()}


def _until_stop(text: str, stop: Sequence[str] | None) -> str:
    """Text up to the first stop string, without white space around it."""
    for mark in stop or ():
        # a mark at the very start is white space, not an end
        text = text.lstrip().split(mark)[0]
    return text.strip()


class _StopStrings(StopStringCriteria):
    """Stop strings as in transformers, but a line break right at the start is only white space."""

    def __init__(self, tokenizer, stop: Sequence[str], prompt_length: int) -> None:
        super().__init__(tokenizer, list(stop))
        self.prompt_length = prompt_length

    def __call__(self, input_ids, scores, **more) -> torch.Tensor:
        ended = super().__call__(input_ids, scores, **more)
        return ended & (input_ids.shape[1] > self.prompt_length + 1)


class Batches:
    """A transformers model in this process.

    The rows of a batch are drawn together, so the requests alone fix the batches: a run that was
    killed makes the same texts as one that was not (on the same machine and versions).
    """

    parallel = 1

    def __init__(self, teacher, size: int = 32, loaded: Any = None) -> None:
        """`loaded`: a model and tokenizer that are here already, in place of the teacher's."""
        self.teacher, self.size = teacher, size
        base, here = models.resolve(teacher.model), detect()
        if loaded:
            model, self.tokenizer = loaded
            self.tokenizer.padding_side = "left"
        else:
            with base.loading():
                self.tokenizer = AutoTokenizer.from_pretrained(base.path, padding_side="left")
                model = AutoModelForCausalLM.from_pretrained(base.path, dtype=here.torch_dtype)
        self.model = model.to(here.device).eval()
        # prompts of a batch have different lengths
        self.tokenizer.pad_token_id = pad_token(self.tokenizer)
        # what shapes the answers, beside the request
        parcel = gguf_parts.PARCELS.get(teacher.model)
        if parcel and not loaded:  # its file's hash is pinned: no need to read three gigabytes
            self.identity = identity_of(teacher)
        else:
            self.identity = [hash_of_weights(model), self.tokenizer.chat_template]

    def units(self, requests: Sequence[dict]) -> Iterator[list[dict]]:
        """Lists of up to `size` requests with the same sampling settings, like lengths together."""

        def shape(request: dict) -> tuple:
            return repr(_settings(request)), bool(request.get("grammar"))

        # in the order of their lengths, so that little is padded
        ordered = sorted(requests, key=lambda one: (shape(one), estimated_tokens(one)))
        for _, group in groupby(ordered, shape):
            alike = list(group)
            for start in range(0, len(alike), self.size):
                yield alike[start : start + self.size]

    def answer(self, requests: Sequence[dict]) -> list[dict]:
        """Replies to one unit; the seed of the draw comes from the requests themselves."""
        settings, pad = _settings(requests[0]), self.tokenizer.pad_token_id
        prompts = [self._prompt(request) for request in requests]
        inputs = self.tokenizer(
            prompts, return_tensors="pt", padding=True, add_special_tokens=False
        )
        inputs = inputs.to(self.model.device)
        length = inputs.input_ids.shape[1]
        processors, criteria = [], []
        if any(request.get("grammar") for request in requests):
            # the others of the batch may say what they like
            grammars = [request.get("grammar") or ANYTHING for request in requests]
            processors.append(HoldToGrammar(self.tokenizer, grammars, length))
        if settings["stop"]:
            criteria.append(_StopStrings(self.tokenizer, settings["stop"], length))
        drawing = {"do_sample": False}  # a temperature of 0 takes the likeliest token
        if settings["temperature"] > 0:
            drawing = {name: settings[name] for name in ("temperature", "top_p", "top_k")}
            drawing["do_sample"] = True
        # the draw is this batch's own and leaves the caller's random numbers alone
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(int(fingerprint(requests), 16) % 2**31)
            out = self.model.generate(
                **inputs,
                max_new_tokens=settings["max_tokens"],
                logits_processor=processors,
                stopping_criteria=criteria,
                pad_token_id=pad,
                **drawing,
            )
        new = out[:, length:]
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        read = inputs.attention_mask.sum(1).tolist()
        # an ended row is filled up with pads
        written = (new != pad).sum(1).tolist()
        replies = []
        for text, tokens in zip(texts, zip(read, written)):
            replies.append(reply(_until_stop(text, settings["stop"]), tokens))
        return replies

    def _prompt(self, request: dict) -> str:
        if "prompt" in request:
            return as_text(request["prompt"], control_tokens(self.tokenizer))
        return chat_prompt(self.tokenizer, request["messages"])


def identity_of(teacher) -> list[str]:
    """What the answers of a larger model are kept under, whether it is here or not."""
    parcel = gguf_parts.PARCELS[teacher.model]
    # llama.cpp computes with the 4-bit weights themselves: other answers than transformers'
    return [parcel.file, parcel.sha256, *(["llama.cpp"] if teacher.address else [])]


class Absent:
    """A larger model that is not on this machine: only its recorded answers can be had."""

    parallel = 1

    def __init__(self, teacher) -> None:
        self.teacher = teacher
        self.identity = identity_of(teacher)

    def units(self, requests: Sequence[dict]) -> Iterator[list[dict]]:
        """Every request on its own."""
        return ([request] for request in requests)

    def answer(self, requests: Sequence[dict]) -> list[dict]:
        """Raises CourseError: there is nobody to ask."""
        megabytes = round(gguf_parts.PARCELS[self.teacher.model].size / 1e6)
        what = f"{self.teacher.model} is not on this machine, and not all of these requests are"
        cure = f"fetch it ({megabytes:,} MB): python -m helpers.choose.models {self.teacher.model}"
        raise CourseError(f"{what} among its recorded answers; {cure}, or name another teacher.")


class Server:
    """An OpenAI-compatible server, `teacher.parallel` requests at a time.

    Its client tries again by itself, `teacher.retries` times, after pauses that grow or that the
    server asks for. A seed repeats a text only as far as the server keeps it.
    """

    def __init__(self, teacher, address: str | None = None) -> None:
        self.teacher, self.parallel = teacher, teacher.parallel
        # the address too: two servers may give one name to different models
        self.identity = [teacher.address, teacher.name, teacher.chat_only, teacher.gbnf]
        if teacher.address == "embedded" and teacher.model in gguf_parts.PARCELS:
            self.identity = identity_of(teacher)
        self._key, self._llama = teacher.key(), teacher.address == "embedded"
        self._client = openai.OpenAI(
            base_url=address or teacher.address,
            api_key=self._key,
            max_retries=teacher.retries,
            timeout=teacher.timeout,
        )

    def units(self, requests: Sequence[dict]) -> Iterator[list[dict]]:
        """Every request on its own."""
        return ([request] for request in requests)

    def answer(self, requests: Sequence[dict]) -> list[dict]:
        """The reply to one request; what failed carries its reason.

        Raises CourseError when the key or the model is refused: no other request would fare better.
        """
        try:
            return [self._ask(requests[0])]
        except openai.APITimeoutError:
            reason = f"no answer within {self.teacher.timeout:g} s"
        except openai.APIConnectionError:
            reason = "the server is not reachable"
        except openai.APIStatusError as problem:  # its text may repeat the key: the number is kept
            status = problem.status_code
            if status in FATAL:
                cure = "check address, model and key_from under teacher in pilot.yaml"
                what = f"The teacher's server {FATAL[status]} (status {status}); {cure}"
                raise CourseError(f"{what}. What was answered before is kept.") from None
            reason = f"the server answered with status {status}"
        except (ValueError, TypeError, AttributeError, LookupError, openai.OpenAIError):
            reason = "the server's answer could not be read"
        return [reply(None) | {"reason": reason}]

    def _ask(self, request: dict) -> dict:
        arguments = self._arguments(request)
        if "prompt" in request and not self.teacher.chat_only:
            prompt = as_text(request["prompt"])  # the server would read a control token as one
            answer = self._client.completions.create(prompt=prompt, **arguments)
            text = answer.choices[0].text
        else:
            messages = request.get("messages") or [{"role": "user", "content": request["prompt"]}]
            turns: Any = [turn | {"content": as_text(turn["content"])} for turn in messages]
            answer = self._client.chat.completions.create(messages=turns, **arguments)
            text = answer.choices[0].message.content
        if self._key != "none":
            text = text.replace(self._key, "[key]")  # a server may repeat it
        try:
            tokens = int(answer.usage.prompt_tokens), int(answer.usage.completion_tokens)
            estimated = False
        except (AttributeError, TypeError):  # not every server counts
            tokens, estimated = (estimated_tokens(request), len(text) // 3 + 1), True
        return reply(_until_stop(text, request.get("stop")), tokens, estimated)

    def _arguments(self, request: dict) -> dict[str, Any]:
        """What the server understands: llama.cpp takes grammars, a hosted interface none."""
        settings, more = _settings(request), {}
        top_k, stop = settings.pop("top_k"), settings.pop("stop")
        if request.get("grammar") and (self._llama or self.teacher.gbnf):
            more["grammar"] = request["grammar"]
        if self._llama:  # parameters that a hosted interface would refuse
            more |= {"cache_prompt": True, "top_k": top_k}
        if stop:
            settings["stop"] = stop
        return {"model": self.teacher.name, "seed": request["seed"], "extra_body": more, **settings}
