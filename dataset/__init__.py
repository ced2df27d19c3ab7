"""The data sets: which videos there are, their classes and splits, found on disk; and one that is rendered here."""
