"""From a file of messages to a decision: the steps of chapter 11."""
