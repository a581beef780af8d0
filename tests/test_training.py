"""The silent bugs of QLoRA with these versions, each seen with its guard off where it is there."""

import os
import signal
import subprocess
import sys
import time  # noqa: F401 - used by SCRIPT

import pytest
import torch
from conftest import ROOT
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    EarlyStoppingCallback,
    TrainerCallback,
)
from trl import SFTConfig

from benchmarks import training_speed
from helpers import CourseError
from helpers.ask import answers
from helpers.core import rows, runtime
from helpers.core.pilot import Pilot
from helpers.tune import examples, fused, training


def four_bit(path, dtype=torch.bfloat16):
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, quantization_config=config)


def lora():
    from peft import LoraConfig

    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


class Impatient(TrainerCallback):
    """Presses Ctrl-C after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def trainer_for(
    path, tokenizer, rows, out, held_out=None, answer_only=False, fast=False, dense=None, **kw
):
    here = runtime.detect("cpu")
    settings = dict(
        output_dir=str(out),
        max_length=128,
        packing=True,
        per_device_train_batch_size=1,
        num_train_epochs=2,
        learning_rate=1e-3,
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
        save_strategy="steps",
        save_steps=2,
        seed=0,
        **training.hardware_arguments(here),
    )
    settings.update(kw)
    torch.manual_seed(0)
    return training.AnswerSFTTrainer(
        model=dense or four_bit(path),
        args=SFTConfig(**settings),
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=lora(),
        answer_only=answer_only or fast,
        share_start=fast,
        fused=fast,
    )


def guard(trainer):
    """The two guards as the chapters write them."""
    for layer in training.linear4bit_layers(trainer.model):
        layer.support_avx512bf16_for_cpu = False
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trainer


def toy_rows(tokenizer, n=24):
    pilot = Pilot.load(ROOT / "data/inbox")
    return Dataset.from_list(
        [
            {
                "prompt": answers.prompt(
                    pilot, tokenizer, f"Where is pump number {i}?", full=False
                ),
                "completion": f'{{"intent": "order_status", "product": "pump", "order_id": null, '
                f'"n": {i}}}',
            }
            for i in range(n)
        ]
    )


# 1. gradients right after an eval in 4-bit ------------------------------------------------------


def gradient_after_eval(path, guarded):
    """(gradient of the embedding input before an eval, after an eval), flattened."""
    torch.manual_seed(0)
    model = four_bit(path)
    if guarded:
        layers = training.linear4bit_layers(model)
        assert layers
        for layer in layers:
            layer.support_avx512bf16_for_cpu = False
    ids = torch.arange(3, 67).reshape(1, -1)

    def gradient():
        model.train()
        inputs = model.get_input_embeddings()(ids).detach().requires_grad_(True)
        loss = model(inputs_embeds=inputs, labels=ids).loss
        loss.backward()
        return inputs.grad.flatten().float().clone()

    before = gradient()
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    return before, gradient()


def test_gradients_after_an_eval_in_4bit_are_the_same_with_the_guard(embedded):
    before, after = gradient_after_eval(embedded.path, guarded=True)
    assert torch.nn.functional.cosine_similarity(before, after, dim=0) > 0.999


@pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(),
    reason="this processor has no AVX512-BF16, so the trap is not there",
)
def test_without_the_guard_the_gradients_are_wrong(embedded):
    try:
        before, after = gradient_after_eval(embedded.path, guarded=False)
    except RuntimeError as problem:  # no graph at all is the same loss of gradients, said louder
        assert "grad" in str(problem)
        return
    assert torch.nn.functional.cosine_similarity(before, after, dim=0) < 0.99


# 2. adapters in float32 -------------------------------------------------------------------------


def moved(path, tokenizer, out, guarded):
    """Share of lora_A weights that ten steps at a small learning rate changed."""
    trainer = trainer_for(
        path,
        tokenizer,
        toy_rows(tokenizer),
        out,
        learning_rate=2e-5,
        max_steps=10,
        save_strategy="no",
        lr_scheduler_type="constant",
    )
    if guarded:
        guard(trainer)
    dtypes = {p.dtype for p in trainer.model.parameters() if p.requires_grad}
    if guarded:
        assert dtypes == {torch.float32}
    else:
        assert dtypes == {torch.bfloat16}, "TRL no longer casts adapters: the guard may go"
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if "lora_A" in n}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    changed = sum(int((after[n] != p).sum()) for n, p in before.items())
    return changed / sum(p.numel() for p in before.values())


def test_adapters_in_float32_move_and_in_bfloat16_hardly(tiny, tokenizer, tmp_path):
    assert moved(tiny, tokenizer, tmp_path / "a", guarded=True) > 0.95
    assert moved(tiny, tokenizer, tmp_path / "b", guarded=False) < 0.7


# 3. the loss mask -------------------------------------------------------------------------------


def test_the_loss_covers_exactly_the_answer_and_its_end_token(tiny, tokenizer, tmp_path):
    rows = toy_rows(tokenizer, 8)
    trainer = trainer_for(tiny, tokenizer, rows, tmp_path)
    wanted = {row["completion"] + tokenizer.eos_token for row in rows}
    trained = []
    for batch in trainer.get_train_dataloader():
        ids, labels = batch["input_ids"][0], batch["labels"][0]
        assert torch.equal(ids[labels >= 0], labels[labels >= 0])
        text = tokenizer.decode(labels[labels >= 0])
        trained += [part + tokenizer.eos_token for part in text.split(tokenizer.eos_token) if part]
    assert sorted(trained) == sorted(wanted)


def test_a_chat_template_would_train_more_than_the_end_token(tiny, tokenizer, tmp_path):
    """Why the chapter hands over text: a chat template's line break would be trained too."""
    rows = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": f"pump {i}"}],
                "completion": [{"role": "assistant", "content": "yes"}],
            }
            for i in range(8)
        ]
    )
    trainer = trainer_for(tiny, tokenizer, rows, tmp_path)
    labels = next(iter(trainer.get_train_dataloader()))["labels"][0]
    first = tokenizer.decode(labels[labels >= 0])
    assert not first.startswith("yes" + tokenizer.eos_token + "yes")


