"""Making a feature store, and opening it under a run's settings."""
