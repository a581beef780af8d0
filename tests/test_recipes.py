"""Four recipes and two augmentations: rows that say where they come from, for pilots of any shape, without a test row in sight."""

import json
import re

import pytest
from conftest import ROOT

from helpers import CourseError
from helpers.ask.teachers import Teacher
from helpers.core import rows
from helpers.core.pilot import Pilot
from helpers.make import augment, phrase_book, recipes

TEACHER = Teacher(model="m", licence="Apache-2.0")
ORIGIN = {"recipe", "teacher", "prompt_version", "seed", "parents", "licence"}
ANSWER = '{"intent": "quote", "urgency": "low", "product": null, "order_id": null}'
LABEL_ONLY = {
    "name": "x",
    "text": "message",
    "fields": {"topic": {"type": "label", "values": ["order", "other"]}},
}


@pytest.fixture(scope="module")
def inbox():
    return Pilot.load(ROOT / "data/inbox")


@pytest.fixture(scope="module")
def data(inbox):
    return rows.load(inbox)


@pytest.fixture(scope="module")
def seeds(data):
    return list(data.train)


def few():
    pilot = Pilot.model_validate(LABEL_ONLY)
    return pilot, [
        {
            "id": str(i),
            "message": f"message number {i}, please answer",
            "topic": ["order", "other"][i % 2],
        }
        for i in range(6)
    ]


def all_plans(pilot, seeds, number=8, seed=0):
    return {
        "lamini": recipes.lamini(pilot, seeds, number, seed),
        "evolve": recipes.evolve(pilot, seeds, number, seed),
        "explain": recipes.explain(pilot, seeds[:number], seed, seeds[-2:]),
        "attributes": recipes.attributes(pilot, seeds, number, seed),
        "forced": recipes.attributes(pilot, seeds, number, seed, force=True),
    }


@pytest.mark.parametrize("small", [False, True])
def test_every_request_has_its_own_seed_and_repeats_with_the_run_s_seed(inbox, seeds, small):
    pilot, known = few() if small else (inbox, seeds)
    for name, plans in all_plans(pilot, known, 6).items():
        assert len(plans) == 6 and len({p["request"]["seed"] for p in plans}) == 6, name
        assert plans == all_plans(pilot, known, 6)[name], name
        assert [p["request"]["seed"] for p in plans] != [
            p["request"]["seed"] for p in all_plans(pilot, known, 6, seed=1)[name]
        ], name
        assert {i for p in plans for i in p["parents"]} <= {row["id"] for row in known}, name


def test_no_test_row_reaches_a_request(inbox, data, seeds):
    asked = json.dumps(
        [p for plans in all_plans(inbox, seeds, 60).values() for p in plans], ensure_ascii=False
    )
    held = [recipes._one_line(t) for t in [*data.test["message"], *data.ood["message"]]]
    assert not [t for t in held if json.dumps(t, ensure_ascii=False)[1:-1] in asked]
    assert (
        sum(
            json.dumps(recipes._one_line(r["message"]), ensure_ascii=False)[1:-1] in asked
            for r in seeds
        )
        == 60
    ), "the seeds do"


def test_rows_say_where_they_come_from(inbox, seeds):
    text = "Please send PO-1234 to the yard, says Ann."
    for name, plans in all_plans(inbox, seeds).items():
        answer = f"Because it says so.\n{ANSWER}" if name == "explain" else text
        made = recipes.rows_of(inbox, plans, [answer] * 7 + [None], TEACHER, seeds)
        assert len(made) == 7 and len({r["id"] for r in made}) == 7
        for plan, row in zip(plans, made):
            assert (
                set(row) >= ORIGIN
                and row["teacher"] == "m"
                and row["licence"] == "Apache-2.0"
                and row["parents"] == plan["parents"]
            )
            assert set(inbox.fields) <= set(row) and row["prompt_version"].startswith(row["recipe"])


def test_an_explained_answer_is_split_into_its_column_and_the_record(inbox, seeds):
    plans = recipes.explain(inbox, seeds[:2], shots=seeds[5:7])
    grammar = plans[0]["request"]["grammar"]
    assert (
        grammar.startswith('root ::= word (" " word){3,30} "\\n" record')
        and grammar.count("root ::=") == 1
        and "record ::=" in grammar
    )
    made = recipes.rows_of(
        inbox,
        plans,
        [f"It asks for a price.\n{ANSWER}", 'It is cut off\n{"intent": "quo'],
        TEACHER,
        seeds,
    )
    assert (
        len(made) == 1
        and made[0]["explanation"] == "It asks for a price."
        and made[0]["intent"] == "quote"
    )
    assert made[0]["message"] == seeds[0]["message"]