# 4. resume after kill -9 ------------------------------------------------------------------------

SCRIPT = """
import sys, torch
sys.path[:0] = [{root!r}, {tests!r}]
from test_training import *
from transformers import AutoTokenizer, TrainerCallback
class Slow(TrainerCallback):
    def on_step_end(self, args, state, control, **kw):
        print("step", state.global_step, flush=True)
        time.sleep({pause})
runtime.quiet()
tokenizer = AutoTokenizer.from_pretrained({model!r})
trainer = trainer_for({model!r}, tokenizer, toy_rows(tokenizer), {out!r})
guard(trainer)
trainer.add_callback(Slow())
training.fit(trainer)
trainer.model.save_pretrained({out!r} + "/final")
"""


def start(model, out, pause=0.0):
    code = SCRIPT.format(
        root=str(ROOT), tests=str(ROOT / "tests"), model=str(model), out=str(out), pause=pause
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_killed_training_ends_in_the_same_adapter(tiny, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = start(tiny, whole)
    said, _ = done.communicate(timeout=300)
    assert done.returncode == 0, said[-2000:]
    victim = start(tiny, broken, pause=0.3)
    for line in victim.stdout:
        if line.startswith("step 5"):
            os.kill(victim.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            break
    victim.wait(timeout=60)
    assert (
        not (broken / "final").exists() and training.last_checkpoint(broken).name == "checkpoint-4"
    )
    (broken / "checkpoint-6").mkdir()  # as a kill in the middle of saving would leave it
    (broken / "checkpoint-6" / "trainer_state.json").write_text('{"global_st')
    again = start(tiny, broken)
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said[-2000:]
    assert "step 5\n" in said and "step 4\n" not in said, (
        "it went on from step 4, and did not begin again"
    )
    a, b = (load_file(p / "final/adapter_model.safetensors") for p in (whole, broken))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), "bit-equal"


def test_ctrl_c_keeps_the_checkpoint_and_says_so(tiny, tokenizer, tmp_path):
    trainer = trainer_for(tiny, tokenizer, toy_rows(tokenizer), tmp_path)
    trainer.add_callback(Impatient(5))
    with pytest.raises(
        CourseError, match="Stopped at step 5 of .*checkpoint of step 4 is kept; run the cell again"
    ):
        training.fit(trainer)


@pytest.mark.parametrize(
    "batch, argument",
    [(1, "lower max_length \\(now 128\\)"), (4, "lower per_device_train_batch_size \\(now 4\\)")],
)
@pytest.mark.parametrize(
    "problem",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    ],
)
def test_memory_that_runs_out_names_the_argument(
    tiny, tokenizer, tmp_path, monkeypatch, batch, argument, problem
):
    trainer = trainer_for(
        tiny, tokenizer, toy_rows(tokenizer), tmp_path, per_device_train_batch_size=batch
    )
    real, taken = trainer.training_step, []

    def burst(*args, **kw):
        if len(taken) == 3:
            raise problem
        taken.append(1)
        return real(*args, **kw)

    trainer.training_step = burst
    with pytest.raises(CourseError, match=argument):
        training.fit(trainer)
    assert training.last_checkpoint(tmp_path).name == "checkpoint-2", "what was saved is kept"


def test_another_runtime_error_keeps_its_traceback(tiny, tokenizer, tmp_path):
    trainer = trainer_for(tiny, tokenizer, toy_rows(tokenizer), tmp_path)

    def broken(*args, **kw):
        raise RuntimeError("shapes do not fit")

    trainer.training_step = broken
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        training.fit(trainer)


@pytest.mark.parametrize("packing, batch", [(True, 1), (False, 4)])
def test_a_loss_that_is_no_number_stops_and_names_the_rows(
    tiny, tokenizer, tmp_path, packing, batch
):
    """The Trainer's log would show an average, and the adapter would be full of NaN."""
    trainer = trainer_for(
        tiny,
        tokenizer,
        toy_rows(tokenizer),
        tmp_path,
        packing=packing,
        per_device_train_batch_size=batch,
    )
    real, asked = trainer.compute_loss, []

    def poisoned(model, inputs, **kw):
        asked.append(trainer.rows_of_step(inputs))
        loss = real(model, inputs, **kw)
        return loss * float("nan") if len(asked) == 4 else loss

    trainer.compute_loss = poisoned
    with pytest.raises(CourseError, match="not a number at step 4, on these") as said:
        training.fit(trainer)
    assert len(asked) == 4 and all(f"'{row}'" in str(said.value) for row in asked[3][:4])
    number = asked[3][0].split("pump number ")[-1] if "pump" in asked[3][0] else asked[3][0]
    assert number.split("?")[0].isdigit(), "a row is told by what sets it apart"
    assert all(p.isfinite().all() for p in trainer.model.parameters() if p.requires_grad), (
        "the weights never saw it"
    )
    assert training.last_checkpoint(tmp_path).name == "checkpoint-2"


def test_a_gradient_that_is_no_number_stops_before_the_weights_move(tiny, tokenizer, tmp_path):
    """A kernel's backward can be wrong where its forward is right: seen on an H200."""
    trainer = trainer_for(tiny, tokenizer, toy_rows(tokenizer), tmp_path, packing=True)
    real, asked = trainer.compute_loss, []

    def poisoned(model, inputs, **kw):
        asked.append(trainer.rows_of_step(inputs))
        loss = real(model, inputs, **kw)
        if len(asked) == 4:
            loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss

    trainer.compute_loss = poisoned
    with pytest.raises(CourseError, match="number and its gradient is not at step 4") as said:
        training.fit(trainer)
    assert all(f"'{row}'" in str(said.value) for row in asked[3][:4])
    assert all(p.isfinite().all() for p in trainer.model.parameters() if p.requires_grad)


def test_on_a_card_attention_whose_backward_is_wrong_is_switched_off():
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        training.avoid_wrong_kernels(torch.device("cpu"))
        assert torch.backends.cuda.cudnn_sdp_enabled()
        training.avoid_wrong_kernels(torch.device("cuda"))
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def test_early_stopping_counts_on_after_an_interruption(tiny, tokenizer, tmp_path):
    """restore_callback_states_from_checkpoint: without it the patience begins anew."""
    steps = {}
    for name, kept in (("whole", True), ("kept", True), ("forgotten", False)):
        for stop in (None,) if name == "whole" else ("later", None):
            data = toy_rows(tokenizer, 4)
            trainer = trainer_for(
                tiny,
                tokenizer,
                data,
                tmp_path / name,
                data,
                packing=False,
                num_train_epochs=8,
                learning_rate=0.0,
                per_device_train_batch_size=4,
                eval_strategy="epoch",
                save_strategy="epoch",
                load_best_model_at_end=True,
                metric_for_best_model="eval_loss",
                restore_callback_states_from_checkpoint=kept,
            )
            trainer.add_callback(
                EarlyStoppingCallback(early_stopping_patience=3, early_stopping_threshold=1.0)
            )
            if stop:
                trainer.add_callback(
                    Impatient(4)
                )  # an epoch is one step: three are saved, two of them without a gain
                with pytest.raises(
                    CourseError, match="Stopped at step 4 of 8: the checkpoint of step 3 is kept"
                ):
                    training.fit(trainer)
            else:
                training.fit(trainer)
        steps[name] = trainer.state.global_step
    assert steps["whole"] == steps["kept"] < steps["forgotten"], steps


def test_a_prompt_has_one_start_token_whoever_adds_it(tokenizer):
    from copy import deepcopy

    from tokenizers.processors import TemplateProcessing

    pilot = Pilot.load(ROOT / "data/inbox")
    row = dict(rows.load(pilot).train[0])
    # as Llama 3 and Gemma have it: the template writes the start token, and so does the tokenizer
    adding = deepcopy(tokenizer)
    adding.bos_token = "<|im_start|>"
    adding.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", adding.bos_token_id)]
    )
    one = examples.training_row(pilot, row, adding, 512)["prompt"]
    asked = answers.prompt(pilot, adding, row[pilot.text], full=False)
    assert adding(one).input_ids == adding(asked, add_special_tokens=False).input_ids, (
        "trained on what is asked later"
    )
    assert examples.training_row(pilot, row, tokenizer, 512)["prompt"] == answers.prompt(
        pilot, tokenizer, row[pilot.text], full=False
    )
    adding.chat_template = None
    with pytest.raises(
        CourseError,
        match="has no chat template: choose a base_model that was tuned to follow instructions",
    ):
        examples.training_row(pilot, row, adding, 512)


