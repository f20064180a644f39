"""A trained model for others: a folder for Hugging Face transformers, and ONNX files; neither needs kaleido_fast to be read."""
