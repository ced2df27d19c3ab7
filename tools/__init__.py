"""The toolkit around a training run: thin commands, `python -m tools.NAME`."""
import os

from train import environment

os.environ.update(environment.missing())    # before torch is loaded
