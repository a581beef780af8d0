"""The registry of adapters: what it stores and refuses, and that no kill ever damages it."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # a process of the tests below
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from helpers import ROOT, CourseError
from helpers.choose.models import Base
from helpers.core.files import sha256
from helpers.ship import adapter_gguf, cards, records, registry
from helpers.ship.registry import Registry

KILLS = int(os.environ.get("REGISTRY_KILLS", "12"))  # as many as you have time for
WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
ABOUT = {
    "data": "d" * 64,
    "prompt": "p" * 12,
    "grammar": "g" * 12,
    "evaluation": {"exact": 0.75, "critical": {"order_id.wrong": 0.01}},
    "licence": "allowed",
}
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory):
    """The tiny Llama's shape with few weights: they are only hashed here."""
    folder = tmp_path_factory.mktemp("bases") / "小さい tiny"
    folder.mkdir()
    shutil.copy(tiny / "config.json", folder)
    save_file(
        {"norm": load_file(tiny / "model.safetensors")["model.norm.weight"]},
        folder / "model.safetensors",
    )
    return Base("tiny", str(folder), None, "Apache-2.0")


@pytest.fixture(scope="module")
def trained(tiny, base, tmp_path_factory):
    """A folder that PEFT wrote: rank 3, two kinds of layers, random weights."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny)
    config = LoraConfig(
        r=3, lora_alpha=7, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    folder = tmp_path_factory.mktemp("trained") / "adapter"
    get_peft_model(model, config).half().save_pretrained(folder)
    change(folder, base_model_name_or_path=base.path)
    return folder


@pytest.fixture
def adapter(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "adapter"))


@pytest.fixture
def store(tmp_path):
    return Registry(tmp_path / "a registry of アダプター")


def change(adapter: Path, **settings) -> None:
    path = adapter / SETTINGS
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def scale(adapter: Path, factor: float) -> Path:
    """Other weights: other content."""
    stored = load_file(adapter / WEIGHTS)
    save_file({name: one * factor for name, one in stored.items()}, adapter / WEIGHTS)
    return adapter


def tree(folder: Path) -> dict[str, str]:
    """{name: SHA-256} of what a reader of a registry sees."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def test_what_is_pushed_can_be_opened(store, adapter, base):
    name = store.push(
        adapter, base, ABOUT | {"seed": 3, "versions": {"torch": "2"}, "note": "日本語"}
    )
    assert len(name) == 12 and store.folder(name) == store.root / "objects" / name
    record = store.record(name[:4])
    assert [record] == store.entries()
    assert (
        record["hash"] == name and record["sha256"].startswith(name) and len(record["sha256"]) == 64
    )
    assert store.record(record["sha256"]) == record
    assert record["base"] == {
        "name": "tiny",
        "sha256": records.weights_hash(base),
        "licence": "Apache-2.0",
    }
    assert record["bytes"] == sum((adapter / file).stat().st_size for file in (WEIGHTS, SETTINGS))
    assert record.items() >= ABOUT.items() and record["seed"] == 3 and record["note"] == "日本語"
    place = store.open(name, base)
    assert sorted(path.name for path in place.iterdir()) == [SETTINGS, WEIGHTS, "record.json"]
    assert (place / WEIGHTS).read_bytes() == (adapter / WEIGHTS).read_bytes()
    assert store.verify() == [] and not list((store.root / "staging").iterdir())


def test_the_hash_is_that_of_the_content(store, adapter, base, tmp_path):
    name = store.push(adapter, base, ABOUT)
    before = tree(store.root)
    settings = json.loads((adapter / SETTINGS).read_text())
    modules = sorted(settings["target_modules"], reverse=settings["target_modules"][0] == "q_proj")
    change(
        adapter, base_model_name_or_path="", peft_version="9", later=None, target_modules=modules
    )
    assert store.push(adapter, base, ABOUT | {"evaluation": {"exact": 0.1}}) == name
    assert tree(store.root) == before  # the first record stays
    names = {name}
    change(adapter, lora_alpha=8)
    names.add(store.push(adapter, base, ABOUT))
    names.add(store.push(scale(adapter, 2), base, ABOUT))
    folder = shutil.copytree(base.path, tmp_path / "tiny")
    save_file({"norm": torch.zeros(3)}, folder / "model.safetensors")
    names.add(store.push(adapter, Base("tiny", str(folder), None, "mit"), ABOUT))
    assert len(names) == 4 and [record["hash"] for record in store.entries()][0] == name


