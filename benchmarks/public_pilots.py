"""Message files of six public sets, as a firm would export them, for study 11; none is stored here.

    python -m benchmarks.public_pilots --out FOLDER [--clones FOLDER]

writes FOLDER/public_pilots/<name>/messages.csv or .mbox; the study finds them by COURSE_DATASETS.
Every source is read at one commit and drawn from by one seed. Without --clones the sources (about
100 MB) are cloned into the course's cache; with it they lie there, named owner+name.

    clinc    CC BY 3.0     Larson et al. 2019     mail     none stated   20 Newsgroups, Lang 1995
    snips    CC0 1.0       Coucke et al. 2018     banking  CC BY 4.0     Casanueva et al. 2020
    ja       CC BY 4.0     Hayashibe 2022         de       CC BY-SA 4.0  van der Goot et al. 2021

The mails hold names and addresses of real people: use them for a check only, pass none of them on.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import time
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email import message_from_bytes
from email.utils import mktime_tz, parsedate_tz
from pathlib import Path

from scipy.cluster.hierarchy import DisjointSet

from helpers import CourseError
from helpers.choose.models import cache_folder
from helpers.core.files import sha256
from helpers.core.public_sets import local_copy

SEED = 11
Files = dict[str, bytes]  # {path in the repository: content}
Row = tuple[str, ...]  # (message, label, ...)
Rows = Iterable[Row]
Post = tuple[float, bytes, list[str]]  # seconds since 1970, the mail, the ids that it answers
GROUPS = ("misc.forsale", "comp.sys.mac.hardware", "rec.autos", "sci.med")
KEPT = rb"(?im)^(message-id|references|in-reply-to|date|from|reply-to|subject|organization):[ \t]*"
KEPT += rb"(.*(?:\n[ \t].*)*)"


def _as_csv(header: list[str], rows: Rows) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([header, *rows])
    return out.getvalue().encode("utf-8")


def _drawn(header: list[str], rows: Rows, most: int, least: int = 1, labels: int = 0) -> bytes:
    """At most `most` rows of every label that has `least`, or of `labels` of them by chance.

    The first row of a text is taken; a text with two labels is left out.
    """
    same, by_label = defaultdict(list), defaultdict(list)
    for row in rows:
        text = unicodedata.normalize("NFKC", row[0]).casefold()
        same[" ".join(text.split())].append(row)
    for alike in same.values():
        if len({row[1] for row in alike}) == 1:
            by_label[alike[0][1]].append(alike[0])
    chance, drawn = random.Random(SEED), list[Row]()
    chosen = sorted(label for label in by_label if len(by_label[label]) >= least)
    for label in sorted(chance.sample(chosen, labels)) if labels else chosen:
        chance.shuffle(by_label[label])
        drawn += by_label[label][:most]
    chance.shuffle(drawn)
    return _as_csv(header, drawn)


def clinc(files: Files) -> bytes:
    """Thirty intents, of each 20 published training rows and 10 test rows."""
    data, chance = json.loads(files["data/data_full.json"]), random.Random(SEED)
    chosen = sorted(chance.sample(sorted({intent for _, intent in data["train"]}), 30))
    rows: list[Row] = []
    for split, number in (("train", 20), ("test", 10)):
        for intent in chosen:
            pool = [text for text, label in data[split] if label == intent]
            rows += [(text, intent, split) for text in chance.sample(pool, number)]
    return _as_csv(["text", "intent", "split"], rows)


def snips(files: Files) -> bytes:
    """Three intents, 235 rows of each, with a city and an artist that stand in the text once."""
    rows: list[Row] = []
    for path, content in files.items():
        intent = path.split("/")[1]
        for query in json.loads(content)[intent]:
            found = defaultdict(list)
            for part in query["data"]:
                found[part.get("entity")].append(" ".join(part["text"].split()))
            text = " ".join("".join(part["text"] for part in query["data"]).split())
            values = (found["city"], found["artist"])
            if all(len(own) < 2 and all(text.count(one) == 1 for one in own) for own in values):
                rows.append((text, intent, *map("".join, values)))
    return _drawn(["message", "intent", "city", "artist"], rows, most=235)


def ja(files: Files) -> bytes:
    """Hotel guests' wishes of twelve kinds, each with its words, or none; at most 70 of a kind."""
    said = defaultdict(list)
    for path, content in files.items():
        lines = io.StringIO(content.decode("utf-8"), newline="")
        for record in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            if record["speaker"] == "user":
                said[path, record["utterance_id"]].append(record)
    rows = [row for records in said.values() for row in _wishes(records)]
    return _drawn(["メッセージ", "意図", "要望の箇所"], rows, most=70)


