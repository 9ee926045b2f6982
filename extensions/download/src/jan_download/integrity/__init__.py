"""Whether bytes are the right ones: hashes of pieces, the look at a file's first bytes, checking and mending what is
complete. How bytes come here is no business of this package."""