@pytest.mark.parametrize("file", ["adapter_model.bin", "x.pt", "x.pth", "x.pkl", "X.CKPT"])
def test_pickled_weights_are_refused(store, adapter, base, file):
    (adapter / file).write_bytes(b"")
    said = f"adapter/ holds {file}: pickled weights run code when they are loaded; save them as safetensors."
    with pytest.raises(CourseError, match=said):
        store.push(adapter, base, ABOUT)
    assert not store.root.exists()


def other_shape(adapter):
    stored = load_file(adapter / WEIGHTS)
    name = next(name for name in stored if name.endswith("v_proj.lora_B.weight"))
    save_file(stored | {name: torch.zeros(64, 3)}, adapter / WEIGHTS)  # v has 32 rows, q has 64


def not_finite(value):
    def spoil(adapter):
        stored = load_file(adapter / WEIGHTS)
        stored[min(stored)][1, 1] = value
        save_file(stored, adapter / WEIGHTS)

    return spoil


def cut(adapter):
    path = adapter / WEIGHTS
    path.write_bytes(path.read_bytes()[:-10])


def spoilt_header(adapter):
    path = adapter / WEIGHTS
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


REFUSED = {
    "missing": (
        lambda folder: (folder / WEIGHTS).unlink(),
        "no adapter_model.safetensors that can be read",
    ),
    "cut": (cut, "no adapter_model.safetensors that can be read"),
    "header": (spoilt_header, "no adapter_model.safetensors that can be read"),
    "a pickle": (
        lambda folder: torch.save({}, folder / WEIGHTS),
        "no adapter_model.safetensors that can be read",
    ),
    "no folder": (shutil.rmtree, "no adapter_config.json that can be read"),
    "no JSON": (
        lambda folder: (folder / SETTINGS).write_text("{"),
        "no adapter_config.json that can be read",
    ),
    "NaN": (not_finite(float("nan")), "not finite"),
    "infinite": (not_finite(float("-inf")), "not finite"),
    "shape": (other_shape, "layers.0.self_attn.v_proj do not fit this base model"),
    "rank": (lambda folder: change(folder, r=4), "r 4, but the matrices for .* have 3"),
    "base": (
        lambda folder: change(folder, base_model_name_or_path="C:\\models\\other"),
        "was trained on .*other, not on tiny",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_adapter_that_cannot_be_used_is_refused(store, adapter, base, case):
    spoil, said = REFUSED[case]
    spoil(adapter)
    with pytest.raises(CourseError, match=said):
        store.push(adapter, base, ABOUT)
    assert not store.root.exists()


@pytest.mark.parametrize("named", ["", None, "someone/tiny", "/x/小さい tiny/"])
def test_the_base_may_be_named_in_several_ways(store, adapter, base, named):
    change(adapter, base_model_name_or_path=named)
    assert store.push(adapter, base, ABOUT)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        (
            {"data": "x", "prompt": "", "evaluation": {"a": 1}},
            "about has no prompt, grammar, licence;",
        ),
        (ABOUT | {"evaluation": 0.5}, "no dict"),
        (
            ABOUT | {"evaluation": {"exact": float("nan")}},
            r"about\['evaluation'\] cannot be written as JSON",
        ),
        (ABOUT | {"note": Path()}, r"about\['note'\] cannot be written as JSON"),
        (ABOUT | {"note": "\ud800"}, r"about\['note'\] cannot be written as JSON"),
        (ABOUT | {"hash": "x"}, "about has 'hash'"),
        (ABOUT | {"base_sha256": "0" * 64}, "base_sha256 is not the hash of the weights of tiny"),
    ],
)
def test_facts_that_are_missing_or_wrong_are_refused(store, adapter, base, about, said):
    with pytest.raises(CourseError, match=said):
        store.push(adapter, base, about)
    assert not store.root.exists()


