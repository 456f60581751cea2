"""Mutation test: randomly changed inputs for every command, and what each command makes of them."""
