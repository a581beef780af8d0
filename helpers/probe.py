"""A question with a known answer before any figure: are the parts of this run the right ones?

A run whose parts have changed still reports a score. So every chapter asks first, once for each set
of parts (libraries, weights, number format, the course's code, the pilot's files), and stops in one
sentence that names the part that differs.
"""

import contextlib
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from helpers import ROOT, CourseError
from helpers.choose import known_answers, models
from helpers.core.files import Journal, fingerprint, sha256
from helpers.core.pilot import Pilot
from helpers.core.rows import Rows
from helpers.core.runs import runs_folder
from helpers.core.runtime import Runtime, versions

ROWS = 300  # of a split, evenly spaced: enough to meet every kind of row, in seconds
MOVED = 0.9  # of an adapter's numbers in three steps at 1e-3; all of them where it is right
LESSON = [
    {"prompt": "Which day is it?\n", "completion": "It is a Thursday, the fourth day."},
    {"prompt": "Which month is it?\n", "completion": "It is November, the eleventh month."},
]


def check_parts(pilot: Pilot, data: Rows, here: Runtime) -> str:
    """Check the environment and the pilot, each once for its parts; returns one line to print.

    Raises CourseError naming the part that differs, and the cure.
    """
    started = time.perf_counter()
    done = Journal(runs_folder() / "probe.jsonl")
    parts = [versions(), str(here), known_answers.known_answers(), _hash_of_code()]
    environment = fingerprint("environment", parts)
    rows = [dict(row) for split in (data.train, data.test) for row in evenly_spaced(split)]
    its_rows = fingerprint("pilot", environment, pilot.model_dump(mode="json"), rows)
    if done.missing([environment]):
        with _random_state_kept():
            check_environment(here)
        done.add({environment: "passed"}, 0)
    if done.missing([its_rows]):
        base, tokenizer = _tokenizer_at_hand(pilot)
        if tokenizer is None:
            return f"probe: passed; {base} is not at hand yet, so its tokenizer was not asked"
        check_pilot(pilot, tokenizer, rows)
        done.add({its_rows: "passed"}, 0)
    seconds = time.perf_counter() - started
    return f"probe: known answers given, {len(rows)} right records accepted ({seconds:.0f} s)"


