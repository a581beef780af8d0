"""Watch a system at work: a log of what it answered, an alarm for drift, a person's sample."""
