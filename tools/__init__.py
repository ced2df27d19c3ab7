"""The toolkit around a training run: thin commands, `python -m tools.NAME`."""
import os

# Both are read when torch is loaded, and train_model.py says why.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")
os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
