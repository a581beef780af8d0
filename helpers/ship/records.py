"""One adapter as the registry stores it: what may be stored, and its record.

The folder of an adapter holds its weights, its settings, and record.json, which says what it is.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PureWindowsPath
from typing import Any

from safetensors import SafetensorError

from helpers import CourseError
from helpers.choose import known_answers, models
from helpers.core.files import fingerprint, sha256

WEIGHTS, SETTINGS, RECORD = "adapter_model.safetensors", "adapter_config.json", "record.json"
NEEDED = ("data", "prompt", "grammar", "evaluation", "licence")  # of what a caller says
OWN = ("hash", "sha256", "date", "bytes", "files", "base", "checksum")  # what a push finds out
NO_MATTER = ("base_model_name_or_path", "peft_version")  # settings that change no answer
UNORDERED = ("target_modules", "exclude_modules")  # sets to PEFT, which stores them in any order
PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".ckpt")
AGAIN = "push that adapter again"


def check_about(about: Mapping[str, Any]) -> None:
    """Raise CourseError for facts of which one is missing, or that JSON cannot hold."""
    for key, value in about.items():
        json_bytes(value, f"about[{key!r}]")
        if key in OWN:
            raise CourseError(f"about has {key!r}, which a push finds out itself; leave it out.")
    missing = [key for key in NEEDED if about.get(key) in (None, "", {}, [])]
    if missing:
        raise CourseError(f"about has no {', '.join(missing)}; say where the adapter comes from.")
    if not isinstance(about["evaluation"], Mapping):
        raise CourseError("The evaluation in about is no dict; write it as {figure: value}.")


def json_bytes(content: Any, what: str) -> bytes:
    """JSON in UTF-8, indented; `what` it is stands in the CourseError for what JSON cannot hold."""
    try:
        text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)
        return f"{text}\n".encode()
    except (TypeError, ValueError) as problem:
        cure = "use texts, finite numbers, lists and dicts"
        raise CourseError(f"{what} cannot be written as JSON ({problem}); {cure}.") from None


def now() -> str:
    """The date and time in UTC, to the thousandth of a second."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def base_folder(base: models.Base) -> Path:
    """Where the files of a base model lie; those of a hub id are fetched like from_pretrained does.

    Raises CourseError where it cannot be fetched.
    """
    if Path(base.path).is_dir() or base.path.count("/") != 1:
        return Path(base.path)
    from huggingface_hub import snapshot_download

    with base.loading():
        return Path(snapshot_download(base.path, allow_patterns=["*.json", "*.safetensors"]))


def weights_hash(base: models.Base) -> str:
    """Hex SHA-256 over a base's weights, whatever program wrote its safetensors.

    Raises CourseError where there are none or they cannot be read.
    """
    folder = base_folder(base)
    whole = folder / "model.safetensors"  # from_pretrained, too, takes it before any parts
    files = [whole] if whole.is_file() else sorted(folder.glob("model-*.safetensors"))
    if not files:
        what = f"The base model {base.name} has no weights in safetensors"
        raise CourseError(f"{what}; name a folder that holds some, or save it in that format.")
    try:
        return known_answers.weights_digest(files)
    except (OSError, SafetensorError) as problem:
        what = f"The weights of {base.name} cannot be read ({problem})"
        raise CourseError(f"{what}; fetch or copy them again.") from None


def adapter_record(adapter: Path, base: models.Base, about: Mapping[str, Any]) -> dict[str, Any]:
    """The record of an adapter that may be stored; arguments and errors as in Registry.push."""
    check_about(about)
    base_hash = weights_hash(base)
    if about.get("base_sha256", base_hash) != base_hash:
        what = f"base_sha256 is not the hash of the weights of {base.name}"
        raise CourseError(f"{what}; push with the base that the adapter was trained on.")
    files = _checked_files(adapter, base)
    whole = content_digest(files[WEIGHTS], adapter, base_hash)
    record: dict[str, Any] = {"hash": whole[:12], "sha256": whole}
    record["date"] = now()
    record["bytes"] = sum((adapter / file).stat().st_size for file in files)
    record["base"] = {"name": base.name, "sha256": base_hash, "licence": base.licence}
    record |= {"files": files, **{key: about[key] for key in about if key != "base_sha256"}}
    return json.loads(json_bytes(record, "The record"))  # as it will be read again


