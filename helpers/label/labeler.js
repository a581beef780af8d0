// The view of helpers/label/labeler.py: shows one row, sends one answer, and shows the next only when Python says that it is stored.
// Messages are untrusted: they reach the page as text nodes only. Offsets are UTF-16 here; Python turns them into code points.

const KEYS = "1234567890qwertiopadfghjklzcvbnm"; // choices of a field; s, u and x are commands
const HIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/u;
const NO_SPACES = /[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Thai}\p{sc=Lao}\p{sc=Khmer}\p{sc=Myanmar}]/u;

function make(tag, className, text, attributes = {}) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// [[start, end]] of the words: what stands between spaces, without punctuation around it; scripts without spaces are segmented.
export function words(text) {
  const found = [];
  for (const match of text.matchAll(/[\p{L}\p{N}](?:[^\s]*[\p{L}\p{N}\p{M}])?/gu)) {
    if (NO_SPACES.test(match[0]) && window.Intl && Intl.Segmenter) {
      for (const part of new Intl.Segmenter(undefined, { granularity: "word" }).segment(match[0])) {
        if (part.isWordLike) found.push([match.index + part.index, match.index + part.index + part.segment.length]);
      }
    } else found.push([match.index, match.index + match[0].length]);
  }
  return found;
}

// One character to the left (-1) or right (+1) of an offset, never into the middle of a surrogate pair.
export function step(text, offset, by) {
  const next = Math.min(Math.max(offset + by, 0), text.length);
  const code = text.charCodeAt(next);
  return code >= 0xdc00 && code <= 0xdfff && next > 0 ? next + by : next;
}

function trim(text, start, end) {
  while (start < end && /\s/.test(text[start])) start++;
  while (end > start && /\s/.test(text[end - 1])) end--;
  return start < end ? { start, end } : null;
}

// Where the moving highlight goes for an arrow key; `back` says that its left end is the one that moves.
export function move(text, list, now, by, extend, fine) {
  if (fine && now) {
    const edge = step(text, now.back ? now.start : now.end, by);
    const next = now.back ? { ...now, start: edge } : { ...now, end: edge };
    return next.start < next.end ? next : now;
  }
  if (!list.length) return text.length ? { start: 0, end: step(text, 0, 1), back: false } : null;
  const last = (test) => list.filter(test).pop();
  const one = ([start, end]) => ({ start, end, back: false });
  if (!now) return one(by > 0 ? list[0] : list[list.length - 1]);
  if (!extend) return one((by > 0 ? list.find((w) => w[0] > now.start) : last((w) => w[0] < now.start)) || [now.start, now.end]);
  if (by > 0) {
    if (now.back) {
      const inner = list.find((w) => w[0] > now.start && w[0] < now.end);
      if (inner) return { ...now, start: inner[0] };
    }
    const outer = list.find((w) => w[1] > now.end);
    return outer ? { start: now.start, end: outer[1], back: false } : now;
  }
  if (!now.back) {
    const inner = last((w) => w[1] < now.end && w[1] > now.start);
    if (inner) return { ...now, end: inner[1] };
  }
  const outer = last((w) => w[0] < now.start);
  return outer ? { start: outer[0], end: now.end, back: true } : now;
}

