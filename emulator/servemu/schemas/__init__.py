"""The wire, one file a subject."""
