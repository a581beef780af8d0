"""Filters that judge one row by itself, and the standard order of all of them.

Every maker returns a curation.Filter; `curation.pipeline` runs them. The phrase lists are short on purpose: they catch the plain
cases in English, German and Japanese, and a reader adds their own.
"""

import functools
import re
from collections import Counter

from helpers import CourseError
from helpers.core.text import is_wide, tokens
from helpers.keep import duplicates, label_noise, privacy
from helpers.keep.pipeline import Filter, each, per_record, pick

LANGUAGES = (
    "ar bg cs da de el en es et fi fr he hi hr hu id it ja ko lt lv nl no pl pt ro ru sk sl sr sv th tr uk vi zh"
).split()


def schema(pilot):
    """The text is text; every field is there, of the right type, and a label is among the values."""

    def find(text, name, spec, value):
        if not isinstance(text, str):
            return f"{pilot.text} is {text!r}, which is not text"
        if value is None:
            return None if spec.optional else f"{name} is missing"
        if not isinstance(value, str):
            return f"{name} is {value!r}, which is not text"
        return (
            f"{name} {value!r} is not among the values"
            if spec.type == "label" and value not in spec.values
            else None
        )

    return per_record("schema", pilot, find)


def copied(pilot):
    """Spans and pattern values stand in the text letter by letter, and a pattern value matches its regex as a whole."""

    def find(text, name, spec, value):
        if spec.type == "label" or value is None:
            return None
        if spec.type == "pattern" and not re.fullmatch(spec.regex, value):
            return f"{name} {value!r} does not match {spec.regex}"
        return (
            None if value and value in text else f"{name} {value!r} does not stand in the message"
        )

    return per_record("copied", pilot, find)


def overlooked(pilot):
    """A pattern stands in the text although the record says null. Not always wrong, and not in the standard pipeline: the number
    may belong to something that is not asked about, as in the inbox's rows tagged unrelated_order. A list to look at."""

    def find(text, name, spec, value):
        seen = re.search(spec.regex, text) if spec.type == "pattern" and value is None else None
        return f"{name} is null, but {seen.group(0)!r} stands in the message" if seen else None

    return per_record("overlooked", pilot, find)