def _wishes(records: list[dict[str, str]]) -> Iterator[Row]:
    sentence, act = records[0]["utterance"], records[0]["speech_act"]
    text, spans = sentence.strip(), {one["span_id"]: one for one in records if one["span_id"]}
    if not spans and act in ("その他", "感想") and len(text) >= 8:
        yield text, "要望なし", ""
    for span in spans.values() if len(spans) == 1 else ():
        start, words = int(span["span_start"]), span["span_text"]
        is_here = span["span_utterance_id"] == span["utterance_id"]
        if is_here and sentence.startswith(words, start) and text.count(words) == 1:
            yield text, span["span_type"], words


def banking(files: Files) -> bytes:
    """Twelve of the intents with 50 rows or more, 50 rows of each."""
    content = files["banking_data/train.csv"].decode("utf-8")
    header, *rows = csv.reader(io.StringIO(content, newline=""))
    return _drawn(header, map(tuple, rows), most=50, least=50, labels=12)


def de(files: Files) -> bytes:
    """German requests: intents with 25 rows or more, at most 50 of each, with the time if any."""
    rows: list[Row] = []
    for path in sorted(files, reverse=True):  # the validation rows come first
        for block in files[path].decode("utf-8").split("\n\n"):
            rows += _request(block)
    return _drawn(["text", "intent", "datetime"], rows, most=50, least=25)


def _request(block: str) -> Iterator[Row]:
    """A sentence in CoNLL's form; none where it has two times or its time does not stand once."""
    about = dict(re.findall(r"(?m)^# (text|intent) = *(.*\S)", block))
    times = re.findall(r"(?m)^.*\tB-datetime(?:\n.*\tI-.*)*", block)
    if about and len(times) < 2:
        text, found = " ".join(about["text"].split()), [""]
        for lines in times:
            words = [line.split("\t")[1] for line in lines.splitlines()]
            found = re.findall(r"\s?".join(map(re.escape, words)), text)
        if len(found) == 1:
            yield text, about["intent"], found[0]


def mail(files: Files) -> bytes:
    """A mailbox of whole threads, 150 posts of each of four newsgroups, the oldest first."""
    posts: dict[str, dict[str, Post]] = {group: {} for group in GROUPS}
    for path, raw in files.items():
        group = path.split("/")[1]
        for name, post in _post(group, raw):
            posts[group].setdefault(name, post)
    chance = random.Random(SEED)
    chosen = [post for group in GROUPS for post in _whole_threads(posts[group], chance)]
    return b"".join(post[1] for post in sorted(chosen, key=lambda post: post[0]))


def _post(group: str, raw: bytes) -> Iterator[tuple[str, Post]]:
    """Its id and the post, its label among its headers; none if long, empty or in two groups."""
    parsed, (head, _, body) = message_from_bytes(raw), raw.partition(b"\n\n")
    named = [one for one in str(parsed["Newsgroups"]).split(",") if one.strip() in GROUPS]
    date = parsedate_tz(str(parsed["Date"]))
    if not date or abs(date[9] or 0) > 86_400:  # one says that its zone is +3000
        return
    if not body.strip() or len(raw) > 20_000 or len(named) > 1:
        return
    # by hand: what `parseaddr` says of odd addresses differs between versions of Python
    sender = re.sub(r"\(.*\)", "", str(parsed["From"]))
    found = re.search(r"<([^<>\s]+)>", sender) or re.match(r"(\S+)", sender)
    address = found[1] if found and found[1].count("@") < 2 else "unknown"
    sent = time.asctime(time.gmtime(mktime_tz(date)))
    first = f"From {address} {sent}\nX-Gmail-Labels: {group}".encode()
    kept = [b": ".join(one.groups()) for one in re.finditer(KEPT, head)]
    body = re.sub(rb"(?m)^From ", b">From ", body).removesuffix(b"\n")
    answers = re.findall(r"<[^<>\s]+>", f"{parsed['References']} {parsed['In-Reply-To']}")
    written = b"\n".join([first, *kept, b"", body, b"", b""])
    yield parsed["Message-ID"].strip(), (mktime_tz(date), written, answers)


def _whole_threads(posts: dict[str, Post], chance: random.Random) -> list[Post]:
    """Threads of at most 12 posts, by chance, until 150 posts are there."""
    linked, threads, taken = DisjointSet(posts), defaultdict(list), list[str]()
    for name, (_, _, answered) in posts.items():
        for other in answered:
            linked.add(other)
            linked.merge(name, other)
    for name in posts:
        threads[linked[name]].append(name)
    order = sorted(threads.values(), key=min)
    chance.shuffle(order)
    for thread in order:
        if len(thread) <= 12 and len(taken) + len(thread) <= 150:
            taken += thread
    return [posts[name] for name in taken]


