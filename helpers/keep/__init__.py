"""Keep good rows: a pipeline of filters that give reasons."""