def test_an_answer_that_was_cut_off_is_not_taught(tokenizer):
    pilot = Pilot.load(ROOT / "data/inbox")
    good = sorted(map(dict, rows.load(pilot).train), key=lambda row: len(row["message"]))[:20]
    lost = next(row for row in good if row["product"])
    far = lost | {"message": "I write to you about something. " * 60 + lost["message"]}
    told, notes = examples.training_rows(pilot, [*good, far], tokenizer, 160)
    assert (
        len(told) == 20
        and "1 of 21 messages are longer" in notes[-2]
        and notes[-1].startswith("1 of these were left out")
    )
    with pytest.raises(
        CourseError, match="In all 2 rows the answer stands in the part of the message"
    ):
        examples.training_rows(
            pilot,
            [
                far,
                far
                | {"intent": "other_one", "urgency": "low" if far["urgency"] != "low" else "high"},
            ],
            tokenizer,
            160,
        )


def test_going_on_with_other_settings_is_refused_and_names_each(tiny, tokenizer, tmp_path):
    trainer = trainer_for(tiny, tokenizer, toy_rows(tokenizer), tmp_path)
    trainer.add_callback(Impatient(5))
    with pytest.raises(CourseError, match="Stopped at step 5"):
        training.fit(trainer)
    before = sorted(p.name for p in tmp_path.iterdir())
    other = trainer_for(
        tiny, tokenizer, toy_rows(tokenizer, 23), tmp_path, learning_rate=5e-4, seed=1
    )
    with pytest.raises(CourseError, match="checkpoint-4 was made with other settings") as said:
        training.fit(other)
    assert "learning_rate was 0.001 and is 0.0005" in str(
        said.value
    ) and "seed was 0 and is 1" in str(said.value)
    assert "rows was" in str(said.value) and "max_length" not in str(said.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    same = trainer_for(tiny, tokenizer, toy_rows(tokenizer), tmp_path)
    training.fit(same)
    assert same.state.global_step == same.state.max_steps


def test_rows_that_cannot_teach_are_refused_in_a_sentence(folder, tokenizer):
    pilot = Pilot.load(folder)
    data = list(rows.load(pilot).train)
    with pytest.raises(CourseError, match="no rows to train on"):
        examples.training_rows(pilot, [], tokenizer, 256)
    with pytest.raises(CourseError, match="All 6 training rows have intent = 'quote'"):
        examples.training_rows(
            pilot, [row for row in data if row["intent"] == "quote"], tokenizer, 256
        )
    made, notes = examples.training_rows(pilot, data, tokenizer, 256)
    assert (
        notes == []
        and made[0]["completion"] == pilot.answer(data[0])
        and data[0]["message"] in made[0]["prompt"]
    )


def test_cut_rows_are_counted_and_keep_their_answer(folder, tokenizer):
    pilot = Pilot.load(folder)
    data = [dict(row) for row in rows.load(pilot).train]
    for row in data[:3]:
        row["message"] += " and please" * 200
    made, notes = examples.training_rows(pilot, data, tokenizer, 128)
    assert (
        len(notes) == 1 and "3 of 12 messages are longer than the window of 128 tokens" in notes[0]
    )
    assert all(len(tokenizer(row["prompt"]).input_ids) <= 128 for row in made)
    assert [row["completion"] for row in made] == [pilot.answer(row) for row in data]
    assert all(row["prompt"].endswith("<|im_start|>assistant\n") for row in made)


# 5. faster, and the same ------------------------------------------------------------------------


@pytest.mark.parametrize("packing, batch", [(True, 1), (False, 4)])
def test_the_loss_on_the_answer_only_is_the_same_loss_with_the_same_gradients(
    tiny, tokenizer, tmp_path, packing, batch
):
    found = {}
    for name in ("all", "answer"):
        trainer = trainer_for(
            tiny,
            tokenizer,
            toy_rows(tokenizer),
            tmp_path / name,
            packing=packing,
            per_device_train_batch_size=batch,
            bf16=False,
            answer_only=name == "answer",
        )
        guard(trainer)
        with torch.no_grad():  # B starts at zero, and then A has no gradient to compare
            for n, p in trainer.model.named_parameters():
                if "lora_B" in n:
                    p.normal_(0, 0.02, generator=torch.Generator().manual_seed(1))
        batch_of = dict(next(iter(trainer.get_train_dataloader())))
        loss = trainer.compute_loss(trainer.model, batch_of, num_items_in_batch=torch.tensor(40))
        loss.backward()
        gradient = torch.cat(
            [p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad]
        )
        found[name] = loss.item(), gradient
    assert found["all"][0] == pytest.approx(found["answer"][0], rel=2e-3)
    assert torch.nn.functional.cosine_similarity(found["all"][1], found["answer"][1], dim=0) > 0.999
    assert found["answer"][1].norm() == pytest.approx(float(found["all"][1].norm()), rel=0.01)


def test_a_batch_without_a_trained_token_has_a_loss_of_zero(tiny, tokenizer, tmp_path):
    trainer = trainer_for(tiny, tokenizer, toy_rows(tokenizer), tmp_path, answer_only=True)
    batch = next(iter(trainer.get_train_dataloader()))
    batch["labels"] = torch.full_like(batch["labels"], -100)
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    assert loss.item() == 0.0


def test_skipping_the_way_through_float32_changes_no_bit(tiny, tokenizer, tmp_path):
    """fit() switches PEFT's input casts off under autocast; a plain train() leaves them on."""
    weights = {}
    for name in ("fit", "plain"):
        trainer = trainer_for(
            tiny,
            tokenizer,
            toy_rows(tokenizer),
            tmp_path / name,
            save_strategy="no",
            max_steps=4,
            bf16=True,
        )
        guard(trainer)
        training.fit(trainer) if name == "fit" else trainer.train()
        weights[name] = {
            n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad
        }
    assert all(torch.equal(weights["fit"][n], p) for n, p in weights["plain"].items())


def step_gradients(trainer, batch):
    """(loss, {name: gradient}) of one training step, with adapters that are not at zero."""
    with torch.no_grad():
        for name, p in trainer.model.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.05, generator=torch.Generator().manual_seed(len(name)))
    trainer.optimizer = trainer.create_optimizer()
    loss = trainer.training_step(trainer.model, dict(batch), torch.tensor(40))
    named = trainer.model.named_parameters()
    return loss.item(), {name: p.grad.clone() for name, p in named if p.requires_grad}