def test_a_base_is_hashed_whole(base, tmp_path):
    folder = shutil.copytree(base.path, tmp_path / "parts")
    (folder / "model.safetensors").unlink()
    parts = Base("parts", str(folder), None, "mit")
    with pytest.raises(CourseError, match="parts has no weights in safetensors"):
        records.weights_hash(parts)
    hashes = set()
    for number in (1, 2):
        save_file({"a": torch.zeros(number)}, folder / f"model-0000{number}-of-00002.safetensors")
        hashes.add(records.weights_hash(parts))
    save_file({"a": torch.ones(2)}, folder / "model-00002-of-00002.safetensors")
    assert len(hashes | {records.weights_hash(parts)}) == 3
    away = Base("a/b", "no-such-owner/no-such-model", None, "mit")
    with pytest.raises(CourseError, match="could not be fetched from the hub"):
        records.weights_hash(away)


def test_a_registry_says_what_differs(store, adapter, base):
    one = store.push(scale(adapter, 2), base, ABOUT | {"seed": 1})
    evaluation = {"exact": 0.8, "critical": {"order_id.wrong": 0.02}, "new": None}
    other = store.push(scale(adapter, 2), base, ABOUT | {"evaluation": evaluation})
    found = {name: (here, there) for name, here, there in store.diff(one, other)}
    assert found.pop("hash") == (one, other)
    assert found.pop("date") and found.pop("sha256") and found.pop(f"files.{WEIGHTS}")
    assert found == {
        "evaluation.exact": (0.75, 0.8),
        "evaluation.critical.order_id.wrong": (0.01, 0.02),
        "seed": (1, None),
    }
    assert store.diff(one, one) == []


def test_names_are_beginnings_of_one_hash(store, adapter, base):
    name = store.push(adapter, base, ABOUT)
    for wrong, said in (
        (name[:3], "too short"),
        ("0" * 12, "has no adapter"),
        ("../" + name, "has no adapter"),
        (name + "zz", "has no adapter"),
    ):
        with pytest.raises(CourseError, match=said):
            store.record(wrong)
    shutil.copytree(store.folder(name), store.root / "objects" / (name[:11] + "x"))
    with pytest.raises(CourseError, match=f"'{name[:5]}' fits .* and .*; write more"):
        store.record(name[:5])
    assert store.record(name.upper())["hash"] == name
    assert store.verify() == [f"objects/{name[:11]}x holds the adapter {name}; name it so."]


def three(store, adapter, base) -> list[str]:
    return [store.push(scale(adapter, factor), base, ABOUT) for factor in (1, 2, 2)]


def test_two_rollbacks_go_back_two_steps(store, adapter, base):
    a, b, c = three(store, adapter, base)
    assert store.current() is None and store.history() == []
    with pytest.raises(CourseError, match="in use"):
        store.open(None, base)
    for name in (a, b, b, c[:6]):  # what is promoted twice is one step
        store.promote(name, " 誤りが減った ")
    assert store.open(None, base) == store.folder(c)
    assert store.rollback("出力が空") == b and store.current() == b
    assert store.rollback("again") == a and store.open(None, base).name == a
    with pytest.raises(CourseError, match="Nothing was in use before"):
        store.rollback("once more")
    store.promote(c, "mended")
    assert store.rollback("no") == a
    history = store.history()
    assert [(entry["hash"], entry["action"]) for entry in history] == [
        *((name, "promote") for name in (a, b, b, c)),
        *((name, "rollback") for name in (b, a)),
        *((c, "promote"), (a, "rollback")),
    ]
    assert history[0]["reason"] == "誤りが減った" and history[4]["reason"] == "出力が空"
    assert history == sorted(history, key=lambda entry: entry["date"]) and "T" in history[0]["date"]
    assert "出力が空" in (store.root / "promotions.json").read_text(encoding="utf-8")
    assert store.verify() == []


@pytest.mark.parametrize("reason", ["", " \n"])
def test_a_promotion_needs_a_reason(store, adapter, base, reason):
    a, b, _ = three(store, adapter, base)
    store.promote(a, "first")
    store.promote(b, "second")
    with pytest.raises(CourseError, match="The reason is empty"):
        store.promote(a, reason)
    with pytest.raises(CourseError, match="The reason is empty"):
        store.rollback(reason)
    assert store.current() == b and len(store.history()) == 2