function render({ model, el }) {
  const task = model.get("task");
  const fields = task.fields;
  const name = `cl-${Math.random().toString(36).slice(2)}`;
  const root = make("div", "cl", undefined, {
    tabindex: "0", role: "application", "aria-label": `Label messages, annotator ${task.annotator}`,
    "aria-describedby": `${name}-keys`, "data-lm-suppress-shortcuts": "true" });
  const top = make("div", "cl-top"), body = make("div", "cl-body"), foot = make("div", "cl-foot");
  const status = make("div", "cl-status", "", { role: "status", "aria-live": "polite" });
  const alarm = make("div", "cl-error", "", { role: "alert" });
  const spoken = make("div", "cl-spoken", "", { "aria-live": "polite" });
  root.append(top, body, alarm, status, foot, spoken);
  el.append(root);

  let view = {}, values = {}, active = 0, cursor = null, list = [], message = null;
  let busy = false, timer = 0, spent = 0, since = 0;

  const isSpan = (field) => field && field.type === "span";
  const choices = (field) => field.type === "label" ? field.values : (view.matches[field.name] || []).map((match) => match[0]);
  const isSet = (field) => values[field.name] !== undefined;
  const shown = (field) => {
    const value = values[field.name];
    if (value === null) return "none";
    return value && value.start !== undefined ? view.text.slice(value.start, value.end) : value;
  };
  const say = (text) => { status.textContent = text; };

  // The clock of a row runs while the widget has the focus and the page is visible.
  const clock = (on) => {
    const now = performance.now();
    if (since) spent += now - since;
    since = on ? now : 0;
  };
  const focusClock = () => clock(root.contains(document.activeElement) && !document.hidden);

  function begin() {
    const next = model.get("view");
    const same = next.id === view.id && next.error;
    view = next;
    busy = false;
    clearTimeout(timer);
    alarm.textContent = view.error || "";
    if (!same) {
      values = { ...view.before };
      cursor = null;
      list = fields.some(isSpan) ? words(view.text) : [];
      for (const field of fields) {
        if (field.type === "pattern" && field.optional && !choices(field).length) values[field.name] = null;
      }
      active = Math.max(0, fields.findIndex((field) => !isSet(field)));
      spent = 0;
      since = since ? performance.now() : 0;
      say("");
      spoken.textContent = view.id === null ? "All rows are labelled." : `Message ${view.done + 1} of ${view.total}. ${view.text.slice(0, 600)}`;
    }
    draw();
    if (!same && message) message.scrollTop = 0;
  }

  function send(kind) {
    if (busy || task.simulated) return;
    clock(since > 0);
    const content = { kind, id: view.id };
    if (kind === "answer") {
      content.seconds = spent / 1000;
      content.choices = {};
      for (const field of fields) {
        const value = values[field.name];
        content.choices[field.name] = value && value.start !== undefined ? { start: value.start, end: value.end } : value;
      }
    }
    busy = true;
    const lost = () => {
      alarm.textContent = "The kernel does not reply: this is not stored yet. If the kernel is gone, restart it and run the cell again; " +
        "every answer before this one is stored.";
    };
    timer = setTimeout(lost, 4000);
    try {
      model.send(content);
    } catch (problem) {
      lost();
    }
    draw();
  }

  function store() {
    const open = fields.findIndex((field) => !isSet(field));
    if (view.id === null) return;
    if (open < 0) return send("answer");
    active = open;
    say(`${fields[open].name} is still open.`);
    draw();
  }

  function set(field, value) {
    if (busy || view.id === null || task.simulated) return;
    if (value === null && !field.optional) {
      say(`${field.name} cannot be empty; s skips this message.`);
      return;
    }
    values[field.name] = value;
    cursor = null;
    if (fields.length === 1 && value !== undefined && !isSpan(field)) return send("answer");
    const at = fields.indexOf(field);
    if (value !== undefined) {
      const after = [...fields.keys()].map((i) => (at + 1 + i) % fields.length).find((i) => !isSet(fields[i]));
      active = after === undefined ? at : after;
    }
    say(value === undefined ? `${field.name}: cleared.` : `${field.name}: ${shown(field)}.` +
      (fields.every(isSet) ? " Enter stores this message." : ` Next: ${fields[active].name}.`));
    draw();
  }

  function arrow(by, extend, fine) {
    const field = fields[active];
    if (!isSpan(field)) {
      const all = choices(field);
      if (!all.length) return;
      const at = all.indexOf(values[field.name]);
      values[field.name] = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : (at + by + all.length) % all.length];
      say(`${field.name}: ${shown(field)}.`);
      return draw();
    }
    const value = values[field.name];
    cursor = move(view.text, list, cursor || (value ? { ...value, back: false } : null), by, extend, fine);
    if (cursor) say(`${field.name}: “${view.text.slice(cursor.start, cursor.end)}”? Space takes it.`);
    draw();
    const mark = message && message.querySelector(".cl-cursor");
    if (mark) mark.scrollIntoView({ block: "nearest" });
  }

  root.addEventListener("keydown", (event) => {
    event.stopPropagation(); // nothing typed here is a command of the notebook
    if (event.key === "Tab" || event.isComposing) return;
    const command = event.ctrlKey || event.metaKey;
    if (command && !["z", "s"].includes(event.key.toLowerCase())) return; // copy, find and the like stay the browser's
    const key = command ? `ctrl ${event.key.toLowerCase()}` : event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code || "");
    const field = fields[active];
    const ended = view.id === null;
    const picks = KEYS.includes(key) ? KEYS.indexOf(key) : digit && !command && !event.altKey ? KEYS.indexOf(digit[1]) : -1;
    let used = true;
    if (event.altKey && !key.startsWith("Arrow")) return;
    if (key === "Escape" && !cursor) {
      const cell = root.closest(".jp-Cell"); // back to the notebook's own keys
      if (cell) cell.focus();
      else root.blur();
    } else if (busy) used = key.length === 1 || ["Enter", "Backspace", "Delete"].includes(key) || key.startsWith("Arrow");
    else if (key === "u" || key === "ctrl z") view.undo ? send("undo") : say("There is nothing to undo.");
    else if (key === "ctrl s") say("Every answer is stored as soon as you press Enter.");
    else if (ended) used = key.length === 1 || key === "Enter";
    else if (key === "ArrowUp" || key === "ArrowDown") {
      active = (active + (key === "ArrowUp" ? fields.length - 1 : 1)) % fields.length;
      cursor = null;
      say(`${fields[active].name}: ${isSet(fields[active]) ? shown(fields[active]) : "open"}.`);
      draw();
    } else if (key === "ArrowLeft" || key === "ArrowRight") arrow(key === "ArrowLeft" ? -1 : 1, event.shiftKey, event.altKey);
    else if ((key === " " || key === "Enter") && isSpan(field) && cursor) set(field, trim(view.text, cursor.start, cursor.end));
    else if (key === "Enter") event.repeat || store();
    else if (key === "s") send("skip");
    else if (key === "x") set(field, null);
    else if (key === "Backspace" || key === "Delete") set(field, undefined);
    else if (key === "Escape") { cursor = null; draw(); }
    else if ((key === "PageDown" || key === "PageUp") && message) message.scrollTop += key === "PageUp" ? -200 : 200;
    else if (!isSpan(field) && picks >= 0 && picks < choices(field).length) set(field, choices(field)[picks]);
    else used = key.length === 1;
    if (used) event.preventDefault();
  });
  for (const kind of ["keyup", "keypress"]) root.addEventListener(kind, (event) => event.stopPropagation());
  root.addEventListener("focusin", () => { focusClock(); });
  root.addEventListener("focusout", () => setTimeout(focusClock));
  document.addEventListener("visibilitychange", focusClock);

  function button(label, key, action, className = "") {
    const node = make("button", `cl-button ${className}`, undefined, { type: "button", tabindex: "-1" });
    node.append(make("span", "", label), make("kbd", "", key, { "aria-hidden": "true" }));
    node.addEventListener("mousedown", (event) => event.preventDefault()); // the focus stays on the widget
    node.addEventListener("click", () => { root.focus(); action(); });
    return node;
  }

  // The message as text nodes, cut where a highlight begins or ends and around characters that would not show.
  function drawMessage() {
    const box = make("div", "cl-message", undefined, { dir: "auto", lang: task.language, "aria-label": "message" });
    const text = view.text, ranges = [];
    for (const field of fields) {
      const value = values[field.name];
      if (field.type === "pattern") for (const [found, start, end] of view.matches[field.name] || []) {
        ranges.push([start, end, found === value ? "cl-taken" : "cl-match"]);
      }
      if (value && value.start !== undefined && !(cursor && field === fields[active])) ranges.push([value.start, value.end, "cl-taken"]);
    }
    if (cursor) ranges.push([cursor.start, cursor.end, "cl-cursor"]);
    const cuts = new Set([0, text.length]);
    for (const [start, end] of ranges) cuts.add(start).add(end);
    for (const found of text.matchAll(new RegExp(HIDDEN, "gu"))) cuts.add(found.index).add(found.index + 1);
    const places = [...cuts].sort((a, b) => a - b);
    places.slice(1).forEach((end, i) => {
      const start = places[i], part = text.slice(start, end);
      const kinds = ranges.filter((range) => range[0] <= start && range[1] >= end).map((range) => range[2]);
      const hidden = part.length === 1 && HIDDEN.test(part);
      if (!kinds.length && !hidden) return box.append(part);
      const node = make(kinds.length ? "mark" : "span", [...kinds, hidden ? "cl-hidden" : ""].join(" "), part);
      if (hidden) node.dataset.code = `U+${part.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
      box.append(node);
    });
    box.addEventListener("mouseup", () => setTimeout(take));
    return box;
  }

  // A selection made with the mouse: its offsets in the message, trimmed; a click puts the highlight on a word.
  function take() {
    const chosen = window.getSelection();
    if (busy || !chosen.rangeCount || !message) return;
    const range = chosen.getRangeAt(0);
    if (!message.contains(range.startContainer) || !message.contains(range.endContainer)) return;
    const before = document.createRange();
    before.selectNodeContents(message);
    before.setEnd(range.startContainer, range.startOffset);
    const start = before.toString().length, end = start + range.toString().length;
    const part = trim(view.text, start, end);
    let field = fields[active];
    if (!isSpan(field)) field = part && (fields.find((f) => isSpan(f) && !isSet(f)) || fields.find(isSpan));
    root.focus({ preventScroll: true });
    if (!field) return;
    active = fields.indexOf(field);
    if (part) {
      chosen.removeAllRanges();
      return set(field, part);
    }
    const word = list.find(([from, to]) => from <= start && start <= to);
    if (word && chosen.isCollapsed) arrowTo(word);
  }

  function arrowTo([start, end]) {
    cursor = { start, end, back: false };
    say(`${fields[active].name}: “${view.text.slice(start, end)}”? Space takes it.`);
    draw();
  }

  function drawField(field, at) {
    const row = make("div", `cl-field${at === active ? " cl-active" : ""}${isSet(field) ? " cl-set" : ""}`, undefined, {
      id: `${name}-${at}`, role: isSpan(field) ? "group" : "radiogroup", "aria-label": field.name + (field.about ? `: ${field.about}` : "") });
    const label = make("div", "cl-name", field.name, field.about ? { title: field.about } : {});
    const options = make("div", "cl-options");
    const add = (text, key, value, checked) => {
      const chip = button(text, key, () => { active = at; set(field, value); }, `cl-chip${checked ? " cl-on" : ""}`);
      chip.setAttribute("role", isSpan(field) ? "button" : "radio");
      chip.setAttribute(isSpan(field) ? "aria-pressed" : "aria-checked", String(checked));
      options.append(chip);
    };
    row.addEventListener("click", (event) => {
      if (event.target.closest("button") || view.id === null) return;
      active = at;
      cursor = null;
      draw();
    });
    if (isSpan(field)) {
      const chosen = values[field.name];
      const text = chosen ? shown(field) : at === active ? "select words in the message, or press ← →" : "words of the message";
      options.append(make("bdi", chosen ? "cl-words" : "cl-soft", text));
    } else {
      choices(field).forEach((value, i) => add(value, KEYS[i] || "", value, values[field.name] === value));
      if (!choices(field).length) options.append(make("span", "cl-soft", field.optional ? "no match in the message" :
        "no match in the message: skip it"));
    }
    if (field.optional) add("none", "x", null, values[field.name] === null);
    row.append(label, options);
    return row;
  }

  function draw() {
    const keep = message ? message.scrollTop : 0;
    const share = view.total ? (100 * view.done) / view.total : 0;
    const bar = make("div", "cl-bar", undefined, { role: "progressbar", "aria-label": "labelled", "aria-valuemin": "0",
      "aria-valuemax": String(view.total), "aria-valuenow": String(view.done) });
    const fill = make("div", "cl-fill");
    fill.style.width = `${share}%`;
    bar.append(fill);
    const facts = [`${view.done} of ${view.total}`];
    if (view.skipped) facts.push(`${view.skipped} skipped`);
    if (view.per_minute) facts.push(`${view.per_minute < 10 ? view.per_minute : Math.round(view.per_minute)} a minute`);
    const line = make("div", "cl-facts");
    line.append(make("span", "cl-count", facts.join(" · ")), make("span", "cl-soft", task.simulated ? "simulated" : `annotator ${task.annotator}`));
    top.replaceChildren(line, bar);
    body.replaceChildren();
    message = null;
    root.classList.toggle("cl-busy", busy);
    if (task.simulated) {
      body.append(make("p", "cl-done", "These answers are simulated; nobody labelled them. Label in a journal of your own."));
    } else if (view.id === null) {
      body.append(make("p", "cl-done", `All ${view.total} messages are labelled and stored.`));
    } else {
      message = drawMessage();
      const group = make("div", "cl-fields");
      fields.forEach((field, at) => group.append(drawField(field, at)));
      body.append(message, group);
      message.scrollTop = keep;
      root.setAttribute("aria-activedescendant", `${name}-${active}`);
    }
    if (!task.simulated) {
      const actions = make("div", "cl-actions");
      if (view.id !== null) {
        actions.append(button("Store", "Enter", store, `cl-main${fields.every(isSet) ? "" : " cl-off"}`), button("Skip", "s", () => send("skip")));
      }
      const back = button("Undo", "u", () => send("undo"));
      back.disabled = !view.undo;
      actions.append(back);
      foot.replaceChildren(actions, keys);
    }
  }

  // The list of shortcuts, always in sight.
  const keys = make("div", "cl-keys", undefined, { id: `${name}-keys` });
  const hints = [["↑ ↓", "field"], ["1 2 …", "choose"]];
  if (fields.some(isSpan)) hints.push(["← →", "word"], ["Shift ← →", "more words"], ["Alt ← →", "one letter"], ["Space", "take the words"]);
  if (fields.some((field) => field.optional)) hints.push(["x", "none"]);
  hints.push(["⌫", "clear"], ["Enter", "store"], ["s", "skip"], ["u", "undo"], ["Esc", "leave"]);
  for (const [key, what] of hints) {
    const hint = make("span", "cl-hint");
    hint.append(make("kbd", "", key), ` ${what}`);
    keys.append(hint);
  }
  keys.append(make("span", "cl-hint cl-away", "Click here or press Tab until the frame lights up: keys work only then."));

  model.on("change:view", begin);
  begin();
  return () => {
    model.off("change:view", begin);
    document.removeEventListener("visibilitychange", focusClock);
    clearTimeout(timer);
  };
}

export default { render };
