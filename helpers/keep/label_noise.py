"""Does the label fit the text? A quick model that never saw the row, and the likelihood of the text under a language model."""

import numpy as np

from helpers.core.text import tokens
from helpers.keep.pipeline import Filter, content


def suspects(p, given, times=5):
    """{row: another class that is at least `times` as likely as the given one}. p: (rows, classes); given: (rows,) class numbers."""
    best = p.argmax(1)
    rows = np.arange(len(p))
    return {
        int(i): int(best[i])
        for i in np.flatnonzero((p[rows, best] >= times * p[rows, given]) & (best != given))
    }


def agreement(pilot, seeds=None, fields=None, times=5, folds=5, most=20_000, seed=0):
    """Rows whose label a quick model (TF-IDF of words and pairs, logistic regression) that never saw the row finds unlikely.

    Another label must be `times` as likely; `fields` are the first label field unless named. `seeds` are rows to trust: they join
    the training side of every fold, except where the same text is being judged. Each fold learns from at most `most` rows. With
    few rows for each label the model knows little: it finds under half of swapped labels, and the rows it rejects are worth
    reading. A relative of confident learning (Northcutt et al. 2021, arXiv 1911.00068), whose thresholds need far more rows.
    """
    fields = list(fields or pilot.labels[:1])

    def judge(rows):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from threadpoolctl import threadpool_limits

        texts, found = np.array(rows[pilot.text], dtype=object), {}
        fold = np.random.default_rng(seed).permutation(len(texts)) % folds
        for name in fields:
            classes = sorted(set(rows[name]), key=str)
            given = np.array([classes.index(v) for v in rows[name]])
            trusted = (
                [
                    (t, classes.index(v))
                    for t, v in zip(seeds[pilot.text], seeds[name])
                    if v in classes
                ]
                if seeds is not None
                else []
            )
            p = np.full((len(texts), len(classes)), 1.0 / len(classes))
            for k in range(folds):
                learn, judged = np.flatnonzero(fold != k)[:most], set(texts[fold == k])
                pairs = [
                    *zip(texts[learn], given[learn]),
                    *((t, c) for t, c in trusted if t not in judged),
                ]
                if judged and len({c for _, c in pairs}) > 1:
                    model = make_pipeline(
                        TfidfVectorizer(
                            tokenizer=tokens,
                            token_pattern=None,
                            ngram_range=(1, 2),
                            sublinear_tf=True,
                        ),
                        LogisticRegression(C=100, max_iter=500, class_weight="balanced"),
                    )
                    with threadpool_limits(
                        1
                    ):  # small matrices: more threads only wait for each other
                        known = model.fit(*map(list, zip(*pairs))).classes_
                    p[fold == k] = 0
                    p[np.ix_(np.flatnonzero(fold == k), known)] = model.predict_proba(
                        texts[fold == k]
                    )
            for i, j in suspects(p, given, times).items():
                found.setdefault(
                    i,
                    f"{name} {classes[given[i]]!r} has probability {p[i, given[i]]:.2f}, {classes[j]!r} {p[i, j]:.2f}",
                )
        return found

    return Filter(
        "agreement",
        judge,
        {
            "text": pilot.text,
            "fields": fields,
            "times": times,
            "folds": folds,
            "most": most,
            "seed": seed,
            "seeds": content(seeds) if seeds is not None else None,
        },
        whole=True,
    )


def likelihood(model, tokenizer, pilot, rows, name, batch_size=8, max_tokens=256):
    """Array (rows, values): log p(message | label) under a causal language model, summed over the message's tokens, in nats.

    The prompt asks for a message with that label; only the message's tokens count, cut after `max_tokens`. Subtract the column
    means before comparing labels (a label's own words in the prompt make some messages likelier), then `suspects` on a softmax.
    """
    import torch

    spec, jobs = pilot.fields[name], []
    asks = [
        f"{pilot.about} Write a message whose {name} is {value}. {spec.about}"
        for value in spec.values
    ]
    starts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": ask}],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=False,
        )
        for ask in asks
    ]
    for i, text in enumerate(rows[pilot.text]):
        ids = tokenizer(
            text, add_special_tokens=False, truncation=True, max_length=max_tokens
        ).input_ids
        jobs += [(i, j, start, ids) for j, start in enumerate(starts)]
    out = np.zeros((len(rows), len(starts)))
    jobs.sort(key=lambda job: len(job[2]) + len(job[3]))  # rows of one length waste no padding
    for k in range(0, len(jobs), batch_size):
        part = jobs[k : k + batch_size]
        width = max(len(start) + len(ids) for _, _, start, ids in part)
        full = torch.tensor(
            [
                start + ids + [tokenizer.pad_token_id] * (width - len(start) - len(ids))
                for _, _, start, ids in part
            ]
        )
        mask = torch.tensor(
            [[1] * (len(s) + len(d)) + [0] * (width - len(s) - len(d)) for _, _, s, d in part]
        )
        with torch.inference_mode():
            logits = (
                model(input_ids=full.to(model.device), attention_mask=mask.to(model.device))
                .logits[:, :-1]
                .float()
                .log_softmax(-1)
            )
        taken = logits.gather(2, full[:, 1:, None].to(model.device)).squeeze(2).cpu().numpy()
        for row, (i, j, start, ids) in zip(taken, part):
            out[i, j] = row[len(start) - 1 : len(start) + len(ids) - 1].sum()
    return out
