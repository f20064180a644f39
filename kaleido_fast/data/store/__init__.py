"""The feature store: what a frozen patch encoder made of each photograph, on disk."""