def test_lamini_rows_get_what_can_be_known_from_the_text(inbox, seeds):
    plan = recipes.lamini(inbox, seeds, 8)[0]
    product = next(r["product"] for r in seeds if r["product"])
    row = recipes.rows_of(inbox, [plan], [f"Where is the {product} from PO-7777?"], TEACHER, seeds)[
        0
    ]
    assert (row["product"], row["order_id"], row["intent"]) == (
        product,
        "PO-7777",
        plan["record"]["intent"],
    )
    turns = plan["request"]["messages"]
    assert [turn["role"] for turn in turns] == ["system", *["user", "assistant"] * 3, "user"]
    labels = [next(r for r in seeds if r["id"] == i)["intent"] for i in plan["parents"]]
    assert set(labels) == {plan["record"]["intent"]}, "three examples of the same label"


@pytest.mark.parametrize(
    "text, reason",
    [
        (None, "empty"),
        ("ok", "empty"),
        ("Sorry, as an AI I do not write PO-1234.", "refusal or placeholder"),
        ("Dear [customer name], where is it?", "refusal or placeholder"),
        ("Message: where is the pump of PO-1000?", "repeats the prompt"),
        ("where is IT from PO-1000, the pump", "unchanged"),
        ("Where is the pump that I want so much?", "lost order_id"),
        ("Where is the pump from PO-1000, says my boss?", None),
    ],
)
def test_failed_rewrites_are_eliminated_with_a_reason(text, reason):
    pilot = Pilot.model_validate(
        {
            "name": "x",
            "text": "message",
            "fields": {
                "intent": {"type": "label", "values": ["order", "quote"]},
                "product": {"type": "span", "optional": True},
                "order_id": {"type": "pattern", "regex": r"PO-\d{4}", "optional": True},
            },
        }
    )
    row = {
        "id": "1",
        "message": "Where is it from PO-1000, the pump",
        "intent": "order",
        "product": "pump",
        "order_id": "PO-1000",
    }
    plan = recipes.evolve(pilot, [row], 1)[0]
    assert recipes.eliminated(pilot, plan, text, [row]) == reason


def test_records_are_new_balanced_and_of_the_right_form(inbox, seeds):
    made = augment.records(inbox, seeds, 400, seed=3)
    counts = [sum(r["intent"] == v for r in made) for v in inbox.fields["intent"].values]
    assert counts == [50] * 8 and {r["urgency"] for r in made} == {"low", "normal", "high"}
    assert all(r["order_id"] is None or re.fullmatch(r"PO-\d{4}", r["order_id"]) for r in made)
    empty = sum(r["product"] is None for r in made) / 400
    assert abs(empty - sum(r["product"] is None for r in seeds) / 60) < 0.1
    products, known = [r["product"] for r in made if r["product"]], {r["product"] for r in seeds}
    assert sum(p in known for p in products) / len(products) < 0.6 and len(set(products)) > 100
    assert augment.records(inbox, seeds, 400, seed=3) == made


def test_what_has_no_example_is_named(inbox, seeds):
    with pytest.raises(CourseError, match="No seed row has intent = 'return'"):
        augment.records(inbox, [r for r in seeds if r["intent"] != "return"], 8)
    with pytest.raises(CourseError, match="No seed row has intent = 'return'"):
        recipes.lamini(inbox, [r for r in seeds if r["intent"] != "return"], 8)
    with pytest.raises(CourseError, match="No seed row has a value for product"):
        augment.records(inbox, [r | {"product": None} for r in seeds], 8)
    assert augment.records(
        inbox, [r | {"product": None} for r in seeds], 8, spans={"product": ["pump"]}
    )


def accepts(tokenizer, grammar, text):
    """Does llguidance let the whole text through, and may it end there?"""
    from llguidance import LLMatcher
    from llguidance.gbnf_to_lark import gbnf_to_lark
    from llguidance.hf import from_tokenizer

    matcher = LLMatcher(from_tokenizer(tokenizer, n_vocab=len(tokenizer)), gbnf_to_lark(grammar))
    assert not matcher.get_error()
    ids = tokenizer(text, add_special_tokens=False).input_ids
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def test_forced_grammars_hold_the_values_and_let_them_through(inbox, seeds, tokenizer):
    """A message with the values in any order may end, one without a value may not."""
    for plan in recipes.attributes(inbox, seeds, 24, force=True):
        values = [v for v in (plan["record"]["product"], plan["record"]["order_id"]) if v]
        if not values:
            assert "grammar" not in plan["request"]
            continue
        grammar = plan["request"]["grammar"]
        for order in (values, values[::-1]):
            assert accepts(tokenizer, grammar, "Where is my " + ", and ".join(order) + "? Thanks.")
        assert not accepts(tokenizer, grammar, "Where is it?")
        for value in values[1:]:
            assert not accepts(tokenizer, grammar, f"Where is my {value}?")


