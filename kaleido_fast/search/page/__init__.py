"""A page over an index for people, and its JSON for programs: `kaleido-fast serve`."""