@pytest.mark.parametrize("base", ["nf4", "dense", "biased"])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-4), ("bfloat16", 0.05)])
@pytest.mark.parametrize("packing", [True, False])
def test_a_fast_step_has_the_gradients_of_the_plain_one(
    tiny, tokenizer, tmp_path, base, dtype, tolerance, packing
):
    """Relative distance of each adapter weight's gradient, and of the loss."""
    found = {}
    for fast in (False, True):
        model, kind = None, getattr(torch, dtype)
        if base == "dense":
            model = AutoModelForCausalLM.from_pretrained(tiny, dtype=kind)
        if base == "biased":  # Qwen2 has a bias in three of its layers
            model = tiny_qwen(tokenizer).to(kind)
        if base == "nf4":
            model = four_bit(tiny, kind)
        trainer = guard(
            trainer_for(
                tiny,
                tokenizer,
                toy_rows(tokenizer),
                tmp_path / str(fast),
                answer_only=True,
                fast=fast,
                dense=model,
                packing=packing,
                per_device_train_batch_size=1 if packing else 4,
                max_length=256,
                bf16=dtype == "bfloat16",
            )
        )
        batch = next(iter(trainer.get_train_dataloader()))
        found[fast] = step_gradients(trainer, batch)
        shared = training.share_start(dict(batch), kind)
        assert shared["input_ids"].numel() < batch["input_ids"].numel()
        layers = [m for m in trainer.model.modules() if hasattr(m, "fused_plan")]
        assert len(layers) == (2 if fast else 0)
    (plain_loss, plain), (loss, gradients) = found[False], found[True]
    assert loss == pytest.approx(plain_loss, rel=tolerance / 10)
    for name, gradient in plain.items():
        assert gradient.norm() > 0
        assert (gradients[name] - gradient).norm() <= tolerance * gradient.norm(), name


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-4), ("bfloat16", 0.01)])
@pytest.mark.parametrize("fast", [False, True])
def test_a_short_look_at_held_out_rows_finds_the_same_loss(
    tiny, tokenizer, tmp_path, dtype, tolerance, fast
):
    """Whatever the training uses, the look is fused and the unpacked weights outlive it."""
    trainer = guard(
        trainer_for(
            tiny,
            tokenizer,
            toy_rows(tokenizer, 8),
            tmp_path,
            held_out=toy_rows(tokenizer),
            fast=fast,
            dense=four_bit(tiny, getattr(torch, dtype)),
            per_device_eval_batch_size=2,
            max_steps=2,
            bf16=dtype == "bfloat16",
        )
    )
    trainer.to_fuse = True
    training.fit(trainer)
    layers = [m for m in trainer.model.modules() if hasattr(m, "fused_plan")]
    assert trainer.short_look and len(layers) == 2
    trainer.short_look = False
    plain = trainer.evaluate()
    assert all(layer.fused_plan.groups[0].matrix is None for layer in layers)
    trainer.short_look = True
    short = trainer.evaluate()
    assert all(layer.fused_plan.groups[0].matrix is not None for layer in layers)
    assert short["eval_loss"] == pytest.approx(plain["eval_loss"], rel=tolerance)
    assert not trainer.model.training and trainer.answer_only == fast


