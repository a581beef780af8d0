"""Ask a model: prompts, answers held to a form, log-likelihoods, engines and teachers."""