def length(pilot, seeds=None, fewest=4, most=4000):
    """Empty, too short or too long, in characters. With seed rows: from half their shortest to twice their longest."""
    if seeds is not None and len(seeds):
        sizes = [len(text.strip()) for text in seeds[pilot.text]]
        fewest, most = max(1, min(sizes) // 2), 2 * max(sizes)

    def find(text):
        size = len(text.strip())
        return (
            "the message is empty"
            if not size
            else f"{size} characters; {fewest} to {most} are allowed"
            if not fewest <= size <= most
            else None
        )

    return each("length", pilot, find, fewest=fewest, most=most)


def repetition(pilot, share=0.3):
    """Runs of three words that come back: at least three times, covering more than `share` of the text; or a repeated sentence.

    Source: the duplicate n-gram rules of Rae et al. 2021 (arXiv 2112.11446), shortened for short messages.
    """

    def find(text):
        words = tokens(text)
        n = 8 if is_wide(words) else 3
        if len(words) >= 3 * n:
            run, times = Counter(zip(*(words[i:] for i in range(n)))).most_common(1)[0]
            if times >= 3 and times * n > share * len(words):
                return f"{('' if n == 8 else ' ').join(run)!r} stands {times} times"
        lines = Counter(
            s.strip() for s in re.split(r"[\n。.!?！？]+", text.casefold()) if len(s.strip()) > 19
        )
        twice = next((line for line, times in lines.items() if times > 1), None)
        return f"{twice[:60]!r} stands twice" if twice else None

    return each("repetition", pilot, find, share=share)


def phrases(name, pilot, patterns, what):
    """A Filter from regular expressions: the first match is the evidence. Add yours to the list you pass in."""
    one = re.compile("|".join(f"(?:{p})" for p in patterns), re.IGNORECASE | re.MULTILINE)

    def find(text):
        seen = one.search(text)
        return f"{what}: {seen.group(0).strip()[:60]!r}" if seen else None

    return each(name, pilot, find, patterns=patterns)


INJECTED = (
    r"\b(ignore|disregard|forget|override|bypass|overlook)\b[^.!?\n]{0,30}\b(instructions?|prompts?|rules|guidelines|directions)\b",
    r"\b(ignore|disregard|forget)\b[^.!?\n]{0,15}\b(everything|all|anything)\b[^.!?\n]{0,20}\b(above|before|said|told)\b",
    r"\byou are now (a|an|in|the|my|free|no longer)\b",
    r"\bsystem (prompt|notice|message|override|instruction)",
    r"\bdeveloper mode\b",
    r"\b(reveal|print|repeat|show|output)\b[^.!?\n]{0,30}\b(prompt|instructions|text you were given)\b",
    r"\bnew (instructions?|task|rules?) ?:",
    r"^\W*(system|assistant|user|human|ai)\W{0,2}:",
    r"<\|\w+\|>",
    r"\[/?INST\]",
    r"<</?SYS>>",
    r"^#+ *(instruction|system|response)",
    r"\b(next|your) (output|answer|reply) (must|has to) be\b",
    r"ignorier\w*[^.!?\n]{0,30}(anweisung|vorgabe|regel)",
    r"(指示|命令|プロンプト|ルール)を?(すべて|全て)?(無視|忘れ)",
)
BOILERPLATE = (
    r"\bunsubscribe\b",
    r"\b(do|please do) not reply\b",
    r"\b(automatic(ally)?|auto)[- ]?(generated|reply|response)\b",
    r"\bout of (the )?office\b",
    r"\bintended (solely |only |exclusively )?for the (use of |individual |person |addressee|recipient)",
    r"\ball rights reserved\b",
    r"\b(privacy|cookie) policy\b",
    r"\blorem ipsum\b",
    r"\bview (this|it) (e-?mail |message )?in (your|a) browser\b",
    r"\bregistered (office|in england|company)\b",
    r"\bif you (are not|have received this)[^.\n]{0,40}(recipient|error)",
    r"\bsent from my \w+",
    r"abmelden|automatisch (erstellt|generiert)|abwesenheitsnotiz",
    r"自動(送信|返信)|配信停止|無断転載",
)


def leakage(pilot):
    """The prompt or the generator shows: the instruction's own words (runs of six), chatter, JSON, placeholders, and names that
    only the pilot uses (labels and fields with an underscore)."""
    asked = [
        p
        for p in (
            pilot.instruction(True),
            pilot.instruction(False),
            pilot.about,
            *(s.about for s in pilot.fields.values()),
        )
        if p
    ]
    runs = {
        " ".join(run)
        for words in map(tokens, asked)
        for size in [15 if is_wide(words) else 6]
        for run in zip(*(words[i:] for i in range(size)))
    }
    sizes = {len(run.split()) for run in runs}
    own = [
        n
        for n in (*pilot.fields, *(v for f in pilot.labels for v in pilot.fields[f].values))
        if "_" in n
    ]
    said = phrases(
        "leakage",
        pilot,
        (
            r"\b(here|below|following)( is|'s| are)\b[^.!?\n]{0,30}\b(message|e-?mail|example|text|version|rewrit\w+|json|record|customer)\b",
            r"\bas an? (ai|artificial|language|large)\b",
            r"\b(language|ai) model\b",
            r"^\W*(sure|certainly|of course|absolutely)[!,.]? *(here|i can|i'll|below)",
            r"\bi (can(no|')t|am (not able|unable) to) (help|assist|fulfil|comply|generate|create)",
            r"\bhope (this|that) (helps|meets|works)\b",
            r"\{\s*[\"']?\w+[\"']?\s*:",
            r"\[(your|name|company|product|order|date|customer|insert|phone)\b[^\]\n]{0,30}\]",
            r"<(name|product|company|order)[^>\n]*>",
            r"```",
            r"\b(synthetic|fictional|generated) (message|e-?mail|customer|example)\b",
            r"\bjson (object|format|output|record)\b",
            r"^\W*(message|example|variant|output|label|text|customer) ?(\d+)? ?:",
            r"AI(アシスタント|として)|言語モデル|以下(は|が|に).{0,12}(メッセージ|例文?)",
            r"hier ist (eine?|die|das)\b[^.!?\n]{0,20}(nachricht|beispiel|e-?mail)|als (ki|sprachmodell)",
            *(rf"\b{re.escape(n)}\b" for n in own),
        ),
        "the prompt or the generator shows",
    )

    def judge(batch):
        found = said.judge(batch)
        for i, text in enumerate(batch[pilot.text]):
            words = tokens(text) if found[i] is None else ()
            hit = next(
                (
                    run
                    for size in sizes
                    for run in map(" ".join, zip(*(words[k:] for k in range(size))))
                    if run in runs
                ),
                None,
            )
            found[i] = f"words of the instruction: {hit!r}" if hit else found[i]
        return found

    return Filter("leakage", judge, {**said.settings, "runs": sorted(runs)})


def boilerplate(pilot, patterns=BOILERPLATE):
    """Footers, automatic replies and legal notices that no customer wrote."""
    return phrases("boilerplate", pilot, patterns, "boilerplate")


def injection(pilot, patterns=INJECTED):
    """Text that gives orders to a model: 'ignore previous instructions', role markers, chat-template tokens."""
    return phrases("injection", pilot, patterns, "an instruction to a model")


OPEN_END = set(
    "a an the of and or with my our your their his its than because which via per "
    "der die das und oder mit ein eine einen dem den des".split()
)


def bare(text):
    """The last five or more words, when they stand without an end mark though the writer uses capitals and marks; else None."""
    *above, line = text.splitlines() or [""]
    if above and len(tokens(line)) < 10 and not re.search(r"[.!?…]", line):
        return None  # a name, a firm, a slogan
    rest = re.split(r"[.!?…][\"')]*\s", line)
    careful = text[:1].isupper() and all(part[:1].isupper() for part in rest[:-1] if part)
    return (
        " ".join(rest[-1].split()[-3:])
        if careful and re.search(r"\w$", line) and len(tokens(rest[-1])) >= 5
        else None
    )


def truncation(pilot, seeds=None, vocabulary=2):
    """Ends in the middle: an open word ('of', 'our'), a comma or bracket, half a word, or no end mark where one belongs.

    Half a word: no other row has it, but at least `vocabulary` rows have a word that starts with it. A missing end mark (see
    `bare`) counts behind a sentence that has one, and, when at most 1 in 50 seeds end so, in a single sentence too.
    """
    strict = seeds is not None and sum(
        bool(bare(text.rstrip())) for text in seeds[pilot.text]
    ) * 50 <= len(seeds)

    def judge(rows):
        known = Counter()
        for batch in rows.select_columns(pilot.text).iter(1000):
            known.update(w for text in batch[pilot.text] for w in set(tokens(text)[:-1]))
        parts = Counter()
        for word, times in known.items():
            parts.update({word[:k]: times for k in range(4, len(word))})
        texts = (
            text
            for batch in rows.select_columns(pilot.text).iter(1000)
            for text in batch[pilot.text]
        )
        reasons = (ends((text or "").rstrip(), known, parts) for text in texts)
        return {number: reason for number, reason in enumerate(reasons) if reason}

    def ends(text, known, parts):
        line = text.splitlines()[-1] if text else ""
        words, last = tokens(line), (re.findall(r"[^\W\d_]+$", line.casefold()) or [""])[0]
        if re.search(r"[,、(（\[「{]$|[^\s-]-$", text) and (
            len(words) >= 5 or not re.search(r"[.!?]", text)
        ):
            return f"ends with {text[-1]!r}"
        if is_wide(words):
            cut = "。" in text and re.search(r"[はがをにのとへでもて]$", text)
            return f"ends with {line[-6:]!r}" if cut else None
        if last in OPEN_END:
            return f"ends with the word {last!r}"
        if len(last) >= 4 and last not in known and parts[last] >= vocabulary:
            return f"ends with {last!r}, the start of a longer word"
        return (
            f"no end mark after {bare(text)!r}"
            if bare(text) and (strict or re.search(r"[.!?…]\s", text))
            else None
        )

    return Filter(
        "truncation",
        judge,
        {"text": pilot.text, "vocabulary": vocabulary, "strict": strict},
        whole=True,
    )


@functools.cache
def _identifier(languages):
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    try:
        identifier.set_languages(languages)
    except ValueError:
        unknown = sorted(set(languages) - set(identifier.labels))
        raise CourseError(
            f"The language filter does not know {', '.join(unknown)}; use two-letter codes such as en, de, ja."
        ) from None
    return identifier


def language(pilot, allowed=None, threshold=0.98, languages=LANGUAGES):
    """Written in none of the languages `allowed` (default: the pilot's) with probability > threshold (py3langid).

    It chooses among `languages` (rare ones, such as Nigerian Pidgin, would win on short English). Short text stays uncertain and
    is kept; web and mail addresses are left out.
    """
    allowed = tuple(allowed or (pilot.language,))
    every = tuple(sorted({*languages, *allowed}))
    _identifier(every)  # an unknown code is said now

    def find(text):
        p = dict(_identifier(every).rank(re.sub(r"\S+@\S+|https?://\S+", " ", text)))
        own, best = sum(p[name] for name in allowed), max(p, key=p.get)
        sure = best not in allowed and own < 1 - threshold
        return (
            f"looks like {best}; {' or '.join(allowed)} has probability {own:.2f}" if sure else None
        )

    return each("language", pilot, find, allowed=allowed, threshold=threshold, languages=every)


def standard(pilot, train, test, ood=None, names=None):
    """All filters in the order of their cost per row, the cheap ones first, so that the expensive ones see fewer rows.

    Two orders are not free: exact copies go before near ones, and rows are compared with the test set before personal data is
    masked. `train` are seed rows (limits of length), `test` and `ood` what must not leak in. `names` picks some of them.
    """
    steps = [
        schema(pilot),
        copied(pilot),
        length(pilot, train),
        duplicates.exact(pilot),
        injection(pilot),
        boilerplate(pilot),
        leakage(pilot),
        language(pilot),
        repetition(pilot),
        truncation(pilot, train),
        duplicates.decontaminate(pilot, test, ood),
        privacy.pii(pilot),
        duplicates.near(pilot),
    ]
    steps += [label_noise.agreement(pilot, train)] if pilot.labels else []
    return pick(steps, names) if names else steps
