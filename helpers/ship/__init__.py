"""Ship a tuned model: its adapter in the form that llama.cpp serves."""