@pytest.mark.parametrize("file", [WEIGHTS, SETTINGS, "record.json"])
def test_a_changed_byte_is_found_and_a_push_mends_it(store, adapter, base, file):
    name, other, _ = three(store, adapter, base)
    store.promote(name, "good")
    store.promote(other, "better")
    path = store.folder(name) / file
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    said = rf"objects/{name}/{file} (is not as it was pushed|is missing or cannot be read); push that adapter again\."
    for act in (
        lambda: store.open(name, base),
        lambda: store.promote(name, "x"),
        lambda: store.rollback("x"),
    ):
        with pytest.raises(CourseError, match=said):
            act()
    assert len(store.verify()) == 1 and store.current() == other
    assert store.open(None, base).name == other  # the others stay of use
    assert store.push(scale(adapter, 0.25), base, ABOUT) == name  # as it was at first
    assert store.verify() == [] and store.rollback("x") == name


def test_what_is_missing_or_does_not_belong_is_found(store, adapter, base):
    a, b, c = three(store, adapter, base)
    store.promote(c, "x")
    (store.folder(a) / WEIGHTS).unlink()
    (store.folder(b) / "optimizer.pt").write_bytes(b"")
    shutil.rmtree(store.folder(c))
    (store.root / "staging/left").mkdir()
    wrong = store.verify()
    assert len(wrong) == 3 and all(line.endswith(".") for line in wrong)
    for words in (
        f"objects/{a}/{WEIGHTS} is missing",
        f"{b}/ holds optimizer.pt: pickled",
        f"promotions.json names {c}",
    ):
        assert sum(words in line for line in wrong) == 1
    with pytest.raises(CourseError, match="has no adapter"):
        store.open(None, base)
    (store.folder(b) / "optimizer.pt").unlink()
    for content in ("[", "{}x", '{"a": 1}', '[{"hash": "x"}]'):
        (store.root / "promotions.json").write_text(content)
        assert any("promotions.json cannot be read" in line for line in store.verify())
        with pytest.raises(CourseError, match="promotions.json cannot be read"):
            store.promote(b, "x")
    assert (store.root / "promotions.json").read_text() == content


def test_another_base_is_refused(store, adapter, base, tmp_path):
    name = store.push(adapter, base, ABOUT)
    folder = shutil.copytree(base.path, tmp_path / "tiny")
    assert store.open(name, Base("copy", str(folder), None, "mit")) == store.folder(name)
    save_file({"norm": torch.zeros(64)}, folder / "model.safetensors")
    with pytest.raises(
        CourseError,
        match=f"{name} was trained on other weights than those of copy; open it with its own base, tiny",
    ):
        store.open(name, Base("copy", str(folder), None, "mit"))


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["copyfile", "write_bytes", "replace", "mkdir"])
def test_a_full_disk_changes_nothing(store, adapter, base, monkeypatch, where):
    name = store.push(adapter, base, ABOUT)
    store.promote(name, "x")
    before = tree(store.root)
    scale(adapter, 2)
    owner = {"copyfile": records.shutil, "replace": registry.os}.get(where, Path)
    with monkeypatch.context() as patch:
        patch.setattr(owner, where, no_space)
        with pytest.raises(
            CourseError,
            match=r"could not be changed \(No space left on device\); the registry is as it was: free",
        ):
            store.push(adapter, base, ABOUT)
        if where != "copyfile":
            with pytest.raises(CourseError, match="the registry is as it was"):
                store.promote(name, "y")
    assert tree(store.root) == before and not list((store.root / "staging").iterdir())
    assert store.push(adapter, base, ABOUT) != name and store.verify() == []


def test_an_adapter_that_still_changes_is_not_stored(store, adapter, base, monkeypatch):
    copy = shutil.copyfile

    def written_meanwhile(source, target):
        if Path(source).name == WEIGHTS:
            scale(Path(source).parent, 2)
        return copy(source, target)

    monkeypatch.setattr(records.shutil, "copyfile", written_meanwhile)
    with pytest.raises(CourseError, match=f"adapter/{WEIGHTS} changed while it was read"):
        store.push(adapter, base, ABOUT)
    assert store.entries() == [] and tree(store.root) == {}


def test_a_push_sweeps_what_the_dead_have_left(store, adapter, base):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    staging = store.root / "staging"
    names = {
        "live": f"{os.getpid()}-ab",
        "dead": f"{ended.pid}-ab",
        "given again": f"{os.getpid()}-cd",
        "other": "notes",
    }
    for name in names.values():
        (staging / name).mkdir(parents=True)
        (staging / name / WEIGHTS).write_bytes(b"half")
    long_ago = time.time() - 30 * 86400  # before this process began
    os.utime(staging / names["given again"], (long_ago, long_ago))
    assert store.verify() == [] and store.entries() == []
    store.push(adapter, base, ABOUT)
    assert sorted(path.name for path in staging.iterdir()) == sorted(
        [names["live"], names["other"]]
    )
    assert store.sweep() == 0


