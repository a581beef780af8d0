"""Bad rows: each is answered in one sentence that says what is wrong, where, what to do."""

import time

import pytest
from conftest import REAL_DATA

from helpers import CourseError
from helpers.core import public_sets, rows
from helpers.core.pilot import Pilot
from helpers.core.runtime import PROFILES


def load(folder, **kw):
    return rows.load(Pilot.load(folder), **kw)


def edit(folder, name, old, new):
    path = folder / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def refused(folder, *words):
    with pytest.raises(CourseError) as problem:
        load(folder)
    for word in words:
        assert word in str(problem.value), str(problem.value)
    assert "\n" not in str(problem.value)


def test_good_rows_load(folder):
    data = load(folder)
    assert (len(data.train), len(data.test), data.ood) == (12, 12, None)
    assert data.train[0]["product"] == "belt" and data.train[0]["order_id"] is None


def test_missing_column(folder):
    edit(folder, "train.csv", "id,message,intent", "id,mesage,intent")
    refused(folder, "train.csv", "'message'", "did you mean 'mesage'")


def test_empty_file_and_header_only(folder):
    (folder / "train.csv").write_text("")
    refused(folder, "train.csv is empty")
    (folder / "train.csv").write_text("id,message,intent,product,order_id\n")
    refused(folder, "no rows")


def test_missing_file(folder):
    (folder / "test.csv").unlink()
    refused(folder, "no test.csv or test.jsonl")


def test_byte_order_mark_is_read(folder):
    text = (folder / "train.csv").read_text()
    (folder / "train.csv").write_text(text, encoding="utf-8-sig")
    assert load(folder).train[0]["id"] == "train-0"


def test_label_outside_values(folder):
    edit(folder, "test.csv", ",quote,", ",qoute,")
    refused(folder, "test.csv row 2", "'qoute'", "did you mean 'quote'")


def test_many_mistakes_are_counted(folder):
    path = folder / "train.csv"
    path.write_text(path.read_text().replace(",quote,", ",Quote,").replace(",order,", ",Order,"))
    refused(folder, "And 7 more.")


def test_span_and_pattern_must_stand_in_the_text(folder):
    edit(folder, "train.csv", ",quote,belt,", ",quote,chain,")
    refused(folder, "row 2", "'chain'", "does not stand in the text")
    edit(folder, "train.csv", ",quote,chain,", ",quote,belt,PO-77")
    refused(folder, "'PO-77'", "does not match")


def test_three_rows(folder):
    path = folder / "train.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:4]) + "\n")
    refused(folder, "train has 3 rows", "at least 10")


def test_duplicate_ids(folder):
    edit(folder, "train.csv", "train-5", "train-3")
    refused(folder, "row 7", "'train-3'", "row 5")


def test_one_class(folder):
    path = folder / "train.csv"
    path.write_text(path.read_text().replace(",order,", ",quote,"))
    refused(folder, "only one class", "'quote'")


def test_cells_that_spill(folder):
    edit(folder, "train.csv", "What does belt 0 cost?", "What, does belt 0 cost?")
    refused(folder, "row 2", "more cells than the header", "quotes")


def test_a_quote_that_stays_open_is_named_with_its_line(folder):
    for old, new in (
        ("What does belt 0 cost?", '"What does belt 0 cost?'),  # ends at the next row's quote
        ("What does belt 10 cost?", '"What does belt 10 cost?'),  # ends at the next row's, too
    ):
        before = (folder / "train.csv").read_text()
        line = before[: before.index(old)].count("\n") + 1
        edit(folder, "train.csv", old, new)
        refused(folder, f"train.csv line {line}: a quote opens here")
        (folder / "train.csv").write_text(before)
    edit(folder, "train.csv", ',"Where is pump number 11, PO-1011?"', ',"Where is pump number 11')
    refused(folder, "train.csv line 13: a quote opens here", "unexpected end")


def test_a_repeated_name_is_refused_in_every_file(folder):
    edit(folder, "train.csv", "id,message,intent", "message,message,intent")
    refused(folder, "train.csv line 1", "'message' stands there twice")
    (folder / "train.csv").unlink()
    (folder / "train.jsonl").write_text('\n{"message": "a", "message": "b"}\n')
    refused(folder, "train.jsonl line 2", "'message' stands there twice")


