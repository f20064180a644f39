"""The operations of kaleido_fast: tensors in, tensors out (imported as `kaleido_fast.kernels`)."""
