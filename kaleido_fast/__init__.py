"""kaleido_fast: pre-training of Kaleido-BERT, a fashion vision-language transformer, on millions of products."""

__version__ = "0.1.0"