def test_row_numbers_count_empty_lines_as_a_spreadsheet_does(folder):
    edit(folder, "train.csv", "train-1,", "\n,,,,\ntrain-1,")
    edit(folder, "train.csv", "train-4,What does belt 4 cost?,quote", "train-4,,quote")
    refused(folder, "train.csv row 8:")


def test_one_normal_form_for_texts_spans_and_values(folder):
    edit(folder, "pilot.yaml", "[order, quote]", "[order, cafe\u0301]")
    for name in ("train.csv", "test.csv"):
        path = folder / name
        path.write_text(path.read_text().replace(",quote,", ",caf\u00e9,"), encoding="utf-8")
    edit(
        folder,
        "train.csv",
        "What does belt 0 cost?,caf\u00e9,belt",
        "A u\u0308ber,caf\u00e9,\u00fcber",
    )
    edit(folder, "train.csv", "What does belt 2 cost?", '"one\r\ntwo\x0bthree belt"')
    edit(folder, "train.csv", "caf\u00e9,belt", 'caf\u00e9,"two\x0bthree"')
    data = load(folder)
    assert data.train[0]["product"] == "\u00fcber" and "\u00fcber" in data.train[0]["message"]
    assert data.train[2]["message"] == "one\ntwo three belt"
    assert data.train[2]["product"] == "two three"
    assert any("control characters in 1 row" in note for note in data.notes)


def test_ids_from_zero_and_half_characters_in_jsonl(folder):
    import json

    data = load(folder)
    (folder / "train.csv").unlink()
    lines = [json.dumps({**row, "id": number}) for number, row in enumerate(data.train)]
    lines[3] = lines[3].replace("Where", "\\ud800Where")
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    again = load(folder)
    assert again.train["id"][:3] == ["0", "1", "2"]
    assert again.train[3]["message"].startswith(" Where") and again.notes != data.notes


def test_a_zero_that_a_spreadsheet_dropped_is_named(folder):
    edit(folder, "pilot.yaml", "[order, quote]", '["01", "10", order, quote]')
    edit(folder, "test.csv", ",quote,", ",1,")
    refused(folder, "did you mean '01'")


def test_texts_that_differ_in_a_mark_are_no_leak(folder):
    edit(folder, "train.csv", "What does belt 0 cost?", "C# belt help")
    edit(folder, "test.csv", "What does belt 100 cost?", "C++ belt help")
    assert len(load(folder).train) == 12


def test_files_that_excel_makes(folder):
    path = folder / "train.csv"
    text = path.read_text()
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        path.write_text(text.replace(", PO", "_PO").replace(",", mark).replace("_PO", ", PO"))
        data = load(folder)  # a German Excel writes semicolons even under "CSV UTF-8"
        assert len(data.train) == 12 and any(f"separated by {name}" in n for n in data.notes)
    path.write_bytes(b"PK\x03\x04" + b"x" * 100)
    refused(folder, "Excel workbook", "CSV UTF-8")
    path.write_text(text + ",,,,\n\n")
    assert len(load(folder).train) == 12


def test_control_characters_and_formulas_are_noted(folder):
    edit(folder, "train.csv", "What does belt 0 cost?", "What\x07 does\x00 belt 0 cost?")
    edit(folder, "train.csv", "What does belt 2 cost?", "=HYPERLINK(1) belt")
    data = load(folder)
    assert "\x07" not in data.train[0]["message"] and "\x00" not in data.train[0]["message"]
    assert any("control characters in 1" in n for n in data.notes) and any(
        "formula" in n for n in data.notes
    )


def test_formulas_are_defused_on_the_way_out(tmp_path):
    from helpers.core.files import write_csv

    write_csv(tmp_path / "out.csv", [{"text": "=1+1"}, {"text": "plain"}])
    assert "'=1+1" in (tmp_path / "out.csv").read_text(encoding="utf-8-sig")


def test_a_test_row_in_train_is_left_out(folder):
    edit(folder, "train.csv", "What does belt 0 cost?", "what does BELT 100 cost")
    edit(folder, "train.csv", ",quote,belt,", ",quote,BELT,")
    data = load(folder)
    assert len(data.train) == 11 and any("also stand in the test set" in n for n in data.notes)


