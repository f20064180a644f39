"""Fine-tuning: a downstream task is a row of table.py (SPEC 9 and 11)."""
