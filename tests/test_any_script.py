"""Any script: what loads can be answered, letter by letter and token by token."""

import llguidance
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher

from helpers.ask import answers
from helpers.core import rows
from helpers.core.pilot import Pilot
from helpers.core.text import CONTROL, normalised
from helpers.make.grammar import lark_grammar, record_grammar

# letters, digits, marks and joined forms of many scripts, and what JSON and grammars must escape
PIECES = [
    "12kg", "#4711", "私は東京に行きます。", "電話", "ー", "グーグル", "สวัสดีครับ", "नमस्ते", "ü", "u\u0308",
    "größe", "İstanbul'da", "שלום", "مرحبا", "‏", "서울에서", "👩‍🔧", "🇩🇪", "½", "１２３", "‍",
    " ", "\n", "\t", "\xa0", "　", '"', "\\", "\\n", "[", "]", "{", "}", "|", "::=", "?", "/", "-",
    "PO-1234", "<|im_end|>", "</s>", "null", "a",
]  # fmt: skip
# of characters that exist: the embedded tokenizer has no bytes for the others
letters = st.characters(exclude_categories=("Cs", "Cn", "Co"))
texts = st.lists(st.one_of(st.sampled_from(PIECES), letters), min_size=1, max_size=12)
SPAN = {"type": "span", "optional": True}
PATTERN = {"type": "pattern", "regex": r"\d+|\w-\w+", "optional": True}


def one_pilot(**fields):
    label = {"type": "label", "values": ["注文", 'say "no"', "größe?"]}
    return Pilot.model_validate({"name": "x", "text": "t", "fields": {"k": label} | fields})


def byte_by_byte(grammar, answer):
    """Whether the grammar takes the answer from a tokenizer whose tokens are single bytes."""
    matcher = LLMatcher(llguidance.LLTokenizer("byte"), lark_grammar(grammar))
    assert not matcher.get_error()
    return matcher.consume_tokens(list(answer.encode())) and matcher.is_accepting()


@settings(max_examples=100, deadline=None, derandomize=True)
@example(pieces=["私は東京に行きます。"], cut=(2, 2), number=0, whole=False)
@example(pieces=["12kg"], cut=(0, 2), number=0, whole=False)
@example(pieces=["#4711"], cut=(0, 5), number=0, whole=False)
@given(
    pieces=texts,
    cut=st.tuples(st.integers(0, 40), st.integers(1, 40)),
    number=st.integers(0, 5),
    whole=st.booleans(),
)
def test_every_row_that_loads_can_be_answered(tokenizer, pieces, cut, number, whole):
    text = CONTROL.sub(" ", normalised("".join(pieces)))
    start = cut[0] % len(text)
    pilot = one_pilot(span=SPAN | {"whole_words": whole}, 数=PATTERN)
    found = pilot.fields["数"].matches(text)
    row = {"k": pilot.fields["k"].values[number % 3], "span": text[start : start + cut[1]]}
    row["数"] = found[number % len(found)] if found else None
    if any(rows.wrong_value(name, spec, row[name], text) for name, spec in pilot.fields.items()):
        assert whole, "only a span of whole words is refused"
        return
    answer = pilot.answer(row)
    assert answers.accepts(pilot, tokenizer, text, answer)
    grammar = record_grammar(pilot, text)
    assert byte_by_byte(grammar, answer)
    # nothing else: a letter more that the text does not go on with
    longer = dict(row, span=row["span"] + "\u2603")
    assert not byte_by_byte(grammar, pilot.answer(longer))
    assert not byte_by_byte(grammar, pilot.answer(dict(row, span="")))


def test_whole_words_are_what_the_loader_says(tokenizer):
    """A cut of a text loads exactly where the grammar of whole words takes it."""
    pilot = one_pilot(span=SPAN | {"whole_words": True})
    text = 'A 3/4" (new)\nat ½? 12kg'
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            span = text[start:end]
            loads = rows.wrong_value("span", pilot.fields["span"], span, text) is None
            answer = pilot.answer({"k": "注文", "span": span})
            assert answers.accepts(pilot, tokenizer, text, answer) is loads, span
