"""From rows of a video list to batches of clips on the device. Knows no other room of the project."""