def tiny_qwen(tokenizer):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=2,
    )
    model = Qwen2ForCausalLM(config)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(p, 0, 0.2)
    return model


def test_a_layer_that_computes_something_else_trains_the_plain_way(
    tiny, tokenizer, tmp_path, monkeypatch, capsys
):
    """Another version of the library might scale a residual: seen by trying, not by its name."""
    from transformers.models.llama.modeling_llama import LlamaMLP

    real = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: real(self, x) * 1.5)
    trainer = guard(
        trainer_for(tiny, tokenizer, toy_rows(tokenizer), tmp_path, fast=True, max_steps=2)
    )
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if "lora_" in n}
    batch = dict(next(iter(trainer.get_train_dataloader())))
    trainer.training_step(trainer.model, batch, torch.tensor(40))
    assert "train unfused" in capsys.readouterr().out
    assert not any(hasattr(module, "fused_plan") for module in trainer.model.modules())
    after = dict(trainer.model.named_parameters())
    assert all(torch.equal(after[n], p) for n, p in before.items()), "trying leaves no trace"


def test_a_fused_model_answers_saves_and_merges_as_any(tiny, tokenizer, tmp_path):
    from copy import deepcopy

    trainer = guard(
        trainer_for(tiny, tokenizer, toy_rows(tokenizer), tmp_path, fast=True, max_steps=4)
    )
    training.fit(trainer)
    model, ids = trainer.model, torch.arange(3, 67)[None]
    layers = [module for module in model.modules() if hasattr(module, "fused_plan")]
    trained = model.train()(input_ids=ids).logits
    assert all(layer.fused_plan.groups[0].matrix is not None for layer in layers)
    copied = deepcopy(layers[0]).train()
    assert copied.fused_plan.linears == fused.linear_layers(copied), "a copy is its own"
    assert copied.forward.__self__ is copied
    with torch.no_grad():
        answered = model.eval()(input_ids=ids).logits
    assert all(layer.fused_plan.groups[0].matrix is None for layer in layers), "memory is free"
    assert (trained - answered).norm() < 0.05 * answered.norm()
    training.save_adapter(model, tmp_path / "adapter")
    dense = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    from peft import PeftModel

    merged = PeftModel.from_pretrained(dense, tmp_path / "adapter").merge_and_unload()
    half = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    apart = PeftModel.from_pretrained(half, tmp_path / "adapter").eval()
    assert torch.allclose(merged(input_ids=ids).logits, apart(input_ids=ids).logits, atol=1e-4)
    unloaded = model.merge_and_unload().train()  # its adapters are gone, so is the fused way
    assert unloaded(input_ids=ids).logits.isfinite().all()
    assert all(layer.fused_plan.groups[0].matrix is None for layer in layers)