def test_a_forced_message_in_japanese_has_no_spaces_to_fill(tokenizer):
    grammar = recipes._grammar_with(["油圧ポンプ", "KS-1234"], wide=True)
    for text in ("KS-1234の油圧ポンプが届きません。", "油圧ポンプ（KS-1234）を二台お願いします。"):
        assert accepts(tokenizer, grammar, text), text
    assert not accepts(tokenizer, grammar, "油圧ポンプが届きません。")


def test_substituted_rows_keep_exact_labels(inbox, seeds):
    made = augment.substitute(inbox, seeds, 180, seed=1)
    assert len({r["message"] for r in made}) > 120
    by_id = {r["id"]: r for r in seeds}
    for row in made:
        parent = by_id[row["parents"][0]]
        assert (row["intent"], row["urgency"]) == (parent["intent"], parent["urgency"])
        for name in ("product", "order_id"):
            assert (row[name] is None) == (parent[name] is None) and (
                row[name] is None or row[name] in row["message"]
            )
        assert row["recipe"] == "substitute" and row["teacher"] == "none"
    changed = [r for r in made if r["order_id"]]
    assert (
        sum(r["order_id"] != by_id[r["parents"][0]]["order_id"] for r in changed)
        >= len(changed) - 1
    )  # one in 10,000 draws is the old one


def test_a_changed_template_is_asked_and_named(inbox, seeds):
    own = recipes.TEMPLATES["lamini"] | {"ask": "Write a mail. {kind}."}
    short = recipes.TEMPLATES["attributes"] | {"ask": "{record}, {tone}:"}
    for name, template in (("lamini", own), ("attributes", short)):
        usual, changed = (
            getattr(recipes, name)(inbox, seeds, 4, template=wording)
            for wording in (recipes.TEMPLATES[name], template)
        )
        assert changed[0]["request"]["messages"] != usual[0]["request"]["messages"]
        old, new = (
            recipes.rows_of(inbox, plans[:1], ["Where is it?"], TEACHER, seeds)[0]["prompt_version"]
            for plans in (usual, changed)
        )
        assert old == f"{name}-{augment.VERSION}" and new.startswith(f"{name}-") and new != old


@pytest.mark.parametrize("name", ["lamini", "evolve", "attributes", "explain", "forced"])
def test_the_recorded_answers_are_those_to_the_prompts_of_today(inbox, seeds, name, tmp_path):
    """Chapter 03 finds them without the model: character by character the same requests."""
    from helpers.ask import engines, teachers
    from helpers.core.files import Journal

    model = "qwen2.5-coder-1.5b"
    teacher = teachers.of(inbox)
    assert teacher.model == model
    recorded = ROOT / f"data/reference/inbox/03/teacher/qwen2_5_coder_1_5b/{name}.jsonl"
    copy = tmp_path / "journal.jsonl"
    copy.write_bytes(recorded.read_bytes())
    fresh = augment.substitute(inbox, seeds, 120, 0)
    plans = {
        "lamini": lambda: recipes.lamini(inbox, seeds, 120, 0),
        "evolve": lambda: recipes.evolve(inbox, fresh, 120, 0),
        "attributes": lambda: recipes.attributes(inbox, seeds, 120, 0),
        "explain": lambda: recipes.explain(inbox, seeds[:30], 0, seeds[-2:]),
        "forced": lambda: recipes.attributes(inbox, seeds, 30, 0, force=True),
    }[name]()
    engine = engines.Absent(teacher)
    assert engine.identity == engines.identity_of(teacher)
    bill = teachers.collect([plan["request"] for plan in plans], engine, Journal(copy))
    made = recipes.rows_of(inbox, plans, bill.texts, teacher, [*seeds, *fresh])
    assert len(made) > 0.9 * len(plans)
    if name != "forced":
        stored = {row["id"]: row for row in rows.read(recorded.parents[2] / "raw.jsonl")}
        for row in made:
            assert stored[row["id"]]["message"] == row["message"]
    # what was not recorded cannot be asked for, and nothing is fetched
    other = plans[0]["request"] | {"seed": 1}
    with pytest.raises(CourseError, match="is not on this machine"):
        teachers.collect([other], engine, Journal(copy))