def test_the_commands(store, adapter, base, capsys):
    def said(*words: str) -> tuple[int, str, str]:
        status = registry.registry_command(["--folder", str(store.root), *words])
        return status, *capsys.readouterr()

    status, out, problem = said("list")
    assert (status, out) == (1, "") and problem.count("\n") == 1 and "There is no folder" in problem
    a, b, _ = three(store, adapter, base)
    assert (
        said("promote", a[:6], "--reason", "最初")[0]
        == said("promote", "--reason", "better", b)[0]
        == 0
    )
    status, out, problem = said("list")
    assert (status, problem) == (0, "") and len(out.splitlines()) == 3
    assert [line for line in out.splitlines() if line.startswith("*")][0].split()[1] == b
    assert said("rollback", "--reason", "worse")[0] == 0 and store.current() == a
    assert "最初" in said("history")[1].splitlines()[0]
    assert f"hash: {a} | {b}" in said("diff", a, b)[1]
    assert said("verify") == (0, "All 3 adapters are as they were pushed.\n", "")
    for words in (
        ["diff", a],
        ["promote", a],
        ["promote", "0000", "--reason", "x"],
        ["rollback", "--reason", "x"],
    ):
        status, out, problem = said(*words)
        assert (status, out) == (1, "") and problem.endswith(".\n") and problem.count("\n") == 1
    (store.folder(a) / WEIGHTS).unlink()
    assert said("verify")[0] == 1
    command = [
        sys.executable,
        "-m",
        "helpers.ship.registry",
        "--folder",
        store.root,
        "promote",
        a,
        "--reason",
        "x",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == f"objects/{a}/{WEIGHTS} is missing or cannot be read; push that adapter again.\n"
    )


def test_the_commands_start_without_torch():
    code = "import sys, helpers.ship.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


class Hub:
    """A stand-in for HfApi."""

    def __init__(self, problem=None):
        self.calls, self.problem = [], problem

    def create_repo(self, repo_id, **more):
        self.calls.append((repo_id, more))

    def upload_folder(self, repo_id, folder_path, **more):
        if self.problem:
            raise self.problem
        self.calls.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir())))


def test_an_adapter_goes_to_the_hub_only_when_asked(store, adapter, base):
    name, hub = store.push(adapter, base, ABOUT), Hub()
    store.push_to_hub(name, "me/tiny", api=hub)
    assert hub.calls == [
        ("me/tiny", {"private": True, "exist_ok": True}),
        ("me/tiny", [SETTINGS, WEIGHTS, "record.json"]),
    ]
    with pytest.raises(CourseError, match=r"was not uploaded to me/tiny \(OSError\)"):
        store.push_to_hub(name, "me/tiny", api=Hub(OSError("no network")))
    (store.folder(name) / WEIGHTS).write_bytes(b"")
    hub = Hub()
    with pytest.raises(CourseError, match="is not as it was pushed"):
        store.push_to_hub(name, "me/tiny", api=hub)
    assert hub.calls == []


def test_the_card_says_what_the_record_says(store, adapter, base):
    evaluation = {"exact": 0.75, "field": {"注文": 0.5}, "a|b": "<b>*x*</b>\n# y"}
    record = store.record(
        store.push(
            adapter,
            base,
            ABOUT | {"evaluation": evaluation, "seed": 3, "versions": {"torch": "2.13"}},
        )
    )
    _, head, body = cards.adapter_card(record).split("---\n", 2)
    assert yaml.safe_load(head) == {
        "base_model": "tiny",
        "library_name": "peft",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "safetensors"],
    }
    assert f"# Adapter {record['hash']}\n" in body and record["base"]["sha256"] in body
    for line in (
        "| exact | 0.75 |",
        "| field.注文 | 0.5 |",
        r"| a\|b | \<b\>\*x\*\</b\> \# y |",
        "| seed | 3 |",
        "| torch | 2.13 |",
    ):
        assert line in body.splitlines()
    assert record["files"][WEIGHTS] in body and "Verdict on the whole: allowed." in body
    for licence, known in (
        ("unknown: read the licence", {"license": "unknown"}),
        ("qwen-research", {"license": "other", "license_name": "qwen-research"}),
    ):
        other = cards.adapter_card(record | {"base": record["base"] | {"licence": licence}})
        assert yaml.safe_load(other.split("---\n")[1]).items() >= known.items()