@dataclass(frozen=True)
class PublicSet:
    """How a set's file is made, of which paths at which commit, and how its SHA-256 begins."""

    make: Callable[[Files], bytes]
    digest: str
    repository: str
    commit: str
    paths: tuple[str, ...]
    file: str = "messages.csv"


SNIPS = ("GetWeather", "BookRestaurant", "PlayMusic")
# fmt: off
SETS = (
    PublicSet(clinc, "15d3075c5701b0974e9fdc09", "clinc/oos-eval",
              "828f8093932c8fe6ca7936c3d2e52903b1c523de", ("data/data_full.json",)),
    PublicSet(snips, "1ce8c7ca5e087e425e8c5687", "sonos/nlu-benchmark",
              "b86ac7f1577868c42158d0dec77db50956046696",
              tuple(f"2017-06-custom-intent-engines/{one}/*_{one}.json" for one in SNIPS)),
    PublicSet(ja, "e77ab9909310d4a626a9f131", "megagonlabs/asdc",
              "f37d6575c73602adcb8ae3687520726793baa672", ("data/main/request_span",)),
    PublicSet(mail, "ce3539e951357b3b1923175e", "TanyaOdyniuk/SparkInvertedIndex",
              "0da732d6fc76e82149fff6a6c98709ba8d9087cf",
              tuple(f"20_newsgroup/{group}" for group in GROUPS), "messages.mbox"),
    PublicSet(banking, "9bb4d64772957efeef85d464", "PolyAI-LDN/task-specific-datasets",
              "57ec275d8078af65b7731c2a98be812d844a6d6b", ("banking_data/train.csv",)),
    PublicSet(de, "cf381ffbc2e06ce164fdf4ec", "mainlp/xsid",
              "761d926c3f2e9f6bea13192d2f39cec1d04d9777",
              ("data/xSID-0.7/de.valid.conll", "data/xSID-0.7/de.test.conll")),
)
# fmt: on


def _git(words: list[str], cure: str) -> bytes:
    asks_nothing = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(["git", *words], capture_output=True, env=asks_nothing)
    except FileNotFoundError:
        raise CourseError("git is not on this machine: install it and start again.") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise CourseError(f"git says {' '.join(said)[:200]!r}; {cure}.")
    return done.stdout


def _clone(repository: str, clones: Path | None) -> Path:
    home, name = clones or cache_folder() / "clones", repository.replace("/", "+")
    there = [place for place in (home / name / "repo", home / name) if place.is_dir()]
    if there:
        return there[0]
    url, half = f"https://github.com/{repository}", home / f"{name}.part"
    if clones:
        cure = f"put it there with `git clone {url} {name}`"
        raise CourseError(f"The folder of --clones has no {name}: {cure}.")
    shutil.rmtree(half, ignore_errors=True)  # what a kill has left
    cure = "check the network, or name a folder that holds the clone with --clones"
    _git(["clone", "--quiet", "--bare", url, str(half)], cure)
    return half.rename(home / name)


def _files(one: PublicSet, clones: Path | None) -> Files:
    copy = local_copy("clinc150") if one.make is clinc else None
    if copy and (copy / "data_full.json").is_file():
        return {one.paths[0]: (copy / "data_full.json").read_bytes()}
    place = _clone(one.repository, clones)
    words = ["-C", str(place), "-c", "core.autocrlf=false", "archive", "--format=tar", one.commit]
    cure = f"{place} must hold commit {one.commit} of {one.repository}: fetch it, or clone anew"
    with tarfile.open(fileobj=io.BytesIO(_git([*words, *one.paths], cure))) as packed:
        content = {member.name: packed.extractfile(member) for member in packed}
        return {name: file.read() for name, file in content.items() if file}


def make_file(one: PublicSet, out: Path, clones: Path | None = None) -> Path:
    """Write a set's file under out/public_pilots, unless it is there already.

    Raises CourseError: no git, no network, no such commit, or another content than was measured.
    """
    name = one.make.__name__
    place = out / "public_pilots" / name / one.file
    if place.is_file() and sha256(place).startswith(one.digest):
        return place
    files, content = _files(one, clones), b""
    with suppress(KeyError, ValueError):  # a broken local copy: said below
        content = one.make(files)
    if not hashlib.sha256(content).hexdigest().startswith(one.digest):
        cure = f"use {one.repository} at commit {one.commit}"
        raise CourseError(f"{name}/{one.file} came out other than the one measured: {cure}.")
    place.parent.mkdir(parents=True, exist_ok=True)
    half = place.with_suffix(".part")
    half.write_bytes(content)
    return half.replace(place)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.public_pilots")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write into")
    parser.add_argument("--clones", type=Path, help="a folder of clones named owner+name")
    options = parser.parse_args()
    try:
        for one in SETS:
            print(make_file(one, options.out, options.clones), flush=True)
    except (CourseError, OSError) as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    _main()