@pytest.mark.parametrize("float32", [False, True])
def test_the_benchmark_compares_the_same_work(folder, tiny, monkeypatch, float32):
    """On a processor without bfloat16 one rung is left out and the others are in float32."""
    if float32:
        monkeypatch.setenv("COURSE_FLOAT32", "1")
    pilot = Pilot.load(folder)
    pilot.base_model = str(tiny)
    names = ["default", "guarded", "fast"]
    speeds = training_speed.measure_speed(12, 1, names, pilot, packs=2)
    assert training_speed.speedup_of(speeds) > 0
    assert training_speed.loss_difference(speeds) < 0.05, "of a loss above ten"
    speeds["fast"]["loss"] += 1
    with pytest.raises(CourseError, match="away from the plain one"):
        training_speed.loss_difference(speeds)
    assert all(f["loss"] == f["loss"] and f["tokens"] > 200 for f in speeds.values())
    assert len(list(training_speed.speed_lines(speeds, dict.fromkeys(speeds, 2**30)))) == 3
    rungs = training_speed.speed_rungs()
    if runtime.detect("cpu").dtype == "float32":
        assert "load_bf16" not in rungs
        assert {choices["load"] for choices in rungs.values()} == {"float32"}
    steps = [name for name in training_speed.LADDER if name in rungs]
    for above, below in zip(steps, steps[1:]):
        assert rungs[above] != rungs[below], f"{below} changes nothing"


