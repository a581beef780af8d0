"""Filters that judge one row by itself, and the standard order of all of them.

Every maker returns a pipeline.Filter; `pipeline.curate` runs them. The phrases they look for are in
data/catalog/filter_phrases.yaml.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain

from datasets import Dataset

from helpers import CourseError
from helpers.core.pilot import FieldSpec, Pilot
from helpers.core.text import is_wide, tokens
from helpers.keep import duplicates, keywords, label_noise, privacy
from helpers.keep.duplicates import word_runs
from helpers.keep.pipeline import Filter, catalogue, field_filter, pick, text_filter, texts_of


def schema(pilot: Pilot) -> Filter:
    """The text is text; every field is there, is text, and a label is among the values."""

    def check(text: str, name: str, spec: FieldSpec, value: object) -> str | None:
        if not isinstance(text, str):
            return f"{pilot.text} is {text!r}, which is not text"
        if value is None:
            return None if spec.optional else f"{name} is missing"
        if not isinstance(value, str):
            return f"{name} is {value!r}, which is not text"
        if spec.type == "label" and value not in spec.values:
            return f"{name} {value!r} is not among the values"
        return None

    return field_filter("schema", pilot, check)


def copied(pilot: Pilot) -> Filter:
    """Spans and pattern values stand in the text letter by letter; patterns match as a whole."""

    def check(text: str, name: str, spec: FieldSpec, value: str | None) -> str | None:
        if spec.type == "label" or value is None:
            return None
        if spec.type == "pattern" and not re.fullmatch(spec.regex, value):
            return f"{name} {value!r} does not match {spec.regex}"
        if not value or value not in text:
            return f"{name} {value!r} does not stand in the message"
        if spec.type == "pattern" and value not in spec.matches(text):
            return f"{name} {value!r} is a part of what {spec.regex} finds"
        if spec.cuts_words(value, text):
            return f"{name} {value!r} cuts a word"
        return None

    return field_filter("copied", pilot, check)


CODE = re.compile(r"(?<![\w-])(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]+", re.ASCII)


def unread(pilot: Pilot, seeds: Dataset) -> Filter:
    """A span is empty though a code of the form of a known one stands in the text.

    PX-12 and QB-07 have one form. Such a row teaches to leave the span out. A span that more than 1
    in 50 seeds leave out in this way is not judged.
    """
    forms = {}
    for name, spec in pilot.fields.items():
        known = set().union(*(_forms(pilot, value or "") for value in seeds[name]))
        if spec.type == "span" and known:
            empty = [text for value, text in zip(seeds[name], seeds[pilot.text]) if not value]
            left_out = sum(bool(_forms(pilot, text) & known) for text in empty)
            if left_out * 50 <= len(seeds):
                forms[name] = known

    def check(text: str, name: str, spec: FieldSpec, value: str | None) -> str | None:
        if name in forms and not value and _forms(pilot, text or "") & forms[name]:
            return f"{name} is empty, and a code such as those of known ones stands in the message"
        return None

    settings = {name: sorted(known) for name, known in forms.items()}
    return replace(field_filter("unread", pilot, check), settings=settings)


def _forms(pilot: Pilot, text: str) -> set[str]:
    """Forms of the codes in a text, AA-99 for PX-12; what a pattern of the pilot finds is none."""
    for spec in pilot.fields.values():
        for match in spec.matches(text) if spec.type == "pattern" else ():
            text = text.replace(match, " ")
    return {re.sub("[A-Za-z]", "A", re.sub(r"\d", "9", code)) for code in CODE.findall(text)}


def message_length(
    pilot: Pilot, seeds: Dataset | None = None, fewest: int = 4, most: int = 4000
) -> Filter:
    """Empty, too short or too long, in characters; with seeds, from half to twice their lengths."""
    if seeds:
        sizes = [len(text.strip()) for text in seeds[pilot.text]]
        fewest, most = max(1, min(sizes) // 2), 2 * max(sizes)

    def check(text: str) -> str | None:
        size = len(text.strip())
        if not size:
            return "the message is empty"
        if not fewest <= size <= most:
            return f"{size} characters; {fewest} to {most} are allowed"
        return None

    return text_filter("length", pilot, check, fewest=fewest, most=most)


def repetition(pilot: Pilot) -> Filter:
    """A run of three words three times, over more than 30 % of the text; or a sentence twice.

    Source: the duplicate n-gram rules of Rae et al. 2021 (arXiv 2112.11446), for short messages.
    """

    def check(text: str) -> str | None:
        words = tokens(text)
        size, between = 3, " "
        if is_wide(words):  # eight characters are about three words
            size, between = 8, ""
        if len(words) >= 3 * size:  # shorter texts repeat by chance
            run, times = Counter(word_runs(words, size)).most_common(1)[0]
            if times >= 3 and times * size > 0.3 * len(words):
                return f"{between.join(run)!r} stands {times} times"
        sentences = Counter(map(str.strip, re.split(r"[\n。.!?！？]+", text.casefold())))
        for sentence, times in sentences.items():
            if times > 1 and len(sentence) > 19:
                return f"{sentence[:60]!r} stands twice"
        return None

    return text_filter("repetition", pilot, check)


def _first_match(patterns: Sequence[str], what: str) -> Callable[[str], str | None]:
    """A check(text) for regular expressions: the first match is the evidence, behind `what`."""
    any_of = re.compile("|".join(f"(?:{p})" for p in patterns), re.IGNORECASE | re.MULTILINE)

    def check(text: str) -> str | None:
        match = any_of.search(text)
        return f"{what}: {match.group().strip()[:60]!r}" if match else None

    return check


def boilerplate(pilot: Pilot) -> Filter:
    """Footers, automatic replies and legal notices that no customer wrote."""
    check = _first_match(catalogue()["boilerplate"], "boilerplate")
    return text_filter("boilerplate", pilot, check)


def injection(pilot: Pilot) -> Filter:
    """Text that gives orders to a model: 'ignore all rules', role markers, template tokens."""
    check = _first_match(catalogue()["injection"], "an instruction to a model")
    return text_filter("injection", pilot, check)


def leakage(pilot: Pilot) -> Filter:
    """The prompt or the generator shows: chatter, JSON, placeholders, the instruction's own words.

    Own words are runs of six (15 characters where words are not spaced), and the pilot's labels and
    fields with an underscore, which nobody else writes.
    """
    names = list(pilot.fields)
    for field in pilot.labels:
        names += pilot.fields[field].values
    own_names = [rf"\b{re.escape(name)}\b" for name in names if "_" in name]
    what = "the prompt or the generator shows"
    generator_shows = _first_match(catalogue()["leakage"] + own_names, what)
    instruction = [pilot.instruction(True), pilot.instruction(False), pilot.about]
    runs: set[tuple[str, ...]] = set()
    # as a whole, and piece by piece: a generator may repeat one sentence of it
    for text in instruction + [spec.about for spec in pilot.fields.values()]:
        words = tokens(text)
        runs.update(word_runs(words, 15 if is_wide(words) else 6))

    def check(text: str) -> str | None:
        evidence = generator_shows(text)
        if evidence:
            return evidence
        words = tokens(text)
        for run in chain(word_runs(words, 6), word_runs(words, 15)):
            if run in runs:
                return f"words of the instruction: {' '.join(run)!r}"
        return None

    return text_filter("leakage", pilot, check)


# Cut off in the middle ------------------------------------------------------------------------


def truncation(pilot: Pilot, seeds: Dataset | None = None) -> Filter:
    """Ends in the middle: an open word ('of'), a comma or bracket, half a word, a missing end mark.

    Half a word: no other row has it, but two or more have a word that starts with it. A missing end
    mark (see `_unmarked_end`) counts behind a sentence that has one, and, when at most 1 in 50
    seeds end so, in a single sentence too.
    """
    strict = False
    if seeds is not None:
        unmarked = sum(bool(_unmarked_end(text.rstrip())) for text in seeds[pilot.text])
        strict = unmarked * 50 <= len(seeds)

    def judge(rows: Dataset) -> dict[int, str]:
        known: Counter = Counter()
        for text in texts_of(rows, pilot.text):
            known.update(set(tokens(text)[:-1]))  # the last word may be the half one
        beginnings: Counter = Counter()
        for word, times in known.items():
            for length in range(4, len(word)):
                beginnings[word[:length]] += times
        half_words = {part for part, times in beginnings.items() if times > 1} - known.keys()
        reasons = {}
        for number, text in enumerate(texts_of(rows, pilot.text)):
            reason = _cut_off(text.rstrip(), half_words, strict)
            if reason:
                reasons[number] = reason
        return reasons

    return Filter("truncation", judge, {"strict": strict}, whole=True)


def _cut_off(text: str, half_words: set[str], strict: bool) -> str | None:
    line = "".join(text.splitlines()[-1:])
    words = tokens(line)
    open_mark = re.search(r"[,、(（\[「{]$|[^\s-]-$", text)
    if open_mark and (len(words) >= 5 or not re.search(r"[.!?]", text)):
        return f"ends with {text[-1]!r}"
    if is_wide(words):
        # a particle at the end, behind a sentence that has its mark
        particle = "。" in text and re.search(r"[はがをにのとへでもて]$", text)
        return f"ends with {line[-6:]!r}" if particle else None
    last = "".join(re.findall(r"[^\W\d_]+$", line.casefold()))  # of letters only
    if last in catalogue()["open_end"].split():
        return f"ends with the word {last!r}"
    if last in half_words:
        return f"ends with {last!r}, the start of a longer word"
    unmarked = _unmarked_end(text)
    if unmarked and (strict or re.search(r"[.!?…]\s", text)):
        return f"no end mark after {unmarked!r}"
    return None


def _unmarked_end(text: str) -> str | None:
    """The last words, when five or more lack an end mark though the writer uses them."""
    *above, line = text.splitlines() or [""]
    if above and len(tokens(line)) < 10 and not re.search(r"[.!?…]", line):
        return None  # a name, a firm, a slogan
    *sentences, last = re.split(r"[.!?…][\"')]*\s", line)
    careful = text[:1].isupper() and all(part[:1].isupper() for part in sentences if part)
    if careful and re.search(r"\w$", line) and len(tokens(last)) >= 5:
        return " ".join(last.split()[-3:])
    return None


# Language, and the standard order -------------------------------------------------------------


@functools.cache
def _language_identifier(languages: tuple[str, ...]):
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    unknown = ", ".join(sorted(set(languages) - set(identifier.labels)))
    if unknown:
        cure = "use two-letter codes such as en, de, ja"
        raise CourseError(f"The language filter does not know {unknown}; {cure}.")
    identifier.set_languages(languages)
    return identifier


def language(pilot: Pilot) -> Filter:
    """Not in the pilot's language, with a probability of more than 98 %.

    py3langid chooses among the catalogue's (rare ones, such as Nigerian Pidgin, would win on short
    English). Short text stays uncertain and is kept; web and mail addresses are left out.
    """
    own = pilot.language
    languages = tuple(sorted({*catalogue()["languages"].split(), own}))
    _language_identifier(languages)  # an unknown code is said now

    def check(text: str) -> str | None:
        plain = re.sub(r"\S+@\S+|https?://\S+", " ", text)
        ranked = _language_identifier(languages).rank(plain)  # not held: a closure is pickled
        best, probability = ranked[0][0], dict(ranked)[own]
        if best != own and probability < 0.02:
            return f"looks like {best}; {own} has probability {probability:.2f}"
        return None

    return text_filter("language", pilot, check)


def standard(
    pilot: Pilot,
    train: Dataset,
    test: Dataset,
    ood: Dataset | None = None,
    names: Sequence[str] = (),
    embed: label_noise.Embed | None = None,
) -> list[Filter]:
    """All filters in the order of their cost per row, so that the expensive ones see fewer rows.

    Two orders are not free: exact copies go before near ones, and rows are compared with the test
    set before personal data is masked. `train` are seed rows (limits of length), `test` and `ood`
    what must not leak in. `names` picks some of them; `embed`: see label_noise.
    """
    steps = [schema(pilot), copied(pilot), unread(pilot, train), message_length(pilot, train)]
    steps += [duplicates.exact(pilot)]
    steps += [injection(pilot), boilerplate(pilot), leakage(pilot), language(pilot)]
    steps += [repetition(pilot), truncation(pilot, train)]
    steps += [duplicates.decontaminate(pilot, test, ood), privacy.pii(pilot)]
    steps += [duplicates.near(pilot)]
    if pilot.labels:
        steps.append(label_noise.cross_fit_disagreement(pilot, train, embed=embed))
    return pick(steps, names) if names else steps


def of_a_teacher(
    pilot: Pilot,
    train: Dataset,
    test: Dataset,
    ood: Dataset | None = None,
    embed: label_noise.Embed | None = None,
) -> list[Filter]:
    """The standard filters and two more, for rows whose labels were asked for and not read.

    A teacher that is asked for an urgent message may write a calm one. The pilot's keyword rules,
    where they can be trusted, and `agreement` over every label field find such rows. Both take
    right rows, too: made rows are cheap, labelled ones are not.
    """
    steps = standard(pilot, train, test, ood)
    if pilot.labels:
        doubt = label_noise.cross_fit_disagreement(pilot, train, embed=embed, fields=pilot.labels)
        steps[-1:] = [keywords.by_keywords(pilot, train), doubt]
    return steps
