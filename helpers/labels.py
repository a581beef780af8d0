"""Does the label fit the text? Confident learning over a quick model, and the likelihood of the text under a language model."""

import numpy as np

from helpers.curation import Filter, content


def suspects(p, given):
    """Confident learning (Northcutt et al. 2021, arXiv 1911.00068): {row: the other class} where another class is as likely as it
    usually is for its own rows, and likelier than the given one. p: (rows, classes) probabilities; given: (rows,) class numbers."""
    usual = np.array([p[given == j, j].mean() if (given == j).any() else 2.0 for j in range(p.shape[1])])
    sure = np.where(p >= usual, p, 0.0)
    best = sure.argmax(1)
    rows = np.flatnonzero((sure.max(1) > 0) & (best != given) & (p[np.arange(len(p)), best] > p[np.arange(len(p)), given]))
    return {int(i): int(best[i]) for i in rows}


def agreement(pilot, seeds=None, fields=None, folds=5, most=20_000, seed=0):
    """Rows whose label a quick model (TF-IDF, logistic regression), which never saw the row, finds unlikely; see `suspects`.

    `seeds` are rows to trust: they join every fold's training side. Each fold learns from at most `most` rows.
    """
    fields = list(fields or pilot.labels)

    def judge(rows):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        texts, found = np.array(rows[pilot.text], dtype=object), {}
        fold = np.random.default_rng(seed).permutation(len(texts)) % folds
        for name in fields:
            classes = sorted(set(rows[name]), key=str)
            given = np.array([classes.index(v) for v in rows[name]])
            p = np.zeros((len(texts), len(classes)))
            for k in range(folds):
                learn = np.flatnonzero(fold != k)[:most]
                x = [*texts[learn], *(seeds[pilot.text] if seeds is not None else ())]
                y = [*given[learn], *(classes.index(v) if v in classes else -1 for v in (seeds[name] if seeds is not None else ()))]
                if not (fold == k).any() or len(set(y)) < 2:
                    continue
                model = make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True),
                                      LogisticRegression(C=10, max_iter=500))
                known = model.fit(x, y).classes_
                p[np.ix_(np.flatnonzero(fold == k), known[known >= 0])] = model.predict_proba(texts[fold == k])[:, known >= 0]
            for i, j in suspects(p, given).items():
                found.setdefault(i, f"{name} {classes[given[i]]!r} has probability {p[i, given[i]]:.2f}, {classes[j]!r} {p[i, j]:.2f}")
        return found

    return Filter("agreement", judge, {"fields": fields, "folds": folds, "most": most, "seed": seed,
                                       "seeds": content(seeds) if seeds is not None else None}, whole=True)


def likelihood(model, tokenizer, pilot, rows, name, batch_size=16, max_tokens=256):
    """Array (rows, values): log p(message | label) under a causal language model, summed over the message's tokens, in nats.

    The prompt asks for a message with that label; only the message's tokens count, cut after `max_tokens`. Subtract the column
    means before comparing labels (a label's own words in the prompt make some messages likelier), then `suspects` on a softmax.
    """
    import torch

    spec, jobs = pilot.fields[name], []
    asks = [f"{pilot.about} Write a message whose {name} is {value}. {spec.about}" for value in spec.values]
    starts = [tokenizer.apply_chat_template([{"role": "user", "content": ask}], tokenize=True, add_generation_prompt=True,
                                            return_dict=False) for ask in asks]
    for i, text in enumerate(rows[pilot.text]):
        ids = tokenizer(text, add_special_tokens=False, truncation=True, max_length=max_tokens).input_ids
        jobs += [(i, j, start, ids) for j, start in enumerate(starts)]
    out = np.zeros((len(rows), len(starts)))
    jobs.sort(key=lambda job: len(job[2]) + len(job[3]))  # rows of one length waste no padding
    for k in range(0, len(jobs), batch_size):
        part = jobs[k: k + batch_size]
        width = max(len(start) + len(ids) for _, _, start, ids in part)
        full = torch.tensor([start + ids + [tokenizer.pad_token_id] * (width - len(start) - len(ids)) for _, _, start, ids in part])
        mask = torch.tensor([[1] * (len(s) + len(d)) + [0] * (width - len(s) - len(d)) for _, _, s, d in part])
        with torch.inference_mode():
            logits = model(input_ids=full.to(model.device), attention_mask=mask.to(model.device)).logits[:, :-1].float().log_softmax(-1)
        taken = logits.gather(2, full[:, 1:, None].to(model.device)).squeeze(2).cpu().numpy()
        for row, (i, j, start, ids) in zip(taken, part):
            out[i, j] = row[len(start) - 1: len(start) + len(ids) - 1].sum()
    return out