def _checked_files(adapter: Path, base: models.Base) -> dict[str, str]:
    """{file: SHA-256} of the weights and settings; CourseError where they may not be stored."""
    from helpers.ship import adapter_gguf  # with torch, which nothing else here needs

    refuse_pickles(adapter)
    named = str(adapter_gguf.read_settings(adapter).get("base_model_name_or_path") or "")
    known = {PureWindowsPath(name).name for name in (base.name, base.path)}
    if named and PureWindowsPath(named).name not in known:  # Windows takes both / and \
        what = f"{adapter.name}/ was trained on {named}, not on {base.name}"
        raise CourseError(f"{what}; push it with the base that it was trained on.")
    files: dict[str, str] = {}
    with suppress(OSError):  # the check says what cannot be read
        files = {file: sha256(adapter / file) for file in (WEIGHTS, SETTINGS)}
    adapter_gguf.check_adapter(adapter, base_folder(base))
    return files


def refuse_pickles(folder: Path) -> None:
    """Raise CourseError for a folder with weights in a format that can hold code."""
    for path in sorted(folder.glob("*")):
        if path.name.lower() == "adapter_model.bin" or path.suffix.lower() in PICKLED:
            why = "pickled weights run code when they are loaded; save them as safetensors"
            raise CourseError(f"{folder.name}/ holds {path.name}: {why}.")


def content_digest(weights: str, adapter: Path, base: str) -> str:
    """Hex SHA-256 of what shapes an answer: the hashes of the weights and the base, the settings.

    `adapter`: the folder in which adapter_config.json was read before.
    """
    kept = {}
    settings = dict(json.loads((adapter / SETTINGS).read_text(encoding="utf-8")))
    for name, value in settings.items():
        if value is not None and name not in NO_MATTER:
            is_set = name in UNORDERED and isinstance(value, list)
            kept[name] = sorted(value, key=str) if is_set else value
    content = json.dumps([weights, kept, base], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def adapter_name(adapter: Path, base: models.Base) -> str:
    """The 12 digits under which a registry stores an adapter of `base`.

    Raises CourseError for a folder without weights and settings that can be read.
    """
    try:
        weights = sha256(adapter / WEIGHTS)
        return content_digest(weights, adapter, weights_hash(base))[:12]
    except (OSError, ValueError):
        what = f"{adapter.name}/ has no {WEIGHTS} and {SETTINGS} that can be read"
        raise CourseError(f"{what}; name the folder of a trained adapter.") from None


def fill_folder(folder: Path, adapter: Path, record: Mapping[str, Any]) -> None:
    """Copy the files of an adapter into an empty folder and write record.json with a checksum.

    Raises CourseError where they are not those of the record, OSError where the disk is full.
    """
    for file, known in record["files"].items():
        shutil.copyfile(adapter / file, folder / file)
        if sha256(folder / file) != known:
            cure = "wait until its training has ended and push it again"
            raise CourseError(f"{adapter.name}/{file} changed while it was read; {cure}.")
    summed = {**record, "checksum": fingerprint(record)}
    (folder / RECORD).write_bytes(json_bytes(summed, "The record"))


def read_record(folder: Path) -> dict[str, Any]:
    """What record.json says, without its checksum; CourseError where it is missing or changed."""
    where = f"objects/{folder.name}/{RECORD}"
    try:
        record = dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise CourseError(f"{where} is missing or cannot be read; {AGAIN}.") from None
    if record.pop("checksum", None) != fingerprint(record):
        raise CourseError(f"{where} is not as it was pushed; {AGAIN}.")
    return record


def faults(folder: Path) -> list[str]:
    """What is wrong with a stored adapter, a sentence each."""
    wrong = []
    try:
        record = read_record(folder)
        refuse_pickles(folder)
    except CourseError as problem:
        return [str(problem)]
    for file, known in record["files"].items():
        try:
            found = sha256(folder / file)
        except OSError:
            wrong.append(f"objects/{folder.name}/{file} is missing or cannot be read; {AGAIN}.")
            continue
        if found != known:
            wrong.append(f"objects/{folder.name}/{file} is not as it was pushed; {AGAIN}.")
    if not wrong:
        whole = content_digest(record["files"][WEIGHTS], folder, record["base"]["sha256"])
        if (record["sha256"], folder.name) != (whole, whole[:12]):
            wrong.append(f"objects/{folder.name} holds the adapter {whole[:12]}; name it so.")
    return wrong


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(dotted name, value in `one`, in `other`) of all that differs; None where it is absent."""
    left, right = flat(one), flat(other)
    values = [(name, left.get(name), right.get(name)) for name in dict.fromkeys([*left, *right])]
    return [(name, here, there) for name, here, there in values if here != there]


def flat(content: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """{dotted name: value} of a record: `evaluation.exact` for what stands inside `evaluation`."""
    values: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{above}{key}.")
        else:
            values[f"{above}{key}"] = value
    return values
