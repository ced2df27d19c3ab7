"""The data sets: which videos there are, their classes and splits, found on disk; and one that is rendered here."""
import os

# Read when torch is loaded, which here serves no device: train_model.py says why.
os.environ.setdefault('TORCH_DEVICE_BACKEND_AUTOLOAD', '0')