LONG = {
    "English": "The pump leaks again and nobody answers. " * 500,
    "Japanese": "ポンプが壊れました。至急ご連絡ください。" * 1000,
    "mixed": "PO-1234 の pump が止まった。Bitte sofort! 🙏 " * 600,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_message_of_20_000_characters_fits_into_every_prompt(inbox, seeds, text):
    """Shown shortened; the record's values are still asked for, and the grammar is still read."""
    from llguidance.gbnf_to_lark import gbnf_to_lark

    long = [row | {"message": text + row["message"]} for row in seeds]
    assert len(long[0]["message"]) >= 20_000
    for name, plans in all_plans(inbox, long, 8).items():
        assert len(plans) == 8
        for plan in plans:
            turns = plan["request"]["messages"]
            assert max(len(turn["content"]) for turn in turns) < 1500, name
            if plan["request"].get("grammar"):
                assert gbnf_to_lark(plan["request"]["grammar"])
    made = recipes.rows_of(inbox, plans, [text] * 8, TEACHER, long)
    assert len(made) == 8


def test_a_pilot_with_one_label_is_enough():
    pilot, known = few()
    assert augment.substitute(pilot, known, 3)[0]["topic"] in ("order", "other")
    made = recipes.rows_of(
        pilot, recipes.attributes(pilot, known, 4), ["a", "b", "", "d"], TEACHER, known
    )
    assert [r["topic"] for r in made] == ["order", "other", "other"]


def test_a_message_from_the_phrase_book_has_an_exact_record(inbox, data, seeds):
    book = phrase_book.read_phrase_book(inbox)
    made = phrase_book.compose(inbox, seeds[:24], 400, book, seed=5)
    assert (
        made
        == phrase_book.compose(inbox, seeds[:24], 400, book, seed=5)
        != phrase_book.compose(inbox, seeds[:24], 400, book, seed=6)
    )
    assert len({row["message"] for row in made}) > 380 and set(made[0]) >= ORIGIN
    for row in made:
        assert "{" not in row["message"]
        for name in ("product", "order_id"):
            assert row[name] is None or row[name] in row["message"]
        if row["order_id"] is None and "PO-" in row["message"]:
            assert (
                any(
                    p.split("{other.order_id}")[0].lower() in row["message"].lower()
                    for p in book.aside + book.request["quote"]
                    if "{other.order_id}" in p
                )
                or row["message"].count("PO-") == 1
            )
    assert len({row["intent"] for row in made}) == 8 and len({row["urgency"] for row in made}) == 3
    held = {" ".join(t.lower().split()) for t in [*data.test["message"], *data.ood["message"]]}
    assert not [row for row in made if " ".join(row["message"].lower().split()) in held]


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda b: b.pop("urgency"), "no part 'urgency'"),
        (lambda b: b["request"].pop("quote"), "request: 'quote' has no phrases"),
        (lambda b: b["request"].update(quotes=["x"]), "'quotes' is not among the values"),
        (lambda b: b["request"]["quote"].append("What is {price}?"), "not a phrase with the slots"),
        (lambda b: b["urgency"]["low"].append({"No": "hurry"}), "urgency > low > "),
        (lambda b: b.update(open="Hello,"), "open: Input should be a valid list"),
        (lambda b: b.update(asides=["x"]), "unknown key 'asides'; did you mean 'aside'?"),
        (
            lambda b: b["aside"].append("The {product} works."),
            "aside: 'The {product} works.' is not a phrase with the slots other.product",
        ),
        (
            lambda b: b["request"]["quote"].append("What is {order_id?"),
            "is not a phrase with the slots",
        ),
        (
            lambda b: b["request"].update(quote="What is it?"),
            "request > quote: Input should be a valid list",
        ),
        (
            lambda b: b["spans"].update(product=None),
            "spans > product: Input should be a valid list",
        ),
        (
            lambda b: b["spans"].update(produkt=["x"]),
            "spans: 'produkt' needs a list of texts, and must be one of product, order_id",
        ),
    ],
)
def test_a_phrase_book_with_a_mistake_is_refused_in_one_sentence(inbox, tmp_path, change, said):
    import yaml

    book = yaml.safe_load((ROOT / "data/inbox/phrases.yaml").read_text())
    change(book)
    (tmp_path / "phrases.yaml").write_text(yaml.safe_dump(book))
    with pytest.raises(CourseError, match=re.escape(said)):
        phrase_book.read_phrase_book(inbox, tmp_path / "phrases.yaml")