def test_a_step_is_profiled_by_kind_of_operator(folder, tiny):
    pilot = Pilot.load(folder)
    pilot.base_model = str(tiny)
    plain, fast = (training_speed.step_profile(name, pilot, 12) for name in ("guarded", "fast"))
    assert plain["matrix products"] > 0 and plain["attention"] > 0
    assert plain["four bits unpacked"] > fast["four bits unpacked"] == 0, "unpacked once, before"


def test_random_weights_of_a_shape_learn(tiny):
    result = training_speed.train_on_shape(tiny, rows_a_step=2, length=64, steps=6)
    assert result["last_loss"] < result["first_loss"] and result["tokens_per_second"] > 0
    assert result["peak_gib"] is None or result["peak_gib"] > 0


def test_an_adapter_is_what_was_stored_in_16_bits(tiny, tokenizer, tmp_path):
    trainer = guard(trainer_for(tiny, tokenizer, toy_rows(tokenizer), tmp_path, max_steps=2))
    trainer.train()
    full = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if "lora_" in n}
    training.save_adapter(trainer.model, tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {torch.float16}
    for name, weight in trainer.model.named_parameters():
        if "lora_" in name:
            assert weight.dtype == torch.float32
            assert torch.equal(weight, full[name].half().float()), name
    with torch.no_grad():
        next(p for p in trainer.model.parameters() if p.requires_grad).fill_(1e6)
    with pytest.raises(CourseError, match="too large for 16 bits"):
        training.save_adapter(trainer.model, tmp_path / "adapter")
    stored.popitem()
    save_file(stored, tmp_path / "adapter/adapter_model.safetensors")
    with pytest.raises(CourseError, match="of another shape"):
        training.load_adapter(trainer.model, tmp_path / "adapter")


def test_a_guard_without_its_switch_says_so(tiny):
    model = four_bit(tiny)
    del training.linear4bit_layers(model)[0].support_avx512bf16_for_cpu
    with pytest.raises(CourseError, match="has no support_avx512bf16_for_cpu any more"):
        training.linear4bit_layers(model)


def test_the_loss_mask_is_shown_in_brackets(tiny, tokenizer, tmp_path):
    trainer = trainer_for(tiny, tokenizer, toy_rows(tokenizer, 4), tmp_path, packing=False)
    row = trainer.train_dataset[0]
    shown = examples.show_loss_mask(tokenizer, row["input_ids"], row["labels"])
    answer = shown[shown.index("⟦") + 1 : shown.index("⟧")]
    assert answer.startswith('{"intent"') and answer.endswith(tokenizer.eos_token)
    assert shown.endswith("⟧") and shown.count("⟦") == 1


# 6. fp16 on a T4 --------------------------------------------------------------------------------


def fake_card(monkeypatch, capability, gib, name):
    class Properties:
        total_memory = int(gib * 2**30)
        major, minor = capability

    monkeypatch.delenv("COURSE_PROFILE", raising=False)
    monkeypatch.delenv("COURSE_FLOAT32", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *a: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *a: capability)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *a: Properties)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    if hasattr(
        torch.cuda, "_check_bf16_tensor_supported"
    ):  # emulation works on a T4: this is the trap
        monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda *a: True)