def evenly_spaced(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """At most ROWS of the rows, from the first to the last."""
    step = max(1, -(-len(rows) // ROWS))
    return [rows[place] for place in range(0, len(rows), step)]


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Training draws random numbers; what a chapter draws must not depend on a probe before it."""
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _hash_of_code() -> str:
    files = sorted((ROOT / "helpers").rglob("*.py"))
    return fingerprint([sha256(path) for path in files])


def _tokenizer_at_hand(pilot: Pilot) -> tuple[str, Any]:
    """(name, tokenizer) of the pilot's base; no tokenizer where it cannot be had without network.

    A chapter that needs the model says itself that it is missing; the others do not need it.
    """
    from helpers.ask import answers

    try:
        base, tokenizer = answers.open_base(pilot)
    except CourseError:
        if pilot.base_model == "embedded":
            raise
        return pilot.base_model, None
    return base.name, tokenizer


# The environment, on the embedded model -------------------------------------------------------


def check_environment(here: Runtime) -> None:
    """Tokenizer, first tokens, closed ids, loss mask and three steps of training; about 10 s."""
    from transformers import AutoTokenizer

    from helpers.tune import training

    base = models.resolve("embedded")
    with base.loading():
        tokenizer = AutoTokenizer.from_pretrained(base.path)
        known_answers.check_tokenizer(tokenizer)
        model = training.load_base(base.path, here, four_bit=False)
        check_first_tokens(model, tokenizer)
        check_closed_ids(tokenizer, model.get_output_embeddings().weight.shape[0])
        model = training.load_base(base.path, here, four_bit=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = training.build_trainer(
            model, tokenizer, LESSON, here, folder, training.lora_config(),
            per_device_train_batch_size=len(LESSON), max_steps=3, logging_steps=1,
            learning_rate=1e-3, lr_scheduler_type="constant",
        )  # fmt: skip
        check_loss_mask(trainer, LESSON)
        check_training(trainer)


def check_first_tokens(model: Any, tokenizer: Any) -> None:
    """Raise CourseError unless the untuned model answers the fixed prompt with the known tokens."""
    import torch

    known = known_answers.known_answers()
    prompt = tokenizer(known["prompt"], return_tensors="pt", add_special_tokens=False)
    wanted = known["first_tokens"]
    with torch.inference_mode():
        out = model.generate(
            **prompt.to(model.device),
            max_new_tokens=len(wanted),
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    given = out[0, prompt.input_ids.shape[1] :].tolist()
    if given != wanted:
        raise CourseError(
            f"The embedded model answers {tokenizer.decode(given)!r} to a fixed prompt, not "
            f"{tokenizer.decode(wanted)!r}: a library or the number format computes something "
            f"else here. No figure would be true; {known_answers.CURE}."
        )


def check_closed_ids(tokenizer: Any, scored_ids: int) -> None:
    """Raise CourseError when an answer could contain an id that the tokenizer does not have.

    `scored_ids`: how many ids the model scores; a padded vocabulary scores more than there are.
    """
    import torch

    from helpers.ask import answers

    beyond = len(tokenizer)
    scores = torch.zeros(1, max(scored_ids, beyond + 8))
    scores[0, beyond:] = 100.0  # as attractive as can be
    hold = answers.HoldToGrammar(tokenizer, ['root ::= "{}"\n'], 1)
    chosen = int(hold(torch.zeros(1, 1, dtype=torch.long), scores).argmax())
    if chosen >= beyond:
        raise CourseError(
            f"The grammar lets the model write id {chosen}, but the tokenizer has {beyond} tokens "
            f"only: every answer would be empty. Another llguidance? {known_answers.CURE}."
        )


def check_loss_mask(trainer: Any, rows: Sequence[Mapping[str, str]]) -> None:
    """Raise CourseError unless exactly each row's completion and end token are trained."""
    tokenizer = trainer.processing_class
    batch = next(iter(trainer.get_train_dataloader()))
    trained = set()
    for ids, labels in zip(batch["input_ids"], batch["labels"]):
        trained.add(tokenizer.decode(ids[labels >= 0]))
    wanted = {row["completion"] + tokenizer.eos_token for row in rows}
    if trained != wanted:
        raise CourseError(
            f"The loss is computed on {sorted(trained)[0][:80]!r}, not on exactly the answer and "
            f"its end token {tokenizer.eos_token!r}: another trl? {known_answers.CURE}."
        )


def check_training(trainer: Any) -> None:
    """Train; raise CourseError unless the loss falls and the adapter moves."""
    from helpers.tune import training

    weights = {n: p for n, p in trainer.model.named_parameters() if p.requires_grad}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    training.fit(trainer)
    moved, numbers = 0, 0
    for name, weight in weights.items():
        moved += int((weight != before[name]).sum())
        numbers += weight.numel()
    if moved < MOVED * numbers or not numbers:
        raise CourseError(
            f"Only {moved:,} of {numbers:,} numbers of the adapter moved in "
            f"{trainer.state.global_step} steps of training, so it would learn next to nothing. "
            f"{known_answers.CURE}."
        )
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if not losses[-1] < losses[0]:
        raise CourseError(
            f"Training on two fixed rows does not lower the loss ({losses[0]:.3f}, then "
            f"{losses[-1]:.3f}): the gradients are wrong here. {known_answers.CURE}."
        )


# The pilot, with the tokenizer of its base ----------------------------------------------------


def check_pilot(pilot: Pilot, tokenizer: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise CourseError unless the base's tokenizer and the grammar can give every right answer."""
    check_round_trip(tokenizer, [pilot.answer(row) for row in rows])
    check_template(pilot, tokenizer)
    check_grammar(pilot, tokenizer, rows)


def check_round_trip(tokenizer: Any, texts: Sequence[str]) -> None:
    """Raise CourseError unless every text comes back from its ids, and the end token is one id."""
    from helpers.ask import answers

    if tokenizer.eos_token_id is None or tokenizer.eos_token_id >= len(tokenizer):
        raise CourseError(
            "The tokenizer of base_model has no end token, so no answer would end; choose a model "
            "that was tuned to follow instructions."
        )
    vocabulary = answers.vocabulary(tokenizer)
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        # as the tokenizer decodes it, and as the grammar reads the bytes of its tokens
        back, read = tokenizer.decode(ids), vocabulary.decode_bytes(ids).decode(errors="replace")
        for way, other in (("decoded", back), ("read by the grammar", read)):
            if other.strip() != text.strip():
                raise CourseError(
                    f"The tokenizer of base_model turns {text[:60]!r} into ids that are {way} as "
                    f"{other[:60]!r}: every answer would break. {known_answers.CURE}, or choose "
                    "another base_model."
                )


def check_template(pilot: Pilot, tokenizer: Any) -> None:
    """Raise CourseError unless the prompt holds instruction and message, and a turn can end."""
    from helpers.ask import answers

    message = "Probe 4711 ✓"
    for full in (True, False):
        prompt = " ".join(answers.prompt(pilot, tokenizer, message, full=full).split())
        for what, part in (("instruction", pilot.instruction(full)), ("message", message)):
            if " ".join(part.split()) not in prompt:
                raise CourseError(
                    f"The chat template of base_model drops the {what}: the model would answer "
                    "without it. Choose another base_model."
                )
    turns = [{"role": "user", "content": message}, {"role": "assistant", "content": "done"}]
    told = tokenizer.apply_chat_template(turns, tokenize=False)
    after = told[told.rindex("done") + len("done") :].strip()
    if not after.startswith(tokenizer.eos_token):
        raise CourseError(
            f"The end token of base_model's tokenizer is {tokenizer.eos_token!r}, but its chat "
            f"template ends an answer with {after[:20]!r}: a tuned model would not stop. "
            f"{known_answers.CURE}, or choose another base_model."
        )


def check_grammar(pilot: Pilot, tokenizer: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise CourseError naming the first row whose right record its own grammar refuses."""
    from helpers.ask import answers

    for row in rows:
        answer = pilot.answer(row)
        if not answers.accepts(pilot, tokenizer, row[pilot.text], answer):
            raise CourseError(
                f"The grammar of row {row['id']} refuses its right record {answer[:120]}: the "
                "model could never give it. Look at that row's values; if they are right, "
                f"{known_answers.CURE}."
            )