def test_no_phrase_book_and_one_that_is_no_yaml(inbox, tmp_path):
    with pytest.raises(CourseError, match="no phrase book phrases.yaml"):
        phrase_book.read_phrase_book(inbox, tmp_path / "phrases.yaml")
    (tmp_path / "phrases.yaml").write_text("request: [unclosed")
    with pytest.raises(CourseError, match="phrases.yaml is not valid YAML"):
        phrase_book.read_phrase_book(inbox, tmp_path / "phrases.yaml")


def test_the_bundled_phrases_are_labelled_as_the_guide_says(inbox):
    """No phrase of one value stands under another, and no neutral phrase names a time that the guide calls urgent."""
    book = phrase_book.read_phrase_book(inbox)
    for part in (book.request, book.cues["urgency"]):
        every = [p for phrases in part.values() for p in phrases if p]
        assert len(every) == len(set(every))
    assert not [
        p
        for p in book.cues["urgency"]["normal"]
        if re.search(r"today|tomorrow|urgent|hurry", p, re.I)
    ]
    assert all("{product}" not in p and "{order_id}" not in p for p in book.aside)


def test_compose_does_not_depend_on_the_process(inbox):
    """Python shuffles sets anew in every process; a seed must give the same rows all the same."""
    import os
    import subprocess
    import sys

    code = (
        "from helpers.core import rows; from helpers.core.pilot import Pilot; from helpers.make import phrase_book; import hashlib; p = Pilot.load('data/inbox');"
        "print(hashlib.sha256(repr(phrase_book.compose(p, list(rows.load(p).train), 280, phrase_book.read_phrase_book(p))).encode()).hexdigest())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(k)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for k in (0, 1)
    }
    assert len(said) == 1 and len(said.pop()) == 65


def test_typing_errors_never_touch_a_slot(inbox, seeds):
    book = phrase_book.read_phrase_book(inbox)
    for seed in range(12):
        for row in phrase_book.compose(inbox, seeds, 120, book, seed):
            assert not re.search(r"[{}]", row["message"]) and all(
                row[f] is None or row[f] in row["message"] for f in ("product", "order_id")
            )


def test_a_japanese_phrase_book(tmp_path):
    pilot = Pilot.model_validate(
        {
            "name": "ja",
            "language": "ja",
            "text": "本文",
            "fields": {
                "topic": {"type": "label", "values": ["注文", "苦情"]},
                "part": {"type": "span", "optional": True},
            },
        }
    )
    known = [
        {
            "id": str(i),
            "本文": f"{part}を送ってください。",
            "topic": ["注文", "苦情"][i % 2],
            "part": part,
        }
        for i, part in enumerate(["ベアリング6204", "油圧ポンプ"] * 3)
    ]
    (tmp_path / "phrases.yaml").write_text(
        "request:\n  注文: ['{part}を二つお願いします。']\n  苦情: ['{part}が届きましたが、割れています。']\n"
        "close: [よろしくお願いいたします。]\n",
        encoding="utf-8",
    )
    made = phrase_book.compose(
        pilot, known, 40, phrase_book.read_phrase_book(pilot, tmp_path / "phrases.yaml")
    )
    for row in made:
        assert (
            row["part"] in row["本文"]
            and " " not in row["本文"]
            and ("お願いします" in row["本文"] or "届きましたが、割れています" in row["本文"])
        )
    (tmp_path / "phrases.yaml").write_bytes("request: {}".encode("utf-16"))
    with pytest.raises(CourseError, match="not UTF-8"):
        phrase_book.read_phrase_book(pilot, tmp_path / "phrases.yaml")


@pytest.mark.parametrize(
    "language, named",
    [("en", None), ("en-GB", None), ("ja", "Japanese"), ("de_AT", "German"), ("gsw", "gsw")],
)
def test_a_teacher_is_told_the_language_of_the_pilot(folder, language, named):
    pilot = Pilot.load(folder).model_copy(update={"language": language, "about": "A shop."})
    seeds = list(rows.load(pilot).train)
    for recipe in (recipes.lamini, recipes.evolve, recipes.attributes):
        said = recipes.first_prompt(recipe(pilot, seeds, 2))
        assert "A shop." in said
        told = [line for line in said.splitlines() if f"Write in {named}." in line]
        assert ("written in" in said) is bool(named) and bool(told) is bool(named)