def test_jsonl(folder):
    import json

    data = load(folder)
    (folder / "train.csv").unlink()
    lines = [json.dumps({k: row[k] for k in row if row[k] is not None}) for row in data.train]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    assert load(folder).train[:] == data.train[:]
    (folder / "train.jsonl").write_text("\n".join(lines[:5]) + "\n{oops\n")
    refused(folder, "train.jsonl line 6", "not JSON")


def test_a_hundred_thousand_rows(folder):
    lines = ["id,message,intent,product,order_id"]
    lines += [
        f"r{i},What does belt {i + 500} cost?,{('quote', 'order')[i % 2]},belt,"
        for i in range(100_000)
    ]
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    started = time.perf_counter()
    data = load(folder, profile=PROFILES["cpu"])
    assert len(data.train) == PROFILES["cpu"].train_rows and time.perf_counter() - started < 10
    assert any("of 100,000 rows" in n for n in data.notes)


def test_a_rare_label_survives_the_draw(folder):
    path = folder / "train.csv"
    lines = [f"r{i},What does belt {i + 500} cost?,order,belt," for i in range(300)]
    path.write_text("\n".join([path.read_text().splitlines()[0], *lines]) + "\n")
    edit(folder, "train.csv", "belt 799 cost?,order", "belt 799 cost?,quote")
    data = load(folder, profile=PROFILES["smoke"])
    assert sorted(set(data.train["intent"])) == ["order", "quote"] and len(data.train) == 16


def test_a_very_long_message_is_cut_in_the_message_only(folder, tokenizer):
    from helpers.ask.answers import prompt

    pilot = Pilot.load(folder)
    text = prompt(pilot, tokenizer, "pump " * 4000, full=False, max_length=256)
    assert len(tokenizer(text, add_special_tokens=False).input_ids) <= 256
    assert text.endswith("<|im_start|>assistant\n") and pilot.instruction(full=False) in text


def test_no_network_for_a_public_set(tmp_path, monkeypatch):
    monkeypatch.setattr(public_sets, "local_copy", lambda name: None)
    (tmp_path / "pilot.yaml").write_text(
        "name: x\ntext: text\nfields:\n  intent: {type: label, values: [a, b]}\n"
        "source: {dataset: clinc150}\n"
    )
    with pytest.raises(CourseError, match="clinc/clinc_oos could not be loaded"):
        load(tmp_path)


def test_a_public_set_from_a_local_folder(tmp_path):
    import json

    place = tmp_path / "set"
    place.mkdir()
    for split, n in (("train", 60), ("test", 30)):
        (place / f"{split}.jsonl").write_text(
            "".join(
                json.dumps({"text": f"{split} row {i}", "intent": "abc"[i % 3]}) + "\n"
                for i in range(n)
            )
        )
    (tmp_path / "pilot.yaml").write_text(
        "name: x\ntext: text\nfields:\n  intent: {type: label, values: [a, c]}\n"
        f"source: {{dataset: {place.as_posix()}, per_label: 6}}\n"
    )
    data = load(tmp_path)
    assert len(data.train) == 12 and len(data.test) == 20 and set(data.test["intent"]) == {"a", "c"}
    pilot = Pilot.load(tmp_path)
    before = pilot.model_dump()
    rows.load(pilot)
    assert pilot.model_dump() == before


@pytest.mark.skipif(
    not (REAL_DATA / "clinc150").is_dir(),
    reason="CLINC150 is not at ../shared/real_data on this machine",
)
def test_clinc150_loads_and_keeps_its_splits_apart():
    from conftest import ROOT

    data = load(ROOT / "data/clinc150")
    assert len(data.train) == 60 and len(data.test) == 300 and len(data.ood) == 60
    assert len(set(data.train["intent"])) == 10 and not set(data.train["text"]) & set(
        data.test["text"]
    )


def test_examples_for_the_prompt_take_turns_even_from_a_sorted_file(folder):
    from helpers.core.rows import spread

    ordered = load(folder).train.sort("intent")
    drawn = spread(ordered, ["intent"], 4)
    assert sorted(row["intent"] for row in drawn) == ["order", "order", "quote", "quote"]
    assert spread(ordered, ["intent"], 4) == drawn and len(spread(ordered, [], 100)) == 12