def test_a_t4_gets_fp16_although_torch_offers_emulated_bf16(monkeypatch):
    fake_card(monkeypatch, (7, 5), 14.7, "Tesla T4")
    assert torch.cuda.is_bf16_supported() is True, "the trap: emulation counts as support"
    here = runtime.detect()
    assert (here.device, here.dtype, here.fp16, here.bf16, here.profile.name) == (
        "cuda",
        "float16",
        True,
        False,
        "t4",
    )
    assert (
        training.hardware_arguments(here)["fp16"]
        and not training.hardware_arguments(here)["use_cpu"]
    )


def test_an_ampere_card_gets_bf16(monkeypatch):
    fake_card(monkeypatch, (8, 6), 23.7, "A10G")
    here = runtime.detect()
    assert (here.dtype, here.bf16, here.profile.name) == ("bfloat16", True, "gpu")


def test_an_unknown_profile_is_refused(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "huge")
    with pytest.raises(CourseError, match="smoke, cpu, t4, gpu"):
        runtime.detect()


# 7. bytes ---------------------------------------------------------------------------------------


def test_bytes_per_parameter_add_up(tiny):
    dense = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    assert training.weight_bytes(dense) == pytest.approx(
        4 * sum(p.numel() for p in dense.parameters()), rel=0.001
    )
    small = four_bit(tiny)
    linear = sum(p.numel() for n, p in dense.named_parameters() if "proj" in n)
    rest = sum(p.numel() for n, p in dense.named_parameters() if "proj" not in n)
    # half a byte a weight, a float32 scale for every 64 weights, two bytes for what stays dense
    assert training.weight_bytes(small) == pytest.approx(
        linear / 2 + linear / 64 * 4 + rest * 2, rel=0.01
    )
