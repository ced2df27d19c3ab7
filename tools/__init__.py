"""The toolkit around a training run: thin commands, `python -m tools.NAME`."""