# Several processes, and processes that are killed ------------------------------------------------


def other_adapter(trained: str, folder: Path, factor: float) -> Path:
    folder = Path(shutil.copytree(trained, folder, dirs_exist_ok=True))
    return scale(folder, factor)


def push_for_ever(root: str, base: list, trained: str, work: str, seed: int) -> None:
    """Push, promote and roll back until killed; each hash that a push returned goes into a file."""
    store, folder, base = Registry(root), Path(work) / str(seed), Base(*base)
    before = other_adapter(trained, folder / "before", seed)
    returned = os.open(Path(work) / "returned", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    (folder / "begun").touch()
    for number in range(1_000_000):
        after = other_adapter(trained, folder / "after", seed + 1 + number / 64)
        for adapter in (after, before):  # new content, and the same again
            name = store.push(adapter, base, ABOUT)
            os.write(returned, f"{name}\n".encode())
            store.promote(name, "理由")
        store.rollback("戻す")


CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.copyfile")


def push_and_die(root: str, base: list, adapter: str, step: int) -> None:
    """Push, promote and roll back; killed just before the change number `step` on the disk."""
    store, left = Registry(root), [step]

    def count(event: str, values: tuple) -> None:
        if event == "open":
            writes = isinstance(values[1], str) and set(values[1]) & set("wax+")
        else:
            writes = event in CHANGES
        left[0] -= bool(writes)
        if left[0] < 0 and event != "os.kill":  # an event, too
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    store.promote(store.push(Path(adapter), Base(*base), ABOUT), "new")
    store.rollback("old")


def push_all(root: str, base: list, adapters: list, go: str) -> None:
    """Push all and promote each ten times, as soon as the file `go` is there."""
    while not Path(go).exists():
        time.sleep(0.001)
    for adapter in adapters:
        name = Registry(root).push(Path(adapter), Base(*base), ABOUT)
        for _ in range(10):
            Registry(root).promote(name, "x")


JOBS = {"push_for_ever": push_for_ever, "push_and_die": push_and_die, "push_all": push_all}


def do_jobs() -> None:
    """Fork a process for each job on stdin: torch is loaded once. Answers its number, or its end."""
    for line in sys.stdin:
        job = json.loads(line)
        if "end" in job:
            answer = os.waitstatus_to_exitcode(os.waitpid(job["end"], 0)[1])
        elif "load" in job:  # what transformers loads when it first needs it
            adapter_gguf.check_adapter(*map(Path, job["load"]))
            answer = 0
        else:
            answer = os.fork()
            if answer == 0:
                try:
                    JOBS[job.pop("do")](**job)
                    os._exit(0)
                except BaseException as problem:
                    print(repr(problem), file=sys.stderr, flush=True)
                    os._exit(1)
        print(answer, flush=True)


@pytest.fixture(scope="module")
def ask(trained, base):
    """A function: send a job to a process that forks one for it, get the answer."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def answer(**job) -> int:
            process.stdin.write(json.dumps(job, default=str) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        assert answer(load=[trained, base.path]) == 0
        yield answer
        process.stdin.close()


@needs_fork
def test_two_pushes_at_once_both_end_well(ask, store, trained, base, tmp_path):
    same = [other_adapter(trained, tmp_path / f"same {i}", 2 + i) for i in range(4)]
    own = [
        [other_adapter(trained, tmp_path / f"{who} {i}", 10 * who + i) for i in range(4)]
        for who in (1, 2)
    ]
    go = tmp_path / "go"
    job = {
        "do": "push_all",
        "root": store.root,
        "base": [base.name, base.path, None, "mit"],
        "go": go,
    }
    children = [ask(**job, adapters=[*same, *adapters]) for adapters in own]
    go.touch()
    assert [ask(end=child) for child in children] == [0, 0]
    assert store.verify() == [] and len(store.entries()) == 12
    assert len(store.history()) == 160  # none was lost
    assert not list((store.root / "staging").iterdir())
    for record in store.entries():
        store.open(record["hash"], base)


def check_after_kill(store: Registry, base: Base, returned: set[str]) -> None:
    assert store.verify() == []
    assert {record["hash"] for record in store.entries()} >= returned
    for name in returned:
        store.open(name, base)
    if store.current():
        store.open(None, base)


def kill_at_random(ask, trained: Path, base: Base, work: Path, kills: int) -> tuple[int, int]:
    """(adapters, promotions) after so many kills, each at a random moment, all checked."""
    chance, stored, promoted = random.Random(0), 0, 0
    job = {"do": "push_for_ever", "base": [base.name, base.path, None, "mit"], "trained": trained}
    for kill in range(kills):
        place = work / str(kill // 20)  # not too many to open after each kill
        place.mkdir(exist_ok=True)
        store = Registry(place / "registry")
        child = ask(**job, root=store.root, work=place, seed=kill + 1)
        while not (place / str(kill + 1) / "begun").exists():  # a busy machine takes its time
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.4))
        os.kill(child, signal.SIGKILL)
        assert ask(end=child) == -signal.SIGKILL  # it had not ended by itself
        shutil.rmtree(place / str(kill + 1), ignore_errors=True)
        # the last line may be cut, never one before it
        lines = (
            (place / "returned").read_text().split("\n")[:-1]
            if (place / "returned").exists()
            else []
        )
        check_after_kill(store, base, set(lines))
        if kill % 20 == 19 or kill == kills - 1:
            stored, promoted = stored + len(store.entries()), promoted + len(store.history())
    return stored, promoted


@needs_fork
def test_a_kill_at_a_random_moment_leaves_a_sound_registry(ask, trained, base, tmp_path):
    stored, promoted = kill_at_random(ask, trained, base, tmp_path, KILLS)
    print(f"{KILLS} kills, {stored} adapters, {promoted} promotions")
    assert stored > 0 and promoted > 0


@needs_fork
def test_a_kill_at_each_change_on_the_disk_leaves_a_sound_registry(
    ask, store, trained, base, tmp_path
):
    first = store.push(trained, base, ABOUT)
    store.promote(first, "first")
    job = {"do": "push_and_die", "root": store.root, "base": [base.name, base.path, None, "mit"]}
    ends = []
    while not ends or ends[-1] != 0:
        adapter = other_adapter(trained, tmp_path / "adapter", 2 + len(ends))
        ends.append(ask(end=ask(**job, adapter=adapter, step=len(ends))))
        check_after_kill(store, base, {first})
    assert len(ends) > 15 and set(ends[:-1]) == {-signal.SIGKILL}
    assert store.current() == store.history()[-1]["hash"]
    store.push(trained, base, ABOUT)  # sweeps what all of them have left
    assert not list((store.root / "staging").iterdir())
    assert sorted(path.name for path in store.root.iterdir()) == [
        ".lock",
        "objects",
        "promotions.json",
        "staging",
    ]


if __name__ == "__main__":
    do_jobs()


def test_a_bill_of_materials_is_valid_and_names_every_part(parts_of_a_record):
    record, parts = parts_of_a_record
    text = cards.bill_of_materials(record, parts)
    told = json.loads(text)
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    about = told["metadata"]["component"]
    assert about["type"] == "machine-learning-model" and record["hash"] in about["name"]
    assert about["hashes"] == [{"alg": "SHA-256", "content": record["sha256"]}]
    said = {one["name"]: one["value"] for one in about["properties"]}
    assert said["evaluation.exact"] == "0.79" and said["prompt"] == record["prompt"]
    kinds = {one["name"]: one["type"] for one in told["components"]}
    assert kinds == {record["base"]["name"]: "machine-learning-model", "行": "data"}
    depends = {one["ref"]: one.get("dependsOn", []) for one in told["dependencies"]}
    assert sorted(depends[f"adapter {record['hash']}"]) == sorted(kinds)


@pytest.fixture
def parts_of_a_record():
    """(a record as a push makes it, one data set)."""
    record = {
        "hash": "a" * 12,
        "sha256": "a" * 64,
        "base": {"name": "tiny", "sha256": "b" * 64, "licence": "Apache-2.0"},
        "licence": "allowed: <script>",
        "prompt": "c" * 12,
        "evaluation": {"exact": 0.79},
    }
    return record, [cards.Part("行", "own", "d" * 64, is_data=True)]
